"""The part of `Topics` that belongs to one event loop: who subscribed on it, and what goes out to them.

`Topics` runs on the event loop on which it was started first. Its `Home` is there, which knows the bus, the histories
and who is present. Servers on other loops, in other threads, have a `Far` part each, with an index of its own and a
queue in each direction, which is emptied in order at the end of a turn. Thus a publish is handed to each thread once,
and nothing that happens for each message or connection takes a lock.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

from ..asyncio.protocol import turn_of
from ..bus.lost import UP_BYTES
from ..bus.memory import Taken
from ..bus.outbox import given_up
from ..connection import State
from ..exceptions import ConcurrencyError, InvalidState, NotAuthorized, NotRecovered, TooManySubscriptions
from ..telling import tell
from ..transport.loops import OtherThread
from .delivery import Delivery, Jobs
from .index import Index, Member
from .numbers import Gap
from .presence import MAX_INFO, Present
from .rules import Rule, check_name

if TYPE_CHECKING:
    from ..asyncio.broadcast import Prepared
    from ..bus.interface import Position, Reading
    from .hub import Hub

__all__ = ["MAX_MINE", "TOTALS", "AsyncioSite", "Far", "Home", "Part", "Posted", "Site", "Token", "run_at"]

_T = TypeVar("_T")

_OPEN: Final = State.OPEN  # in Python 3.11, to get a member from its class takes a call
_TURN: Final = 256
"""Of so many publishes that are awaited, one gives others a turn of the loop."""
_TRIES: Final = 100
"""Readings of a history, one after the other, that bring a connection no closer to what is published."""
_LOOK: Final = 1.0
"""Seconds between two looks at whether an event loop that is asked for something is there still."""
_OVERHEAD: Final = 1000
"""Bytes of memory that a message is taken to need beside its payload."""
_SUMMED: Final = 1.0
"""Seconds over which the messages that a thread did not get are summed up."""
MAX_MINE: Final = 10_000
"""Messages with a history that are on their way, of which it is known who is not to get them."""
TOTALS: Final = ("publishes", "deliveries", "writes", "conflated", "dropped", "recovered")
"""What each part counts."""


class Site(Jobs, Protocol):
    """What a part needs of the event loop that it is on."""

    turn: Any
    """As `Index` takes it, with `check_thread`."""

    def tell(self, call: Callable[..., object], *args: Any) -> bool:
        """Have something called there, which raises nothing, from any thread; return False if the loop has ended."""

    async def wait_for(self, future: concurrent.futures.Future[Any], timeout: float) -> None:
        """Wait, there, until a future is done, or for some seconds."""


class AsyncioSite:
    """An asyncio event loop, as the site of a part.

    Args:
        loop: the loop, which is the running one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.turn: Any = turn_of(loop)

    def tell(self, call: Callable[..., object], *args: Any) -> bool:
        """Have something called there, from any thread; return False if the loop has ended."""
        try:
            self.loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            return False
        return True

    async def wait_for(self, future: concurrent.futures.Future[Any], timeout: float) -> None:
        """Wait until a future is done, or for some seconds."""
        done = asyncio.Event()
        future.add_done_callback(lambda _: self.tell(done.set))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await done.wait()

    def spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Run a coroutine function that raises nothing, as a task."""
        return self.loop.create_task(run())

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await asyncio.sleep(seconds)


class Token(NamedTuple):
    """A member of a far part, for the home: a `Member` is handled in its own thread only."""

    part: Far
    number: int


class _Pause:
    """An awaitable that gives others a turn of the loop."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        yield


_TAKEN: Final = Taken()
_PAUSE: Final = _Pause()


class Settling:
    """What `WebSocket.subscribe` returns: awaiting it waits until the subscription is in force everywhere."""

    __slots__ = ("_part", "_topic")

    def __init__(self, part: Part, topic: str) -> None:
        self._part = part
        self._topic = topic

    def __await__(self) -> Generator[Any, None, None]:
        return self._part.settled(self._topic).__await__()


