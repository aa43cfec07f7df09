"""The grammars of headers under the names of `websockets`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TypeVar

from wsfast import exceptions as native
from wsfast.handshake import headers as grammar
from wsfast.handshake.headers import build_authorization_basic, build_host, build_www_authenticate_basic
from wsfast.http import why_no_token

from .datastructures import Headers
from .exceptions import InvalidHeader, InvalidHeaderFormat, InvalidHeaderValue, InvalidUpgrade
from .typing import ConnectionOption, ExtensionHeader, ExtensionName, ExtensionParameter, Subprotocol, UpgradeProtocol

__all__ = [
    "build_authorization_basic",
    "build_extension",
    "build_host",
    "build_subprotocol",
    "build_www_authenticate_basic",
    "parse_authorization_basic",
    "parse_connection",
    "parse_extension",
    "parse_subprotocol",
    "parse_upgrade",
    "validate_subprotocols",
]

_T = TypeVar("_T")


def _parsed(parse: Callable[[str], _T], header: str) -> _T:
    try:
        return parse(header)
    except native.InvalidHeaderFormat as exc:
        raise InvalidHeaderFormat(exc.name, exc.message or "malformed", exc.value or header, 0) from None


def parse_connection(header: str) -> list[ConnectionOption]:
    """Parse a value of Connection."""
    return [
        ConnectionOption(token) for token in _parsed(lambda value: grammar.parse_tokens("Connection", value), header)
    ]


def parse_upgrade(header: str) -> list[UpgradeProtocol]:
    """Parse a value of Upgrade."""
    return [UpgradeProtocol(token) for token in _parsed(grammar.parse_upgrade, header)]


def parse_extension(header: str) -> list[ExtensionHeader]:
    """Parse a value of Sec-WebSocket-Extensions."""
    return [(ExtensionName(name), parameters) for name, parameters in _parsed(grammar.parse_extensions, header)]


def parse_subprotocol(header: str) -> list[Subprotocol]:
    """Parse a value of Sec-WebSocket-Protocol."""
    return [Subprotocol(name) for name in _parsed(grammar.parse_subprotocols, header)]


def build_extension_item(name: ExtensionName, parameters: Sequence[ExtensionParameter]) -> str:
    """Build one item of Sec-WebSocket-Extensions."""
    return grammar.build_extensions([(name, parameters)])


def build_extension(extensions: Sequence[ExtensionHeader]) -> str:
    """Build a value of Sec-WebSocket-Extensions."""
    return grammar.build_extensions(extensions)


def build_subprotocol(subprotocols: Sequence[Subprotocol]) -> str:
    """Build a value of Sec-WebSocket-Protocol."""
    return ", ".join(subprotocols)


def validate_subprotocols(subprotocols: Sequence[Subprotocol]) -> None:
    """Check what a caller gives as subprotocols.

    Raises:
        TypeError: it is a single string, or no sequence.
        ValueError: a name is no token.
    """
    if isinstance(subprotocols, str):
        raise TypeError("subprotocols must be a list, not a str")
    if not isinstance(subprotocols, Sequence):
        raise TypeError("subprotocols must be a list")
    for name in subprotocols:
        wrong = why_no_token(name)
        if wrong is not None:  # which may be a secret
            raise ValueError(f"invalid subprotocol: expected a token, got {wrong}")


def parse_authorization_basic(header: str) -> tuple[str, str]:
    """Parse a value of Authorization.

    Raises:
        InvalidHeaderFormat: it is not of the form of credentials.
        InvalidHeaderValue: it is for another scheme, or holds no name and password.
    """
    try:
        return grammar.parse_authorization_basic(header)
    except native.InvalidHeaderFormat as exc:
        raise InvalidHeaderFormat(exc.name, exc.message or "malformed", "...", 0) from None
    except native.InvalidHeader as exc:
        raise InvalidHeaderValue(exc.name, exc.message) from None


def check_upgrade(headers: Headers) -> None:
    """Check that Connection and Upgrade ask for, or agree to, a WebSocket (RFC 6455, 4.1 and 4.2.1).

    Raises:
        InvalidUpgrade: they do not.
    """
    options = [option for value in headers.get_all("Connection") for option in parse_connection(value)]
    if not any(option.lower() == "upgrade" for option in options):
        raise InvalidUpgrade("Connection", ", ".join(options) if options else None)
    protocols = [protocol for value in headers.get_all("Upgrade") for protocol in parse_upgrade(value)]
    if [protocol.lower() for protocol in protocols] != ["websocket"]:
        raise InvalidUpgrade("Upgrade", ", ".join(protocols) if protocols else None)


def one_value(headers: Headers, name: str) -> str:
    """Return the value of a header that must be there once.

    Raises:
        InvalidHeader: it is not there, or several times.
    """
    values = headers.get_all(name)
    if len(values) != 1:
        raise InvalidHeader(name, "multiple values" if values else None)
    return values[0]


def check_key(headers: Headers) -> str:
    """Check a request's headers but Origin, subprotocols and extensions (RFC 6455, 4.2.1), and return the key.

    Raises:
        InvalidHeader: it asks for no WebSocket connection.
    """
    check_upgrade(headers)
    key = one_value(headers, "Sec-WebSocket-Key")
    try:
        decoded = base64.b64decode(key.encode(), validate=True)
    except binascii.Error as exc:
        raise InvalidHeaderValue("Sec-WebSocket-Key", key) from exc
    # RFC 6455, 4.2.1, item 5: "a base64-encoded value that, when decoded, is 16 bytes in length."
    if len(decoded) != 16:
        raise InvalidHeaderValue("Sec-WebSocket-Key", key)
    version = one_value(headers, "Sec-WebSocket-Version")
    if version != "13":
        raise InvalidHeaderValue("Sec-WebSocket-Version", version)
    return key


parse_extension_list = parse_extension
parse_subprotocol_list = parse_subprotocol
build_extension_list = build_extension
build_subprotocol_list = build_subprotocol
