"""The order in which the tasks of one connection send, and who waits for the peer to take what was sent.

Most messages never come here: they are encoded in one step by the channel. An `Outbox` is made for a connection when a
message takes several steps, because it is compressed in a thread or sent in fragments, or when a task has to wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..codes import CloseCause, CloseCode
from ..events import BytesLike

if TYPE_CHECKING:
    from .protocol import ConnectionProtocol

__all__ = ["Outbox", "Waiters", "size_of"]

_TURN_STEPS: Final = 256
"""Messages and fragments after which a task that sends without waiting gives others a turn."""


def size_of(message: str | BytesLike) -> int:
    """Return the length of a message in bytes of UTF-8, or of memory."""
    if isinstance(message, str):
        return len(message) if message.isascii() else len(message.encode())
    return memoryview(message).nbytes


class Waiters:
    """Tasks that wait for the same thing, in the order in which they came."""

    __slots__ = ("_futures",)

    def __init__(self) -> None:
        self._futures: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._futures)

    async def wait(self) -> None:
        """Wait until released; who is cancelled leaves at once."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter in self._futures:
                self._futures.remove(waiter)
            elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.passed_over()
            raise

    def passed_over(self) -> None:
        """Called when a task was released and cancelled in the same turn, so that it does not go on."""

    def _waiting(self) -> Iterator[asyncio.Future[None]]:
        while self._futures:
            waiter = self._futures.popleft()
            if not waiter.done():
                yield waiter

    def release_one(self) -> bool:
        """Let the first one go on; False if nobody waits."""
        for waiter in self._waiting():
            waiter.set_result(None)
            return True
        return False

    def release(self, error: Exception | None = None) -> None:
        """Let all go on, or raise an exception in each."""
        for waiter in self._waiting():
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)


class _Line(Waiters):
    """The tasks that wait for their turn to send."""

    __slots__ = ("_outbox",)

    def __init__(self, outbox: Outbox) -> None:
        super().__init__()
        self._outbox = outbox

    def passed_over(self) -> None:
        self._outbox.leave()


class Outbox:
    """The order of what is sent on one connection.

    Args:
        channel: the connection's protocol.

    Attributes:
        busy: whether a message in several steps is under way, so that who sends now has to wait in line.
    """

    __slots__ = ("_channel", "_drain", "_line", "_steps", "busy")

    def __init__(self, channel: ConnectionProtocol) -> None:
        self._channel = channel
        self._line = _Line(self)
        self._drain = Waiters()
        self._steps = 0
        self.busy: bool = False

    # --- One after the other

    async def enter(self) -> None:
        """Wait until those that came before are done; from then on `busy` is this task's, until it calls `leave`."""
        if self.busy:
            await self._line.wait()
        else:
            self._channel.settle_gathered()  # what was published before goes out before
            self.busy = True
            self._channel.derive()

    def leave(self) -> None:
        """Let the next in line send."""
        if not self._line.release_one():
            self.busy = False
            self._channel.derive()

    async def send_whole(self, message: str | BytesLike, text: bool | None, compress: bool | None) -> None:
        """Send a whole message in its turn, and wait while too much is unsent.

        Raises:
            ConnectionClosed: the connection is closed, or was while this waited.
            TypeError, UnicodeError: those of `Connection.send_message`.
        """
        channel = self._channel
        await self.enter()
        try:
            await channel.check_open()
            if size_of(message) < channel.thread_size or compress is False:
                channel.send_message(message, text, compress)
                own = True
            else:
                own = False
        except BaseException:
            self.leave()
            raise
        if own:
            self.leave()
        else:
            await self._compress_in_thread(message, text, compress)
        await self.drain()

    def _compress_in_thread(
        self, message: str | BytesLike, text: bool | None, compress: bool | None
    ) -> asyncio.Future[None]:
        """Compress a message in a thread and send it; the turn, which is this caller's, ends with that.

        Once begun, it is finished, whatever becomes of the caller: the compressor and the peer must stay in step.
        """
        channel = self._channel
        loop = channel.loop
        done: asyncio.Future[None] = loop.create_future()
        try:
            if not isinstance(message, (str, bytes)):
                message = bytes(memoryview(message))  # the caller may be cancelled, and use the memory again
            work = loop.run_in_executor(None, channel.connection.prepare_message, message, text, compress)
        except BaseException:
            self.leave()
            raise
        work.add_done_callback(partial(self._compressed, done))
        return done

    def _compressed(self, done: asyncio.Future[None], work: asyncio.Future[Any]) -> None:
        channel = self._channel
        try:
            channel.send_prepared(work.result())
        except asyncio.CancelledError:
            # The loop is at its end. What the thread has done to the compressor is not known.
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
            self.leave()

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
        """Let those go on that wait for the peer."""
        self._drain.release()

    def end(self, error: Exception) -> None:
        """Raise an exception in all tasks that wait: the connection has ended."""
        self._drain.release(error)
        # The message before theirs may wait for its next piece for ever.
        self._line.release(error)
