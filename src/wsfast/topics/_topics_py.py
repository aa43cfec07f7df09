"""The index of topics and the gathering of a turn, in plain Python: the readable specification.

A publish is noted with its topic, at a cost that does not grow with the members. At the end of the loop's turn each
connection with pending messages is visited once: the frames of all its topics, in the order of the calls, are one
write, and connections that need the same bytes share them. A flush is cut into slices of 5 ms.

The order of the calls holds between topics and what a connection sends by itself: before that is encoded, the channel
calls `Member.settle`, which puts what is pending for the connection in front of it.

`_topics.pyx` is its fast twin, with the same names and the same behaviour.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

__all__ = ["Index", "Member", "Topic"]

SLICE: Final = 0.005
"""Seconds that the end of one turn may take before others get one."""
SLICE_WRITES: Final = 16
"""Connections visited between two looks at the clock."""
PENDING_SIZE: Final = 1048576
"""Bytes of pending frames that are sent without waiting for the end of the turn."""


class Topic:
    """One topic: who subscribed to it, and what was published to it in this turn.

    Args:
        name: the topic's name.
        conflates: whether a message replaces a pending one of the same key.

    Attributes:
        members: those who subscribed, as the keys of a dict.
        pending: what was published and is not sent yet, by its number; in the order of the numbers.
    """

    __slots__ = ("_dirty", "_joined", "_keys", "conflates", "members", "name", "pending")

    def __init__(self, name: str, conflates: bool = False) -> None:
        self.name: str = name
        self.conflates: bool = conflates
        self.members: dict[Member, None] = {}
        self.pending: dict[int, Any] = {}
        self._keys: dict[Any, int] = {}  # of a topic that conflates: the number of the pending message of each key
        self._joined: bytes | None = None
        self._dirty = False

    @property
    def size(self) -> int:
        """How many have subscribed."""
        return len(self.members)

    def _push(self, number: int, shared: Any) -> bool:
        """Note a message; tell whether it replaced another."""
        replaced = False
        if self.conflates:
            before = self._keys.get(shared.key)
            if before is not None:
                del self.pending[before]
                replaced = True
            self._keys[shared.key] = number
        self.pending[number] = shared
        self._joined = None
        return replaced

    def _join(self) -> bytes:
        if self._joined is None:
            self._joined = b"".join([shared.frame for shared in self.pending.values()])
        return self._joined

    def _drop(self, bound: int) -> None:
        """Forget what has a number below `bound`."""
        self.pending = {number: shared for number, shared in self.pending.items() if number >= bound}
        self._keys = {shared.key: number for number, shared in self.pending.items()} if self.conflates else {}
        self._joined = None


class Member:
    """One connection's subscriptions.

    Args:
        index: the index that it belongs to.
        sink: where its frames go: an object with `send_gathered`, `send_behind` and `transport_failed`, as `Channel`
            is.

    Attributes:
        index, sink: the arguments; `sink` is None once the connection has ended.
        extra: whatever the owner of the index keeps with it.
    """

    __slots__ = ("_seen", "_topics", "extra", "index", "sink")

    def __init__(self, index: Index, sink: Any) -> None:
        self.index: Index = index
        self.sink: Any = sink
        self.extra: Any = None
        self._topics: dict[Topic, None] = {}
        self._seen = 0  # messages with a lower number were sent to it, or are not for it

    @property
    def topics(self) -> list[str]:
        """The names of its topics, in no order, as a new list."""
        return [topic.name for topic in self._topics]

    @property
    def size(self) -> int:
        """How many topics it subscribed to."""
        return len(self._topics)

    def has(self, name: str) -> bool:
        """Tell whether it subscribed to a topic."""
        topic = self.index.topics.get(name)
        return topic is not None and topic in self._topics

    def settle(self) -> None:
        """Send what is pending for this member before what it sends next."""
        self.index._visit(self, None, True)

    def leave(self) -> None:
        """End all subscriptions, because the connection has ended."""
        if self.sink is not None:
            self.sink = None
            self.index._leave(self)


class Index:
    """Topics and their members on one event loop, and what is pending for the end of its turn.

    Args:
        turn: the loop's `Turn`.
        slow: called as ``slow(member, messages)`` for a connection that cannot be sent the shared frames as they are.
        on_empty: called with the name of a topic that has lost its last member.
        on_leave: called with each member whose connection has ended, before its subscriptions end.

    Attributes:
        topics: the topics that have members or pending messages, by their names.
        subscriptions: how many there are, of all members.
        deliveries, writes, conflated: totals.
    """

    __slots__ = (
        "_bound",
        "_current",
        "_dirty",
        "_on_empty",
        "_on_leave",
        "_scheduled",
        "_sequence",
        "_size",
        "_slow",
        "_turn",
        "_visits",
        "conflated",
        "deliveries",
        "subscriptions",
        "topics",
        "writes",
    )

    def __init__(
        self,
        turn: Any,
        slow: Callable[[Member, list[Any]], object],
        on_empty: Callable[[str], object],
        on_leave: Callable[[Member], object],
    ) -> None:
        self.topics: dict[str, Topic] = {}
        self.subscriptions: int = 0
        self.deliveries: int = 0
        self.writes: int = 0
        self.conflated: int = 0
        self._turn = turn
        self._slow = slow
        self._on_empty = on_empty
        self._on_leave = on_leave
        self._sequence = 0  # of the next message
        self._size = 0  # of the frames pending since the last flush began
        self._dirty: list[Topic] = []  # published to since the flush under way began
        self._current: list[Topic] = []  # published to before the flush under way began
        self._visits: list[Member] | None = None  # members that the flush under way has still to visit
        self._bound = 0  # the first number that the flush under way need not send
        self._scheduled = False

    def count(self, name: str) -> int:
        """Return how many have subscribed to a topic."""
        topic = self.topics.get(name)
        return 0 if topic is None else topic.size

    def members(self, name: str) -> list[Member]:
        """Return who subscribed to a topic, as a new list."""
        topic = self.topics.get(name)
        return [] if topic is None else list(topic.members)

    def subscribe(self, member: Member, name: str, conflates: bool = False) -> bool:
        """Subscribe a member to a topic; return False if it was subscribed already.

        It gets what is published from now on.

        Args:
            member: who subscribes.
            name: the topic's name.
            conflates: whether the topic keeps the newest message for each key only; the first to subscribe decides.
        """
        topic = self.topics.get(name)
        if topic is None:
            topic = self.topics[name] = Topic(name, conflates)
        elif topic in member._topics:
            return False
        # Messages pending for its other topics are sent before; those pending for this one are not for it.
        self._visit(member, None, True)
        topic.members[member] = None
        member._topics[topic] = None
        self.subscriptions += 1
        return True

    def unsubscribe(self, member: Member, name: str) -> bool:
        """End a subscription; tell whether there was one. What was published before is sent."""
        topic = self.topics.get(name)
        if topic is None or topic not in member._topics:
            return False
        self._visit(member, None, True)
        self._unlink(member, topic)
        return True

    def _unlink(self, member: Member, topic: Topic) -> None:
        del topic.members[member]
        del member._topics[topic]
        self.subscriptions -= 1
        if not topic.members:
            if not topic.pending:
                del self.topics[topic.name]
            self._on_empty(topic.name)

    def _leave(self, member: Member) -> None:
        try:
            self._on_leave(member)
        finally:
            while member._topics:
                self._unlink(member, next(reversed(member._topics)))

    def publish(self, name: str, shared: Any, but: Member | None = None) -> int:
        """Note a message for all members of a topic; it goes out by the end of the turn.

        Args:
            name: the topic's name.
            shared: the message, with `frame`, as servers send it, and `key`, by which it is conflated.
            but: a member that does not get it.

        Returns:
            How many members the topic has.
        """
        topic = self.topics.get(name)
        if topic is None or not topic.members:
            return 0
        if but is not None:
            self._visit(but, None, True)
        if topic._push(self._sequence, shared):
            self.conflated += topic.size
        self._sequence += 1
        if but is not None:
            but._seen = self._sequence
        if not topic._dirty:
            topic._dirty = True
            if not self._dirty and not self._current:
                self._turn.gathering += 1
            self._dirty.append(topic)
        if not self._scheduled:
            self._scheduled = True
            self._turn.loop.call_soon(self._run)
        before = self._size
        self._size += len(shared.frame)
        size = topic.size
        if before and self._size > PENDING_SIZE:
            self.flush()
        return size

    def flush(self) -> None:
        """Send all that is pending now."""
        while self._current or self._dirty:
            self._step(None)

    def _run(self) -> None:
        """Send what is pending, for 5 ms at most; go on in the next turn."""
        self._scheduled = False
        try:
            self._step(perf_counter() + SLICE)
        finally:
            if (self._current or self._dirty) and not self._scheduled:
                self._scheduled = True
                self._turn.loop.call_soon(self._run)

    def _step(self, end: float | None) -> None:
        if not self._current:
            if not self._dirty:
                return
            self._current, self._dirty = self._dirty, []
            self._bound = self._sequence
            self._size = 0
            for topic in self._current:
                topic._dirty = False
            self._visits = list(dict.fromkeys(member for topic in self._current for member in topic.members))
            self._visits.reverse()
        visits = self._visits
        assert visits is not None
        only = self._current[0] if len(self._current) == 1 and not self._dirty else None
        visited = 0
        while visits:
            # Taken off first: if one member fails, the others must still be visited.
            self._visit(visits.pop(), only, False)
            visited += 1
            if end is not None and not visited % SLICE_WRITES and perf_counter() > end:
                return
        current, self._current = self._current, []
        self._visits = None
        for topic in current:
            topic._drop(self._bound)
            if not topic.members and not topic.pending and self.topics.get(topic.name) is topic:
                del self.topics[topic.name]
        if not self._dirty:
            self._turn.gathering -= 1

    def _visit(self, member: Member, only: Topic | None, cork: bool) -> None:
        """Send a member what is pending for it; `only` is the only topic that has anything, if that is known."""
        seen = member._seen
        sink = member.sink
        if seen >= self._sequence or sink is None:
            return
        member._seen = self._sequence
        topics = [only] if only is not None else member._topics
        topics = [topic for topic in topics if topic.pending and next(reversed(topic.pending)) >= seen]
        if len(topics) == 1 and next(iter(topics[0].pending)) >= seen:
            messages = list(topics[0].pending.values())
            frames, count = topics[0]._join(), len(messages)
        else:
            items = [item for topic in topics for item in topic.pending.items() if item[0] >= seen]
            if not items:
                return
            if len(topics) > 1:
                items.sort(key=_number)
            messages = [shared for _, shared in items]
            frames, count = b"".join([shared.frame for shared in messages]), len(messages)
        try:
            if sink.send_gathered(frames, count, cork) or (
                # Nothing is to be left out or held, so that it does not matter that the peer is behind.
                not any(topic.conflates for topic in topics)
                and member.extra is None
                and sink.send_behind(frames, count)
            ):
                self.deliveries += count
                self.writes += 1
            else:
                self._slow(member, messages)
        except Exception as exc:
            sink.transport_failed(exc)


def _number(item: tuple[int, Any]) -> int:
    return item[0]
