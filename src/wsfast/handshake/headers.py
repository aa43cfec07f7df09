"""Grammars of the headers that a WebSocket handshake uses (RFC 9110, 5.6; RFC 6455, 4.3 and 9.1).

This module parses and builds single values and knows nothing of requests and responses. A value that
came in several headers of one name is given as one string, joined with commas (RFC 9110, 5.3).
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from functools import lru_cache

from ..escape import show
from ..exceptions import InvalidHeader, InvalidHeaderFormat
from ..http import TCHAR, check_header, check_token, is_token, why_no_token

__all__ = [
    "ExtensionHeader",
    "ExtensionParameter",
    "build_authorization_basic",
    "build_authorization_bearer",
    "build_extensions",
    "build_host",
    "build_subprotocols",
    "build_www_authenticate_basic",
    "header_line",
    "parse_authorization_basic",
    "parse_extensions",
    "parse_subprotocols",
    "parse_tokens",
    "parse_upgrade",
]

ExtensionParameter = tuple[str, str | None]
"""A parameter's name and its value, None if it has none."""

ExtensionHeader = tuple[str, list[ExtensionParameter]]
"""An extension's name and its parameters, in the order in which they came."""

_TOKEN = re.compile(rf"{TCHAR}++")
# RFC 9110, 7.8: protocol-name ["/" protocol-version].
_PROTOCOL = re.compile(rf"{TCHAR}++(?:/{TCHAR}++)?")
# RFC 6455, 9.1: ";" name ["=" value]; RFC 9110, 5.6.4: quoted-string.
_PARAMETER = re.compile(
    rf"[\t ]*+;[\t ]*+({TCHAR}++)"
    rf"(?:[\t ]*+=[\t ]*+(?:({TCHAR}++)|\"((?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*)\"))?"
)
_QUOTED_PAIR = re.compile(r"\\(.)")
_SEPARATORS = re.compile(r"[\t ,]*+")
_SPACES = re.compile(r"[\t ]*+")

# Values up to this length are parsed once and remembered: browsers send the same few again and again.
_CACHED_LENGTH = 128


def parse_tokens(name: str, value: str) -> list[str]:
    """Parse a comma-separated list of at least one token, such as Connection (RFC 9110, 5.6.1).

    Raises:
        InvalidHeaderFormat: if it is not such a list.
    """
    return _parse_list(name, value, _TOKEN)


def parse_upgrade(value: str) -> list[str]:
    """Parse the value of Upgrade: protocols, which may have a version (RFC 9110, 7.8).

    Raises:
        InvalidHeaderFormat: if it is not such a list.
    """
    return _parse_list("Upgrade", value, _PROTOCOL)


def _parse_list(name: str, value: str, item: re.Pattern[str], *, secret: bool = False) -> list[str]:
    if item.fullmatch(value) is not None:
        return [value]
    # RFC 9110, 5.6.1.2: a recipient ignores empty elements.
    items = [element for part in value.split(",") if (element := part.strip("\t "))]
    if not items:
        raise InvalidHeaderFormat(name, value, "expected at least one element")
    for element in items:
        if item.fullmatch(element) is None:
            came = why_no_token(element) if secret else show(element)
            shown = "..." if secret else value
            raise InvalidHeaderFormat(name, shown, f"expected tokens separated by commas, got {came}")
    return items


def parse_subprotocols(value: str) -> list[str]:
    """Parse the value of Sec-WebSocket-Protocol in a request (RFC 6455, 11.3.4).

    Args:
        value: a list of tokens, in the client's order of preference.

    Raises:
        InvalidHeaderFormat: if it is not such a list, or names one twice. The error's text does not show the names:
            they may be tokens, which browsers can send nowhere else.
    """
    return list(_parse_subprotocols_cached(value)) if len(value) <= _CACHED_LENGTH else _parse_subprotocols(value)


def _parse_subprotocols(value: str) -> list[str]:
    offers = _parse_list("Sec-WebSocket-Protocol", value, _TOKEN, secret=True)
    # RFC 6455, 4.1, item 10: all are unique strings. They are compared as they are: case matters.
    if len(offers) != len(set(offers)):
        raise InvalidHeaderFormat("Sec-WebSocket-Protocol", "...", "expected each subprotocol once")
    return offers


