"""`Topics`: subscriptions, publishing, histories and presence of one process, and its part among others."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from ..asyncio.broadcast import Prepared
from ..bus.interface import Bus, Position, Reading
from ..bus.memory import MemoryBus, Taken
from ..bus.outbox import given_up
from ..codes import Opcode
from ..escape import words
from ..events import BytesLike
from ..exceptions import BusUnavailable, InvalidState, NotRecovered
from ..options import named_options
from ..transport.loops import OtherThread
from .envelope import CONTROL, BadEnvelope, Envelope, Sealer
from .index import Index, Member
from .numbers import Gap, Incoming, Outgoing
from .part import MAX_MINE, TOTALS, AsyncioSite, Far, Home, Part, Posted, Site, Token
from .presence import Presence, Present
from .rules import History, Rule, Rules, check_name

if TYPE_CHECKING:
    from types import TracebackType

    from ..asyncio.websocket import WebSocket

__all__ = ["Published", "Topics"]

_BEAT: Final = 1.0
"""Seconds between two signs of life of a process."""
_DEAD: Final = 3.0
"""Seconds of silence after which a process is taken to have ended."""
_FIRST: Final = 3.0
"""Seconds for which a start waits for the bus to be up."""
_MAX_KEY: Final = 200
_CATCHING: Final = 64
"""Histories that are read at once after an interruption."""
_SLICE: Final = 0.005
"""Seconds for which what other threads have posted is done before others get a turn."""
_LOOK: Final = 16
"""Calls between two looks at the clock."""
_QUIET: Final = 1.0
"""Seconds between two lines in the log about the same kind of trouble."""


class Published(NamedTuple):
    """A message of a topic's history."""

    message: str | bytes
    """What was published: `str` is text, `bytes` is binary."""
    position: Position
    """Its place."""


_TAKEN: Final = Taken()
_TEXT: Final = Opcode.TEXT  # in Python 3.11, to get a member from its class takes a call


class _Followed:
    """A topic with a history that this process subscribed to."""

    __slots__ = ("behind", "newest", "position", "task")

    def __init__(self) -> None:
        self.behind = False  # something before `newest` is missing, and is read by `task`
        self.position: Position | None = None  # of the latest message that was delivered, once that is known
        self.newest: Position | None = None  # of the latest that came while what is before it was read
        self.task: asyncio.Task[None] | None = None


