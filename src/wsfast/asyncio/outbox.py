"""The order in which the tasks of one connection send, and how they wait for the peer to take what is sent.

Most messages never come here: they are encoded in one step by the channel. An `Outbox` is made for a connection when a
message takes several steps (it is compressed in a thread, or sent in fragments), for a ping or a pong, or when a task
has to wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from ..codes import CloseCause, CloseCode
from ..connection import State
from ..events import BytesLike, Close
from ..exceptions import ConnectionClosed
from ..octets import copied, nbytes

if TYPE_CHECKING:
    from .protocol import ConnectionProtocol

__all__ = ["Outbox", "Waiters", "size_of"]

_TURN_STEPS: Final = 256
"""Messages and fragments after which a task that sends without having to wait lets others run."""


def size_of(message: str | BytesLike) -> int:
    """Return the length of a message in bytes of UTF-8, or of memory.

    Raises:
        TypeError: it is neither `str` nor bytes-like.
        UnicodeError: it is not text.
    """
    if isinstance(message, str):
        return len(message) if message.isascii() else len(message.encode())
    try:
        return nbytes(message)
    except TypeError:
        raise TypeError(f"a message must be str or bytes-like, got {type(message).__name__}") from None


class Waiters:
    """Tasks that wait for the same thing, in the order in which they came."""

    __slots__ = ("_futures",)

    def __init__(self) -> None:
        self._futures: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._futures)

    def join(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """Join the line at its end; return a future that is done when it is this one's turn."""
        waiter: asyncio.Future[None] = loop.create_future()
        self._futures.append(waiter)
        return waiter

    async def wait(self, passed_over: Callable[[], object] = lambda: None) -> None:
        """Wait until released; a task that is cancelled leaves the line at once.

        Args:
            passed_over: called if the task was cancelled in the turn in which it was released, so that it does not go
                on.
        """
        waiter = self.join(asyncio.get_running_loop())
        try:
            await waiter
        except BaseException:
            if waiter in self._futures:
                self._futures.remove(waiter)
            elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                passed_over()
            raise

    def _waiting(self) -> Iterator[asyncio.Future[None]]:
        while self._futures:
            waiter = self._futures.popleft()
            if not waiter.done():
                yield waiter

    def release_one(self) -> bool:
        """Release the first one; return False if nobody waits."""
        for waiter in self._waiting():
            waiter.set_result(None)
            return True
        return False

    def release(self, error: Exception | None = None) -> None:
        """Release all, or raise an exception in each."""
        for waiter in self._waiting():
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)


