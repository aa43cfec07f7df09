"""The interface of a bus, which carries messages between the processes of an application.

A bus moves bytes that it does not understand. Numbers, duplicates, gaps, presence and what a message means are the
business of `Topics`, which is its only user; a bus only reports what it knows: which messages were taken, which have a
place in a history, whether it is up. `wsfast.testing.bus` has the tests that a bus must pass.

Topics are `str` of 1 to 200 of ``A-Z a-z 0-9 _ . : @ / -``; and there is ``!``, by which processes tell each other how
far they are. What is sent is `bytes` that may have any value, and a few hundred more than a user's message. A bus may
limit how many; what it cannot take fails with `BusUnavailable`, and is never cut.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable
from typing import NamedTuple, Protocol

__all__ = ["Bus", "Position", "Reading", "Receiver", "Stored"]


class Position(NamedTuple):
    """A place in the history of a topic.

    ``str(position)`` is for clients to keep, and `Position.parse` reads it again.
    """

    epoch: str
    """Which life of the history it is: offsets of different epochs have nothing to do with each other.

    It has 1 to 64 ASCII letters and digits. A history begins a new one where it may have lost what it had numbered, so
    that no place is ever given to two messages; mostly it is some random digits.
    """
    offset: int
    """The number of a message within it: the first is 1, and 0 is the place before it; at most 18 digits."""

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read a position from its `str`; a client may have sent it.

        Raises:
            ValueError: the text is not a position.
        """
        epoch, colon, offset = text.partition(":") if isinstance(text, str) else ("", "", "")
        short = 0 < len(epoch) <= 64 and epoch.isascii() and epoch.isalnum() and 0 < len(offset) <= 18
        if not (colon and short and offset.isascii() and offset.isdigit()):
            raise ValueError(f"a position must be an epoch and an offset with a colon between, got {str(text)[:100]!a}")
        return cls(epoch, int(offset))


class Stored(NamedTuple):
    """A message of a history."""

    position: Position
    """Its place."""
    data: bytes
    """What was given to `Bus.store`."""


class Reading(NamedTuple):
    """What `Bus.read` found."""

    position: Position
    """The place of the newest message, even if that has expired; offset 0 if there was none in this epoch."""
    messages: list[Stored]
    """The messages asked for, oldest first, without a gap among them."""
    complete: bool
    """Whether nothing is missing between the place that was asked for and the first of them.

    False for a place of another epoch, and for one beyond the newest message: it was never given.
    """


class Receiver(Protocol):
    """What a bus calls, in the event loop's thread.

    It may do so within calls of its own methods, such as `Bus.store`. Then users' code may run, and call those again.
    """

    def received(self, topic: str, data: bytes, position: Position | None) -> None:
        """Take a message of a topic that was subscribed to; `position` is that of a message with a history.

        It raises nothing, whatever the bytes are.
        """

    def state_changed(self, up: bool, why: str) -> None:
        """Take note that the bus can, or cannot, reach the others; `why` is for the log.

        A bus is down until it says that it is up, which it may do while it is started; where the others cannot be
        reached at first, it says once that it is down, and why. What it may have lost while it
        was down is looked for when it is up again: histories are read, and processes tell each other their numbers.
        """

    def missed(self, topics: Iterable[str]) -> None:
        """Take note that messages of some topics may have been missed while the bus was up; histories are read."""

    def process_ended(self, origin: int) -> None:
        """Take note that another process has surely ended; a bus that cannot know never calls this."""


class Bus(ABC):
    """What carries messages between processes.

    All methods are called in the thread of the event loop on which `start` was. None of them waits without end: a
    message that cannot be taken fails with `BusUnavailable`.
    """

    @abstractmethod
    async def start(self, receiver: Receiver, origin: int) -> None:
        """Begin to work; it goes on in the background where the others cannot be reached yet.

        Args:
            receiver: whose methods the bus calls.
            origin: the number of this process among the others.

        Raises:
            RuntimeError: it runs already.
        """

    @abstractmethod
    async def close(self) -> None:
        """Send the messages taken, for a second at most, and end; awaitables not done fail with `BusUnavailable`.

        It may be called more than once, and before `start`. Afterwards nothing is received.
        """

    @abstractmethod
    def subscribe(self, topic: str) -> None:
        """Ask for the messages of a topic, from now on and over interruptions; once more, it is without effect."""

    @abstractmethod
    def unsubscribe(self, topic: str) -> None:
        """Stop asking for the messages of a topic."""

    @abstractmethod
    async def settled(self) -> None:
        """Wait until every subscription asked for so far is in force.

        Raises:
            BusUnavailable: the others cannot be reached.
        """

    @abstractmethod
    def publish(self, topic: str, data: bytes) -> Awaitable[None]:
        """Send a message to the other processes that subscribed, at most once.

        It is queued by the call. Messages of one process arrive in the order of the calls. Whether the sender gets
        its own is up to the bus.

        Returns:
            An awaitable, which need not be awaited, that is done when the bus has taken it.

        Raises:
            BusUnavailable: by the awaitable: it was not taken.
        """

    @abstractmethod
    def store(self, topic: str, data: bytes, size: int, ttl: float) -> Awaitable[Position]:
        """Put a message into a topic's history and send it to all that subscribed, the sender too, at least once.

        All get the messages of a topic in the order of their offsets. It is queued by the call, and tried again over
        interruptions.

        Args:
            topic: its topic.
            data: the message.
            size: how many messages the history keeps at least.
            ttl: seconds for which a message is kept at least, unless `size` newer ones came, and for which it is kept
                at most after the latest one of its history.

        Returns:
            An awaitable, which need not be awaited, of its place.

        Raises:
            BusUnavailable: by the awaitable: it was not taken for 10 s, or more than 1 MiB waits.
        """

    @abstractmethod
    async def read(self, topic: str, after: Position | None, limit: int = 1000) -> Reading:
        """Read a topic's history.

        Args:
            topic: its topic.
            after: the place after which to begin; None for the oldest that is there. If it is not complete, the
                messages begin with the oldest that is there, but for a place beyond the newest: then there are none.
            limit: the most messages to return. There may be fewer, but one at least if there is any. Default: 1000.

        Raises:
            BusUnavailable: it cannot be read.
        """

    @property
    def counters(self) -> dict[str, int]:
        """Totals: at least ``reconnects``, and the bytes that wait now, ``outbox``."""
        return {"reconnects": 0, "outbox": 0}
