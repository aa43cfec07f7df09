"""One coarse timer for all connections of a server or a client.

Timeouts need no precision but are many: each connection has one deadline at a time, kept in a bucket with those
that fall due about then, and the event loop has one timer for the next bucket. A deadline that is moved
or taken back costs a dict operation, and an idle connection costs nothing between its deadlines.
"""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING, Protocol

from .._built import IMPLEMENTATION, unusable
from ._timers_py import FINEST, Bucket, Timed

if TYPE_CHECKING or IMPLEMENTATION == "python":
    from ._timers_py import Deadlines
else:
    try:
        from ._timers import Deadlines
    except Exception as exc:
        raise unusable("wsfast.transport._timers", exc) from exc

__all__ = ["CoarseTimer", "Sweeper", "Timed"]


class Freeing(Protocol):
    """An object whose memory a `Sweeper` frees by `free_idle` when unused; `holding` tells if it has any."""

    @property
    def holding(self) -> bool: ...

    def free_idle(self, now: float, /) -> bool: ...


class Sweeper:
    """Frees memory that was not used for a while, of many connections by one deadline.

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


class CoarseTimer(Deadlines):
    """Deadlines of many objects, each with at most one at a time.

    Args:
        loop: the event loop whose clock counts.

    Attributes:
        time: the loop's own method.
    """

    __slots__ = ("_handle", "_loop", "_sweepers", "_times")

    # Inherited from Deadlines, where they are fast: set, clear.

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop.time)
        self._loop = loop
        self._times: list[float] = []
        self._handle: asyncio.TimerHandle | None = None
        self._sweepers: dict[float, Sweeper] = {}

    def sweeper(self, idle: float) -> Sweeper:
        """Return the one `Sweeper` for what is to be freed after so many seconds."""
        sweeper = self._sweepers.get(idle)
        if sweeper is None:
            sweeper = self._sweepers[idle] = Sweeper(self, idle)
        return sweeper

    def new_bucket(self, due: float) -> Bucket:
        """Make the bucket of a deadline, and make the event loop call when the first of all is due."""
        bucket = self.buckets[due] = Bucket()
        bucket.due = due
        heapq.heappush(self._times, due)
        if self._times[0] == due:
            self._arm()
        return bucket

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._times:
            self._handle = self._loop.call_at(self._times[0], self._tick)

    def _drop_first(self) -> Bucket:
        return self.buckets.pop(heapq.heappop(self._times))

    def _tick(self) -> None:
        self._handle = None
        now = self._loop.time()
        expired: list[Timed] = []
        while self._times and self._times[0] <= now + FINEST / 2:
            expired += self._drop_first()
        # Empty buckets, whose deadlines were all taken back, wake nobody up.
        while self._times and not self.buckets[self._times[0]]:
            self._drop_first()
        self._arm()
        self._expire(expired, now)

    def _expire(self, expired: list[Timed], now: float) -> None:
        for i, timed in enumerate(expired, 1):
            if timed.due <= now + FINEST / 2 and timed.due:
                timed.due = 0.0
                try:
                    timed.on_deadline()
                except Exception as exc:  # the others that are due must not suffer
                    context = {"message": f"on_deadline of {timed!r} raised", "exception": exc}
                    self._loop.call_exception_handler(context)
                except BaseException:
                    # It ends the loop. Where that runs again, to stop in order, the others are called.
                    self._loop.call_soon(self._expire, expired[i:], now)
                    raise