_parse_subprotocols_cached = lru_cache(maxsize=64)(_parse_subprotocols)


def parse_extensions(value: str) -> list[ExtensionHeader]:
    """Parse the value of Sec-WebSocket-Extensions (RFC 6455, 9.1).

    Which extensions and parameters make sense is not judged here.

    Raises:
        InvalidHeaderFormat: if it does not follow the grammar.
    """
    if len(value) > _CACHED_LENGTH:
        return _parse_extensions(value)
    return [(name, list(parameters)) for name, parameters in _parse_extensions_cached(value)]


def _parse_extensions(value: str) -> list[ExtensionHeader]:
    extensions: list[ExtensionHeader] = []
    position = _skip(_SEPARATORS, value, 0)
    while position < len(value):
        match = _TOKEN.match(value, position)
        if match is None:
            raise _bad_extension(value, position, "an extension's name")
        name = match.group()
        parameters: list[ExtensionParameter] = []
        position = match.end()
        while (match := _PARAMETER.match(value, position)) is not None:
            parameter, plain, quoted = match.groups()
            if quoted is not None:
                plain = _QUOTED_PAIR.sub(r"\1", quoted)
                # RFC 6455, 9.1: the value after unescaping is a token.
                if not is_token(plain):
                    raise _bad_extension(value, match.start(3), "a token inside the quotes")
            parameters.append((parameter, plain))
            position = match.end()
        extensions.append((name, parameters))
        position = _skip(_SPACES, value, position)
        if position < len(value) and value[position] != ",":
            raise _bad_extension(value, position, "a comma, a semicolon and a parameter, or the end")
        position = _skip(_SEPARATORS, value, position)
    if not extensions:
        raise InvalidHeaderFormat("Sec-WebSocket-Extensions", value, "expected at least one extension")
    return extensions


_parse_extensions_cached = lru_cache(maxsize=64)(_parse_extensions)


def _skip(pattern: re.Pattern[str], value: str, position: int) -> int:
    match = pattern.match(value, position)
    return position if match is None else match.end()


def _bad_extension(value: str, position: int, expected: str) -> InvalidHeaderFormat:
    text = f"expected {expected} at index {position}, got {show(value[position:])}"
    return InvalidHeaderFormat("Sec-WebSocket-Extensions", value, text)


def build_extensions(extensions: Iterable[tuple[str, Sequence[ExtensionParameter]]]) -> str:
    """Build a value of Sec-WebSocket-Extensions (RFC 6455, 9.1).

    Args:
        extensions: for each its name and its parameters, as `parse_extensions` returns them.

    Raises:
        ValueError: if a name or a value is no token.
    """
    built = []
    for name, parameters in extensions:
        parts = [check_token("an extension's name", name)]
        for parameter, value in parameters:
            check_token("an extension parameter's name", parameter)
            if value is None:
                parts.append(parameter)
            else:
                parts.append(f"{parameter}={check_token(f'the value of {parameter}', value)}")
        built.append("; ".join(parts))
    return ", ".join(built)


def build_subprotocols(subprotocols: Sequence[str]) -> str:
    """Build the value of Sec-WebSocket-Protocol in a request (RFC 6455, 4.1, item 10).

    Args:
        subprotocols: tokens, each once, at least one, in order of preference.

    Raises:
        TypeError: if it is a single string.
        ValueError: if it is empty, or one is no token or comes twice.
    """
    if isinstance(subprotocols, str):
        raise TypeError("expected subprotocols as a list of strings, got str")
    for subprotocol in subprotocols:
        check_token("a subprotocol", subprotocol)
    if not subprotocols:
        raise ValueError("expected at least one subprotocol, got none")
    if len(subprotocols) != len(set(subprotocols)):
        twice = len(subprotocols) - len(set(subprotocols))
        raise ValueError(f"expected each subprotocol once, got {twice} again")
    return ", ".join(subprotocols)


