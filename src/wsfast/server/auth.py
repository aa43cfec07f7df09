"""`basic_auth`: a `process_request` that asks for a user name and a password (RFC 7617)."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from hmac import compare_digest
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from ..exceptions import InvalidHeader
from ..handshake.headers import build_www_authenticate_basic, parse_authorization_basic

if TYPE_CHECKING:
    from ..handshake import Request

__all__ = ["basic_auth", "checker"]

Check: TypeAlias = Callable[[str, str], "Awaitable[bool] | bool"]


class _Headers(Protocol):
    def __setitem__(self, name: str, value: str, /) -> None: ...


class _Response(Protocol):
    @property
    def headers(self) -> _Headers: ...


_R_co = TypeVar("_R_co", bound=_Response, covariant=True)


class Asked(Protocol[_R_co]):
    """What `basic_auth` needs of a connection: a `WebSocket`, or the `ServerConnection` of `wsfast.websockets`."""

    username: Any

    def respond(self, status: int, text: str, /) -> _R_co: ...


def basic_auth(
    realm: str = "",
    credentials: tuple[str, str] | Iterable[tuple[str, str]] | None = None,
    check_credentials: Check | None = None,
) -> Callable[[Any, Any], Awaitable[Any]]:
    """Make a `process_request` that lets in only clients with a valid user name and password.

    ::

        server = Server(process_request=basic_auth("inner circle", credentials=("alice", "secret")))

    `ws.username` is the name of a client that was let in; all others are answered 401. The credentials come in clear
    text: use TLS.

    Args:
        realm: what the credentials are for, in printable ASCII; clients show it. Default: ``""``.
        credentials: one pair of a name and a password, or several. Default: none.
        check_credentials: in place of `credentials`: called with a name and a password, plain or async; tells whether
            they are right. Compare secrets with `hmac.compare_digest`. Default: none.

    Raises:
        ValueError: both `credentials` and `check_credentials` are given, or neither; `realm` has a character that is
            not printable ASCII.
        TypeError: `credentials` are not pairs of strings.
    """
    check = checker(credentials, check_credentials)
    challenge = build_www_authenticate_basic(realm)

    async def process_request(ws: Asked[_R_co], request: Request) -> _R_co | None:
        """Let the client in, and note its name, or refuse with 401."""

        def refuse(text: str) -> _R_co:
            response = ws.respond(401, text)
            response.headers["WWW-Authenticate"] = challenge
            return response

        value = _only(request.headers)
        if value is None:
            return refuse("Missing credentials\n")
        try:
            username, password = parse_authorization_basic(value)
        except InvalidHeader:
            return refuse("Unsupported credentials\n")
        right = check(username, password)
        if inspect.isawaitable(right):
            right = await right
        if not right:
            return refuse("Invalid credentials\n")
        ws.username = username
        return None

    return process_request


def checker(credentials: tuple[str, str] | Iterable[tuple[str, str]] | None, check_credentials: Check | None) -> Check:
    """Return what tells whether a name and a password are right.

    Args:
        credentials, check_credentials: those of `basic_auth`.

    Raises:
        ValueError, TypeError: as `basic_auth`.
    """
    if (credentials is None) == (check_credentials is None):
        raise ValueError("provide either credentials or check_credentials")
    return _known(credentials) if check_credentials is None else check_credentials


def _only(headers: Any) -> str | None:
    """Return the value of Authorization, if there is exactly one."""
    values = headers.get_all("Authorization")
    return values[0] if len(values) == 1 else None


def _is_pair(thing: object) -> bool:
    return isinstance(thing, tuple | list) and len(thing) == 2 and all(isinstance(part, str) for part in thing)


def _known(credentials: Any) -> Check:
    if _is_pair(credentials):
        pairs = [tuple(credentials)]
    else:
        pairs = list(credentials) if isinstance(credentials, Iterable) and not isinstance(credentials, str) else []
        if not pairs or not all(_is_pair(pair) for pair in pairs):
            # The log must not show what came: it may hold a password.
            raise TypeError(f"invalid credentials argument: {_shown(credentials)}")
    known = {username: password.encode() for username, password in pairs}

    def check(username: str, password: str) -> bool:
        # An unknown name takes as long as a known one, so that timing does not tell which names exist.
        expected = known.get(username)
        given = password.encode()
        return compare_digest(given if expected is None else expected, given) and expected is not None

    return check


def _shown(thing: object) -> str:
    """Show an argument without the strings in it."""
    if isinstance(thing, list | tuple):
        inner = ", ".join(_shown(part) for part in thing)
        return f"[{inner}]" if isinstance(thing, list) else f"({inner})"
    return type(thing).__name__ if isinstance(thing, str | bytes) else repr(thing)
