"""Topics with histories, as this process follows and reads them: each message once, in order, and losses reported."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..exceptions import BusUnavailable, NotRecovered
from .envelope import Envelope
from .numbers import Gap, Incoming
from .reports import Reports

if TYPE_CHECKING:
    from ..bus.interface import Bus, Position, Reading

__all__ = ["Histories", "Published"]

_CATCHING: Final = 64
"""Histories that are read at once after an interruption."""
_SETTLED: Final = 10.0
"""Seconds for which a subscription waits to learn its history's latest position."""


class Published(NamedTuple):
    """A message of a topic's history."""

    message: str | bytes
    """What was published: `str` is text, `bytes` is binary."""
    position: Position
    """Its place."""


class _Followed:
    """A topic with a history that this process subscribed to."""

    __slots__ = ("behind", "newest", "position", "task")

    def __init__(self) -> None:
        self.behind = False  # something before `newest` is missing, and is read by `task`
        self.position: Position | None = None  # of the latest message that was delivered, once that is known
        self.newest: Position | None = None  # of the latest that came while what is before it was read
        self.task: asyncio.Task[None] | None = None


class Histories:
    """Delivers the messages of histories, and reads those that were missed.

    Args:
        bus: where they are.
        incoming: the numbers of what came.
        reports: how the user is told of losses.
        opened: makes an envelope of bytes, None if they are refused.
        deliver: delivers a message in this process.
        spawn: runs a coroutine as a task until the topics end.

    Attributes:
        recovered: how many messages were read because they did not come by themselves.
    """

    def __init__(
        self,
        bus: Bus,
        incoming: Incoming,
        reports: Reports,
        opened: Callable[[str, bytes], Envelope | None],
        deliver: Callable[[str, Envelope, Position | None], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self.recovered: int = 0
        self._bus = bus
        self._incoming = incoming
        self._reports = reports
        self._opened = opened
        self._deliver = deliver
        self._spawn = spawn
        self._followed: dict[str, _Followed] = {}

    def __contains__(self, topic: str) -> bool:
        return topic in self._followed

    # --- Following ------------------------------------------------------------------------------------------

    def join(self, topic: str, now: float) -> None:
        """Begin to follow a topic."""
        self._followed[topic] = followed = _Followed()
        self._incoming.join(topic, now, kept=True)
        self._bus.subscribe(topic)
        followed.task = self._spawn(self._catch_up(topic, followed))

    def leave(self, topic: str) -> None:
        """Stop following a topic; do nothing if it is not followed."""
        followed = self._followed.pop(topic, None)
        if followed is not None and followed.task is not None:
            followed.task.cancel()

    async def settled(self, topic: str) -> None:
        """Wait until a topic's latest position is known, but not for long."""
        followed = self._followed.get(topic)
        if followed is not None and followed.position is None and followed.task is not None:
            await asyncio.wait([followed.task], timeout=_SETTLED)

    def take(self, topic: str, envelope: Envelope, position: Position) -> None:
        """Take a message that the bus has brought."""
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
                self._fall_behind(topic, followed)
                return
        followed.position = position
        accepted = self._incoming.accept(topic, envelope.origin, envelope.number, envelope.first, ordered=True)
        if accepted is not None:
            self._deliver(topic, envelope, position)

    async def catch_up(self, topics: Iterable[str] | None = None) -> None:
        """After an interruption: see that nothing is missing in the histories of some topics; by default in any."""
        names = self._followed if topics is None else topics
        waiting = [(topic, self._followed[topic]) for topic in names if topic in self._followed]
        for i in range(0, len(waiting), _CATCHING):
            tasks = []
            for topic, followed in waiting[i : i + _CATCHING]:
                if self._followed.get(topic) is followed and followed.task is None:
                    followed.behind = followed.position is not None
                    followed.task = self._spawn(self._catch_up(topic, followed))
                    tasks.append(followed.task)
            if tasks:
                await asyncio.wait(tasks)

    async def _catch_up(self, topic: str, followed: _Followed) -> None:
        """Find out a history's latest position, or deliver what is missing from it."""
        try:
            while True:
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
                    # It is read when the bus is up again; `catch_up` does that.
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

    def _take_reading(self, topic: str, followed: _Followed, before: Position, reading: Reading) -> None:
        if not reading.complete:
            first = reading.messages[0].position if reading.messages else reading.position
            if first.epoch == before.epoch:
                self._reports.lost(Gap(topic, max(0, first.offset - before.offset - 1) or None))
            elif first.offset > 1 or (first.offset and not reading.messages):
                self._reports.lost(Gap(topic, None))
            # A new epoch whose first message is there: what was lost of the old one, if anything, the tails tell.
        followed.position = reading.position if not reading.messages else before
        for stored in reading.messages:
            if self._followed.get(topic) is not followed:
                return  # a hook has unsubscribed; if it has subscribed again, it gets what comes from then on
            followed.position = stored.position
            envelope = self._opened(topic, stored.data)
            if envelope is None:
                continue
            accepted = self._incoming.accept(topic, envelope.origin, envelope.number, envelope.first, ordered=True)
            if accepted is not None:
                self.recovered += 1
                self._deliver(topic, envelope, stored.position)

    def _fall_behind(self, topic: str, followed: _Followed) -> None:
        """Start to read what is missing from a history."""
        followed.behind = True
        if followed.task is None:
            followed.task = self._spawn(self._catch_up(topic, followed))

    # --- Reading --------------------------------------------------------------------------------------------

    async def read(self, topic: str, after: Position | None) -> tuple[Reading, Position | None]:
        """Read a history, and return also which place its delivery in this process has come to."""
        reading = await self._bus.read(topic, after)
        followed = self._followed.get(topic)
        if followed is None or followed.position is None:
            return reading, None
        if followed.position.epoch != reading.position.epoch and followed.task is None:
            # The history was forgotten, and nothing has been published to it since.
            self._fall_behind(topic, followed)
        return reading, followed.position

    async def page(
        self, topic: str, position: Position | None, seen: dict[int, int]
    ) -> tuple[list[Published], Position | None, bool]:
        """Read some messages of a history.

        Args:
            topic: the topic.
            position: the place after which to begin; None for the oldest that is kept.
            seen: the latest numbers of each process, which are put in here.

        Returns:
            The messages, the place of the last, and whether there are more.

        Raises:
            NotRecovered: some that came after `position` are not kept any more.
            BusUnavailable: it cannot be read.
        """
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
