"""Frames as the old implementation has them."""

from __future__ import annotations

from typing import NamedTuple

from wsfast.events import BytesLike

from .. import frames
from ..frames import Close
from ..imports import lend
from ..typing import DataLike

__all__ = ["Close", "Frame", "encode_data", "parse_close", "prepare_ctrl", "prepare_data", "serialize_close"]


class Frame(NamedTuple):
    """A frame; `new_frame` is the same as a `websockets.frames.Frame`."""

    fin: bool
    opcode: frames.Opcode
    data: BytesLike
    rsv1: bool = False
    rsv2: bool = False
    rsv3: bool = False

    @property
    def new_frame(self) -> frames.Frame:
        """The same as a `websockets.frames.Frame`."""
        return frames.Frame(self.opcode, self.data, self.fin, self.rsv1, self.rsv2, self.rsv3)

    def __str__(self) -> str:
        return str(self.new_frame)

    def check(self) -> None:
        """Raise `ProtocolError` if it is not a valid frame."""
        self.new_frame.check()


def prepare_data(data: DataLike) -> tuple[int, BytesLike]:
    """Return the opcode and the bytes of a message.

    Raises:
        TypeError: it is neither `str` nor bytes-like.
    """
    if isinstance(data, str):
        return frames.Opcode.TEXT, data.encode()
    if isinstance(data, BytesLike):
        return frames.Opcode.BINARY, data
    raise TypeError("data must be str or bytes-like")


def prepare_ctrl(data: DataLike) -> bytes:
    """Return the bytes of a ping or a pong.

    Raises:
        TypeError: it is neither `str` nor bytes-like.
    """
    return bytes(prepare_data(data)[1])


encode_data = prepare_ctrl


def parse_close(data: bytes) -> tuple[int, str]:
    """Return the code and the reason of a Close frame's payload.

    Raises:
        ProtocolError: it is malformed.
        UnicodeDecodeError: the reason is not UTF-8.
    """
    close = Close.parse(data)
    return close.code, close.reason


def serialize_close(code: int, reason: str) -> bytes:
    """Return the payload of a Close frame."""
    return Close(code, reason).serialize()


lend(globals())
