"""The callback view of a connection: no task, no queue, the least latency."""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .websocket import WebSocket

__all__ = ["Listener"]


class Listener:
    """Base class of listeners: each instance is called with the events of one connection.

    The methods are called by the event loop, one at a time, and must not block. An exception in one closes
    the connection with 1011 and is logged, as one in a handler is.

    While more than `write_limit` bytes are unsent, nothing is read from the peer, so that answers to a peer that
    does not read them stay bounded.

    Args:
        ws: the connection; it is kept as `self.ws`. Send with `ws.send_nowait` and close with `ws.close_nowait`.

    Raises:
        TypeError: when a class derives from it: a method is a coroutine function, which nothing would await.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("on_open", "on_message", "on_close", "on_writable"):
            if iscoroutinefunction(getattr(cls, name)):
                raise TypeError(f"{cls.__name__}.{name} must not be `async def`: a listener's methods are not awaited")

    def __init__(self, ws: WebSocket) -> None:
        self.ws = ws

    def on_open(self) -> None:
        """Take note that the opening handshake is finished, and messages may be sent."""

    def on_message(self, message: str | bytes) -> None:
        """Take a message: `str` is text, `bytes` is binary."""

    def on_close(self, code: int, reason: str) -> None:
        """Take note that the connection has ended; called exactly once if `on_open` was called.

        Args:
            code: the peer's close code, 1005 if its Close frame had none, 1006 if none came.
            reason: the peer's close reason.
        """

    def on_writable(self) -> None:
        """Take note that what was unsent has fallen below a quarter of `write_limit`, after it was above it.

        Messages of the peer are read between two calls, so a listener may fill the buffer at each call.
        """
