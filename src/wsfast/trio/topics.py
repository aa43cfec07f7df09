"""Topics for servers on trio: a `Topics` runs on an asyncio event loop in a thread, and has a part here.

The part has an index of its own: what happens for each connection happens in trio's thread, and a message is handed
over once between the threads.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import trio

from wsfast.connection import State
from wsfast.exceptions import ConcurrencyError, InvalidState
from wsfast.topics import Topics
from wsfast.topics.part import Far, Part, run_at
from wsfast.topics.sink import Sink as BaseSink
from wsfast.topics.thread import LoopOf
from wsfast.topics.topics import hub_of

from ..telling import tell

if TYPE_CHECKING:
    from wsfast.connection import Connection
    from wsfast.topics.hub import Hub
    from wsfast.topics.index import Member

    from .websocket import WebSocket

__all__ = ["Bridge", "Sink"]

_logger: Final = logging.getLogger("wsfast.topics")


class _Soon:
    """What an index needs of an event loop."""

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self._token = token

    def call_soon(self, call: Callable[..., object], *args: Any) -> None:
        """Have something called in the next turn, which an exception must not end."""
        self._token.run_sync_soon(_guarded, call, args)


def _guarded(call: Callable[..., object], args: tuple[Any, ...]) -> None:
    try:
        call(*args)
    except Exception as exc:
        tell(_logger.error, "topics: a call failed", exc_info=exc)


class _Turn:
    """What an index needs to know of the turn."""

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self.gathering: int = 0
        self.loop = _Soon(token)


class TrioSite:
    """The run of trio of this thread, as the site of a part of `Topics`."""

    def __init__(self) -> None:
        self.token: trio.lowlevel.TrioToken = trio.lowlevel.current_trio_token()
        self.turn: Any = _Turn(self.token)

    def tell(self, call: Callable[..., object], *args: Any) -> bool:
        """Have something called there, from any thread; return False if the run has ended."""
        try:
            self.token.run_sync_soon(_guarded, call, args)
        except trio.RunFinishedError:
            return False
        return True

    async def wait_for(self, future: concurrent.futures.Future[Any], timeout: float) -> None:
        """Wait until a future is done, or for some seconds."""
        done = trio.Event()
        future.add_done_callback(lambda _: self.tell(done.set))
        with trio.move_on_after(timeout):
            await done.wait()

    def spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> trio.CancelScope:
        """Run a coroutine function that raises nothing, as a task."""
        scope = trio.CancelScope()

        async def scoped() -> None:
            with scope:
                await run()

        trio.lowlevel.spawn_system_task(scoped, name="wsfast-topics")
        return scope

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await trio.sleep(seconds)


class Bridge:
    """A server on trio uses its topics through this.

    Attributes:
        topics, hub: the topics, and what is behind them.
    """

    def __init__(self, topics: Topics) -> None:
        self.topics: Topics = topics
        self.hub: Hub = hub_of(topics)
        self._loop = LoopOf(topics)
        self._key: object = threading.get_ident()
        self._part: Part | None = None

    async def start(self) -> None:
        """Start the topics: on the event loop that they run on, if an asyncio server has, else in a thread."""
        hub = self.hub
        site = TrioSite()
        try:
            await run_at(self._loop.loop, self.topics.start, site)
        except BaseException:
            await self._leave()
            raise
        old = hub.parts.get(self._key)
        if isinstance(old, Far) and isinstance(old.site, TrioSite) and old.site.token is not site.token:
            del hub.parts[self._key]  # of a run in this thread that ended before its server did
        hub.begin(self._key, lambda: site)
        self._part = hub.parts[self._key]

    async def close(self) -> None:
        """Close the topics, if nobody else uses them."""
        part, self._part = self._part, None
        try:
            if part is not None:
                await self.hub.close(self._key)
                with contextlib.suppress(InvalidState):  # the loop has ended first
                    await part.run(self.topics.close)
        finally:
            await self._leave()

    async def _leave(self) -> None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._loop.leave)

    def part(self) -> Part:
        """Return the topics' part on this run of trio.

        Raises:
            InvalidState: the topics are closed.
        """
        self.hub.check_running()
        if self._part is None:
            raise InvalidState("the server is closed, and so are its topics")
        return self._part

    def sink(self, ws: WebSocket) -> Sink:
        """Return the sink of a connection's messages."""
        return Sink(ws, self.part().site.turn)


class Sink(BaseSink):
    """The sink of a connection's messages from topics: what `Topics` sees of it.

    Args:
        ws: the connection, which is open.
        turn: that of the part.
    """

    ws: WebSocket
    member: Member | None

    def __init__(self, ws: WebSocket, turn: Any) -> None:
        super().__init__(ws, turn)
        self.connection: Connection = ws._connection
        self.outbox: _Outbox = _Outbox(ws)

    def settle_gathered(self) -> None:
        """Put what was published to this connection's topics ahead of what it sends next."""
        if self.member is not None and self.turn.gathering:
            self.member.settle()

    def leave(self) -> None:
        """End all subscriptions."""
        member, self.member = self.member, None
        if member is not None:
            member.leave()

    @property
    def write_paused(self) -> bool:
        """Whether more is unsent than `write_limit`."""
        return self.ws._full

    def has_room(self, size: int) -> bool:
        """Tell whether a message may be sent without further checks."""
        return self.connection.state is State.OPEN and not self.is_sending and not self.ws._full and not self.ws._over

    def send_gathered(self, frames: bytes, count: int, cork: bool = False) -> bool:
        """Send whole messages whose frames were made for many; False if that is not the plain case."""
        if self.connection.compression is not None or not self.has_room(len(frames)):
            return False
        self.connection.outgoing.encoded(frames)
        self.ws._messages_sent += count
        self.ws._flush()
        return True

    def write_encoded(self, frame: bytes) -> None:
        """Send a message, whatever is unsent.

        Raises:
            ConcurrencyError: another is under way in fragments.
        """
        if self.connection.state is not State.OPEN or self.ws._over:
            return
        if self.is_sending:
            raise ConcurrencyError("sending a fragmented message")
        self.settle_gathered()
        self.connection.outgoing.encoded(frame)
        self.ws._messages_sent += 1
        self.ws._flush()


class _Outbox:
    """The waiting of those who send to a connection in several steps."""

    def __init__(self, ws: WebSocket) -> None:
        self._ws = ws

    async def drain(self) -> None:
        """Wait until little is unsent."""
        await self._ws._wait_for_room()
        await trio.lowlevel.checkpoint()
        if self._ws._connection.state is not State.OPEN:
            raise self._ws._connection.closed_error()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until no other message is under way, and keep others from sending one."""
        async with self._ws._line.turn() as mine:
            if not mine:
                raise self._ws._connection.closed_error()
            yield