class Posted:
    """What publishing in a far part returns: awaiting it asks the home whether the bus has taken the message."""

    __slots__ = ("_part", "taken")

    def __init__(self, part: Far) -> None:
        self._part = part
        self.taken: Awaitable[Position | None] | None = None  # the home sets it when it has the message

    def __await__(self) -> Generator[Any, None, Position | None]:
        return self._part.run(self._wait).__await__()

    async def _wait(self) -> Position | None:
        if self.taken is None:
            raise InvalidState("the topics are closed")
        return await self.taken


async def run_at(home: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, _T]], site: Site) -> _T:
    """Run a coroutine function on an event loop of another thread, and return what it does.

    Args:
        home: that loop.
        make: the function.
        site: the event loop that waits.

    Raises:
        InvalidState: that loop has ended.
    """
    future: concurrent.futures.Future[_T] = concurrent.futures.Future()
    try:
        home.call_soon_threadsafe(_begin, home, make, future)
    except RuntimeError:
        raise InvalidState("the topics are closed") from None
    return await _answer(home, future, site)


def _begin(
    home: asyncio.AbstractEventLoop,
    make: Callable[[], Coroutine[Any, Any, _T]],
    future: concurrent.futures.Future[_T],
) -> None:
    """Run a coroutine function for a future, on this event loop."""
    if not future.set_running_or_notify_cancel():
        return
    task = home.create_task(make())

    def done(task: asyncio.Task[_T]) -> None:
        if task.cancelled():
            future.set_exception(InvalidState("the topics are closed"))
        elif (exc := task.exception()) is not None:
            future.set_exception(exc)
        else:
            future.set_result(task.result())

    task.add_done_callback(done)
    future.task = task  # type: ignore[attr-defined]


async def _answer(home: asyncio.AbstractEventLoop, future: concurrent.futures.Future[_T], site: Site) -> _T:
    """Wait for what runs on another event loop; it is cancelled there if this is."""
    try:
        while True:
            # Also if it is done already: what was handed on to this loop before comes before the answer.
            await site.wait_for(future, _LOOK)
            if future.done():
                break
            if home.is_closed():
                raise InvalidState("the topics are closed")
    finally:
        if not future.done() and not future.cancel():
            with contextlib.suppress(RuntimeError):
                home.call_soon_threadsafe(lambda: future.task.cancel())  # type: ignore[attr-defined]
    return future.result()


