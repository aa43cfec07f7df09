"""Puts pieces of received messages together, or drops them, where nobody takes them one by one (RFC 6455, 5.4).

Sans-IO. A decoder in streaming mode returns `Fragment`s. When streaming begins or ends within a message, its consumer
may want it whole, or not want the rest of it.
"""

from __future__ import annotations

from .events import Fragment

__all__ = ["Assembler"]


class Assembler:
    """What is known of the one message that is arriving in pieces."""

    __slots__ = ("_data", "_skipping", "_text")

    def __init__(self) -> None:
        # One buffer, so that memory does not depend on how many pieces there are.
        self._data: bytearray | None = None
        self._text = False
        self._skipping = False

    def add(self, piece: Fragment) -> str | bytes | None:
        """Take the next piece; return the message if it was the last one, None if not, or if the message is skipped."""
        if self._skipping:
            self._skipping = not piece.final
            return None
        if self._data is None:
            self._data, self._text = bytearray(), isinstance(piece.data, str)
        self._data += piece.data.encode() if isinstance(piece.data, str) else piece.data
        return self._take() if piece.final else None

    def skip(self) -> None:
        """Drop the rest of the message that is arriving."""
        self._data = None
        self._skipping = True

    def begun(self) -> Fragment | None:
        """Return what there is of a message that is not complete, and forget it; None if there is nothing."""
        return None if self._data is None else Fragment(self._take(), False)

    def _take(self) -> str | bytes:
        data, self._data = self._data, None
        assert data is not None
        return data.decode() if self._text else bytes(data)