class Topics:
    """Messages to all who subscribed to a topic: in this process, and by a bus in others.

    ::

        topics = wsfast.Topics()
        server = wsfast.Server(topics=topics)

        @server.handler(None)
        async def room(ws):
            ws.subscribe("room.1")
            async for message in ws:
                ws.publish("room.1", message)

    A server that is given a `Topics` starts and stops it; several servers may share it. Without a server, ``async with
    topics:`` does. It runs on the event loop on which it was started first, which has to be there until the end;
    servers on other loops, in other threads, take part. Its methods are called in the thread of any of these loops,
    with connections of that loop. `authorize` is called there, too; `on_gap`, `on_presence`, and `encode` for what
    comes from the bus, are called in the thread of the first loop.

    Args:
        bus: what carries messages to other processes, such as `LocalBus` or `RedisBus`; None for a single process.
        authorize: called as ``authorize(ws, topic)`` before each subscription by `WebSocket.subscribe`; must return
            True to allow it, or False. For topics whose names a client chose.
        encode: called as ``encode(topic, message, position)`` once for each message and process, to make what its
            subscribers are sent, `str` or `bytes`; `position` is None in topics without a history. Default: the message
            itself.
        key: a secret of 1 to 64 bytes, the same in all processes, with which messages on the bus are signed; those with
            a wrong signature are dropped. None for no signatures.
        max_topics: how many topics one connection may subscribe to.
        max_subscriptions: how many subscriptions there may be in this process; with servers in several threads, each
            of them may exceed it by one.
        max_size: the most bytes of a message that is taken from the bus, or put on it.
        on_gap: called with a `Gap` when messages of other processes are known to be lost, or a thread did not get some.
        on_presence: called as ``on_presence(topic, present, came)`` when somebody came (True) or left (False), in
            topics with presence; `present` is a `Present`.
        logger: default: ``logging.getLogger("wsfast.topics")``.

    Attributes:
        on_gap, on_presence: the arguments; they may be set at any time.

    Raises:
        ValueError, TypeError: an option is out of range; the text names it.
    """

    @named_options("Topics()")
    def __init__(
        self,
        bus: Bus | None = None,
        *,
        authorize: Callable[[WebSocket, str], bool] | None = None,
        encode: Callable[[str, str | bytes, Position | None], str | bytes] | None = None,
        key: bytes | None = None,
        max_topics: int = 1000,
        max_subscriptions: int = 1_000_000,
        max_size: int = 16_777_216,
        on_gap: Callable[[Gap], object] | None = None,
        on_presence: Callable[[str, Present, bool], object] | None = None,
        logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
    ) -> None:
        if bus is not None and not isinstance(bus, Bus):
            raise TypeError(f"bus must be a Bus or None, got {type(bus).__name__}")
        hooks = {"authorize": authorize, "encode": encode, "on_gap": on_gap, "on_presence": on_presence}
        for name, hook in hooks.items():
            if hook is not None and not callable(hook):
                raise TypeError(f"{name} must be callable, got {type(hook).__name__}")
        limits = {"max_topics": max_topics, "max_subscriptions": max_subscriptions, "max_size": max_size}
        for name, value in limits.items():
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be int, got {type(value).__name__}")
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        self.on_gap = on_gap
        self.on_presence = on_presence
        self._alone = bus is None
        self._bus: Bus = MemoryBus() if bus is None else bus
        self._authorize = authorize
        self._encode = encode
        self._max_topics = max_topics
        self._max_subscriptions = max_subscriptions
        self._max_size = max_size
        self._sealer = Sealer(max_size, key)
        self._rules = Rules()
        self._known = self._rules.known
        self._logger: Any = logging.getLogger("wsfast.topics") if logger is None else logger
        self._origin = secrets.randbits(63) | 1
        self._outgoing = Outgoing()
        self._incoming = Incoming()
        self._presence = Presence(self._origin)
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()  # posted by other threads
        self._taking = False
        self._dropped = 0  # messages that other threads were too far behind for
        self._presence_lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn: Any
        self._index: Index  # of the home
        self._home: Home | None = None
        self._parts: dict[object, Part] = {}  # by their event loops; without one of asyncio, by their threads
        self._far: dict[str, list[Far]] = {}  # which of them have subscribers of a topic
        self._life = threading.Lock()  # held while somebody begins or ends to use it
        self._running = False
        self._closed = False
        self._up = False
        self._was_up = False
        self._beating: asyncio.TimerHandle | None = None
        self._telling = False
        self._answering: set[str] = set()
        self._followed: dict[str, _Followed] = {}
        self._mine: OrderedDict[tuple[str, int], Member | Token] = OrderedDict()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_up = asyncio.Event()
        self._gaps = self._refused = 0
        self._ended_totals = dict.fromkeys(TOTALS, 0)  # of parts that have ended
        self._lag = 0.0
        self._quiet: dict[str, tuple[float, int]] = {}

    def configure(
        self, pattern: str, *, history: History | None = None, presence: bool = False, conflate: bool = False
    ) -> None:
        """Say what holds for a topic, or for all whose names have a prefix; the longest one counts.

        The same must hold in all processes. To be called before the start.

        Args:
            pattern: a topic's name, or a prefix with ``*`` behind it.
            history: that messages are kept, numbered and delivered in one order everywhere; None for not.
            presence: that it is known everywhere who subscribed.
            conflate: that of the messages with the same key only the newest matters: it takes the place of one that is
                not sent yet.

        Raises:
            ValueError, TypeError: the pattern is not one, has a rule already, or `history` comes with `conflate`.
            InvalidState: it was started already.
        """
        if history is not None and not isinstance(history, History):
            raise TypeError(f"history must be a History or None, got {type(history).__name__}")
        for name, value in (("presence", presence), ("conflate", conflate)):
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be bool, got {type(value).__name__}")
        if history is not None and conflate:
            raise ValueError("a topic with a history delivers every message, which conflate does not")
        if self._loop is not None:
            raise InvalidState("topics are configured before they are started")
        self._rules.add(pattern, Rule(history, presence, conflate))

    # --- Life -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to work, on the running event loop; called once more, only count.

        It waits until the bus can reach other processes, but for no more than 3 s: then what is published reaches this
        process, `health` says ``"degraded"``, and the bus goes on trying.

        If it runs on another event loop, in another thread, this one takes part.

        Raises:
            InvalidState: it was closed, or was started on another event loop that does not run any more.
        """
        loop = asyncio.get_running_loop()
        if self._begin(loop, lambda: AsyncioSite(loop)):
            await self._start(loop)

    def _begin(self, key: object, site: Callable[[], Site]) -> bool:
        """Count one more who uses it on an event loop; tell whether that is the first of all."""
        with self._life:
            if self._closed:
                raise InvalidState("the topics are closed")
            part = self._parts.get(key)
            first = self._home is None
            if first:
                assert isinstance(key, asyncio.AbstractEventLoop)
                self._loop = key
                part = self._home = Home(self, site())
                self._turn, self._index = part.site.turn, part.index
            elif part is None:
                assert self._home is not None
                assert self._loop is not None
                if not self._loop.is_running():
                    raise InvalidState("the topics run on another event loop, which has ended, or does not run now")
                assert isinstance(self._home.site, AsyncioSite)
                part = Far(self, site(), self._home.site)
            assert part is not None
            self._parts[key] = part
            part.users += 1
            return first

    async def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._running = True
        await self._bus.start(_Link(self), self._origin)
        if not self._alone:
            self._bus.subscribe(CONTROL)
            self._beating = loop.call_later(_BEAT, self._beat)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FIRST):
                    await self._is_up.wait()

    async def close(self) -> None:
        """End, if nobody else who started it still uses it. What is pending is sent.

        On another event loop than the one that it runs on, only that loop's part ends, unless it is the last.
        """
        await self._close(asyncio.get_running_loop())

    async def _close(self, key: object) -> None:
        with self._life:
            part = self._parts.get(key)
            if part is None or not self._running:
                self._closed = self._closed or not self._running
                return
            part.users -= 1
            if part.users > 0:
                return
            part.users = 0
            last = not any(other.users for other in self._parts.values())
            if isinstance(part, Far):
                del self._parts[key]
                for name, total in part.totals.items():
                    self._ended_totals[name] += total
            if last:
                self._closed = True
        if isinstance(part, Far):
            part.end()
        if last:
            await part.run(self._end)

    async def _end(self) -> None:
        if not self._running:
            return
        assert self._home is not None
        self._take_some(whole=True)
        self._index.flush()
        if not self._alone:
            self._tell({"bye": 1})
        self._running = False
        self._closed = True
        if self._beating is not None:
            self._beating.cancel()
        for task in list(self._tasks):
            task.cancel()
        self._home.delivery.close()
        await self._bus.close()

    async def __aenter__(self) -> Self:
        """Start, and return itself."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    def _check_running(self) -> None:
        if not self._running:
            raise InvalidState("the topics are closed" if self._closed else "the topics are not started")

    def _here(self) -> Part:
        """Return the part of this thread's event loop."""
        if not self._running:
            self._check_running()
        assert self._home is not None
        try:
            self._turn.check_thread()
        except OtherThread:
            part = self._parts.get(asyncio._get_running_loop() or threading.get_ident())
            if part is None:
                raise
            return part
        return self._home

    # --- Subscribing, which `WebSocket` calls ---------------------------------------------------------------

    def subscribe(self, ws: WebSocket, topic: str, info: str | None = None) -> Awaitable[None]:
        """Subscribe a connection to a topic; see `WebSocket.subscribe`."""
        return self._here().subscribe(ws, topic, info)

    def unsubscribe(self, ws: WebSocket, topic: str) -> bool:
        """End a subscription; see `WebSocket.unsubscribe`."""
        if not self._running:
            check_name(topic)
            return False
        return self._here().unsubscribe(ws, topic)

    def _subscriptions(self) -> int:
        if len(self._parts) == 1:
            return self._index.subscriptions
        return sum(part.index.subscriptions for part in list(self._parts.values()))

    def _join(self, topic: str, rule: Rule) -> None:
        """Note that the first has subscribed in this process."""
        assert self._loop is not None
        if rule.history is not None:
            self._followed[topic] = followed = _Followed()
            self._incoming.join(topic, self._loop.time())
            self._bus.subscribe(topic)
            followed.task = self._spawn(self._catch_up(topic, followed))
        elif not self._alone:
            self._incoming.join(topic, self._loop.time())
            self._bus.subscribe(topic)

    def _leave(self, topic: str) -> None:
        """Note that the last has unsubscribed in this process."""
        followed = self._followed.pop(topic, None)
        if followed is not None and followed.task is not None:
            followed.task.cancel()
        if followed is not None or not self._alone:
            self._incoming.leave(topic)
            if self._running:
                self._bus.unsubscribe(topic)

    async def _settled(self, topic: str) -> None:
        await self._bus.settled()
        followed = self._followed.get(topic)
        if followed is not None and followed.position is None and followed.task is not None:
            await asyncio.wait([followed.task], timeout=10)

    # --- Publishing -----------------------------------------------------------------------------------------

    def publish(
        self,
        topic: str,
        message: str | BytesLike,
        *,
        key: str | None = None,
        text: bool | None = None,
        compress: bool | None = None,
    ) -> Awaitable[Position | None]:
        """Send a message to all who subscribed to a topic, in all processes.

        It is queued by the call, behind what was sent and published before, and goes out by the end of the loop's
        turn. What is to be done with a connection that has too much unsent is said by its `overflow`.

        Args:
            topic: the topic's name.
            message: `str` for a text message, bytes-like for a binary one.
            key: in a topic that conflates, which messages replace each other: those with the same key; at most 200
                bytes in UTF-8. Default: all of the topic.
            text: True sends bytes-like, which must be UTF-8, as text; False sends `str` as binary. Default: by type.
            compress: whether to compress it for this process' connections where that was agreed on; None leaves the
                choice to `compression`.

        Returns:
            An awaitable, which need not be awaited: it is done when the bus has taken the message, and its result is
            the message's `Position` in a topic with a history, else None.

        Raises:
            ValueError, TypeError, UnicodeError: the topic's name, the message or the key is not one.
            InvalidState: the topics are not started, or closed.
            RuntimeError: this is another thread than those of its event loops.
            BusUnavailable: by the awaitable: other processes may not get it.
        """
        return self._publish(topic, message, key, text, compress, None, self._here())

    def _publish(
        self,
        topic: str,
        message: str | BytesLike,
        key: str | None,
        text: bool | None,
        compress: bool | None,
        but: Member | None,
        part: Part,
    ) -> Awaitable[Position | None]:
        rule = self._known.get(topic) or self._rules.of(topic)
        if key is not None:
            if not isinstance(key, str):
                raise TypeError(f"key must be str or None, got {type(key).__name__}")
            if len(key.encode()) > _MAX_KEY:
                raise ValueError(f"key must have at most {_MAX_KEY} bytes in UTF-8, got {len(key.encode())}")
            if not rule.conflate:
                key = None
        mark = (topic, key) if rule.conflate else None
        return part.publish(topic, rule, Prepared(message, text, compress, mark), key, compress, but)

    def _publish_from(
        self,
        channel: Any,
        topic: str,
        message: str | BytesLike,
        key: str | None,
        text: bool | None,
        compress: bool | None,
    ) -> Awaitable[Position | None]:
        """Publish a message to all but one connection, whose channel it is; see `WebSocket.publish`."""
        part = self._here()
        part.check(channel)
        return self._publish(topic, message, key, text, compress, channel.member, part)

    def _send(self, topic: str, prepared: Prepared, key: str | None) -> Awaitable[None]:
        """Send a message without a history to other processes."""
        assert self._loop is not None
        if len(prepared.payload) > self._max_size:
            return self._too_large(prepared)
        number, first = self._outgoing.next(topic, self._loop.time())
        is_text = prepared.opcode is _TEXT
        data = self._sealer.seal(topic, self._origin, number, prepared.payload, text=is_text, first=first, key=key)
        return self._bus.publish(topic, data)

    def _store(
        self, topic: str, prepared: Prepared, history: History, but: Member | Token | None
    ) -> Awaitable[Position]:
        assert self._loop is not None
        if len(prepared.payload) > self._max_size:
            return self._too_large(prepared)
        number, first = self._outgoing.next(topic, self._loop.time(), settles=True)
        is_text = prepared.opcode is _TEXT
        data = self._sealer.seal(topic, self._origin, number, prepared.payload, text=is_text, first=first, key=None)
        if but is not None and topic in self._followed:
            self._mine[topic, number] = but
            if len(self._mine) > MAX_MINE:
                self._mine.popitem(last=False)
        return self._bus.store(topic, data, history.size, float(history.ttl))

    def _too_large(self, prepared: Prepared) -> Awaitable[Any]:
        size, limit = len(prepared.payload), self._max_size
        return given_up(f"the message has {size} bytes; from the bus {limit} are taken at most (max_size)")

    def _encoded(self, topic: str, prepared: Prepared, position: Position | None, compress: bool | None) -> Prepared:
        assert self._encode is not None
        message: str | bytes = prepared.payload
        if prepared.opcode is _TEXT:
            message = prepared.payload.decode()
        made = self._encode(topic, message, position)
        if not isinstance(made, (str, bytes)):
            raise TypeError(f"encode must return str or bytes, got {type(made).__name__}")
        return Prepared(made, None, compress, prepared.key)

    # --- Histories ------------------------------------------------------------------------------------------

    async def history(self, topic: str, since: Position | str | None = None) -> AsyncIterator[Published]:
        """Iterate over the messages that are kept of a topic, oldest first, up to the newest.

        Args:
            topic: a topic with a history.
            since: the place after which to begin, or what `str` made of it; None for the oldest that is kept.

        Raises:
            NotRecovered: some that came after `since` are not kept any more.
            ValueError, TypeError: the topic has no history, or `since` is not a position.
            BusUnavailable: it cannot be read.
        """
        async for published in self._history(self._here(), topic, since):
            yield published

    async def _history(self, part: Part, topic: str, since: Position | str | None) -> AsyncIterator[Published]:
        position = self._checked_since(topic, since)
        seen: dict[int, int] = {}
        while True:
            page, position, more = await part.run(functools.partial(self._page, topic, position, seen))
            for published in page:
                yield published
            if not more:
                return

    async def _page(
        self, topic: str, position: Position | None, seen: dict[int, int]
    ) -> tuple[list[Published], Position | None, bool]:
        """Read some messages of a history, whose latest numbers are put into `seen`."""
        reading = await self._bus.read(topic, position)
        if position is not None and not reading.complete:
            raise NotRecovered(f"messages of {topic!r} after {position} are not kept any more")
        page = []
        for stored in reading.messages:
            envelope = self._opened(topic, stored.data)
            position = stored.position
            if envelope is not None and seen.get(envelope.origin, 0) < envelope.number:
                seen[envelope.origin] = envelope.number
                page.append(Published(envelope.payload.decode() if envelope.text else envelope.payload, position))
        return page, position, bool(reading.messages) and position != reading.position

    async def _read(self, topic: str, after: Position | None) -> tuple[Reading, Position | None]:
        """Read a history, and return also which place its delivery in this process has come to."""
        reading = await self._bus.read(topic, after)
        followed = self._followed.get(topic)
        return reading, None if followed is None else followed.position

    async def recover(self, ws: WebSocket, topic: str, since: Position | str | None, info: str | None = None) -> int:
        """Send a connection what it missed, and subscribe it; see `WebSocket.recover`."""
        part = self._here()
        return await part.recover(ws, topic, self._checked_since(topic, since), info)

    def _checked_since(self, topic: str, since: Position | str | None) -> Position | None:
        if self._rules.of(topic).history is None:
            raise ValueError(f"{topic!r} has no history; see Topics.configure")
        if since is None:
            return None
        if not isinstance(since, (str, Position)):
            raise TypeError(f"since must be a Position, str or None, got {type(since).__name__}")
        return Position.parse(str(since))  # a position, too, may be made of what a client sent

    async def _catch_up(self, topic: str, followed: _Followed) -> None:
        """Find out where a history stands, or deliver what is missing from it."""
        try:
            while self._running:
                try:
                    if followed.position is None:
                        await self._bus.settled()
                        reading = await self._bus.read(topic, None, 1)
                        if followed.position is None:
                            followed.position = reading.position
                        if not followed.behind:
                            return
                        continue
                    before = followed.position
                    reading = await self._bus.read(topic, before)
                except BusUnavailable:
                    # It is read when the bus is up again; `_catch_up_all` does that.
                    return
                if followed.position != before:
                    continue
                self._take_reading(topic, followed, before, reading)
                newest = followed.newest
                done = newest is None or (
                    newest.epoch == followed.position.epoch and newest.offset <= followed.position.offset
                )
                if done and (not reading.messages or followed.position == reading.position):
                    return
                if not reading.messages and newest is not None and newest.epoch != reading.position.epoch:
                    return
        finally:
            if followed.task is asyncio.current_task():
                followed.task = None
                followed.newest = None
                followed.behind = False

    def _take_reading(self, topic: str, followed: _Followed, before: Position, reading: Any) -> None:
        assert self._home is not None
        if not reading.complete:
            first = reading.messages[0].position if reading.messages else reading.position
            if first.epoch == before.epoch:
                self._told(Gap(topic, max(0, first.offset - before.offset - 1) or None))
            elif first.offset > 1 or (first.offset and not reading.messages):
                self._told(Gap(topic, None))
            # A new epoch whose first message is there: what was lost of the old one, if anything, the tails tell.
        followed.position = reading.position if not reading.messages else before
        for stored in reading.messages:
            followed.position = stored.position
            envelope = self._opened(topic, stored.data)
            if envelope is None:
                continue
            accepted = self._incoming.accept(topic, envelope.origin, envelope.number, envelope.first, ordered=True)
            if accepted is not None:
                self._home.recovered += 1
                self._deliver(topic, envelope, stored.position)

    async def _catch_up_all(self) -> None:
        """After an interruption: see that nothing is missing in any history."""
        waiting = list(self._followed.items())
        for i in range(0, len(waiting), _CATCHING):
            tasks = []
            for topic, followed in waiting[i : i + _CATCHING]:
                if self._followed.get(topic) is followed and followed.task is None:
                    followed.behind = followed.position is not None
                    followed.task = self._spawn(self._catch_up(topic, followed))
                    tasks.append(followed.task)
            if tasks:
                await asyncio.wait(tasks)

    # --- Presence -------------------------------------------------------------------------------------------

    def present(self, topic: str) -> list[Present]:
        """Return who is present in a topic, in all processes, as far as this one knows.

        Args:
            topic: a topic with presence.

        Raises:
            ValueError, TypeError: it has none, or its name is not one.
        """
        if not self._rules.of(topic).presence:
            raise ValueError(f"{topic!r} has no presence; see Topics.configure")
        with self._presence_lock:
            return self._presence.present(topic)

    def _presence_changed(self, topic: str, present: Present, came: bool) -> None:
        """Note who came or left in this process; the others are told at the end of the turn."""
        if self._alone:
            with self._presence_lock:
                self._presence.changes()
        elif not self._telling and self._running:
            assert self._loop is not None
            self._telling = True
            self._loop.call_soon(self._tell_presence)
        self._tell_user(topic, present, came)

    def _tell_user(self, topic: str, present: Present, came: bool) -> None:
        if self.on_presence is not None:
            try:
                self.on_presence(topic, present, came)
            except Exception as exc:
                self._logger.error("on_presence raised", exc_info=exc)

    def _tell_presence(self) -> None:
        self._telling = False
        with self._presence_lock:
            contents = self._presence.changes()
        if self._running and self._up:  # else all is told when the bus is up again
            for content in contents:
                self._tell(content)

    # --- Other processes ------------------------------------------------------------------------------------

    def _tell(self, content: dict[str, Any]) -> None:
        self._bus.publish(CONTROL, self._sealer.seal_control(self._origin, content))

    def _beat(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        self._beating = self._loop.call_later(_BEAT, self._beat)
        if not self._up:
            return
        contents = self._outgoing.tails(now)
        contents[0]["at"] = now
        self._tell_presence()
        contents[0]["version"] = self._presence.version
        for content in contents:
            self._tell(content)
        for origin in self._incoming.silent(now, _DEAD):
            self._ended(origin)
        self._incoming.sweep(now)
        for gap in self._incoming.check(now):
            self._told(gap)

    def _received(self, topic: str, data: bytes, position: Position | None) -> None:
        if not self._running:
            return
        try:
            if topic == CONTROL:
                self._control(*self._sealer.open_control(data))
                return
            envelope = self._sealer.open(topic, data)
            rule = self._known.get(topic) or self._rules.of(topic)
        except ValueError as exc:
            self._refuse(topic, exc)
            return
        if position is not None:
            self._take_stored(topic, envelope, position)
            return
        if envelope.origin == self._origin:
            return
        if rule.history is not None:
            self._refuse(topic, BadEnvelope("it has no position, and the topic has a history here"))
            return
        missed = self._incoming.accept(topic, envelope.origin, envelope.number, envelope.first)
        if missed is None:
            return
        if missed:
            self._told(Gap(topic, missed))
        self._deliver(topic, envelope, None)

    def _take_stored(self, topic: str, envelope: Envelope, position: Position) -> None:
        followed = self._followed.get(topic)
        if followed is None:
            return
        if followed.behind:
            followed.newest = position
            return
        base = followed.position
        if base is not None:
            if position.epoch == base.epoch and position.offset <= base.offset:
                self._incoming.duplicates += 1
                return
            if position.epoch != base.epoch or position.offset != base.offset + 1:
                followed.newest = position
                followed.behind = True
                if followed.task is None:
                    followed.task = self._spawn(self._catch_up(topic, followed))
                return
        followed.position = position
        accepted = self._incoming.accept(topic, envelope.origin, envelope.number, envelope.first, ordered=True)
        if accepted is not None:
            self._deliver(topic, envelope, position)

    def _deliver(self, topic: str, envelope: Envelope, position: Position | None) -> None:
        if not self._index.count(topic) and topic not in self._far:
            return
        but = None
        if envelope.origin == self._origin:
            but = self._mine.pop((topic, envelope.number), None)
        try:
            prepared = self._prepared(topic, envelope, position)
        except Exception as exc:
            self._logger.error("encode raised for a message of %r", topic, exc_info=exc)
            return
        token, member = (but, None) if isinstance(but, Token) else (None, but)
        self._index.publish(topic, prepared, member)
        if self._far:
            self._hand_on(topic, prepared, token, position)

    def _prepared(self, topic: str, envelope: Envelope, position: Position | None) -> Prepared:
        rule = self._known.get(topic) or self._rules.of(topic)
        mark = (topic, envelope.key) if rule.conflate else None
        prepared = Prepared(envelope.payload, envelope.text, None, mark)
        return prepared if self._encode is None else self._encoded(topic, prepared, position, None)

    def _opened(self, topic: str, data: bytes) -> Envelope | None:
        try:
            return self._sealer.open(topic, data)
        except BadEnvelope as exc:
            self._refuse(topic, exc)
            return None

    def _control(self, origin: int, content: dict[str, Any]) -> None:
        assert self._loop is not None
        now = self._loop.time()
        if origin == self._origin:
            at = content.get("at")
            if isinstance(at, float):
                self._lag = max(0.0, now - at)
            return
        if "bye" in content:
            self._ended(origin)
            return
        new = self._incoming.heard(origin, now)
        if "tail" in content:
            number, entries, version = content["tail"], content.get("of"), content.get("version")
            if type(number) is not int or not isinstance(entries, list):
                raise BadEnvelope("a tail must have a number and a list")
            if self._incoming.tail(origin, number, entries, now):
                self._ask("tails")
            if type(version) is int and (new or self._presence.is_behind(origin, version)):
                self._ask("presence")
        elif "presence" in content:
            with self._presence_lock:
                missing, happened = self._presence.take_in(origin, content)
            for topic, present, came in happened:
                self._tell_user(topic, present, came)
            if missing:
                self._ask("presence")
        elif content.get("ask") in ("tails", "presence"):
            self._answer(content["ask"])

    def _ask(self, what: str) -> None:
        """Ask the others for all they have to tell, at most once in a beat."""
        self._later("ask " + what, lambda: self._tell({"ask": what}))

    def _answer(self, what: str) -> None:
        self._later(what, lambda: self._tell_all(what))

    def _later(self, name: str, call: Callable[[], None]) -> None:
        """Call something soon, unless that is to happen already; what is asked meanwhile is answered by the same."""
        assert self._loop is not None
        if name in self._answering:
            return
        self._answering.add(name)

        def run() -> None:
            self._answering.discard(name)
            if self._running and self._up:
                call()

        self._loop.call_later(0.05, run)

    def _tell_all(self, what: str) -> None:
        assert self._loop is not None
        if what == "tails":
            contents = self._outgoing.tails(self._loop.time(), whole=True)
        else:
            self._tell_presence()
            with self._presence_lock:
                contents = self._presence.all()
        for content in contents:
            self._tell(content)

    def _ended(self, origin: int) -> None:
        """Take note that another process has ended, or is taken to have."""
        self._incoming.forget(origin)
        with self._presence_lock:
            happened = self._presence.forget(origin)
        for topic, present, came in happened:
            self._tell_user(topic, present, came)

    def _state_changed(self, up: bool, why: str) -> None:
        if up == self._up or not self._running:
            return
        self._up = up
        if up:
            self._is_up.set()
        if self._alone:
            return
        assert self._loop is not None
        self._logger.log(logging.INFO if up else logging.WARNING, "bus is %s: %s", "up" if up else "down", words(why))
        if not up:
            return
        self._incoming.restarted(self._loop.time())
        self._ask("presence")
        self._answer("presence")
        if self._was_up:
            self._ask("tails")
            self._answer("tails")
            self._spawn(self._catch_up_all())
        self._was_up = True

    def _told(self, gap: Gap) -> None:
        """Tell the user of a loss."""
        self._gaps += 1
        self._log_quietly("gap", "messages were lost in %a: %s", gap.topic, gap.missed or "an unknown number")
        if self.on_gap is not None:
            try:
                self.on_gap(gap)
            except Exception as exc:
                self._logger.error("on_gap raised", exc_info=exc)

    def _refuse(self, topic: str, exc: ValueError) -> None:
        self._refused += 1
        self._log_quietly("refused", "a message from the bus in %a was dropped: %s", topic, words(exc))

    def _log_quietly(self, kind: str, text: str, *args: object) -> None:
        """Log a line, but not more than one of its kind in a second; the next tells how many were not."""
        assert self._loop is not None
        now = self._loop.time()
        since, left_out = self._quiet.get(kind, (-_QUIET, 0))
        if now - since < _QUIET:
            self._quiet[kind] = (since, left_out + 1)
            return
        self._quiet[kind] = (now, 0)
        more = f" (and {left_out} more before)" if left_out else ""
        self._logger.warning(text + more, *args)

    def _spawn(self, running: Any) -> asyncio.Task[Any]:
        assert self._loop is not None
        task: asyncio.Task[Any] = self._loop.create_task(running)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)
        return task

    def _spawned(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._logger.error("topics: an internal task failed", exc_info=task.exception())

    # --- Parts on other event loops, which call these at home ------------------------------------------------

    def _hand_on(
        self,
        topic: str,
        shared: Prepared,
        but: Token | None = None,
        position: Position | None = None,
        besides: Far | None = None,
    ) -> None:
        """Hand a message to the parts that have subscribers of its topic, besides one."""
        for part in self._far.get(topic, ()):
            if part is not besides:
                part.hand(topic, shared, but, position)

    def _take_in(self, calls: list[tuple[Callable[..., object], tuple[Any, ...]]]) -> None:
        self._calls.extend(calls)
        if not self._taking:
            self._taking = True
            self._take_some()

    def _take_some(self, whole: bool = False) -> None:
        """Do what other threads have posted, in order, for 5 ms at most; go on in the next turn."""
        assert self._loop is not None
        end = time.perf_counter() + _SLICE
        count = 0
        while self._calls:
            call, arguments = self._calls.popleft()
            try:
                call(*arguments)
            except Exception as exc:
                self._logger.error("topics: a call of another thread failed", exc_info=exc)
            count += 1
            if not whole and not count % _LOOK and time.perf_counter() > end:
                self._loop.call_soon(self._take_some)
                return
        self._taking = False

    def _far_published(
        self,
        part: Far,
        topic: str,
        rule: Rule,
        prepared: Prepared,
        shared: Prepared,
        key: str | None,
        but: Token | None,
        posted: Posted,
    ) -> None:
        part.taken(prepared.payload)
        if not self._running:
            return
        posted.taken = _TAKEN
        if rule.history is not None:
            posted.taken = self._store(topic, prepared, rule.history, but)
            return
        self._index.publish(topic, shared)
        self._hand_on(topic, shared, besides=part)
        if not self._alone:
            posted.taken = self._send(topic, prepared, key)

    def _far_joined(self, part: Far, topic: str, rule: Rule) -> None:
        parts = self._far.setdefault(topic, [])
        parts.append(part)
        if len(parts) == 1 and not self._index.count(topic) and self._running:
            self._join(topic, rule)

    def _far_emptied(self, part: Far, topic: str) -> None:
        parts = self._far.get(topic)
        if parts is None or part not in parts:
            return
        parts.remove(part)
        if not parts:
            del self._far[topic]
            if not self._index.count(topic):
                self._leave(topic)

    def _far_ended(self, part: Far) -> None:
        for topic in [topic for topic, parts in self._far.items() if part in parts]:
            self._far_emptied(part, topic)

    # --- What can be seen ------------------------------------------------------------------------------------

    @property
    def health(self) -> str:
        """``"up"``; ``"degraded"`` while the bus cannot reach other processes; ``"closed"`` if it does not run."""
        if not self._running:
            return "closed"
        return "up" if self._up else "degraded"

    @property
    def counters(self) -> dict[str, int | float]:
        """Totals since the start, as a new dict.

        ``topics`` and ``subscriptions`` of this process now; ``publishes`` by it, ``deliveries`` to its connections and
        the ``writes`` that they took, ``conflated`` messages that a newer one replaced, and those ``dropped`` because a
        connection had too much unsent; ``gaps`` that were told, ``duplicates`` from the bus, messages ``recovered``
        from histories, and those ``refused`` because they were malformed; ``bus_lag``, the seconds of the last round
        trip over the bus, 0 where it does not return what was sent; its ``reconnects``, and the bytes in its
        ``outbox``.
        """
        with self._life:
            parts = list(self._parts.values())
            totals = Counter(self._ended_totals)
        for part in parts:
            totals.update(part.totals)
        totals["dropped"] += self._dropped
        names: set[str] = set()
        for part in parts if len(parts) > 1 else ():
            names.update(part.index.topics.copy())
        return {
            "topics": len(names) if len(parts) > 1 else sum(len(part.index.topics) for part in parts),
            "subscriptions": sum(part.index.subscriptions for part in parts),
            **totals,
            "gaps": self._gaps,
            "duplicates": self._incoming.duplicates,
            "refused": self._refused,
            "bus_lag": self._lag,
            "reconnects": 0,
            "outbox": 0,
            **self._bus.counters,
        }


class _Link:
    """What the bus calls: some methods of `Topics`."""

    __slots__ = ("process_ended", "received", "state_changed")

    def __init__(self, topics: Topics) -> None:
        self.received: Callable[[str, bytes, Position | None], None] = topics._received
        self.state_changed: Callable[[bool, str], None] = topics._state_changed
        self.process_ended: Callable[[int], None] = topics._ended
