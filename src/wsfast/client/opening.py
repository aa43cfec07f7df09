"""The client's side of a connection until it is open: the asyncio protocol of the opening handshake.

It moves bytes between the transport and `handshake`, and has the transport handed over to a `ConnectionProtocol`.
`server.accepting` is its counterpart on the server's side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from ..dial.settings import BODY_PATIENCE
from ..exceptions import ENDS_PROGRAM
from ..handshake import ClientHandshake, HeadLimits, Response, ResponseParser

__all__ = ["ClientOpening"]


class ClientOpening(asyncio.Protocol):
    """One connection that is not a WebSocket connection yet.

    Args:
        handshake: has the request to send, and judges the answer.
        accept: called with the transport, the response and the bytes behind it; it sets the protocol that takes over,
            before anything else can arrive.
        loop: the event loop.
        limits: how large the head of the answer may be.

    Attributes:
        transport: None before TCP, and TLS, are set up.
        done: a Future that is done when `accept` has returned; its exception is the one that failed the handshake, from
            `accept` too.
    """

    __slots__ = ("_accept", "_body_timer", "_handshake", "_judged", "_parser", "done", "transport")

    def __init__(
        self,
        handshake: ClientHandshake,
        accept: Callable[[asyncio.Transport, Response, bytes], None],
        loop: asyncio.AbstractEventLoop,
        limits: HeadLimits,
    ) -> None:
        self._handshake = handshake
        self._accept = accept
        self._parser = ResponseParser(limits=limits)
        self._body_timer: asyncio.TimerHandle | None = None
        self._judged = False
        self.transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop, or the dialer, when TCP, the proxy and TLS are set up."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's classes do not derive from it
        self.transport.write(self._handshake.request.raw)

    def data_received(self, data: bytes) -> None:
        """Called by the transport with what the server sent."""
        if self.done.done():
            return
        try:
            response = self._parser.feed(data)
            if response is not None:
                self._finish(response)
            elif self._parser.head_complete and self._body_timer is None:
                self._body_timer = self.done.get_loop().call_later(BODY_PATIENCE, self._ended, None)
        except ENDS_PROGRAM:
            raise
        except BaseException as exc:
            self._fail(exc)

    def eof_received(self) -> bool:
        """Called by the transport when the server has ended its sending side; False closes the transport."""
        self._ended(EOFError("the server ended the connection"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport when it has ended before the connection was open."""
        self._ended(exc or EOFError("the server ended the connection"))

    def cut_short(self) -> Exception | None:
        """Return the error of a response whose head is complete and whose body is not; None if that is not the case."""
        if self._judged or not self._parser.head_complete:
            return None
        try:
            self._finish(self._parser.feed_eof())
        except Exception as exc:
            return exc
        return None  # pragma: no cover - a response that is accepted has no body to wait for

    def _ended(self, cause: BaseException | None) -> None:
        if self.done.done():
            return
        try:
            self._finish(self._parser.feed_eof(cause))
        except ENDS_PROGRAM:
            raise
        except BaseException as exc:
            self._fail(exc)

    def _finish(self, response: Response) -> None:
        self._stop()
        self._judged = True
        assert self.transport is not None
        self._accept(self.transport, response, self._parser.trailing)
        self.done.set_result(None)

    def _fail(self, exc: BaseException) -> None:
        self._stop()
        if not self.done.done():
            if isinstance(exc, GeneratorExit):  # which, thrown into the coroutine that waits, would close that
                error = RuntimeError("GeneratorExit was raised by a callback")
                error.__cause__ = exc
                exc = error
            self.done.set_exception(exc)
        self.abort()

    def _stop(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()

    def abort(self) -> None:
        """Drop the connection, even if it has opened meanwhile."""
        self._stop()
        if self.transport is not None:
            self.transport.abort()
