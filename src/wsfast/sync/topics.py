"""Topics for servers in threads: a `Topics` belongs to an event loop, which here runs in a thread of its own.

A thread that subscribes or publishes asks the loop's thread to do it, and waits until that is done. The loop's thread
also writes published messages, to each connection under its lock and without waiting; the connection's own thread sends
what the system does not take at once.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from wsfast.connection import State
from wsfast.exceptions import ConcurrencyError, InvalidState
from wsfast.topics import Published, Topics
from wsfast.topics.sink import Sink as BaseSink
from wsfast.topics.thread import LoopOf, check_topics
from wsfast.topics.topics import hub_of

if TYPE_CHECKING:
    from wsfast.asyncio.broadcast import Prepared
    from wsfast.bus import Position
    from wsfast.events import BytesLike

    from .websocket import WebSocket

__all__ = ["Bridge", "Sink"]

_T = TypeVar("_T")

_SHORT: Final = 1.0
"""Seconds between two looks at whether the event loop is there still."""

_LOOK: Final = 0.02
"""Seconds between two looks at a connection that is behind or sends a message in fragments."""


class Bridge:
    """A server in threads uses its topics through this.

    It starts them: on the event loop that they run on, if an asyncio server has started them, else on one in a thread.

    Args:
        topics: the topics.

    Raises:
        TypeError: `topics` is not a `Topics`.
        InvalidState: the topics were closed, or run on the event loop of this thread.
    """

    def __init__(self, topics: Topics) -> None:
        self._topics = check_topics(topics)
        self._hub = hub_of(topics)
        self._own = LoopOf(topics)
        self._loop: asyncio.AbstractEventLoop = self._own.loop
        try:
            self.wait(topics.start)
        except BaseException:
            self._own.leave()
            raise

    def close(self) -> None:
        """Close the topics, if nobody else uses them."""
        try:
            self.wait(self._topics.close)
        finally:
            self._own.leave()

    def call(self, function: Callable[[], _T]) -> _T:
        """Call a function in the loop's thread, and send what it has published."""

        async def run() -> _T:
            try:
                return function()
            finally:
                if self._hub.running:
                    self._hub.index.flush()

        return self.wait(run)

    def wait(self, function: Callable[[], Awaitable[_T]]) -> _T:
        """Make the loop's thread await something, and wait for the result.

        Raises:
            InvalidState: this is the loop's thread, or the loop is closed.
        """
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            raise InvalidState("a hook of the topics cannot wait for the topics: call their own methods there")

        async def run() -> _T:
            return await function()

        running = run()
        try:
            future = asyncio.run_coroutine_threadsafe(running, self._loop)
        except RuntimeError:
            running.close()
            raise InvalidState("the topics are closed") from None
        try:
            while True:
                try:
                    return future.result(_SHORT)
                except TimeoutError:
                    if future.done():
                        raise
                    if self._loop.is_closed():
                        raise InvalidState("the topics are closed") from None
        except concurrent.futures.CancelledError:
            raise InvalidState("the topics are closed") from None
        finally:
            future.cancel()  # where this thread was interrupted

    # --- What connections and servers have -------------------------------------------------------------------

    def sink(self, ws: WebSocket) -> Sink:
        """Return the sink of a connection's messages."""
        return Sink(ws, self._hub.turn)

    def subscribe(self, ws: WebSocket, topic: str, info: str | None, wait: bool) -> None:
        """Subscribe a connection."""
        settled = self.call(lambda: self._topics.subscribe(ws, topic, info))  # type: ignore[arg-type]
        if wait:
            self.wait(lambda: settled)

    def unsubscribe(self, ws: WebSocket, topic: str) -> bool:
        """Unsubscribe a connection."""
        return self.call(lambda: self._topics.unsubscribe(ws, topic))  # type: ignore[arg-type]

    def recover(self, ws: WebSocket, topic: str, since: Position | str | None, info: str | None) -> int:
        """Send a connection what it missed, and subscribe it."""
        return self.wait(lambda: self._topics.recover(ws, topic, since, info))  # type: ignore[arg-type]

    def publish(
        self,
        topic: str,
        message: str | BytesLike,
        key: str | None,
        text: bool | None,
        compress: bool | None,
        but: Sink | None,
        wait: bool,
    ) -> Position | None:
        """Publish a message, to all but one."""
        taken = self.call(
            lambda: (
                self._topics.publish(topic, message, key=key, text=text, compress=compress)
                if but is None
                else self._hub.publish_from(but, topic, message, key, text, compress)
            )
        )
        return self.wait(lambda: taken) if wait else None

    def names(self, sink: Sink) -> set[str]:
        """Return the topics of a connection."""
        return self.call(lambda: set() if sink.member is None else set(sink.member.topics))

    def history(self, topic: str, since: Position | str | None) -> list[Published]:
        """Return what is kept of a topic."""

        async def read() -> list[Published]:
            return [one async for one in self._topics.history(topic, since)]

        return self.wait(read)

    def ended(self, sink: Sink) -> None:
        """Note that a connection has ended; its lock may be held."""

        def leave() -> None:
            member, sink.member = sink.member, None
            if member is not None:
                member.leave()

        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(leave)


class Sink(BaseSink):
    """The sink of a connection's messages from topics: what `Topics` sees of it, in the loop's thread.

    Args:
        ws: the connection.
        turn: what the topics' event loop has for its connections.
    """

    outgoing: Final = None  # `write_shared` is told the message, not the frame

    ws: WebSocket

    def __init__(self, ws: WebSocket, turn: Any) -> None:
        super().__init__(ws, turn)
        self.connection: Sink = self
        self.outbox: _Outbox = _Outbox(self)

    # --- As a connection

    @property
    def state(self) -> State:
        return self.ws.state

    @property
    def in_message(self) -> bool:
        return self.ws._connection.in_message or self.ws._packing

    @property
    def is_sending(self) -> bool:
        """Whether another message is under way in fragments, or is being compressed."""
        return self.ws._sender is not None or self.in_message

    def closed_error(self) -> Exception:
        return self.ws._connection.closed_error()

    # --- As a channel and its outbox

    @property
    def write_paused(self) -> bool:
        """Whether more is unsent than `write_limit`."""
        return self.ws._link.unsent > self.limits.write_limit

    def has_room(self, size: int) -> bool:
        """Tell whether a message may be sent without further checks."""
        return self.state is State.OPEN and not self.is_sending and not self.write_paused

    def send_gathered(self, frames: bytes, count: int, cork: bool = False) -> bool:
        """Write whole messages; False if that is not the plain case."""
        if self.ws._connection.compression is not None:
            return False
        return self.ws._write_encoded(frames, within=self.limits.write_limit)

    def write_shared(self, message: Prepared) -> None:
        """Write a message, whatever is unsent.

        Raises:
            ConcurrencyError: another is under way in fragments, or is being compressed.
        """
        if not self.ws._write_shared(message) and self.state is State.OPEN:
            raise ConcurrencyError("sending a fragmented message")


class _Outbox:
    """The waiting of those who send to a connection in several steps."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    async def drain(self) -> None:
        """Wait until little is unsent."""
        sink = self._sink
        while sink.state is State.OPEN and sink.ws._link.unsent * 4 > sink.limits.write_limit:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK)
        if sink.state is not State.OPEN:
            raise sink.closed_error()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until no other message is under way, and keep others from sending one."""
        gate = self._sink.ws._gate
        while not gate.acquire(blocking=False):
            if self._sink.state is not State.OPEN:
                raise self._sink.closed_error()
            await asyncio.sleep(_LOOK)
        try:
            yield
        finally:
            gate.release()
