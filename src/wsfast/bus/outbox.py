"""Messages that wait for a bus to take them: in order, bounded in bytes and time, and tried again where asked for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Generator
from typing import Any, Final

from ..exceptions import BusUnavailable
from .interface import Position

__all__ = ["REMEMBER", "Entry", "Outbox", "because", "given_up"]

REMEMBER: Final = 5.0
"""Seconds for which an engine may lose what it has confirmed, where it is killed."""
_LOOK: Final = 0.25
"""Seconds between two looks for entries that have waited for too long."""


class Entry:
    """One message on its way; awaiting it waits until it was taken.

    Attributes:
        topic, data: the message.
        size, ttl: those of its history; size 0 for a message that has none.
        due: the time after which it is given up.
        position: its place in the history, once it is known.
        asking: whether a node of a cluster is to take it though it does not have the slot yet.
    """

    __slots__ = ("_done", "_error", "_waiters", "asking", "data", "due", "position", "size", "topic", "ttl")

    def __init__(self, topic: str, data: bytes, size: int, ttl: float, due: float) -> None:
        self.topic: str = topic
        self.data: bytes = data
        self.size: int = size
        self.ttl: float = ttl
        self.due: float = due
        self.position: Position | None = None
        self.asking: bool = False
        self._done = False
        self._error: Exception | None = None
        self._waiters: list[asyncio.Future[None]] | None = None

    @property
    def done(self) -> bool:
        """Whether it was taken or given up."""
        return self._done

    @property
    def given_up(self) -> bool:
        """Whether it was given up, which whoever awaited it was told."""
        return self._error is not None

    def finish(self, position: Position | None = None, error: Exception | None = None) -> None:
        """Note that it was taken, or given up; only the first time counts."""
        if self._done:
            return
        self._done = True
        self.position = position
        self._error = error
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        self._waiters = None

    def __await__(self) -> Generator[Any, None, Position | None]:
        if not self._done:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            yield from waiter
        if self._error is not None:
            raise BusUnavailable(str(self._error))
        return self.position


def because(what: str, why: str) -> str:
    """Return the text of an error: what cannot be done, and the reason where one is known."""
    return f"{what}: {why}" if why else what


def given_up(why: str) -> Awaitable[Any]:
    """Return an awaitable of `BusUnavailable`, for a message that cannot be taken."""
    entry = Entry("", b"", 0, 0.0, 0.0)
    entry.finish(error=BusUnavailable(why))
    return entry


class Outbox:
    """The messages of one process that its bus has not confirmed, in the order of the calls.

    Args:
        max_bytes: the most bytes that may wait; beyond it, messages are given up at once.
        max_seconds: for how long one may wait.
        remember: seconds for which a message with a history is kept after it was confirmed, to be sent again if
            its history was lost before all subscribers got it.

    Attributes:
        max_bytes, max_seconds: the arguments.
        bytes: of what waits or is under way.
        why: why the bus takes nothing now, for errors; empty while it does.
    """

    def __init__(self, max_bytes: int = 1048576, max_seconds: float = 10.0, remember: float = REMEMBER) -> None:
        self.max_bytes = max_bytes
        self.max_seconds = max_seconds
        self.bytes: int = 0
        self.why: str = ""
        self._remember = remember
        self._waiting: deque[Entry] = deque()
        self._sent: deque[Entry] = deque()
        self._recent: deque[tuple[float, Entry]] = deque()
        self._recent_bytes = 0
        self._held = False  # since an interruption, until something is confirmed: what was confirmed before is kept
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give up what has waited for too long, from now on until `end`, whether the bus can be reached or not."""
        self._timer = loop.call_later(_LOOK, self.begin, loop)
        self.expire(loop.time())

    def end(self, why: str) -> None:
        """Give up all, for good."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.fail(why)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def unconfirmed(self) -> int:
        """How many were sent and not confirmed."""
        return len(self._sent)

    def add(self, topic: str, data: bytes, size: int, ttl: float, now: float) -> Entry:
        """Take a message in; one that is too much is given up at once."""
        entry = Entry(topic, data, size, ttl, now + self.max_seconds)
        if self.bytes and self.bytes + len(data) > self.max_bytes:
            text = f"{self.bytes} bytes wait for the bus, the limit is {self.max_bytes}"
            entry.finish(error=BusUnavailable(because(text, self.why)))
            return entry
        self.bytes += len(data)
        self._waiting.append(entry)
        return entry

    def histories(self) -> dict[str, tuple[int, float]]:
        """Return the topics of messages with a history that wait, are under way, or were confirmed lately.

        The values are their sizes and ttls.
        """
        entries = (*self._sent, *self._waiting, *(entry for _, entry in self._recent))
        return {entry.topic: (entry.size, entry.ttl) for entry in entries if entry.size}

    def take(self, count: int) -> list[Entry]:
        """Return what is to be sent next, and note it as sent."""
        taken: list[Entry] = []
        while self._waiting and len(taken) < count:
            entry = self._waiting.popleft()
            self._sent.append(entry)
            taken.append(entry)
        return taken

    def take_all(self) -> deque[Entry]:
        """Return all that waits, and note it as sent."""
        taken, self._waiting = self._waiting, deque()
        self._sent.extend(taken)
        return taken

    def confirm(self, position: Position | None, now: float) -> Entry:
        """Note that the oldest that was sent was taken."""
        entry = self._sent.popleft()
        self.bytes -= len(entry.data)
        if entry._waiters is None and not entry._done:
            entry._done = True
            entry.position = position
        else:
            entry.finish(position)
        if entry.size:
            self._held = False
            self._recent.append((now, entry))
            self._recent_bytes += len(entry.data)
            self._forget(now)
        return entry

    def refuse(self, error: Exception) -> Entry:
        """Note that the oldest that was sent was refused."""
        entry = self.take_back()
        entry.finish(error=error)
        return entry

    def take_back(self) -> Entry:
        """Return the oldest that was sent, which was not taken and goes another way."""
        entry = self._sent.popleft()
        self.bytes -= len(entry.data)
        return entry

    def put(self, entry: Entry) -> None:
        """Take in a message that comes from another outbox."""
        self.bytes += len(entry.data)
        self._waiting.append(entry)

    def pending(self) -> set[str]:
        """Return the topics of messages with a history that wait or are under way."""
        return {entry.topic for entry in (*self._sent, *self._waiting) if entry.size}

    def count_sent(self, topic: str) -> int:
        """Return how many of a topic were sent and not confirmed."""
        return sum(entry.topic == topic for entry in self._sent)

    def withdraw(self, topic: str) -> list[Entry]:
        """Return what waits of a topic, which goes another way."""
        taken = [entry for entry in self._waiting if entry.topic == topic]
        if taken:
            self._waiting = deque(entry for entry in self._waiting if entry.topic != topic)
            self.bytes -= sum(len(entry.data) for entry in taken)
        return taken

    def evacuate(self, why: str, now: float) -> dict[str, list[Entry]]:
        """Return, by topic, what is to be sent again with a history, since this outbox ends; give up the rest."""
        self.interrupted(why)
        self.lost_history(now)
        found: dict[str, list[Entry]] = {}
        for entry in self._waiting:
            found.setdefault(entry.topic, []).append(entry)
        self._waiting.clear()
        self.bytes = 0
        return found

    def interrupted(self, why: str) -> None:
        """Note that nobody knows what became of what was sent: send it again if it has a history, else give it up."""
        error = BusUnavailable(why)
        self._held = True
        again = []
        for entry in self._sent:
            if entry.size and not entry.given_up:  # it may have been confirmed before its history was lost
                again.append(entry)
            else:
                self.bytes -= len(entry.data)
                entry.finish(error=error)
        self._sent.clear()
        for entry in self._waiting:
            if entry.size:
                again.append(entry)
            else:
                self.bytes -= len(entry.data)
                entry.finish(error=error)
        self._waiting = deque(again)

    def lost_history(self, now: float, topics: set[str] | None = None) -> int:
        """Send again what was confirmed lately, because the history was lost; return how many.

        Args:
            now: the time.
            topics: those whose history was lost; None for all.
        """
        self._forget(now)
        again: list[Entry] = []
        kept: deque[tuple[float, Entry]] = deque()
        for item in self._recent:
            if topics is None or item[1].topic in topics:
                again.append(item[1])
            else:
                kept.append(item)
        self._recent = kept
        self._recent_bytes = sum(len(entry.data) for _, entry in self._recent)
        self.bytes += sum(len(entry.data) for entry in again)
        for entry in again:
            entry.due = now + self.max_seconds
        self._waiting.extendleft(reversed(again))
        return len(again)

    def expire(self, now: float) -> None:
        """Give up what has waited for too long, and forget what was confirmed long ago."""
        self._forget(now)
        error = BusUnavailable(because(f"the bus has taken nothing for {self.max_seconds} s", self.why))
        while self._waiting and self._waiting[0].due <= now:
            entry = self._waiting.popleft()
            self.bytes -= len(entry.data)
            entry.finish(error=error)
        for entry in self._sent:  # their fate is not known, and their awaitables say so
            if entry.due > now:
                break
            entry.finish(error=error)

    def fail(self, why: str) -> None:
        """Give up all."""
        error = BusUnavailable(why)
        for entry in (*self._sent, *self._waiting):
            entry.finish(error=error)
        self._sent.clear()
        self._waiting.clear()
        self.bytes = 0

    def _forget(self, now: float) -> None:
        if self._held:
            return
        recent = self._recent
        while recent and (recent[0][0] + self._remember <= now or self._recent_bytes > self.max_bytes):
            self._recent_bytes -= len(recent.popleft()[1].data)