def build_host(host: str, port: int, secure: bool, *, always_include_port: bool = False) -> str:
    """Build a value of Host (RFC 9110, 7.2).

    Args:
        host: a name or an address; an IPv6 address without its brackets.
        port: left out when it is the scheme's default (80, or 443 if `secure`).
        secure: whether the scheme is wss.
        always_include_port: keep even a default port, as CONNECT needs it; default False.
    """
    if ":" in host:
        # RFC 6874, 4: a zone means something on this machine only and is not sent.
        host = f"[{host.partition('%')[0]}]"
    if always_include_port or port != (443 if secure else 80):
        return f"{host}:{port}"
    return host


def build_authorization_basic(username: str, password: str) -> str:
    """Build a value of Authorization (RFC 7617), in UTF-8.

    Raises:
        ValueError: if the name has a colon, or one of them a control character (RFC 7617, 2).
    """
    if ":" in username:
        raise ValueError("expected a user name without a colon")
    credentials = f"{username}:{password}"
    if any(character < " " or character == "\x7f" for character in credentials):
        raise ValueError("expected a user name and a password without control characters")
    return "Basic " + b64encode(credentials.encode()).decode()


_BASIC = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) +([0-9A-Za-z\-._~+/]+=*)")


def parse_authorization_basic(value: str) -> tuple[str, str]:
    """Take the user name and the password from a value of Authorization (RFC 7617), in UTF-8.

    Raises:
        InvalidHeaderFormat: it is not of the form of credentials.
        InvalidHeader: it is for another scheme, or holds no name and password. The error's text does not hold them.
    """
    match = _BASIC.fullmatch(value)
    if match is None:
        raise InvalidHeaderFormat("Authorization", "...", "expected a scheme and credentials in base64")
    scheme, credentials = match.groups()
    if scheme.lower() != "basic":
        raise InvalidHeader("Authorization", "...", f"expected the scheme Basic, got {show(scheme)}")
    try:
        plain = b64decode(credentials, validate=True).decode()
    except ValueError:
        raise InvalidHeader("Authorization", "...", "expected credentials in base64 and UTF-8") from None
    username, colon, password = plain.partition(":")
    if not colon:
        raise InvalidHeader("Authorization", "...", "expected a user name and a password with a colon between them")
    return username, password


_QUOTABLE = re.compile(r"[\t -~]*")


def build_www_authenticate_basic(realm: str) -> str:
    """Build a value of WWW-Authenticate (RFC 7617, 2).

    Raises:
        ValueError: if the realm has a character that is not printable ASCII.
        TypeError: if the realm is not a `str`.
    """
    if not isinstance(realm, str):
        raise TypeError(f"expected the realm as str, got {type(realm).__name__}")
    if _QUOTABLE.fullmatch(realm) is None:
        raise ValueError(f"expected a realm of printable ASCII characters, got {show(realm)}")
    # RFC 9110, 5.6.4: quoted-string.
    quoted = realm.replace("\\", "\\\\").replace('"', '\\"')
    return f'Basic realm="{quoted}", charset="UTF-8"'


_B64TOKEN = re.compile(r"[0-9A-Za-z\-._~+/]++=*+")


def build_authorization_bearer(token: str) -> str:
    """Build a value of Authorization (RFC 6750, 2.1).

    Raises:
        ValueError: if it is no ``b64token``.
        TypeError: if it is no `str`.
    """
    if not isinstance(token, str):
        raise TypeError(f"expected the bearer token as str, got {type(token).__name__}")
    if _B64TOKEN.fullmatch(token) is None:
        raise ValueError("expected a bearer token of letters, digits and -._~+/ (RFC 6750, 2.1)")
    return f"Bearer {token}"


def header_line(name: str, value: str) -> bytes:
    """Encode one header of a head, the line's end first.

    Raises:
        ValueError, TypeError: the name or the value must not stand there.
    """
    try:
        return _checked_line(name, value)
    except TypeError:
        # Not hashable, so most likely of a wrong type: say which.
        return _checked_line.__wrapped__(name, value)


@lru_cache(maxsize=64)
def _checked_line(name: str, value: str) -> bytes:
    # A server sends the same few over and over.
    check_header(name, value)
    return f"\r\n{name}: {value}".encode("latin-1")
