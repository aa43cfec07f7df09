"""`StreamReader` of `websockets`: what its parsers read from, as generators that pause where bytes are missing."""

from __future__ import annotations

from collections.abc import Generator

__all__ = ["StreamReader"]


class StreamReader:
    """Bytes that have come and were not read yet. Each reading method is a generator, which yields to wait for more.

    Attributes:
        buffer: the bytes.
        eof: whether no more will come.
    """

    def __init__(self) -> None:
        self.buffer: bytearray = bytearray()
        self.eof: bool = False

    def _take(self, size: int) -> bytearray:
        taken = self.buffer[:size]
        del self.buffer[:size]
        return taken

    def read_line(self, m: int, too_long_exc_type: type[Exception] = RuntimeError) -> Generator[None, None, bytearray]:
        """Read a line with the LF at its end.

        Args:
            m: the most bytes that it may have.
            too_long_exc_type: raised if it has more.

        Raises:
            EOFError: the stream ends before.
        """
        searched = 0
        while True:
            size = self.buffer.find(b"\n", searched) + 1
            searched = len(self.buffer)
            if max(size, 0 if size else searched) > m:
                raise too_long_exc_type(f"read {size or searched} bytes, expected no more than {m} bytes")
            if size:
                return self._take(size)
            if self.eof:
                raise EOFError(f"stream ends after {searched} bytes, before end of line")
            yield

    def read_exact(self, n: int) -> Generator[None, None, bytearray]:
        """Read `n` bytes.

        Raises:
            EOFError: the stream ends before.
        """
        assert n >= 0
        while len(self.buffer) < n:
            if self.eof:
                raise EOFError(f"stream ends after {len(self.buffer)} bytes, expected {n} bytes")
            yield
        return self._take(n)

    def read_to_eof(
        self, m: int, too_long_exc_type: type[Exception] = RuntimeError
    ) -> Generator[None, None, bytearray]:
        """Read up to the end.

        Args:
            m: the most bytes that there may be.
            too_long_exc_type: raised if there are more.
        """
        while not self.eof:
            if len(self.buffer) > m:
                raise too_long_exc_type(f"read {len(self.buffer)} bytes, expected no more than {m} bytes")
            yield
        return self._take(len(self.buffer))

    def at_eof(self) -> Generator[None, None, bool]:
        """Tell whether the stream has ended and all is read, as soon as that is known."""
        while not self.buffer and not self.eof:
            yield
        return not self.buffer

    def feed_data(self, data: bytes | bytearray) -> None:
        """Add bytes.

        Raises:
            EOFError: the stream has ended.
        """
        if self.eof:
            raise EOFError("stream ended")
        self.buffer += data

    def feed_eof(self) -> None:
        """Note the end.

        Raises:
            EOFError: it was noted before.
        """
        if self.eof:
            raise EOFError("stream ended")
        self.eof = True

    def discard(self) -> None:
        """Forget what was not read."""
        self.buffer.clear()
