"""One server on several event loops, each in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from asyncio.trsock import TransportSocket
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..transport.binding import bind_another

if TYPE_CHECKING:
    from .server import Server

__all__ = ["MOST", "Crew"]

MOST: Final = 1024
"""The most threads that one server may be given."""

_PATIENCE: Final = 1.0
"""Seconds beyond `stop_timeout` for a thread to end."""


class Crew:
    """The parts of a server: the program's own, and one for each further thread.

    Args:
        first: the program's own.

    Attributes:
        parts: all of them. Each belongs to its event loop, and only what is said here may be done from elsewhere.
        lock: held while connections of all parts are counted to see whether there is room for one more.

    A thread is known from when it is started (`join` waits for it), its part from when that has an event loop.
    """

    def __init__(self, first: Server) -> None:
        self.parts: list[Server] = [first]
        self.lock = threading.Lock()
        self._ended: list[asyncio.Future[None]] = []
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
                self._ended.append(ended)
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
                    # The program may live on, and nobody else would ever close these sockets.
                    runner.run(part._abandon())
                    raise
        except BaseException as exc:
            failure = exc
        _tell(loop, self._thread_ended, part, ready, ended, failure)

    def _thread_ended(
        self, part: Server, ready: asyncio.Future[None], ended: asyncio.Future[None], failure: BaseException | None
    ) -> None:
        _settle(ended)
        if not ready.done():
            ready.set_exception(failure or RuntimeError("the thread ended before it served"))
        elif isinstance(failure, (SystemExit, KeyboardInterrupt)):
            raise failure  # ends the program, as it would have from a handler of this loop
        elif failure is not None:
            part.logger.error("a thread of the server has ended", exc_info=failure)

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
        """Have another part do something, and wait until it is done."""
        assert part._loop is not None
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asked, part._loop))

    def tell_others(self, call: Callable[[Server], object]) -> None:
        """Have a function called for each part but the program's own, in that part's thread."""
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
            timeout: seconds that their parts may take by themselves; None for any time.
        """
        if self._ended:
            await asyncio.wait(self._ended, timeout=None if timeout is None else timeout + _PATIENCE)
        left = sum(not ended.done() for ended in self._ended)
        if left:
            self.parts[0].logger.error("%d threads are still running after the server was told to stop", left)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: Any) -> None:
    """Have a function called by a loop of another thread, unless that is closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *arguments)
