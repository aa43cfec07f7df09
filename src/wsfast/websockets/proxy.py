"""`Proxy`, `parse_proxy` and `get_proxy`: the addresses of proxies."""

from __future__ import annotations

import dataclasses

from wsfast import exceptions as native
from wsfast.dial import proxy as dial
from wsfast.handshake import URI

from .exceptions import InvalidProxy
from .imports import lend
from .uri import WebSocketURI

__all__ = ["Proxy", "get_proxy", "parse_proxy"]


@dataclasses.dataclass
class Proxy:
    """A proxy's address.

    Attributes:
        scheme: ``"http"``, ``"https"``, ``"socks4"``, ``"socks4a"``, ``"socks5"`` or ``"socks5h"``.
        host: in lower case.
        port: the scheme's default if the address has none.
        username, password: None without them.
    """

    scheme: str
    host: str
    port: int
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        # A repr must not carry a secret into a log.
        hidden = "" if self.username is None else ", username='***', password='***'"
        return f"Proxy(scheme={self.scheme!r}, host={self.host!r}, port={self.port}{hidden})"

    @property
    def user_info(self) -> tuple[str, str] | None:
        """User name and password, or None."""
        return None if self.username is None else (self.username, self.password or "")


def parse_proxy(proxy: str) -> Proxy:
    """Take a proxy's address apart.

    Args:
        proxy: such as ``http://user:password@proxy.example:3128``.

    Raises:
        InvalidProxy: the address is not valid; user name and password are not shown.
    """
    try:
        parsed = dial.parse_proxy(proxy)
    except native.InvalidProxy as exc:
        scheme, separator, _ = exc.proxy.partition("://")
        known = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
        words = f"scheme {scheme} isn't supported" if separator and scheme not in known else exc.message
        raise InvalidProxy(exc.proxy, words) from None
    if parsed.username is not None and ":" not in proxy.partition("://")[2].rpartition("@")[0]:
        raise InvalidProxy(str(parsed), "username provided without password")
    return Proxy(*parsed)


def get_proxy(uri: WebSocketURI) -> str | None:
    """Return the proxy that the environment, or the operating system, names for a server, or None."""
    return dial.find_proxy(URI(uri.secure, uri.host, uri.port, uri.path, uri.query))


lend(globals())
