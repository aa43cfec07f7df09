"""Histories in memory: of a single process, and of the process that keeps those of a host."""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque

from .interface import Position, Reading, Stored

__all__ = ["Store", "new_epoch"]

_MAX_BYTES = 268435456


def new_epoch() -> str:
    """Return the name of a new life of a history."""
    return secrets.token_hex(8)


class _Kept:
    """The history of one topic."""

    __slots__ = ("bytes", "expires", "messages", "offset")

    def __init__(self, offset: int) -> None:
        self.messages: deque[bytes] = deque()
        self.offset = offset
        self.expires = 0.0
        self.bytes = 0


class Store:
    """The histories of topics, numbered from 1 on in one epoch.

    Topics whose messages have expired are forgotten; one that comes again later goes on with higher offsets, so that
    an old position is told from one of now.

    Args:
        max_bytes: the most of all messages together; the histories that were used the longest time ago go first.
    """

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self.epoch: str = new_epoch()
        self.bytes: int = 0
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._floor = 0  # the highest offset of a topic that was forgotten

    def __len__(self) -> int:
        return len(self._kept)

    def append(self, topic: str, data: bytes, size: int, ttl: float, now: float) -> Position:
        """Keep a message; `size` and `ttl` are those of `Bus.store`, `now` counts seconds."""
        kept = self._kept.get(topic)
        if kept is None:
            kept = self._kept[topic] = _Kept(self._floor)
        elif kept.expires <= now:
            self._clear(kept)
        kept.offset += 1
        kept.expires = now + ttl
        kept.messages.append(data)
        kept.bytes += len(data)
        self.bytes += len(data)
        while len(kept.messages) > size:
            self._shift(kept)
        self._kept.move_to_end(topic)
        while self.bytes > self._max_bytes and len(self._kept) > 1:
            self._forget(next(iter(self._kept)))
        while self.bytes > self._max_bytes and len(kept.messages) > 1:
            self._shift(kept)
        return Position(self.epoch, kept.offset)

    def read(self, topic: str, after: Position | None, limit: int, now: float) -> Reading:
        """Read a history as `Bus.read` does."""
        kept = self._kept.get(topic)
        if kept is not None and kept.expires <= now:
            self._forget(topic)
            kept = None
        if kept is None:
            # Of a topic that was forgotten, the floor is the least that is surely not before its last message.
            position = Position(self.epoch, self._floor)
            complete = after is None or (after.epoch == self.epoch and after.offset >= self._floor)
            return Reading(position, [], complete)
        oldest = kept.offset - len(kept.messages)  # the place before the oldest that is there
        start = oldest if after is None else after.offset if after.epoch == self.epoch else 0
        complete = after is None or (after.epoch == self.epoch and oldest <= start <= kept.offset)
        start = min(max(start, oldest), kept.offset)
        messages = list(kept.messages)[start - oldest : start - oldest + limit] if start < kept.offset else []
        found = [Stored(Position(self.epoch, start + i), data) for i, data in enumerate(messages, 1)]
        return Reading(Position(self.epoch, kept.offset), found, complete)

    def sweep(self, now: float) -> None:
        """Forget what has expired."""
        for topic in [topic for topic, kept in self._kept.items() if kept.expires <= now]:
            self._forget(topic)

    def _shift(self, kept: _Kept) -> None:
        gone = len(kept.messages.popleft())
        kept.bytes -= gone
        self.bytes -= gone

    def _clear(self, kept: _Kept) -> None:
        self.bytes -= kept.bytes
        kept.bytes = 0
        kept.messages.clear()

    def _forget(self, topic: str) -> None:
        kept = self._kept.pop(topic)
        self._clear(kept)
        self._floor = max(self._floor, kept.offset)
