"""One server on several event loops, each in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from asyncio.trsock import TransportSocket
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..telling import tell
from ..transport.binding import bind_another

if TYPE_CHECKING:
    from .server import Server

__all__ = ["MOST", "Crew"]

MOST: Final = 1024
"""The largest `threads` that `Server.start` accepts."""

_PATIENCE: Final = 1.0
"""Seconds beyond `stop_timeout` for a thread to end."""


class Crew:
    """The parts of a server: the program's own, and one for each further thread.

    Args:
        first: the program's own.

    Attributes:
        parts: all parts that serve. Each belongs to its event loop; other threads may only call the methods here.
        ended: those whose threads have ended, which are still counted.
        failure: the exception of the first thread that failed; None if none did.
        lock: held while connections of all parts are counted to see whether there is room for one more.

    A thread is known from when it is started (`join` waits for it), its part from when that has an event loop.
    """

    def __init__(self, first: Server) -> None:
        self.parts: list[Server] = [first]
        self.ended: list[Server] = []
        self.failure: BaseException | None = None
        self.lock: threading.Lock = threading.Lock()
        self._ends: dict[Server, asyncio.Future[None]] = {}
        self._growing = asyncio.Lock()

    @property
    def others(self) -> list[Server]:
        """The parts in threads."""
        return self.parts[1:]

    def here(self) -> Server:
        """Return the part that belongs to the running event loop; the first one elsewhere."""
        loop = asyncio._get_running_loop()
        return next((part for part in self.parts if part._loop is loop), self.parts[0])

    async def grow(self, count: int) -> None:
        """Start threads until there are `count` parts.

        Raises:
            RuntimeError: the server was closed meanwhile.
        """
        loop = asyncio.get_running_loop()
        async with self._growing:
            while len(self.parts) < count:
                part = self.parts[0]._new_part()
                ready: asyncio.Future[None] = loop.create_future()
                ended: asyncio.Future[None] = loop.create_future()
                arguments = (part, loop, ready, ended)
                name = f"wsfast-{len(self.parts)}"
                threading.Thread(target=self._run, args=arguments, name=name, daemon=True).start()
                self._ends[part] = ended
                await ready

    def _is_ready(self, part: Server, ready: asyncio.Future[None]) -> None:
        """Take in a part whose thread has begun to serve."""
        self.parts.append(part)
        if self.parts[0].closing:
            # `close` was called while the thread started, and could not tell it.
            assert part._loop is not None
            _tell(part._loop, part.close)
            if not ready.done():
                ready.set_exception(RuntimeError("the server was closed before it listened"))
        _settle(ready)

    def _run(
        self,
        part: Server,
        loop: asyncio.AbstractEventLoop,
        ready: asyncio.Future[None],
        ended: asyncio.Future[None],
    ) -> None:
        """Serve in this thread until the part is closed."""
        failure: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=type(loop)) as runner:
                try:
                    runner.run(part._serve_part(partial(_tell, loop, self._is_ready, part, ready)))
                except BaseException:
                    # The program may go on, and nobody else would ever close these sockets: the system would go on to
                    # give them their share of the clients.
                    try:
                        runner.run(part._abandon())
                    finally:
                        for listening in part._listening:
                            listening.close()
                    raise
        except BaseException as exc:
            failure = exc
        _tell(loop, self._thread_ended, part, ready, ended, failure)

    def _thread_ended(
        self, part: Server, ready: asyncio.Future[None], ended: asyncio.Future[None], failure: BaseException | None
    ) -> None:
        _settle(ended)
        if part in self.parts:
            self.parts.remove(part)
            self.ended.append(part)
        if not ready.done():
            ready.set_exception(failure or RuntimeError("the thread ended before it served"))
        elif isinstance(failure, (SystemExit, KeyboardInterrupt)):
            raise failure  # ends the program, as it would have from a handler of this loop
        elif failure is not None:
            # With one loop, the program would have ended; nobody would notice that a server goes on with fewer threads.
            tell(part.logger.error, "the server is closed because one of its threads has failed", exc_info=failure)
            self.failure = self.failure or failure
            self.parts[0].close()

    async def listen(self, count: int, sockets: Iterable[TransportSocket], **options: Any) -> None:
        """Have the first `count` parts but the program's own listen where sockets are bound already."""
        await self.grow(count)
        for sock in sockets:
            for part in self.parts[1:count]:
                another = bind_another(sock)
                try:
                    await self.ask(part, part.start(sock=another, **options))
                except BaseException:
                    another.close()
                    raise

    async def ask(self, part: Server, asked: Coroutine[Any, Any, Any]) -> None:
        """Have another part do something, and wait until it is done.

        Raises:
            RuntimeError: its thread has ended.
        """
        assert part._loop is not None
        try:
            answer = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asked, part._loop))
        except RuntimeError:
            asked.close()
            raise RuntimeError("a thread of the server has ended") from None
        try:
            await asyncio.wait((answer, self._ends[part]), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            answer.cancel()
            raise
        if not answer.done() or answer.cancelled():
            asked.close()  # its loop may have ended before it began
            raise RuntimeError("a thread of the server has ended")
        answer.result()

    def tell_others(self, call: Callable[[Server], object]) -> None:
        """Arrange a call of a function for each part but the program's own, in that part's thread."""
        for part in self.others:
            assert part._loop is not None
            _tell(part._loop, call, part)

    def tell_first(self, call: Callable[[Server], object]) -> None:
        """Have a function called for the program's own part, in its thread."""
        first = self.parts[0]
        assert first._loop is not None
        _tell(first._loop, call, first)

    async def join(self, timeout: float | None) -> None:
        """Wait for the threads to end.

        Args:
            timeout: seconds that the parts may take to stop; None for no limit.
        """
        ends = self._ends.values()
        if ends:
            await asyncio.wait(ends, timeout=None if timeout is None else timeout + _PATIENCE)
        left = sum(not ended.done() for ended in ends)
        if left:
            tell(self.parts[0].logger.error, "%d threads are still running after the server was told to stop", left)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: Any) -> None:
    """Have a function called by a loop of another thread, unless that is closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *arguments)
