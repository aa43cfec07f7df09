"""The options of the client's calls, for type checkers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..asyncio.websocket import WebSocket
from ..dial.route import RouteOptions
from ..dial.settings import HandshakeOptions
from ..limits import SendOptions

__all__ = ["ConnectOptions"]


class ConnectOptions(RouteOptions, HandshakeOptions, SendOptions, total=False):
    """The options of `connect`, for type checkers."""

    process_exception: Callable[[Exception], Exception | None]
    reconnect_delays: Callable[[], Iterator[float]]
    create_connection: type[WebSocket] | None
