"""One coarse timer for all connections of a server or a client.

Timeouts need no precision but are many: each connection has one deadline at a time, kept in a bucket with those
that fall due about then, and the event loop has one timer for the next bucket. A deadline that is moved
or taken back costs a dict operation, and an idle connection costs nothing between its deadlines.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Final, Protocol

__all__ = ["CoarseTimer", "Sweeper", "Timed"]

# Deadlines are rounded up to a multiple of a sixteenth to an eighth of their delay, from 1/64 s to 1 s.
_FINEST: Final = 1 / 64
_COARSEST: Final = 1.0


class Timed(Protocol):
    """What has a deadline: `due` belongs to the timer, `on_deadline` is called when it has passed."""

    due: float

    def on_deadline(self) -> None: ...


class _Bucket(dict[Timed, None]):
    # A dict used as a set; a set would take more memory.
    due: float


class Freeing(Protocol):
    """What a `Sweeper` frees: `free_idle` does it after a while of disuse, `holding` tells if there is anything."""

    @property
    def holding(self) -> bool: ...

    def free_idle(self, now: float, /) -> bool: ...


class Sweeper:
    """Frees what was not used for a while, of many connections by one deadline.

    Args:
        timer: the deadline's.
        idle: seconds; it looks four times in that time, but at most four times a second.

    Attributes:
        busy: what may have something to free. It adds itself, from any thread, when it begins to hold something.
    """

    __slots__ = ("_interval", "_timer", "_users", "busy", "due")

    def __init__(self, timer: CoarseTimer, idle: float) -> None:
        self.busy: set[Freeing] = set()
        self.due: float = 0.0
        self._timer = timer
        self._interval = max(idle / 4, 0.25)
        self._users = 0

    def enter(self) -> None:
        """Add a connection, whose memory may become unused."""
        self._users += 1
        if self._users == 1:
            self._timer.set(self, self._interval)

    def leave(self) -> None:
        """Note that a connection has ended."""
        self._users -= 1
        if not self._users:
            self._timer.clear(self)

    def on_deadline(self) -> None:
        """Called by the timer."""
        if self._users:
            self._timer.set(self, self._interval)
        now = self._timer.time()
        busy = self.busy
        for one in list(busy):
            # In this order: a thread that begins to use it meanwhile adds it again.
            busy.discard(one)
            one.free_idle(now)
            if one.holding:
                busy.add(one)


class CoarseTimer:
    """Deadlines of many objects, each with at most one at a time.

    Args:
        loop: the event loop whose clock counts.

    Attributes:
        time: the loop's own method.
    """

    __slots__ = ("_buckets", "_handle", "_loop", "_sweepers", "_times", "time")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._buckets: dict[float, _Bucket] = {}
        self._times: list[float] = []
        self._handle: asyncio.TimerHandle | None = None
        self._sweepers: dict[float, Sweeper] = {}
        self.time: Callable[[], float] = loop.time

    def sweeper(self, idle: float) -> Sweeper:
        """Return the one `Sweeper` for what is to be freed after so many seconds."""
        sweeper = self._sweepers.get(idle)
        if sweeper is None:
            sweeper = self._sweepers[idle] = Sweeper(self, idle)
        return sweeper

    def set(self, timed: Timed, delay: float) -> None:
        """Call ``timed.on_deadline()`` once, after `delay` seconds or a little later.

        It is late by up to an eighth of `delay`, by at least 1/64 s and at most 1 s. An earlier deadline of
        the same object is replaced.
        """
        if timed.due:
            self.clear(timed)
        # Kept by when they are due, never by delay: delays are as many as there are calls.
        width = _width(delay)
        due = ((self.time() + delay) // width + 1) * width
        bucket = self._buckets.get(due)
        if bucket is None:
            bucket = self._new_bucket(due)
        timed.due = bucket.due  # the same object for all: a float of its own would be 24 bytes for each
        bucket[timed] = None

    def _new_bucket(self, due: float) -> _Bucket:
        bucket = self._buckets[due] = _Bucket()
        bucket.due = due
        heapq.heappush(self._times, due)
        if self._times[0] == due:
            self._arm()
        return bucket

    def clear(self, timed: Timed) -> None:
        """Take back an object's deadline, if it has one."""
        bucket = self._buckets.get(timed.due)
        if bucket is not None:
            bucket.pop(timed, None)
        timed.due = 0.0

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._times:
            self._handle = self._loop.call_at(self._times[0], self._tick)

    def _drop_first(self) -> _Bucket:
        return self._buckets.pop(heapq.heappop(self._times))

    def _tick(self) -> None:
        self._handle = None
        now = self._loop.time()
        expired: list[Timed] = []
        while self._times and self._times[0] <= now + _FINEST / 2:
            expired += self._drop_first()
        # Empty buckets, whose deadlines were all taken back, wake nobody up.
        while self._times and not self._buckets[self._times[0]]:
            self._drop_first()
        self._arm()
        for timed in expired:
            if timed.due <= now + _FINEST / 2 and timed.due:
                timed.due = 0.0
                try:
                    timed.on_deadline()
                except Exception as exc:  # a logger may raise; the others that are due must not suffer
                    context = {"message": f"on_deadline of {timed!r} raised", "exception": exc}
                    self._loop.call_exception_handler(context)


def _width(delay: float) -> float:
    """Return how coarse a deadline so many seconds away may be."""
    width = _COARSEST  # that of most
    while width * 8 >= delay and width > _FINEST:
        width /= 2
    return width