class Outbox:
    """Sends, on one connection, for tasks that may have to wait, in the order in which they came.

    Args:
        channel: the connection's protocol.

    Attributes:
        busy: whether a message in several steps is under way, so that other tasks have to wait in line.
    """

    __slots__ = ("_called", "_channel", "_closing", "_compressing", "_drain", "_kept", "_line", "_steps", "busy")

    def __init__(self, channel: ConnectionProtocol) -> None:
        self._channel = channel
        self._line = Waiters()  # the tasks that wait for their turn
        self._drain = Waiters()
        self._steps = 0
        self._called = False  # the turn is somebody's in line who has not run yet
        self._compressing = False  # in a thread
        self._closing = False  # behind that
        self._kept: Close | None = None  # the peer's, which is answered behind that
        self.busy: bool = False

    # --- One after the other

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Keep other tasks from sending while a message takes several steps; they go on in the order they came.

        Raises:
            ConnectionClosed: the connection is closed, or was while this waited.
        """
        await self._enter()
        try:
            await self.check_open()
            yield
        finally:
            self.leave()

    async def check_open(self) -> None:
        """Return if the connection is open.

        Raises:
            ConnectionClosed: it is not. On one that is closing this waits for the end, to tell how it was.
        """
        channel = self._channel
        if channel.cut:
            try:
                channel.check_sending()
            except ConnectionClosed:
                await channel.wait_closed()
                raise
        if channel.connection.state is State.CLOSING:
            await channel.wait_closed()
        if channel.connection.state is not State.OPEN:
            raise channel.connection.closed_error()

    async def _enter(self) -> None:
        """Wait until those that came before are done; from then on `busy` is this task's, until it calls `leave`."""
        if self.busy:
            await self._line.wait(self.leave)
            self._called = False
        else:
            self._channel.settle_gathered()  # what was published before goes out before
            self.busy = True
            self._channel.derive()

    def leave(self) -> None:
        """Let the next in line send."""
        self._called = self._line.release_one()
        if not self._called:
            self.busy = False
            self._channel.derive()

    async def send_whole(self, message: str | BytesLike, text: bool | None, compress: bool | None) -> None:
        """Send a whole message in its turn, and wait while too much is unsent.

        Raises:
            ConnectionClosed: the connection is closed, or was while this waited.
            TypeError, UnicodeError: those of `Connection.send_message`.
        """
        channel = self._channel
        if channel.sendable or (channel.packs and self._is_quick(message, compress)):
            channel.send_message(message, text, compress)
        else:
            await self._enter()
            try:
                await self.check_open()
                quick = self._is_quick(message, compress)
                if quick:
                    channel.send_message(message, text, compress)
            except BaseException:
                self.leave()
                raise
            if quick:
                self.leave()
            else:
                try:
                    await self._compress_in_thread(message, text, compress)
                except ConnectionClosed:
                    await self.check_open()  # which waits for the end, to tell how it was
                    raise
        await self.drain()

    def _is_quick(self, message: str | BytesLike, compress: bool | None) -> bool:
        """Tell whether a message needs no thread to compress it: it is small enough, or sent uncompressed."""
        return compress is False or size_of(message) < self._channel.thread_size

    def _compress_in_thread(
        self, message: str | BytesLike, text: bool | None, compress: bool | None
    ) -> asyncio.Future[None]:
        """Compress a message in a thread and send it; then the caller's turn ends.

        Once begun, it is finished even if the caller is cancelled: the compressor and the peer must stay in step.
        """
        channel = self._channel
        loop = channel.turn.loop
        done: asyncio.Future[None] = loop.create_future()
        try:
            if not isinstance(message, (str, bytes)):
                message = copied(message)  # the caller may be cancelled, and use the memory again
            work = loop.run_in_executor(None, channel.connection.prepare_message, message, text, compress)
        except BaseException:
            self.leave()
            raise
        self._compressing = True
        work.add_done_callback(partial(self._compressed, done))
        return done

    def _compressed(self, done: asyncio.Future[None], work: asyncio.Future[Any]) -> None:
        channel = self._channel
        self._compressing = False
        try:
            channel.connection.send_prepared(work.result())
            channel.count_sent()
            channel.written()
        except asyncio.CancelledError:
            # The loop is ending. What the thread has done to the compressor is not known.
            channel.start_close(CloseCode.INTERNAL_ERROR, "a message was not finished", CloseCause.LOCAL)
            done.cancel()
        except Exception as exc:
            if not done.done():
                done.set_exception(exc)
                done.exception()  # its task may have been cancelled before it began to wait
        else:
            if not done.done():
                done.set_result(None)
        finally:
            self.hand_in()
            self.leave()

    def keep(self, event: Close) -> bool:
        """Keep the peer's Close frame until the message that a thread compresses was sent; False if no thread does."""
        # RFC 6455, 5.5.1: "An endpoint MAY delay sending a Close frame until its current message is sent".
        if self._compressing and self._channel.connection.state is State.OPEN:
            self._kept = event
            return True
        return False

    def hand_in(self) -> None:
        """Handle the peer's Close frame, if it was kept."""
        event, self._kept = self._kept, None
        if event is not None:
            self._compressing = False  # it is not waited for any longer
            self._channel.handle_event(event)

    def put_off(self, close: Callable[[], None]) -> bool:
        """Put a close off until the messages before it are sent; return False if there are none.

        Those are the message that a thread compresses, the one whose turn it is even though its task has not run yet,
        and those in line. The close waits for at most half of `close_timeout`, since the next piece of a message in
        fragments may never come; the peer has the other half. If a close is put off already, this one has no effect.
        """
        if not (self._compressing or self._called):
            return False
        if not self._closing:
            self._closing = True
            timeout = self._channel.host.limits.close_timeout
            loop = self._channel.turn.loop
            turn = self._line.join(loop)
            timer = None if timeout is None else loop.call_later(timeout / 2, turn.cancel)
            turn.add_done_callback(partial(self._close_now, close, timer))
        return True

    def _close_now(
        self, close: Callable[[], None], timer: asyncio.TimerHandle | None, turn: asyncio.Future[None]
    ) -> None:
        self._closing = False
        if timer is not None:
            timer.cancel()
        late = turn.cancelled()
        if not late:
            if turn.exception() is not None:
                return  # the connection has ended
            self._called = False
        try:
            close()
        finally:
            if not late:
                self.leave()

    async def send_step(self, data: str | BytesLike, *, fin: bool, text: bool | None, compress: bool | None) -> None:
        """Send the next fragment of a message, and wait while too much is unsent.

        Raises:
            ConnectionClosed: the connection is closed. On one that is closing this waits for the end, to tell how it
                was.
            TypeError, UnicodeError: those of `Connection.send_fragment`.
        """
        if self._channel.connection.state is not State.OPEN:
            await self.check_open()
        self.send_fragment(data, fin=fin, text=text, compress=compress)
        await self.drain()

    def send_fragment(self, data: str | BytesLike, *, fin: bool, text: bool | None, compress: bool | None) -> None:
        """Send the next fragment of a message."""
        channel = self._channel
        if channel.cut:
            channel.check_sending()
        channel.settle_gathered()
        channel.connection.send_fragment(data, fin, text=text, compress=compress)
        channel.derive()
        if fin:
            channel.count_sent()
        channel.written()

    # --- Pings

    async def ping(self, data: str | BytesLike | None) -> asyncio.Future[float]:
        """Send a ping; the future's result is the round trip in seconds."""
        await self.check_open()
        channel = self._channel
        waiter: asyncio.Future[float] = channel.turn.loop.create_future()

        def on_pong(latency: float | None) -> None:
            if waiter.done():
                return
            if latency is not None:
                waiter.set_result(latency)
            else:
                waiter.set_exception(channel.connection.closed_error())
                waiter.exception()  # without this, asyncio would log an exception that nobody retrieves

        channel.obey(channel.session.ping(monotonic(), data, on_pong))
        return waiter

    async def pong(self, data: str | BytesLike) -> None:
        """Send an unsolicited pong."""
        await self.check_open()
        self._channel.connection.send_pong(data.encode() if isinstance(data, str) else data)
        self._channel.written()
        await self.drain()

    # --- What the peer takes

    async def drain(self) -> None:
        """Wait until less than a quarter of `write_limit` is unsent.

        Raises:
            ConnectionClosed: the connection ended first.
        """
        channel = self._channel
        if channel.transport is None:
            raise channel.connection.closed_error()
        if channel.write_paused:
            await self._drain.wait()
            return
        self._steps += 1
        if channel.turn_full or self._steps >= _TURN_STEPS:
            self._steps = 0
            await channel.next_turn()

    def drained(self) -> None:
        """Let the tasks go on that wait for the peer to take what was sent."""
        self._drain.release()

    def end(self, error: Exception) -> None:
        """Raise an exception in all tasks that wait: the connection has ended."""
        self._drain.release(error)
        # Also in those in line: the message before theirs may wait for its next piece for ever.
        self._line.release(error)