class Part:
    """The subscriptions of one event loop.

    Args:
        hub: whose part it is.
        site: the event loop.

    Attributes:
        hub, site: the arguments.
        index, delivery: who subscribed, and how those are sent to who cannot have shared frames.
        users: how many have started the topics on this loop.
        publishes, recovered: totals.
    """

    def __init__(self, hub: Hub, site: Site) -> None:
        self.site: Site = site
        self.users: int = 0
        self.publishes: int = 0
        self.recovered: int = 0
        self.delivery: Delivery = Delivery(hub.logger, site)
        self.index: Index = Index(site.turn, self.delivery.slow, self._emptied, self._left)
        self.delivery.index = self.index
        self.hub: Hub = hub
        self._recovering: set[tuple[Any, str]] = set()  # connections that are sent what they missed, and of which topic

    @property
    def totals(self) -> dict[str, int]:
        """What was counted, by the names of `TOTALS`."""
        index, delivery = self.index, self.delivery
        deliveries, conflated = index.deliveries + delivery.deliveries, index.conflated + delivery.conflated
        counted = (self.publishes, deliveries, index.writes, conflated, delivery.dropped, self.recovered)
        return dict(zip(TOTALS, counted, strict=True))

    # --- What differs between home and far parts

    async def run(self, make: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run a coroutine function at home, and return what it does."""
        raise NotImplementedError

    def publish(
        self, topic: str, rule: Rule, prepared: Prepared, key: str | None, compress: bool | None, but: Member | None
    ) -> Awaitable[Position | None]:
        """Send a message to all but one."""
        raise NotImplementedError

    def _joined(self, topic: str, rule: Rule) -> None:
        raise NotImplementedError

    def _emptied(self, topic: str) -> None:
        raise NotImplementedError

    def _told(self, topic: str, present: Present, came: bool) -> None:
        raise NotImplementedError

    async def _read(self, topic: str, after: Position | None) -> tuple[Reading, Position | None]:
        """Read a history, and return also which place its delivery here has come to."""
        raise NotImplementedError

    # --- Subscribing

    def check(self, channel: Any) -> None:
        """See that a connection is of this loop, and of no other `Topics`: its member has one index only.

        Raises:
            RuntimeError: it is of another loop.
            InvalidState: it has subscribed to topics of another `Topics`.
        """
        if channel.turn is not self.site.turn:
            raise OtherThread("the connection belongs to another event loop than the one that this was called on")
        member = channel.member
        if member is not None and member.index is not self.index:
            raise InvalidState(
                "the connection has subscribed to topics of another Topics, and can have those of one only"
            )

    def subscribe(self, ws: Any, topic: str, info: str | None) -> Awaitable[None]:
        """Subscribe a connection; return what waits until that is in force everywhere."""
        if type(topic) is not str:
            topic = check_name(topic)
        rule = self._rule(topic, info)
        channel = self._open(ws)
        if not _has(channel, topic):
            self._check_recovered(channel, topic)
            self._admit(ws, channel, topic)
            self._join(ws, channel, topic, rule, info)
        return self._settling(topic)

    def _rule(self, topic: str, info: str | None) -> Rule:
        """Return a topic's rule, after a look at the arguments of `subscribe`."""
        rule = self.hub.rules.of(topic)
        if info is not None:
            if not isinstance(info, str):
                raise TypeError(f"info must be str or None, got {type(info).__name__}")
            if len(info.encode()) > MAX_INFO:
                raise ValueError(f"info must have at most {MAX_INFO} bytes in UTF-8, got {len(info.encode())}")
            if not rule.presence:
                raise ValueError(f"info is for topics with presence, which {topic!r} is not")
        return rule

    def _open(self, ws: Any) -> Any:
        """Return the channel of a connection, which is open and of this loop."""
        channel: Any = ws._open_channel()
        self.check(channel)
        if channel.connection.state is not _OPEN:
            raise channel.connection.closed_error()
        return channel

    def _admit(self, ws: Any, channel: Any, topic: str) -> None:
        """See that a connection may subscribe to a topic, and get its messages."""
        hub = self.hub
        if hub.authorize is not None:
            allowed = hub.authorize(ws, topic)
            if not isinstance(allowed, bool):
                if asyncio.iscoroutine(allowed):
                    allowed.close()
                raise TypeError(f"authorize must return True or False, got {type(allowed).__name__}")
            if not allowed:
                raise NotAuthorized(f"the connection may not subscribe to {topic!r}")
            # The hook may have closed it.
            if channel.connection.state is not _OPEN:
                raise channel.connection.closed_error()
        self._check_limits(channel, topic)

    def _check_limits(self, channel: Any, topic: str, besides: int = 0) -> None:
        """See that there is room for a subscription; `besides` so many of the process that end now."""
        hub, member = self.hub, channel.member
        if _has(channel, topic):
            return  # it counts already
        if member is not None and member.size >= hub.max_topics:
            raise TooManySubscriptions(f"the connection has {member.size} topics, which is the limit")
        subscriptions = hub.subscriptions() - besides
        if subscriptions >= hub.max_subscriptions:
            raise TooManySubscriptions(f"this process has {subscriptions} subscriptions, which is the limit")

    def _check_recovered(self, channel: Any, topic: str) -> None:
        """See that a connection is not being sent what it missed: what is published meanwhile comes behind that."""
        if (channel, topic) in self._recovering:
            raise InvalidState(f"the connection is being sent what it missed of {topic!r}, and then subscribed")

    def _join(self, ws: Any, channel: Any, topic: str, rule: Rule, info: str | None) -> None:
        """Subscribe a connection that may, unless the hook has."""
        index, member = self.index, channel.member
        if member is None:
            member = channel.member = Member(index, channel)
        if not index.subscribe(member, topic, rule.conflate):
            return
        if index.count(topic) == 1:
            self._joined(topic, rule)
        if rule.presence:
            extra = self.delivery.extra(member)
            extra.id = str(ws.id)
            extra.present[topic] = None
            self.hub.presence.come(topic, extra.id, info)
            self._told(topic, Present(extra.id, info), True)

    def _settling(self, topic: str) -> Awaitable[None]:
        return Settling(self, topic)

    def unsubscribe(self, ws: Any, topic: str) -> bool:
        """End a subscription; tell whether there was one."""
        topic = check_name(topic)
        channel: Any = ws._open_channel()
        self.check(channel)
        member = channel.member
        if member is None or not self.hub.running or not member.has(topic):
            return False
        extra = member.extra
        if extra is not None and topic in extra.present:
            del extra.present[topic]
            self._go(topic, extra.id)
        self.index.unsubscribe(member, topic)
        return True

    def _left(self, member: Member) -> None:
        """Note that a connection has ended; the index calls it."""
        extra = member.extra
        if extra is not None:
            self.delivery.left(extra)
            present, extra.present = extra.present, {}
            for topic in present:
                self._go(topic, extra.id)

    def _go(self, topic: str, id_: str) -> None:
        gone = self.hub.presence.go(topic, id_)
        if gone is not None:
            self._told(topic, gone, False)

    async def settled(self, topic: str) -> None:
        """Wait until a subscription is in force everywhere."""
        await self.run(lambda: self.hub.settled(topic))

    # --- Recovering

    async def recover(self, ws: Any, topic: str, position: Position | None, info: str | None) -> int:
        """Send a connection what it missed, and subscribe it."""
        topic = check_name(topic)
        rule = self._rule(topic, info)
        channel = self._open(ws)
        if not _has(channel, topic):
            self._admit(ws, channel, topic)  # before it is sent anything
        if _has(channel, topic):
            raise InvalidState(f"the connection has subscribed to {topic!r} already")
        self._check_recovered(channel, topic)
        recovered = (channel, topic)
        self._recovering.add(recovered)
        # It keeps the topic in this process, and the connection's place there, while the history is read.
        anchor = Member(self.index, _Nothing())
        try:
            if self.index.subscribe(anchor, topic, False) and self.index.count(topic) == 1:
                self._joined(topic, rule)
            count = await self._send_missed(channel, topic, position)
            # What this process delivers from now on is what follows.
            self.hub.check_running()
            channel = self._open(ws)
            self._check_limits(channel, topic, besides=1)
            self._join(ws, channel, topic, rule, info)
            self.recovered += count
            return count
        finally:
            self._recovering.discard(recovered)
            anchor.leave()

    async def _send_missed(self, channel: Any, topic: str, position: Position | None) -> int:
        """Send a connection what follows a place, up to what was delivered in this process; return how many."""
        hub = self.hub
        await self.settled(topic)
        seen: dict[int, int] = {}
        count = tries = 0
        closest: int | None = None
        while tries < _TRIES:
            tries += 1
            reading, here = await self._read(topic, position)
            if position is not None and not reading.complete:
                raise NotRecovered(f"messages of {topic!r} after {position} are not kept any more")
            if here is None or here.epoch != reading.position.epoch:
                await self.site.sleep(0.02)  # this process has not come to it yet
                continue
            waited = False
            for stored in reading.messages:
                if stored.position.offset > here.offset:
                    break  # it is on its way to this process
                if channel.write_paused:
                    waited = True  # and this process may have come further than `here` meanwhile
                    await channel.outbox.drain()
                position = stored.position
                envelope = hub.opened(topic, stored.data)
                if envelope is None or seen.get(envelope.origin, 0) >= envelope.number:
                    continue
                seen[envelope.origin] = envelope.number
                prepared = hub.prepared(topic, envelope, position)
                if channel.connection.state is not _OPEN:
                    raise channel.connection.closed_error()
                try:
                    if channel.is_sending:
                        raise ConcurrencyError("sending a fragmented message")
                    prepared.put(channel)
                except ConcurrencyError:
                    raise InvalidState("a message in fragments is unfinished") from None
                count += 1
            left = here.offset - (position or reading.position).offset
            if closest is None or left < closest:
                closest, tries = left, 0
            if not waited:
                if left <= 0:
                    return count
                await channel.outbox.drain()
        raise NotRecovered(f"{topic!r} is faster than its history can be read")


class Home(Part):
    """The part on the event loop that the topics run on."""

    publishes: int

    async def run(self, make: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run a coroutine function, which is at home here."""
        return await make()

    def publish(
        self, topic: str, rule: Rule, prepared: Prepared, key: str | None, compress: bool | None, but: Member | None
    ) -> Awaitable[Position | None]:
        """Send a message to all but one."""
        hub = self.hub
        self.publishes += 1
        if rule.history is not None:
            return hub.store(topic, prepared, rule.history, but)
        if hub.encode is None:
            self.index.publish(topic, prepared, but)
            if hub.far:
                hub.hand_on(topic, prepared)
        elif self.index.count(topic) or topic in hub.far:
            encoded = hub.encoded(topic, prepared, None, compress)
            self.index.publish(topic, encoded, but)
            hub.hand_on(topic, encoded)
        if hub.alone:
            return _TAKEN if self.publishes % _TURN else _PAUSE
        return hub.send(topic, prepared, key)

    def _settling(self, topic: str) -> Awaitable[None]:
        return _TAKEN if self.hub.alone else Settling(self, topic)

    def _joined(self, topic: str, rule: Rule) -> None:
        if topic not in self.hub.far:
            self.hub.join(topic, rule)

    def _emptied(self, topic: str) -> None:
        if topic not in self.hub.far:
            self.hub.leave(topic)

    def _told(self, topic: str, present: Present, came: bool) -> None:
        self.hub.moved(topic, present, came)

    async def _read(self, topic: str, after: Position | None) -> tuple[Reading, Position | None]:
        return await self.hub.histories.read(topic, after)


class Far(Part):
    """A part on another event loop than the topics'.

    Attributes:
        mine: who published a message with a history, and so does not get it, by the numbers of `Token`.
    """

    publishes: int

    def __init__(self, hub: Hub, site: Site, home: AsyncioSite) -> None:
        super().__init__(hub, site)
        self.mine: OrderedDict[int, Member] = OrderedDict()
        self._home = home
        self._tokens = 0
        self._positions: dict[str, Position] = {}  # what delivery here has come to, of topics with a history
        self._out: list[tuple[Callable[..., object], tuple[Any, ...]]] = []  # to be called at home
        self._in: list[tuple[str, Prepared | None, int | None, Position | None]] = []  # to be delivered; home's own
        self._lost: dict[str, int] = {}  # how many messages were dropped, by topic, until it is told; home's own
        # Bytes so far, each written by one thread only: posted here and taken at home, handed on there, delivered here.
        self._posted = self._taken = self._handed = self._delivered = 0

    # --- To the home

    def _post(self, call: Callable[..., object], *args: Any) -> None:
        """Have something called at home, at the end of this turn."""
        if not self._out:
            self.site.turn.loop.call_soon(self.send)
        self._out.append((call, args))

    def send(self) -> None:
        """Have all that was posted be called at home."""
        out, self._out = self._out, []
        if out:
            self._home.tell(self.hub.take_in, out)

    async def run(self, make: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run a coroutine function at home, behind what was posted, and return what it does.

        What the home has handed on by then is delivered, or on its way here, ahead of the answer.

        Raises:
            InvalidState: the home's event loop has ended.
        """

        async def run() -> _T:
            try:
                return await make()
            finally:
                self.hand_over()

        future: concurrent.futures.Future[_T] = concurrent.futures.Future()
        self._post(_begin, self._home.loop, run, future)
        self.send()
        return await _answer(self._home.loop, future, self.site)

    def publish(
        self, topic: str, rule: Rule, prepared: Prepared, key: str | None, compress: bool | None, but: Member | None
    ) -> Awaitable[Position | None]:
        """Send a message to all but one."""
        hub = self.hub
        size = len(prepared.payload) + _OVERHEAD
        if self._posted - self._taken + size > UP_BYTES:
            self.delivery.dropped += 1
            why = "the topics' event loop is behind: more than 32 MiB wait for it"
            hub.reports.quietly("behind", "a message in %a was dropped: %s", topic, why)
            return given_up(why)
        shared = prepared
        if rule.history is None and hub.encode is not None:
            shared = hub.encoded(topic, prepared, None, compress)
        self.publishes += 1
        self._posted += size
        posted = Posted(self)
        token: Token | None = None
        if rule.history is None:
            self.index.publish(topic, shared, but)
        elif but is not None:
            self._tokens += 1
            token = Token(self, self._tokens)
            self.mine[self._tokens] = but
            if len(self.mine) > MAX_MINE:
                self.mine.popitem(last=False)
        self._post(hub.far_published, self, topic, rule, prepared, shared, key, token, posted)
        return posted

    def _joined(self, topic: str, rule: Rule) -> None:
        self._post(self.hub.far_joined, self, topic, rule)

    def _emptied(self, topic: str) -> None:
        self._positions.pop(topic, None)
        self._post(self.hub.far_emptied, self, topic)

    def _told(self, topic: str, present: Present, came: bool) -> None:
        self._post(self.hub.moved, topic, present, came)

    async def _read(self, topic: str, after: Position | None) -> tuple[Reading, Position | None]:
        async def read() -> Reading:
            reading, here = await self.hub.histories.read(topic, after)
            if here is not None:
                self.hand(topic, None, None, here)
            return reading

        reading = await self.run(read)
        return reading, self._positions.get(topic)

    def end(self) -> None:
        """End this part."""
        self.index.flush()
        self.delivery.close()
        self._post(self.hub.far_ended, self)
        self.send()

    # --- From the home

    def hand(self, topic: str, shared: Prepared | None, but: Token | None, position: Position | None) -> None:
        """Have a message delivered at the end of the home's turn; the home calls it.

        Args:
            topic: its topic.
            shared: the message; None to note the position only.
            but: who does not get it.
            position: its place, in a topic with a history.
        """
        if shared is not None:
            size = len(shared.payload) + _OVERHEAD
            if self._handed - self._delivered + size > UP_BYTES:
                self.hub.dropped += 1
                why = "an event loop of another thread is behind: more than 32 MiB wait for it"
                self.hub.reports.quietly("far", "a message in %a was dropped for a thread: %s", topic, why)
                if not self._lost:
                    self._home.loop.call_later(_SUMMED, self._tell_lost)
                self._lost[topic] = self._lost.get(topic, 0) + 1
                return
            self._handed += size
        if not self._in:
            self._home.loop.call_soon(self.hand_over)
        self._in.append((topic, shared, None if but is None or but.part is not self else but.number, position))

    def _tell_lost(self) -> None:
        lost, self._lost = self._lost, {}
        if self.hub.running:
            for topic, missed in lost.items():
                self.hub.reports.lost(Gap(topic, missed))

    def taken(self, payload: bytes) -> None:
        """Note that a message has come to the home; the home calls it."""
        self._taken += len(payload) + _OVERHEAD

    def hand_over(self) -> None:
        """Have all that was handed on be delivered; the home calls it."""
        messages, self._in = self._in, []
        if messages and not self.site.tell(self._deliver, messages):
            self.hub.far_ended(self)

    def _deliver(self, messages: list[tuple[str, Prepared | None, int | None, Position | None]]) -> None:
        index = self.index
        for topic, shared, number, position in messages:
            if shared is not None:
                self._delivered += len(shared.payload) + _OVERHEAD
            but = None if number is None else self.mine.pop(number, None)
            if not index.count(topic):
                continue
            if position is not None:
                self._positions[topic] = position
            if shared is not None:
                try:
                    index.publish(topic, shared, but)
                except Exception as exc:
                    tell(self.hub.logger.error, "topics: a message of another thread failed", exc_info=exc)


def _has(channel: Any, topic: str) -> bool:
    """Tell whether a connection has subscribed to a topic."""
    member = channel.member
    return member is not None and member.has(topic)


class _Nothing:
    """A member's sink that takes everything and sends nothing."""

    __slots__ = ()

    def send_gathered(self, frames: bytes, count: int, cork: bool = False) -> bool:
        return True

    def transport_failed(self, exc: BaseException) -> None:
        raise AssertionError("it cannot fail") from exc
