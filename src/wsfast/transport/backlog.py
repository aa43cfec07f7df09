"""A loop's own transport, and beside it what is written while it has something unsent.

asyncio's transport, from CPython 3.12 on, sums up its pieces with each that it gets: 830 µs for a frame, with 20,000
waiting for a peer that does not read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

from .loops import write_parts

__all__ = ["Backlog"]

_HIGH: Final = 65536
"""Bytes unsent above which the protocol is paused, if nothing else is set: asyncio's default."""


class Backlog(asyncio.Transport):
    """A transport that holds back what its inner one cannot send at once, counts it, and hands it over in one piece.

    The inner one tells its protocol as soon as something is unsent, and when nothing is. The protocol passes that on by
    calling `pause_writing` and `resume_writing`.

    Args:
        inner: the loop's transport; nobody else may write to it from now on.
        pause, resume: called when more is unsent than the marks allow, and when little is.

    Attributes:
        inner: the argument.
    """

    __slots__ = ("_full", "_held", "_high", "_low", "_pause", "_resume", "_size", "_told", "inner")

    def __init__(self, inner: asyncio.Transport, pause: Callable[[], object], resume: Callable[[], object]) -> None:
        super().__init__()
        self.inner: asyncio.Transport = inner
        self._pause = pause
        self._resume = resume
        self._held: list[bytes] = []
        self._size = 0  # bytes of `_held`
        self._high, self._low = _HIGH, _HIGH // 4
        inner.set_write_buffer_limits(0)
        # What was written before may have paused the protocol.
        self._full = self._told = inner.get_write_buffer_size() > 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.inner!r}, {self._size} bytes held>"

    # --- What the protocol passes on

    def pause_writing(self) -> None:
        """Note that the inner transport has something unsent."""
        self._full = True

    def resume_writing(self) -> None:
        """Note that the inner transport has sent all."""
        self._full = False
        self._hand_over()
        if self._told and self.get_write_buffer_size() <= self._low:
            self._told = False
            self._resume()

    # --- Writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, now or later."""
        if self._full:
            self._hold(data)
        else:
            self.inner.write(data)
        if self._full:
            self._look()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send several pieces, now or later."""
        parts = list(list_of_data)
        if self._full:
            for part in parts:
                self._hold(part)
        elif len(parts) == 2:
            write_parts(self.inner, bytes(parts[0]), bytes(parts[1]))
        else:
            self.inner.write(b"".join(parts))
        if self._full:
            self._look()

    def _hold(self, data: bytes | bytearray | memoryview) -> None:
        self._held.append(bytes(data))
        self._size += len(data)

    def _hand_over(self) -> None:
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            self._size = 0
            self.inner.write(data)

    def _look(self) -> None:
        if not self._told and self.get_write_buffer_size() > self._high:
            self._told = True
            self._pause()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes are unsent."""
        return self._size + self.inner.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the marks, low and high."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks in bytes: above `high` the protocol is paused, until `low` is left; a quarter by default."""
        if high is None:
            high = _HIGH if low is None else 4 * low
        self._high, self._low = high, high // 4 if low is None else low
        self._look()

    # --- The end

    def write_eof(self) -> None:
        """End the sending side, once all is sent."""
        self._hand_over()
        self.inner.write_eof()

    def can_write_eof(self) -> bool:
        """Whether the sending side can be ended by itself."""
        return self.inner.can_write_eof()

    def close(self) -> None:
        """End, once all is sent."""
        self._hand_over()
        self.inner.close()

    def abort(self) -> None:
        """End at once."""
        self._held.clear()
        self._size = 0
        self.inner.abort()

    def is_closing(self) -> bool:
        """Whether it has ended, or is about to."""
        return self.inner.is_closing()

    # --- What is the inner transport's

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport knows of itself: ``"peername"``, ``"socket"`` and the like."""
        return self.inner.get_extra_info(name, default)

    def is_reading(self) -> bool:
        """Whether it receives."""
        return self.inner.is_reading()

    def pause_reading(self) -> None:
        """Receive no more for now."""
        self.inner.pause_reading()

    def resume_reading(self) -> None:
        """Receive again."""
        self.inner.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Set whom to call."""
        self.inner.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return whom is called."""
        return self.inner.get_protocol()
