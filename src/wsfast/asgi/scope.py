"""The scope of a WebSocket, sans-IO: what an ASGI application is told of a request."""

from __future__ import annotations

from typing import Any, TypeAlias
from urllib.parse import unquote

from ..handshake import Request

__all__ = ["Address", "Scope", "header_pairs", "websocket_scope"]

Scope: TypeAlias = dict[str, Any]
Address: TypeAlias = tuple[str, int | None]

_SPEC_VERSION = "2.4"


def header_pairs(request: Request) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request as ASGI has them: in order, names in lower case."""
    pairs = []
    for line in request.raw.split(b"\r\n")[1:-2]:
        name, _, value = line.partition(b":")
        pairs.append((name.lower(), value.strip(b" \t")))
    return pairs


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
    raw_path, _, query = request.path.partition("?")
    path = unquote(raw_path) if "%" in raw_path else raw_path
    return {
        "type": "websocket",
        "asgi": {"version": version, "spec_version": _SPEC_VERSION},
        "http_version": "1.1",
        "scheme": scheme,
        "server": server,
        "client": client,
        "root_path": root_path,
        "path": root_path + path,
        "raw_path": (root_path + raw_path).encode(),
        "query_string": query.encode("ascii"),
        "headers": header_pairs(request),
        "subprotocols": subprotocols,
        "state": {} if state is None else state.copy(),
        "extensions": {"websocket.http.response": {}},
    }
