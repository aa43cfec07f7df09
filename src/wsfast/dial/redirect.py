"""Where a redirect leads, and which headers may be sent there (RFC 9110, 10.2.2 and 15.4)."""

from __future__ import annotations

from typing import Final
from urllib.parse import urljoin

from ..escape import show
from ..exceptions import InvalidURI, RedirectError
from ..handshake.headers import build_host
from ..handshake.uri import URI, mask, parse_uri

__all__ = ["REDIRECTS", "hop", "origin_of", "resolve", "shown"]

REDIRECTS: Final = frozenset({300, 301, 302, 303, 307, 308})
"""The status codes of a redirect."""
_SECRETS: Final = frozenset({"authorization", "cookie", "proxy-authorization", "host"})
"""Headers that belong to one origin (RFC 9110, 15.4)."""


def origin_of(uri: URI) -> tuple[bool, str, int]:
    """Return the origin of a URI: scheme, host and port (RFC 6454, 4)."""
    return uri.secure, uri.host, uri.port


def shown(uri: URI) -> str:
    """Return scheme, host and port of a URI as text; errors and logs may show no more of it."""
    return show(f"{'wss' if uri.secure else 'ws'}://{build_host(uri.host, uri.port, uri.secure)}")


def hop(
    uri: URI, target: URI, headers: list[tuple[str, str]] | None, bearer_token: str | None
) -> tuple[URI, list[tuple[str, str]] | None, str | None]:
    """Return the URI that a redirect from `uri` to `target` leads to, with the credentials that may be sent there."""
    if origin_of(target) != origin_of(uri):
        # RFC 9110, 15.4: credentials for one origin are not sent to another.
        return target, headers and [(name, value) for name, value in headers if name.lower() not in _SECRETS], None
    if target.username is None:
        target = target._replace(username=uri.username, password=uri.password)
    return target, headers, bearer_token


def resolve(uri: URI, location: str) -> URI:
    """Take the value of Location relative to the URI that it came from (RFC 9110, 10.2.2).

    Raises:
        RedirectError: the result is not a WebSocket URI.
    """
    base = f"{'wss' if uri.secure else 'ws'}://{build_host(uri.host, uri.port, uri.secure)}{uri.resource_name}"
    text = _as_utf8(location)
    joined = _joined(base, text)
    if joined is None:
        raise RedirectError(f"expected a redirect to a WebSocket URI, got {show(mask(text))}")
    scheme, separator, rest = joined.partition("#")[0].partition(":")
    # RFC 6455, 4.1: the server answers in HTTP, and may give its own address as http or https.
    scheme = {"http": "ws", "https": "wss"}.get(scheme.lower(), scheme)
    try:
        return parse_uri(f"{scheme}{separator}{rest}")
    except InvalidURI as exc:
        raise RedirectError(f"expected a redirect to a WebSocket URI: {exc.message}") from exc


def _as_utf8(location: str) -> str:
    try:
        return location.encode("latin-1").decode()
    except UnicodeDecodeError:
        return location


def _joined(base: str, location: str) -> str | None:
    try:
        return urljoin(base, location)
    except ValueError:  # whose text may hold a password
        return None
