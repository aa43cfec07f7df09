"""Messages in pieces (RFC 6455, 5.4), sans-IO.

Received: a decoder in streaming mode returns `Fragment`s. When streaming begins or ends within a message, its consumer
may want it whole, or not want the rest of it; an `Assembler` puts the pieces together, or drops them.

Sent: a program may give a message whole, or as an iterable of pieces. `is_whole` tells which, a `PieceCheck` looks at
each piece before any of it is sent.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from .events import Fragment
from .octets import is_bytes_like

__all__ = ["Assembler", "Decoded", "PieceCheck", "check_pieces", "converted", "is_whole"]


class Assembler:
    """The message that is arriving in pieces; a connection has at most one."""

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

    @property
    def skipping(self) -> bool:
        """Whether the rest of the current message is being dropped."""
        return self._skipping

    @property
    def holding(self) -> bool:
        """Whether a part of an unfinished message is held."""
        return self._data is not None

    def take(self) -> Fragment:
        """Return the part of the unfinished message, and forget it; only while `holding`."""
        return Fragment(self._take(), False)

    def _take(self) -> str | bytes:
        data, self._data = self._data, None
        assert data is not None
        return data.decode() if self._text else bytes(data)


def converted(message: str | bytes, decode: bool | None) -> str | bytes:
    """Return a message as `str` if `decode` is True, as `bytes` if it is False, and as it is if it is None.

    Raises:
        UnicodeDecodeError: it is to be `str`, and is not UTF-8.
    """
    if decode is True and isinstance(message, bytes):
        return message.decode()
    if decode is False and isinstance(message, str):
        return message.encode()
    return message


class Decoded:
    """The pieces of one message, converted as `converted` does; a piece of a binary one may end within a character.

    Args:
        decode: as for `converted`.
    """

    __slots__ = ("_decode", "_decoder")

    def __init__(self, decode: bool | None) -> None:
        self._decode = decode
        self._decoder: codecs.IncrementalDecoder | None = None

    def __call__(self, piece: str | bytes, final: bool) -> str | bytes:
        """Convert the next piece.

        Raises:
            UnicodeDecodeError: the message is to be text, and is not UTF-8.
        """
        if self._decode is not True or isinstance(piece, str):
            return converted(piece, self._decode)
        if self._decoder is None:
            self._decoder = codecs.getincrementaldecoder("utf-8")()
        return self._decoder.decode(piece, final)


def is_whole(message: object) -> bool:
    """Tell whether a message is given whole, as `str` or bytes-like; False for an iterable of pieces.

    Raises:
        TypeError: it is neither, or a dict, whose keys nobody wants to send.
    """
    if isinstance(message, (str, bytes)) or is_bytes_like(message):
        return True
    if isinstance(message, Iterable) and not isinstance(message, dict):
        return False
    raise TypeError(f"a message must be str, bytes-like or an iterable of these, got {type(message).__name__}")


def check_pieces(pieces: object) -> None:
    """Check the pieces of a message before the first is sent, if all are there already.

    Raises:
        TypeError: those of `PieceCheck`.
    """
    if isinstance(pieces, (list, tuple)):
        check = PieceCheck()
        for piece in pieces:
            check(piece)


class PieceCheck:
    """Checks the pieces of one message, one after the other.

    Attributes:
        kind: `str` or `bytes`, as the first piece was; None before it.
    """

    __slots__ = ("kind",)

    def __init__(self) -> None:
        self.kind: type[str | bytes] | None = None

    def __call__(self, piece: object) -> None:
        """Check the next piece.

        Raises:
            TypeError: it is neither `str` nor bytes-like, or not of the kind of the first.
        """
        if not isinstance(piece, (str, bytes)) and not is_bytes_like(piece):
            raise TypeError(f"all fragments must be str or bytes-like, got {type(piece).__name__}")
        kind: type[str | bytes] = str if isinstance(piece, str) else bytes
        if self.kind is None:
            self.kind = kind
        elif kind is not self.kind:
            raise TypeError(f"all fragments must be {self.kind.__name__}, got {type(piece).__name__}")
