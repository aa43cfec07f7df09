"""The scope of a WebSocket, sans-IO: what an ASGI application is told of a request."""

from __future__ import annotations

from typing import Any, Final, TypeAlias
from urllib.parse import unquote

from ..handshake import Request
from ..handshake.head import lower_pairs

__all__ = ["Address", "Scope", "header_pairs", "websocket_scope"]

Scope: TypeAlias = dict[str, Any]
Address: TypeAlias = tuple[str, int | None]

_SPEC_VERSION: Final = "2.4"


# Each connection keeps its headers: what they mostly are is one object for all.
_KNOWN: Final = {
    text: text
    for text in (
        # Names:
        b"accept-encoding",
        b"accept-language",
        b"cache-control",
        b"connection",
        b"cookie",
        b"host",
        b"origin",
        b"pragma",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"upgrade",
        b"user-agent",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        # Values:
        b"13",
        b"Upgrade",
        b"keep-alive, Upgrade",
        b"websocket",
        b"no-cache",
        b"gzip, deflate, br, zstd",
        b"gzip, deflate, br",
        b"permessage-deflate; client_max_window_bits",
        b"permessage-deflate",
    )
}


# What one client after the other sends alike is one object too. No name of what may be a secret is here.
_LAST: Final = {
    name: (_KNOWN[name], b"")
    for name in (
        b"accept-encoding",
        b"accept-language",
        b"cache-control",
        b"connection",
        b"host",
        b"origin",
        b"pragma",
        b"sec-websocket-extensions",
        b"sec-websocket-version",
        b"upgrade",
        b"user-agent",
        b"x-forwarded-proto",
    )
}


def header_pairs(request: Request) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request as ASGI has them: in order, names in lower case."""
    return lower_pairs(request.raw, _KNOWN, _LAST)


def websocket_scope(
    request: Request,
    subprotocols: list[str],
    *,
    scheme: str,
    client: Address | None,
    server: Address | None,
    root_path: str = "",
    version: str = "3.0",
    state: dict[str, Any] | None = None,
) -> Scope:
    """Make the scope of a WebSocket (ASGI, "WebSocket Connection Scope", 2.4).

    Args:
        request: the opening handshake's.
        subprotocols: those that the client offers.
        scheme: ``"ws"`` or ``"wss"``.
        client, server: the two addresses; None where there is none.
        root_path: where the application is mounted; it is put in front of the path.
        version: of ASGI, that the application is written for.
        state: of the lifespan; it is copied.
    """
    target = request.raw.split(b" ", 2)[1]
    if not target.startswith(b"/"):
        target = request.path.encode("ascii")  # RFC 9112, 3.2.2: absolute-form
    raw_path, _, query = target.partition(b"?")
    path = raw_path.decode("ascii")
    if "%" in path:
        path = unquote(path)
    return {
        "type": "websocket",
        "asgi": {"version": version, "spec_version": _SPEC_VERSION},
        "http_version": "1.1",
        "scheme": scheme,
        "server": server,
        "client": client,
        "root_path": root_path,
        "path": root_path + path,
        "raw_path": root_path.encode() + raw_path if root_path else raw_path,
        "query_string": query,
        "headers": header_pairs(request),
        "subprotocols": subprotocols,
        "state": {} if state is None else state.copy(),
        "extensions": {"websocket.http.response": {}},
    }
