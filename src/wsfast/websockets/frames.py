"""Frames, opcodes and close codes under the names of `websockets`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from wsfast.closing import encode_close
from wsfast.codec import encode_frame
from wsfast.codes import Close as NativeClose
from wsfast.codes import CloseCode, Opcode
from wsfast.events import BytesLike

from .exceptions import ProtocolError

__all__ = ["Close", "CloseCode", "Frame", "Opcode"]

CONT, TEXT, BINARY = Opcode.CONT, Opcode.TEXT, Opcode.BINARY
CLOSE, PING, PONG = Opcode.CLOSE, Opcode.PING, Opcode.PONG
DATA_OPCODES = CONT, TEXT, BINARY
CTRL_OPCODES = CLOSE, PING, PONG

CLOSE_CODE_EXPLANATIONS: dict[int, str] = {
    CloseCode.NORMAL_CLOSURE: "OK",
    CloseCode.GOING_AWAY: "going away",
    CloseCode.PROTOCOL_ERROR: "protocol error",
    CloseCode.UNSUPPORTED_DATA: "unsupported data",
    CloseCode.NO_STATUS_RCVD: "no status received [internal]",
    CloseCode.ABNORMAL_CLOSURE: "abnormal closure [internal]",
    CloseCode.INVALID_DATA: "invalid frame payload data",
    CloseCode.POLICY_VIOLATION: "policy violation",
    CloseCode.MESSAGE_TOO_BIG: "message too big",
    CloseCode.MANDATORY_EXTENSION: "mandatory extension",
    CloseCode.INTERNAL_ERROR: "internal error",
    CloseCode.SERVICE_RESTART: "service restart",
    CloseCode.TRY_AGAIN_LATER: "try again later",
    CloseCode.BAD_GATEWAY: "bad gateway",
    CloseCode.TLS_HANDSHAKE: "TLS handshake failure [internal]",
}
"""What the close codes mean, in words."""

_INTERNAL = {CloseCode.NO_STATUS_RCVD, CloseCode.ABNORMAL_CLOSURE, CloseCode.TLS_HANDSHAKE}
EXTERNAL_CLOSE_CODES = set(CloseCode) - _INTERNAL
"""Close codes that a Close frame may have, besides 3000 to 4999."""
OK_CLOSE_CODES = {CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RCVD}

MAX_LOG_SIZE = int(os.environ.get("WEBSOCKETS_MAX_LOG_SIZE", "75"))


@dataclasses.dataclass
class Frame:
    """A frame, to be looked at or sent. To take received bytes apart, use `wsfast.Decoder`."""

    opcode: Opcode
    data: BytesLike
    fin: bool = True
    rsv1: bool = False
    rsv2: bool = False
    rsv3: bool = False

    def __str__(self) -> str:
        data = bytes(self.data)
        kind = ""
        if not data:
            shown = "''"
        elif self.opcode is CLOSE and len(data) >= 2:
            shown = str(Close.parse(data))
        else:
            try:
                shown, text = repr(data.decode()), True
            except UnicodeDecodeError:
                shown, text = " ".join(f"{byte:02x}" for byte in data[: MAX_LOG_SIZE + 1]), False
            if text != {TEXT: True, BINARY: False}.get(self.opcode):
                kind = "text, " if text else "binary, "
        if len(shown) > MAX_LOG_SIZE:
            cut = MAX_LOG_SIZE // 3 - 1
            shown = f"{shown[: 2 * cut]}...{shown[-cut:]}"
        size = f"{len(data)} byte{'' if len(data) == 1 else 's'}"
        return f"{self.opcode.name} {shown} [{kind}{size}{'' if self.fin else ', continued'}]"

    def serialize(self, *, mask: bool, extensions: Sequence[object] | None = None) -> bytes:
        """Return the bytes to send.

        Args:
            mask: whether to mask it, as a client does.
            extensions: must be none: a message is compressed by `wsfast.Connection`, not frame by frame.

        Raises:
            ProtocolError: a control frame is in fragments, or has more than 125 bytes.
        """
        self.check()
        if extensions:
            raise NotImplementedError("frames are not compressed one by one: use wsfast.Connection")
        head = encode_frame(self.opcode, self.data, fin=self.fin, rsv1=self.rsv1, mask=os.urandom(4) if mask else None)
        if self.rsv2 or self.rsv3:
            return bytes([head[0] | self.rsv2 << 5 | self.rsv3 << 4]) + head[1:]
        return head

    def check(self) -> None:
        """Raise `ProtocolError` if the frame breaks RFC 6455, 5.2 to 5.5."""
        if self.rsv1 or self.rsv2 or self.rsv3:
            raise ProtocolError("reserved bits must be 0")
        if self.opcode in CTRL_OPCODES:
            if len(self.data) > 125:
                raise ProtocolError("control frame too long")
            if not self.fin:
                raise ProtocolError("fragmented control frame")


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
        return encode_close(self.code, self.reason)

    def check(self) -> None:
        """Raise `ProtocolError` if the code must not be sent (RFC 6455, 7.4)."""
        if not (self.code in EXTERNAL_CLOSE_CODES or 3000 <= self.code < 5000):
            raise ProtocolError("invalid status code")
