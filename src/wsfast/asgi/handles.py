"""Finds the `WebSocket` beneath the objects that a framework gives its users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..asyncio.broadcast import broadcast as broadcast_to
from ..asyncio.websocket import Known, WebSocket
from ..events import BytesLike
from .bridge import EXTENSION

__all__ = ["broadcast", "of"]


def of(scope_or_websocket: Any) -> WebSocket:
    """Return the `WebSocket` of an ASGI application's connection.

    It is there before the application accepts the connection, with `request`, and open from then on. Use it for what
    ASGI does not have: `latency`, `counters`, `ping`, `send_nowait`, `buffered_amount`. Messages are received by the
    application alone; leave `recv` to the framework. Its `remote_address` is the scope's ``client`` from then on.

    Args:
        scope_or_websocket: the scope, or what a framework makes of it and has the scope as its attribute ``scope``:
            the WebSocket of Starlette, FastAPI, Litestar or Quart, the consumer of Channels.

    Raises:
        LookupError: the connection is not served by wsfast: another server runs the application, or a test client.
        TypeError: the argument is not a scope, and has no attribute ``scope``.
    """
    if isinstance(scope_or_websocket, WebSocket):
        return scope_or_websocket
    scope = _scope_of(scope_or_websocket)
    ws = _websocket_of(scope)
    client = scope.get("client")
    if client and client[1] is not None:  # which has no port on a Unix socket
        _take_client(ws, tuple(client))
    return ws


def _scope_of(scope_or_websocket: Any) -> Mapping[str, Any]:
    scope = scope_or_websocket
    if not isinstance(scope, Mapping):
        scope = getattr(scope, "scope", None)
        if not isinstance(scope, Mapping):
            raise TypeError(
                f"expected a scope, or something with an attribute scope, got {type(scope_or_websocket).__name__}"
            )
    return scope


def _websocket_of(scope: Mapping[str, Any]) -> WebSocket:
    try:
        return scope["extensions"][EXTENSION]["websocket"]  # type: ignore[no-any-return]
    except (KeyError, TypeError):
        raise LookupError(f"this {scope.get('type', 'connection')!s} is not served by wsfast") from None


def _take_client(ws: WebSocket, client: tuple[Any, ...]) -> None:
    """Take the client's address from the scope: middleware, as uvicorn's, writes there what a trusted proxy said."""
    known = ws._known()
    if known is None:
        ws._peer = Known(client, None)
    elif known.remote is None or known.remote[:2] != client:
        ws._peer = Known(client, known.local, known.transport if isinstance(known, Known) else None)


def broadcast(
    websockets: Iterable[Any],
    message: str | BytesLike,
    raise_exceptions: bool = False,
    *,
    text: bool | None = None,
    compress: bool | None = None,
) -> None:
    """Send a message to several connections of one event loop, encoded once, without waiting.

    Connections that are not open are skipped; so are those that do not take what is sent to them: see
    `wsfast.broadcast`, whose arguments and errors are the same.

    Args:
        websockets: what `of` takes: scopes, WebSockets of a framework, or wsfast's own.
        message: `str` for a text message, bytes-like for a binary one.
        raise_exceptions: raise what would be logged, after all were tried. Default: False.
        text: True sends bytes-like, which must be UTF-8, as text; False sends `str` as binary. Default: by type.
        compress: whether to compress it where that was agreed on; None, the default, leaves the choice to the server's
            options.

    Raises:
        LookupError: one of them is not served by wsfast.
        TypeError, UnicodeError, ExceptionGroup: as `wsfast.broadcast`.
    """
    connections = [one if isinstance(one, WebSocket) else _websocket_of(_scope_of(one)) for one in websockets]
    broadcast_to(connections, message, raise_exceptions, text=text, compress=compress)
