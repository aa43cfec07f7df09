"""The implementation behind `Topics`: the parts of its event loops, publishing, and what comes from the bus.

Users call `Topics`; the parts, and servers in threads and on trio, call `Hub`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import threading
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final

from ..asyncio.broadcast import Prepared
from ..bus.interface import Bus, Position
from ..bus.local import LocalBus
from ..bus.memory import MemoryBus, Taken
from ..bus.outbox import given_up
from ..bus.watch import watch_workers
from ..codes import Opcode
from ..escape import words
from ..events import BytesLike
from ..exceptions import InvalidState
from ..telling import tell
from ..transport.loops import OtherThread
from .envelope import CONTROL, BadEnvelope, Envelope, Sealer
from .histories import Histories, Published
from .inbox import Call, Inbox
from .index import Index, Member
from .numbers import Gap, Incoming, Outgoing
from .others import Others
from .part import MAX_MINE, TOTALS, AsyncioSite, Far, Home, Part, Posted, Site, Token
from .presence import Presence, Present
from .reports import Hooks, Reports
from .rules import History, Rule, Rules, check_name

if TYPE_CHECKING:
    from ..asyncio.websocket import WebSocket

__all__ = ["Hub"]

_FIRST: Final = 3.0
"""Seconds for which a start waits for the bus to be up."""
_MAX_KEY: Final = 200
_TAKEN: Final = Taken()
_TEXT: Final = Opcode.TEXT  # in Python 3.11, to get a member from its class takes a call


class Hub:
    """The topics of one process. The arguments are those of `Topics`, checked.

    It belongs to the event loop on which it was begun first, its home. Unless told otherwise, methods are called in the
    thread of that loop.

    Args:
        hooks: who has `on_gap` and `on_presence`.

    Attributes:
        alone: whether there is no bus.
        rules: those of the topics.
        presence, histories, reports: who is present, what is kept, what the user is told.
        loop, turn, index, home: the event loop that it runs on, with what it has for connections there; set at the
            start.
        parts: what each event loop has, by the loop; without one of asyncio, by its thread.
        far: which of them, besides home, have subscribers of a topic.
        running, closed: where in its life it is.
        dropped: how many messages other threads were too far behind for.
    """

    def __init__(
        self,
        bus: Bus | None,
        authorize: Callable[[WebSocket, str], bool] | None,
        encode: Callable[[str, str | bytes, Position | None], str | bytes] | None,
        key: bytes | None,
        max_topics: int,
        max_subscriptions: int,
        max_size: int,
        hooks: Hooks,
        logger: logging.Logger | logging.LoggerAdapter[Any] | None,
    ) -> None:
        self.alone: bool = bus is None
        self.authorize = authorize
        self.encode = encode
        self.max_topics: int = max_topics
        self.max_subscriptions: int = max_subscriptions
        self.logger: Any = logging.getLogger("wsfast.topics") if logger is None else logger
        self.rules: Rules = Rules()
        self.origin: int = secrets.randbits(63) | 1
        self.presence: Presence = Presence(self.origin)
        self.reports: Reports = Reports(hooks, self.logger)
        self.running: bool = False
        self.closed: bool = False
        self.dropped: int = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self.turn: Any
        self.index: Index
        self.home: Home | None = None
        self.parts: dict[object, Part] = {}
        self.far: dict[str, list[Far]] = {}
        self._bus: Bus = MemoryBus() if bus is None else bus
        self._watch: LocalBus | None = None
        self._max_size = max_size
        self._sealer = Sealer(max_size, key)
        self._outgoing = Outgoing()
        self._incoming = Incoming(self.origin)
        self.histories: Histories = Histories(
            self._bus, self._incoming, self.reports, self.opened, self._deliver, self._spawn
        )
        self._others: Others
        self._inbox: Inbox
        self._life = threading.Lock()  # held while somebody begins or ends to use it
        self._up: bool | None = None  # as the bus has told
        self._was_up = asyncio.Event()  # set once it was
        self._mine: OrderedDict[tuple[str, int], Member | Token] = OrderedDict()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ended_totals = dict.fromkeys(TOTALS, 0)  # of parts that have ended

    # --- Life -----------------------------------------------------------------------------------------------

    async def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to use it on the running event loop; the first also starts the bus, and waits for 3 s for it to be up.

        Raises:
            InvalidState: it was closed, or was started on another event loop that does not run any more.
        """
        if not self.begin(loop, lambda: AsyncioSite(loop)):
            return
        self.running = True
        try:
            await self._bus.start(self, self.origin)
            if not self.alone:
                self._others.begin()
                await self._begin_watch()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_FIRST):
                        await self._was_up.wait()
                if self._up is None:
                    self.state_changed(False, f"others were not reached within {_FIRST:g} s")
        except Exception:
            self._unsettle()  # the bus does not run, or not for these topics
            raise
        except BaseException:
            await self.close(loop)  # it was cancelled, and nobody would end what runs already
            raise

    async def _begin_watch(self) -> None:
        """Have the ends of other workers told at once, where the bus cannot: else they are noticed by their silence."""
        if not self.rules.presence or isinstance(self._bus, LocalBus):
            return
        try:
            self._watch = await watch_workers(self.origin, self.process_ended)
        except OSError as exc:  # this process has changed its user, for one
            tell(self.logger.warning, "other workers of this host cannot be watched: %s", exc)

    def begin(self, key: object, site: Callable[[], Site]) -> bool:
        """Count one more user on an event loop, in that loop's thread; tell whether it is the first of all.

        Args:
            key: the event loop, or what stands for it in `parts`.
            site: makes the loop's site, if it has no part yet.
        """
        with self._life:
            if self.closed:
                raise InvalidState("the topics are closed")
            part = self.parts.get(key)
            first = self.home is None
            if first:
                assert isinstance(key, asyncio.AbstractEventLoop)
                part = self._settle(key, site())
            elif part is None:
                assert self.home is not None
                assert self.loop is not None
                if not self.loop.is_running():
                    raise InvalidState("the topics run on another event loop, which has ended, or does not run now")
                assert isinstance(self.home.site, AsyncioSite)
                part = Far(self, site(), self.home.site)
            assert part is not None
            self.parts[key] = part
            part.users += 1
            return first

    def _settle(self, loop: asyncio.AbstractEventLoop, site: Site) -> Part:
        """Make an event loop the home."""
        self.loop = loop
        self.home = home = Home(self, site)
        self.turn, self.index = site.turn, home.index
        self._inbox = Inbox(loop, self.logger)
        self._others = Others(
            loop,
            None if self.alone else self._bus,
            self._sealer,
            self.origin,
            self._outgoing,
            self._incoming,
            self.presence,
            self.reports,
            self.missed,
        )
        return home

    def _unsettle(self) -> None:
        """Undo the first start, which has failed."""
        with self._life:
            self.running = False
            self.loop = self.home = None
            self.parts.clear()

    async def close(self, key: object) -> None:
        """Count one user less on an event loop, in that loop's thread; the last one ends all.

        Args:
            key: as for `begin`.
        """
        with self._life:
            part = self.parts.get(key)
            if part is None or not self.running:
                self.closed = self.closed or not self.running
                return
            part.users -= 1
            if part.users > 0:
                return
            part.users = 0
            last = not any(other.users for other in self.parts.values())
            if isinstance(part, Far):
                del self.parts[key]
                for name, total in part.totals.items():
                    self._ended_totals[name] += total
            if last:
                self.closed = True
        if isinstance(part, Far):
            part.end()
        if last:
            await part.run(self._end)

    async def _end(self) -> None:
        if not self.running:
            return
        assert self.home is not None
        self._inbox.empty()
        self.index.flush()
        self._others.end()
        self.running = False
        self.closed = True
        for task in list(self._tasks):
            task.cancel()
        self.home.delivery.close()
        await asyncio.gather(*(bus.close() for bus in (self._bus, self._watch) if bus is not None))

    def check_running(self) -> None:
        """Raise InvalidState unless it is started, and not closed; in any thread."""
        if not self.running:
            raise InvalidState("the topics are closed" if self.closed else "the topics are not started")

    def here(self) -> Part:
        """Return the part of this thread's event loop.

        Raises:
            InvalidState: it is not running.
            RuntimeError: this thread has none.
        """
        if not self.running:
            self.check_running()
        assert self.home is not None
        try:
            self.turn.check_thread()
        except OtherThread:
            part = self.parts.get(asyncio._get_running_loop() or threading.get_ident())
            if part is None:
                raise
            return part
        return self.home

    def _spawn(self, running: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self.loop is not None
        task: asyncio.Task[None] = self.loop.create_task(running)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)
        return task

    def _spawned(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            tell(self.logger.error, "topics: an internal task failed", exc_info=task.exception())

    # --- Subscriptions --------------------------------------------------------------------------------------

    def subscriptions(self) -> int:
        """Return how many there are in this process; in any thread."""
        if len(self.parts) == 1:
            return self.index.subscriptions
        return sum(part.index.subscriptions for part in list(self.parts.values()))

    def join(self, topic: str, rule: Rule) -> None:
        """Note that the first has subscribed in this process."""
        assert self.loop is not None
        now = self.loop.time()
        if rule.history is not None:
            self.histories.join(topic, now)
        elif not self.alone:
            self._incoming.join(topic, now)
            self._bus.subscribe(topic)

    def leave(self, topic: str) -> None:
        """Note that the last has unsubscribed in this process."""
        if topic not in self.histories and self.alone:
            return
        self.histories.leave(topic)
        self._incoming.leave(topic)
        if self.running:
            self._bus.unsubscribe(topic)

    async def settled(self, topic: str) -> None:
        """Wait until a subscription is in force everywhere."""
        await self._bus.settled()
        await self.histories.settled(topic)

    def moved(self, topic: str, present: Present, came: bool) -> None:
        """Note who came or left in this process."""
        self._others.moved()
        self.reports.moved(topic, present, came)

    # --- Publishing -----------------------------------------------------------------------------------------

    def publish(
        self,
        topic: str,
        message: str | BytesLike,
        key: str | None,
        text: bool | None,
        compress: bool | None,
        but: Member | None,
        part: Part,
    ) -> Awaitable[Position | None]:
        """Send a message to all but one, in the thread of a part; the rest is as for `Topics.publish`."""
        if type(topic) is not str:
            topic = check_name(topic)
        rule = self.rules.known[topic]
        if key is not None:
            if not isinstance(key, str):
                raise TypeError(f"key must be str or None, got {type(key).__name__}")
            if len(key.encode()) > _MAX_KEY:
                raise ValueError(f"key must have at most {_MAX_KEY} bytes in UTF-8, got {len(key.encode())}")
            if not rule.conflate:
                key = None
        mark = (topic, key) if rule.conflate else None
        return part.publish(topic, rule, Prepared(message, text, compress, mark), key, compress, but)

    def publish_from(
        self,
        channel: Any,
        topic: str,
        message: str | BytesLike,
        key: str | None,
        text: bool | None,
        compress: bool | None,
    ) -> Awaitable[Position | None]:
        """Send a message to all but the connection whose channel it is, in its thread."""
        part = self.here()
        part.check(channel)
        return self.publish(topic, message, key, text, compress, channel.member, part)

    def send(self, topic: str, prepared: Prepared, key: str | None) -> Awaitable[None]:
        """Send a message without a history to other processes."""
        assert self.loop is not None
        if len(prepared.payload) > self._max_size:
            return self._too_large(prepared)
        number, first = self._outgoing.next(topic, self.loop.time())
        is_text = prepared.opcode is _TEXT
        data = self._sealer.seal(topic, self.origin, number, prepared.payload, text=is_text, first=first, key=key)
        return self._bus.publish(topic, data)

    def store(
        self, topic: str, prepared: Prepared, history: History, but: Member | Token | None
    ) -> Awaitable[Position]:
        """Put a message into its topic's history, from which it reaches all but one, in order."""
        assert self.loop is not None
        if len(prepared.payload) > self._max_size:
            return self._too_large(prepared)
        number, first = self._outgoing.next(topic, self.loop.time(), settles=True)
        is_text = prepared.opcode is _TEXT
        data = self._sealer.seal(topic, self.origin, number, prepared.payload, text=is_text, first=first, key=None)
        if but is not None and topic in self.histories:
            self._mine[topic, number] = but
            if len(self._mine) > MAX_MINE:
                self._mine.popitem(last=False)
        return self._bus.store(topic, data, history.size, float(history.ttl))

    def _too_large(self, prepared: Prepared) -> Awaitable[Any]:
        size, limit = len(prepared.payload), self._max_size
        return given_up(f"the message has {size} bytes; from the bus {limit} are taken at most (max_size)")

    def encoded(self, topic: str, prepared: Prepared, position: Position | None, compress: bool | None) -> Prepared:
        """Return what `encode` makes of a message."""
        assert self.encode is not None
        message: str | bytes = prepared.payload
        if prepared.opcode is _TEXT:
            message = prepared.payload.decode()
        made = self.encode(topic, message, position)
        if not isinstance(made, (str, bytes)):
            if asyncio.iscoroutine(made):
                made.close()
            raise TypeError(f"encode must return str or bytes, got {type(made).__name__}")
        return Prepared(made, None, compress, prepared.key)

    # --- Histories ------------------------------------------------------------------------------------------

    async def history(self, part: Part, topic: str, since: Position | str | None) -> AsyncIterator[Published]:
        """Iterate over what is kept of a topic, in the thread of a part; the rest is as for `Topics.history`."""
        topic = check_name(topic)
        position = self.checked_since(topic, since)
        seen: dict[int, int] = {}
        while True:
            page, position, more = await part.run(functools.partial(self.histories.page, topic, position, seen))
            for published in page:
                yield published
            if not more:
                return

    def checked_since(self, topic: str, since: Position | str | None) -> Position | None:
        """Return a place in a topic's history; in any thread.

        Raises:
            ValueError, TypeError: the topic has no history, or `since` is not a position.
        """
        if self.rules.of(topic).history is None:
            raise ValueError(f"{topic!r} has no history; see Topics.configure")
        if since is None:
            return None
        if not isinstance(since, (str, Position)):
            raise TypeError(f"since must be a Position, str or None, got {type(since).__name__}")
        return Position.parse(str(since))  # a position, too, may be made of what a client sent

    # --- What the bus calls ---------------------------------------------------------------------------------

    def received(self, topic: str, data: bytes, position: Position | None) -> None:
        """Take a message from the bus; see `Receiver`."""
        if not self.running:
            return
        try:
            if topic == CONTROL:
                self._others.heard(*self._sealer.open_control(data))
                return
            envelope = self._sealer.open(topic, data)
            rule = self.rules.known[topic]
        except ValueError as exc:
            self.reports.refuse(topic, exc)
            return
        if position is not None:
            self.histories.take(topic, envelope, position)
            return
        if envelope.origin == self.origin:
            return
        if rule.history is not None:
            self.reports.refuse(topic, BadEnvelope("it has no position, and the topic has a history here"))
            return
        missed = self._incoming.accept(topic, envelope.origin, envelope.number, envelope.first)
        if missed is None:
            return
        if missed:
            self.reports.lost(Gap(topic, missed))
        self._deliver(topic, envelope, None)

    def state_changed(self, up: bool, why: str) -> None:
        """Take note of whether the bus can reach others; see `Receiver`."""
        if up == self._up or not self.running:
            return
        self._up, again = up, self._was_up.is_set()
        if up:
            self._was_up.set()
        if self.alone:
            return
        level = logging.INFO if up else logging.WARNING
        tell(self.logger.log, level, "bus is %s: %s", "up" if up else "down", words(why))
        self._others.reached(up, again)
        if up and again:
            self._spawn(self.histories.catch_up())

    def missed(self, topics: Iterable[str]) -> None:
        """Take note that messages of some topics may have been missed; see `Receiver`."""
        if self.running and self._up:
            self._spawn(self.histories.catch_up(topics))

    def process_ended(self, origin: int) -> None:
        """Take note that another process has ended; see `Receiver`."""
        self._others.ended(origin)

    def opened(self, topic: str, data: bytes) -> Envelope | None:
        """Return the envelope that bytes from the bus hold; None, which is logged, if they are not one."""
        try:
            return self._sealer.open(topic, data)
        except BadEnvelope as exc:
            self.reports.refuse(topic, exc)
            return None

    def prepared(self, topic: str, envelope: Envelope, position: Position | None) -> Prepared:
        """Return what is sent to subscribers of a message."""
        rule = self.rules.known[topic]
        mark = (topic, envelope.key) if rule.conflate else None
        prepared = Prepared(envelope.payload, envelope.text, None, mark)
        return prepared if self.encode is None else self.encoded(topic, prepared, position, None)

    def _deliver(self, topic: str, envelope: Envelope, position: Position | None) -> None:
        if not self.index.count(topic) and topic not in self.far:
            return
        but = None
        if envelope.origin == self.origin:
            but = self._mine.pop((topic, envelope.number), None)
        try:
            prepared = self.prepared(topic, envelope, position)
        except Exception as exc:
            tell(self.logger.error, "encode raised for a message of %r", topic, exc_info=exc)
            return
        token, member = (but, None) if isinstance(but, Token) else (None, but)
        self.index.publish(topic, prepared, member)
        if self.far:
            self.hand_on(topic, prepared, token, position)

    # --- Parts on other event loops -------------------------------------------------------------------------

    def hand_on(
        self,
        topic: str,
        shared: Prepared,
        but: Token | None = None,
        position: Position | None = None,
        besides: Far | None = None,
    ) -> None:
        """Hand a message to the parts that have subscribers of its topic, besides one."""
        for part in self.far.get(topic, ()):
            if part is not besides:
                part.hand(topic, shared, but, position)

    def take_in(self, calls: list[Call]) -> None:
        """Take calls that a part on another event loop has posted."""
        self._inbox.take(calls)

    def far_published(
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
        """Take a message that was published on another event loop, and delivered there."""
        part.taken(prepared.payload)
        if not self.running:
            return
        posted.taken = _TAKEN
        if rule.history is not None:
            posted.taken = self.store(topic, prepared, rule.history, but)
            return
        self.index.publish(topic, shared)
        self.hand_on(topic, shared, besides=part)
        if not self.alone:
            posted.taken = self.send(topic, prepared, key)

    def far_joined(self, part: Far, topic: str, rule: Rule) -> None:
        """Note that the first has subscribed on another event loop."""
        parts = self.far.setdefault(topic, [])
        parts.append(part)
        if len(parts) == 1 and not self.index.count(topic) and self.running:
            self.join(topic, rule)

    def far_emptied(self, part: Far, topic: str) -> None:
        """Note that the last has unsubscribed on another event loop."""
        parts = self.far.get(topic)
        if parts is None or part not in parts:
            return
        parts.remove(part)
        if not parts:
            del self.far[topic]
            if not self.index.count(topic):
                self.leave(topic)

    def far_ended(self, part: Far) -> None:
        """Note that a part on another event loop has ended."""
        for topic in [topic for topic, parts in self.far.items() if part in parts]:
            self.far_emptied(part, topic)

    # --- What can be seen ------------------------------------------------------------------------------------

    @property
    def health(self) -> str:
        """As `Topics.health`."""
        if not self.running:
            return "closed"
        return "up" if self._up else "degraded"

    @property
    def counters(self) -> dict[str, int | float]:
        """As `Topics.counters`."""
        with self._life:
            parts = list(self.parts.values())
            totals = Counter(self._ended_totals)
        for part in parts:
            totals.update(part.totals)
        totals["dropped"] += self.dropped
        totals["recovered"] += self.histories.recovered
        names: set[str] = set()
        for part in parts if len(parts) > 1 else ():
            names.update(part.index.topics.copy())
        return {
            "topics": len(names) if len(parts) > 1 else sum(len(part.index.topics) for part in parts),
            "subscriptions": sum(part.index.subscriptions for part in parts),
            **totals,
            "gaps": self.reports.gaps,
            "duplicates": self._incoming.duplicates,
            "refused": self.reports.refused,
            "bus_lag": 0.0 if self.home is None else self._others.lag,
            "reconnects": 0,
            "outbox": 0,
            **self._bus.counters,
        }
