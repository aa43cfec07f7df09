"""Histories in memory: of a single process, and of the process that keeps those of a host."""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict, deque
from heapq import heappop, heappush
from itertools import islice
from typing import Final

from .interface import Position, Reading, Stored

__all__ = ["Store", "new_epoch"]

_MAX_BYTES: Final = 268_435_456
_MESSAGE: Final = 64
"""Bytes of memory that a message takes beside its own."""
_TOPIC: Final = 1_500
"""Bytes of memory that a history takes beside its messages."""
_BUCKETS: Final = 4096
_REMEMBERED: Final = 9
"""How many times as long as messages were kept their topic's numbers are remembered after they have expired."""


def new_epoch() -> str:
    """Return the name of a new life of a history."""
    return secrets.token_hex(8)


class _Kept:
    """The history of one topic."""

    __slots__ = ("bytes", "due", "epoch", "expires", "messages", "offset", "ttl")

    def __init__(self, epoch: str) -> None:
        self.messages: deque[bytes] = deque()
        self.epoch = epoch
        self.offset = 0
        self.expires = self.ttl = 0.0
        self.due = 0.0  # when the store looks at it
        self.bytes = 0


class Store:
    """The histories of topics, each numbered from 1 on, in an epoch of its own.

    The numbers of a topic whose messages have expired are remembered for a while. One that was forgotten, and comes
    again later, begins a new epoch, so that an old position is told from one of now.

    Args:
        max_bytes: the most memory of all histories together; those that were used the longest time ago go first.
    """

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self.life: str = new_epoch()
        self.bytes: int = 0
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._due: list[tuple[float, str]] = []  # a heap: when to look at which topic
        self._forgotten: dict[int, int] = {}  # how many topics, by a part of their hashes

    def __len__(self) -> int:
        return len(self._kept)

    def append(self, topic: str, data: bytes, size: int, ttl: float, now: float) -> Position:
        """Keep a message; `size` and `ttl` are those of `Bus.store`, `now` counts seconds."""
        kept = self._kept.get(topic)
        if kept is None:
            kept = self._kept[topic] = _Kept(self._next_epoch(topic))
            self.bytes += _TOPIC
        elif kept.expires <= now:
            self._clear(kept)
        kept.offset += 1
        kept.ttl = ttl
        kept.expires = now + ttl
        if not kept.due or kept.due > kept.expires:
            self._look_at(topic, kept, kept.expires)
        kept.messages.append(data)
        kept.bytes += len(data) + _MESSAGE
        self.bytes += len(data) + _MESSAGE
        while len(kept.messages) > size:
            self._shift(kept)
        self._kept.move_to_end(topic)
        while self.bytes > self._max_bytes and len(self._kept) > 1:
            self._forget(next(iter(self._kept)))
        while self.bytes > self._max_bytes and len(kept.messages) > 1:
            self._shift(kept)
        return Position(kept.epoch, kept.offset)

    def read(self, topic: str, after: Position | None, limit: int, now: float) -> Reading:
        """Read a history as `Bus.read` does."""
        kept = self._kept.get(topic)
        if kept is None:
            position = Position(self._next_epoch(topic), 0)
            return Reading(position, [], after is None or after == position)
        if kept.expires <= now:
            self._clear(kept)
        oldest = kept.offset - len(kept.messages)  # the place before the oldest that is there
        same = after is not None and after.epoch == kept.epoch
        start = after.offset if same and after is not None else oldest
        complete = after is None or (same and oldest <= start <= kept.offset)
        start = min(max(start, oldest), kept.offset)
        messages = islice(kept.messages, start - oldest, start - oldest + limit)
        found = [Stored(Position(kept.epoch, start + i), data) for i, data in enumerate(messages, 1)]
        return Reading(Position(kept.epoch, kept.offset), found, complete)

    def sweep(self, now: float) -> None:
        """Forget expired messages; to be called regularly."""
        while self._due and self._due[0][0] <= now:
            due, topic = heappop(self._due)
            kept = self._kept.get(topic)
            if kept is None or kept.due != due:
                continue
            if kept.expires > now:
                self._look_at(topic, kept, kept.expires)
                continue
            self._clear(kept)
            end = kept.expires + _REMEMBERED * kept.ttl
            if end > now:
                self._look_at(topic, kept, end)
            else:
                self._forget(topic)

    def _look_at(self, topic: str, kept: _Kept, due: float) -> None:
        kept.due = due
        heappush(self._due, (due, topic))

    def _next_epoch(self, topic: str) -> str:
        """Return the epoch of a topic that is not kept, if it begins now.

        Each topic has its own, so that a position in one history is not valid in another. It stays the same until this
        topic, or one of few others, is forgotten.
        """
        name = f"{self._forgotten.get(hash(topic) % _BUCKETS, 0)} {topic}"
        return hashlib.blake2b(name.encode(), digest_size=8, key=self.life.encode()).hexdigest()

    def _shift(self, kept: _Kept) -> None:
        gone = len(kept.messages.popleft()) + _MESSAGE
        kept.bytes -= gone
        self.bytes -= gone

    def _clear(self, kept: _Kept) -> None:
        self.bytes -= kept.bytes
        kept.bytes = 0
        kept.messages.clear()

    def _forget(self, topic: str) -> None:
        self._clear(self._kept.pop(topic))
        self.bytes -= _TOPIC
        bucket = hash(topic) % _BUCKETS
        self._forgotten[bucket] = self._forgotten.get(bucket, 0) + 1
