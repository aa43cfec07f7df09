"""WebSocket URIs with the meaning that they have in `websockets`: all parts stay percent-encoded."""

from __future__ import annotations

import dataclasses
from urllib.parse import unquote, urlsplit

from wsfast import exceptions as native
from wsfast import handshake
from wsfast.handshake.uri import mask

from .exceptions import InvalidURI

__all__ = ["WebSocketURI", "parse_uri"]


@dataclasses.dataclass
class WebSocketURI:
    """A WebSocket URI in its parts.

    Attributes:
        secure: whether the scheme is wss.
        host: in lower case.
        port: the scheme's default if the URI has none.
        path, query: may be empty.
        username, password: None without them.
    """

    secure: bool
    host: str
    port: int
    path: str
    query: str
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        # A repr must not carry a secret into a log; a user name without a password often is a token.
        parts = dataclasses.asdict(self)
        hidden = {name: "***" for name in ("query", "username", "password") if parts[name]}
        return f"WebSocketURI({', '.join(f'{name}={value!r}' for name, value in (parts | hidden).items())})"

    @property
    def resource_name(self) -> str:
        """The path and the query as the request has them."""
        path = self.path or "/"
        return f"{path}?{self.query}" if self.query else path

    @property
    def user_info(self) -> tuple[str, str] | None:
        """The user name and the password, or None."""
        return None if self.username is None else (self.username, self.password or "")


def parse_uri(uri: str) -> WebSocketURI:
    """Take a ws:// or wss:// URI apart.

    Raises:
        InvalidURI: it is not valid.
    """
    try:
        parsed = handshake.parse_uri(uri)
    except native.InvalidURI as exc:
        raise InvalidURI(exc.uri, _WORDS.get(exc.message.partition(",")[0], exc.message)) from None
    parts = urlsplit(uri)
    username, password = parts.username, parts.password
    if username is not None:
        if password is None:
            raise InvalidURI(mask(uri), "username provided without password")
        username, password = unquote(username, errors="strict"), unquote(password, errors="strict")
    return WebSocketURI(parsed.secure, parsed.host, parsed.port, parsed.path, parsed.query, username, password)


_WORDS = {
    "expected scheme ws or wss": "scheme isn't ws or wss",
    "expected a host": "hostname isn't provided",
    "expected no fragment": "fragment identifier is meaningless",
}
