"""Choices and bytes drawn from a fuzzer's input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Source:
    """Draws from the front of the input; once that is used up, everything drawn is zero or empty.

    Args:
        data: the input.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Return whether anything is left."""
        return self._at < len(self._data)

    def byte(self) -> int:
        """Draw a number from 0 to 255."""
        if not self:
            return 0
        self._at += 1
        return self._data[self._at - 1]

    def number(self, below: int) -> int:
        """Draw a number from 0 on; two bytes, the low one first, if `below` is more than 256."""
        value = self.byte()
        if below > 256:
            value |= self.byte() << 8
        return value % below

    def choice(self, items: Sequence[T]) -> T:
        """Draw one of some items."""
        return items[self.number(len(items))]

    def take(self, size: int) -> bytes:
        """Draw at most `size` bytes."""
        self._at, start = min(self._at + size, len(self._data)), self._at
        return self._data[start : self._at]

    def rest(self) -> bytes:
        """Draw all that is left."""
        return self.take(len(self._data))


class Cuts:
    """Sizes of the pieces in which a stream comes: pseudo-random, from one byte of the input.

    Args:
        seed: 0 for one piece, 1 for single bytes; above that the lower three bits say how large the pieces are. After
            100 pieces they grow, so that a long stream takes no longer than a short one.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._count = 0
        self._state = seed * 2654435761 + 1

    def next(self) -> int:
        """Return the size of the next piece, at least 1."""
        if self._seed == 0:
            return 1 << 30
        self._count += 1
        grown = max(1, self._count - 100)
        if self._seed == 1:
            return grown
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) & (1 << 64) - 1
        return grown + (self._state >> 33) % (3, 8, 40, 150, 1000, 5000, 20000, 100000)[self._seed & 7]

    def split(self, data: bytes) -> list[bytes]:
        """Cut data into pieces."""
        pieces = []
        at = 0
        while at < len(data):
            size = self.next()
            pieces.append(data[at : at + size])
            at += size
        return pieces
