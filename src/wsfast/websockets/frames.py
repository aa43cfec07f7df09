"""Frames, opcodes and close codes under the names of `websockets`."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import os
import re
import secrets
import struct
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

from wsfast import closing
from wsfast.codes import Close as NativeClose
from wsfast.codes import CloseCode, Opcode
from wsfast.events import BytesLike

from .exceptions import PayloadTooBig, ProtocolError
from .utils import apply_mask

if TYPE_CHECKING:
    from .extensions.base import Extension

__all__ = ["Close", "CloseCode", "Frame", "Opcode"]

CONT, TEXT, BINARY = Opcode.CONT, Opcode.TEXT, Opcode.BINARY
CLOSE, PING, PONG = Opcode.CLOSE, Opcode.PING, Opcode.PONG
DATA_OPCODES = CONT, TEXT, BINARY
CTRL_OPCODES = CLOSE, PING, PONG

CLOSE_CODE_EXPLANATIONS = closing.CLOSE_CODE_EXPLANATIONS
OK_CLOSE_CODES = closing.OK_CLOSE_CODES
_INTERNAL = {CloseCode.NO_STATUS_RCVD, CloseCode.ABNORMAL_CLOSURE, CloseCode.TLS_HANDSHAKE}
EXTERNAL_CLOSE_CODES = set(CloseCode) - _INTERNAL
"""Close codes that a Close frame may have, besides 3000 to 4999."""

_is_plain = re.compile(rb"[\t-\r -~]*").fullmatch
MAX_LOG_SIZE = int(os.environ.get("WEBSOCKETS_MAX_LOG_SIZE", "75"))


@dataclasses.dataclass
class Frame:
    """A frame.

    Attributes:
        opcode: what it is.
        data: its payload.
        fin: whether it is the last of its message.
        rsv1, rsv2, rsv3: the bits that are for extensions.
    """

    opcode: Opcode
    data: BytesLike
    fin: bool = True
    rsv1: bool = False
    rsv2: bool = False
    rsv3: bool = False

    def __str__(self) -> str:
        shown, text = self._shown()
        usual = {TEXT: True, BINARY: False, CLOSE: True}.get(self.opcode)
        facts = [] if text == usual else ["text" if text else "binary"]
        facts.append(f"{len(self.data)} byte{'' if len(self.data) == 1 else 's'}")
        if not self.fin:
            facts.append("continued")
        return f"{self.opcode.name} {shown} [{', '.join(facts)}]"

    def _shown(self) -> tuple[str, bool | None]:
        """Return the payload for the log, and whether it is shown as text."""
        data, most = bytes(self.data), MAX_LOG_SIZE
        if not data:
            return "''", {TEXT: True, BINARY: False, CLOSE: True}.get(self.opcode)
        text: str | None = None
        if self.opcode is CLOSE:
            with contextlib.suppress(ProtocolError, UnicodeDecodeError):
                text = str(Close.parse(data))
        elif self.opcode in CTRL_OPCODES:
            if _is_plain(data):
                text = repr(data.decode())
        else:
            # Of a long payload only the ends are looked at.
            ends = [data] if len(data) <= 4 * most else [data[: 8 * most // 3], data[-4 * most // 3 :]]
            first = is_utf8_fragment(
                ends[0], must_start_clean=self.opcode is not CONT, must_end_clean=self.fin and len(ends) == 1
            )
            if first and (len(ends) == 1 or is_utf8_fragment(ends[1], must_end_clean=self.fin)):
                text = repr(b"".join(ends).decode(errors="replace"))
        if text is None and len(data) > most // 3:
            cut = (most // 3 - 1) // 3
            data = data[: 2 * cut] + bytes(2) + data[-cut:]  # the zeros are where "..." will be
        shown = " ".join(f"{byte:02x}" for byte in data) if text is None else text
        if len(shown) > most:
            cut = most // 3 - 1
            shown = f"{shown[: 2 * cut]}...{shown[-cut:]}"
        return shown, text is not None

    @classmethod
    def parse(
        cls,
        read_exact: Callable[[int], Generator[None, None, bytes | bytearray]],
        *,
        mask: bool,
        max_size: int | None = None,
        extensions: Sequence[Extension] | None = None,
    ) -> Generator[None, None, Frame]:
        """Read a frame; a generator, as `streams.StreamReader` has them.

        Args:
            read_exact: reads a number of bytes.
            mask: whether it must be masked, as a client's is.
            max_size: the most bytes of its payload.
            extensions: applied to it, the last one first.

        Raises:
            EOFError: the stream ends within the frame.
            PayloadTooBig: it has more than `max_size` bytes.
            ProtocolError: it breaks RFC 6455, 5.2 to 5.5.
        """
        first, second = struct.unpack("!BB", (yield from read_exact(2)))
        try:
            opcode = Opcode(first & 0x0F)
        except ValueError as exc:
            raise ProtocolError("invalid opcode") from exc
        # RFC 6455, 5.1: "The server MUST close the connection upon receiving a frame that is not masked", and the
        # client upon one that is.
        if bool(second & 0x80) != mask:
            raise ProtocolError("incorrect masking")
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", (yield from read_exact(2)))
        elif size == 127:
            (size,) = struct.unpack("!Q", (yield from read_exact(8)))
        if max_size is not None and size > max_size:
            raise PayloadTooBig(size, max_size)
        key = (yield from read_exact(4)) if mask else None
        data: BytesLike = yield from read_exact(size)
        if key is not None:
            data = apply_mask(data, key)
        frame = cls(opcode, data, bool(first & 0x80), bool(first & 0x40), bool(first & 0x20), bool(first & 0x10))
        for extension in reversed(extensions or ()):
            frame = extension.decode(frame, max_size=max_size)
        frame.check()
        return frame

    def serialize(self, *, mask: bool, extensions: Sequence[Extension] | None = None) -> bytes:
        """Return the bytes to send.

        Args:
            mask: whether to mask it, as a client does.
            extensions: applied to it in this order.

        Raises:
            ProtocolError: a control frame is in fragments, or has more than 125 bytes.
        """
        self.check()
        frame = self
        for extension in extensions or ():
            frame = extension.encode(frame)
        size = len(frame.data)
        first = frame.opcode | frame.fin << 7 | frame.rsv1 << 6 | frame.rsv2 << 5 | frame.rsv3 << 4
        bit = mask << 7
        if size < 126:
            head = struct.pack("!BB", first, bit | size)
        elif size < 65536:
            head = struct.pack("!BBH", first, bit | 126, size)
        else:
            head = struct.pack("!BBQ", first, bit | 127, size)
        if not mask:
            return head + bytes(frame.data)
        key = secrets.token_bytes(4)
        return head + key + apply_mask(frame.data, key)

    def check(self) -> None:
        """Raise `ProtocolError` if the frame breaks RFC 6455, 5.2 to 5.5."""
        if self.rsv1 or self.rsv2 or self.rsv3:
            raise ProtocolError("reserved bits must be 0")
        if self.opcode in CTRL_OPCODES:
            if len(self.data) > 125:
                raise ProtocolError("control frame too long")
            if not self.fin:
                raise ProtocolError("fragmented control frame")


def is_utf8_fragment(data: bytes, must_start_clean: bool = False, must_end_clean: bool = False) -> bool:
    """Tell whether bytes look like a piece of text, which may begin and end within a character.

    Args:
        data: the piece.
        must_start_clean, must_end_clean: whether it must begin, or end, with a whole character.
    """
    start = 0
    if not must_start_clean:
        while start < min(3, len(data)) and data[start] & 0xC0 == 0x80:
            start += 1
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        text = decoder.decode(data[start:], final=must_end_clean)
    except UnicodeDecodeError:
        return False
    return "\\x" not in repr(text)


class Close(NativeClose):
    """The code and the reason of a Close frame."""

    __slots__ = ()

    def __str__(self) -> str:
        if 3000 <= self.code < 4000:
            explanation = "registered"
        elif 4000 <= self.code < 5000:
            explanation = "private use"
        else:
            explanation = CLOSE_CODE_EXPLANATIONS.get(self.code, "unknown")
        text = f"{self.code} ({explanation})"
        return f"{text} {self.reason}" if self.reason else text

    @classmethod
    def parse(cls, data: BytesLike) -> Close:
        """Take the body of a Close frame apart.

        Raises:
            ProtocolError: it has one byte only, or a code that must not be sent.
            UnicodeDecodeError: the reason is not UTF-8.
        """
        data = bytes(data)
        if not data:
            return cls(CloseCode.NO_STATUS_RCVD, "")
        if len(data) == 1:
            raise ProtocolError("close frame too short")
        close = cls(int.from_bytes(data[:2], "big"), data[2:].decode())
        close.check()
        return close

    def serialize(self) -> bytes:
        """Return the body of the Close frame."""
        self.check()
        return closing.encode_close(self.code, self.reason)

    def check(self) -> None:
        """Raise `ProtocolError` if the code must not be sent (RFC 6455, 7.4)."""
        try:
            super().check()
        except ValueError:
            raise ProtocolError("invalid status code") from None
