"""Deadlines of many objects, kept in buckets, in plain Python: the readable specification.

`_timers.pyx` is its fast twin: even a connection of one message sets three deadlines, and takes them back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

__all__ = ["Deadlines"]

# Deadlines are rounded up to a multiple of a sixteenth to an eighth of their delay, from 1/64 s to 1 s.
FINEST: Final = 1 / 64
COARSEST: Final = 1.0


class Timed(Protocol):
    """An object with a deadline: `due` belongs to the timer, which calls `on_deadline` when the deadline has passed."""

    due: float

    def on_deadline(self) -> None: ...


class Bucket(dict[Timed, None]):
    """Objects whose deadlines fall due together."""

    # A dict used as a set; a set would take more memory.
    due: float


class Deadlines:
    """Deadlines of many objects, each with at most one at a time.

    A subclass must implement `new_bucket`.

    Args:
        time: tells the time, in seconds.

    Attributes:
        buckets: those with the same deadline, by when it is.
        time: the argument.
    """

    __slots__ = ("buckets", "time")

    def __init__(self, time: Callable[[], float]) -> None:
        self.buckets: dict[float, Bucket] = {}
        self.time: Callable[[], float] = time

    def set(self, timed: Timed, delay: float) -> None:
        """Call ``timed.on_deadline()`` once, after `delay` seconds or a little later.

        It is late by up to an eighth of `delay`, by at least 1/64 s and at most 1 s. An earlier deadline of
        the same object is replaced.
        """
        self.clear(timed)
        # Buckets are kept by due time, not by delay: there are as many different delays as calls.
        width = COARSEST
        while width * 8 >= delay and width > FINEST:
            width /= 2
        due = ((self.time() + delay) // width + 1) * width
        bucket = self.buckets.get(due)
        if bucket is None:
            bucket = self.new_bucket(due)
        timed.due = bucket.due  # the same object for all: a float of its own would be 24 bytes for each
        bucket[timed] = None

    def clear(self, timed: Timed) -> None:
        """Take back an object's deadline, if it has one."""
        if timed.due:
            bucket = self.buckets.get(timed.due)
            if bucket is not None:
                bucket.pop(timed, None)
            timed.due = 0.0

    def new_bucket(self, due: float) -> Bucket:
        """Make the bucket of a deadline, put it into `buckets`, and see to it that it is looked at in time."""
        raise NotImplementedError
