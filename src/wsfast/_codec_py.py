"""The codec of RFC 6455, section 5, in plain Python: the readable specification.

It owns the bytes of frames: parsing, masking, UTF-8 checking, assembly of fragments, limits, and
encoding. It knows nothing of handshakes, of the state of a connection, or of input and output.
`_codec.pyx` is its fast twin, with the same names, signatures, errors and texts; a change to one
lands with the other, and `tests/test_codec_parity.py` holds them equal.

    0                   1                   2                   3
    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
   +-+-+-+-+-------+-+-------------+-------------------------------+
   |F|R|R|R| opcode|M| Payload len |    Extended payload length    |
   |I|S|S|S|  (4)  |A|     (7)     |             (16/64)           |
   |N|V|V|V|       |S|             |   (if payload len==126/127)   |
   | |1|2|3|       |K|             |                               |
   +-+-+-+-+-------+-+-------------+-------------------------------+
   |  Masking key, if MASK set to 1 (4 bytes)  |  Payload ...      |
   +-------------------------------------------+-------------------+
"""

from __future__ import annotations

import codecs
import io
import operator
import os
import sys
from typing import Final, NoReturn

from .codes import Opcode
from .events import BytesLike, Close, Event, Extensions, Fragment, Inflate, Ping, Pong
from .exceptions import InvalidPayload, PayloadTooBig, PeerError, ProtocolError
from .octets import copied

__all__ = ["Decoder", "Encoder", "apply_mask", "encode_frame"]

RECEIVE_SIZE: Final = 65536
"""Bytes of the receive buffer that a decoder makes for itself if it is given none."""

MOST_INFLATED: Final = 65536
"""With `max_events`, a call stops after the message that brings what it has inflated to so many bytes."""

_CONTROL: Final = 0x8
_OPCODES: Final = {int(opcode) for opcode in Opcode}
_LONGEST: Final = 2**63 - 1
"""The longest frame that RFC 6455, 5.2 can express; a higher limit limits nothing."""


def apply_mask(data: BytesLike, mask: BytesLike, out: bytearray | memoryview | None = None) -> bytes | None:
    """Mask or unmask data: XOR it with a repeated four-byte key (RFC 6455, 5.3).

    Args:
        data: bytes-like, any length.
        mask: bytes-like, four bytes.
        out: None to return new `bytes`; else writable bytes-like of the length of `data`, which may be
            `data` itself, to write there and return None.

    Raises:
        ValueError: `mask` has not four bytes, or `out` has another length than `data`.
        TypeError: an argument is not bytes-like, or `out` is not writable.
    """
    source, key = _octets(data), _octets(mask)
    if len(key) != 4:
        raise ValueError(f"mask must have 4 bytes, got {len(key)}")
    repeated = (key * (len(source) // 4 + 1))[: len(source)]
    masked = (int.from_bytes(source, "little") ^ int.from_bytes(repeated, "little")).to_bytes(len(source), "little")
    if out is None:
        return masked
    target = _writable(out, "out")
    try:
        if target.nbytes != len(masked):
            raise ValueError(f"out must have {len(masked)} bytes as data has, got {target.nbytes}")
        io.BytesIO(masked).readinto(target)  # unlike a slice assignment, takes any format
    finally:
        if target is not out:
            target.release()
    return None


def encode_frame(
    opcode: int,
    payload: str | BytesLike = b"",
    *,
    fin: bool = True,
    rsv1: bool = False,
    mask: BytesLike | None = None,
) -> bytes:
    """Encode one frame (RFC 6455, 5.2).

    Args:
        opcode: an `Opcode`.
        payload: bytes-like, or `str`, which is encoded in UTF-8; at most 125 bytes in a control frame. Default:
            ``b""``.
        fin: False for a fragment that others follow. A control frame cannot be fragmented. Default: True.
        rsv1: the bit that marks a compressed message (RFC 7692, 6). Default: False.
        mask: None, the default, for a server's frame; four bytes, bytes-like, for a client's.

    Raises:
        ValueError: an unknown opcode, a control frame too long or fragmented, a mask that has not four
            bytes, or a `str` with a lone surrogate (`UnicodeEncodeError`).
        TypeError: the payload is neither `str` nor bytes-like, or the opcode is no integer.
    """
    data = _payload(payload)
    opcode = operator.index(opcode)
    if opcode not in _OPCODES:
        raise ValueError(f"unknown opcode {opcode}")
    if opcode & _CONTROL:
        if not fin:
            raise ValueError("a control frame cannot be fragmented")
        if len(data) > 125:
            raise ValueError(f"a control frame's payload must have at most 125 bytes, got {len(data)}")
    first = opcode | (0x80 if fin else 0) | (0x40 if rsv1 else 0)
    masked = 0 if mask is None else 0x80
    if len(data) < 126:
        head = bytes((first, masked | len(data)))
    elif len(data) < 65536:
        head = bytes((first, masked | 126)) + len(data).to_bytes(2, "big")
    else:
        head = bytes((first, masked | 127)) + len(data).to_bytes(8, "big")
    if mask is None:
        return head + data
    return head + _octets(mask) + apply_mask(data, mask)  # type: ignore[operator]


class Encoder:
    """Frames of one side, gathered until they are taken, so that many go out in one write.

    Args:
        mask: True on the client's side: each frame is masked with a fresh key from the operating
            system's random source (RFC 6455, 5.3). False, the default, on the server's.
    """

    __slots__ = ("_mask", "_out")

    def __init__(self, *, mask: bool = False) -> None:
        if hasattr(self, "_mask"):
            raise RuntimeError(f"{type(self).__name__}.__init__() was called twice")
        self._mask = bool(mask)
        self._out = bytearray()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __len__(self) -> int:
        """Return the number of bytes that are gathered and not yet taken."""
        return len(self._out)

    def message(self, data: str | BytesLike) -> None:
        """Append a whole message: a text frame for `str`, a binary frame for bytes-like.

        Raises:
            TypeError: `data` is neither `str` nor bytes-like.
            UnicodeEncodeError: `data` has a lone surrogate.
        """
        self.frame(Opcode.TEXT if isinstance(data, str) else Opcode.BINARY, data)

    def frame(self, opcode: int, payload: str | BytesLike = b"", *, fin: bool = True, rsv1: bool = False) -> None:
        """Append one frame; arguments and errors are those of `encode_frame`."""
        mask = os.urandom(4) if self._mask else None
        self._out += encode_frame(opcode, payload, fin=fin, rsv1=rsv1, mask=mask)

    def encoded(self, frames: BytesLike) -> None:
        """Append frames that were encoded before, as `encode_frame` returns them.

        Raises:
            TypeError: `frames` is not bytes-like.
        """
        self._out += _octets(frames)

    def take(self) -> bytes:
        """Return all that was gathered, and forget it."""
        taken = bytes(self._out)
        self._out.clear()
        return taken


class Decoder:
    """The frames of the peer, parsed from any cut of its byte stream into events.

    An event is a message (`str` or `bytes`), a `Ping`, a `Pong`, a `Close`, in streaming mode a
    `Fragment`, or, last of all, a `PeerError` that says how the peer broke the protocol and with which
    code to fail the connection. After a `Close` or a `PeerError` all further data is dropped.

    Bytes come in by `feed`, or are received in place: `get_buffer` lends memory, `buffer_updated` says
    how much of it was filled.

    Args:
        masked: True if the peer must mask its frames (it is a client), False if it must not (RFC 6455, 5.1).
        max_size: the most bytes of a message, after decompression too; None for no limit but `sys.maxsize`, which no
            object exceeds: 2 GiB less one byte on 32-bit platforms. A message is refused from the declared length,
            before any memory is taken. Default: 1 MiB.
        max_fragments: the most frames of a message, empty ones too; None, the default, for no limit.
        max_events: the most events that one call returns, a failure not counted; None, the default, for no limit. Where
            more may be complete, `pending` is True, and `feed(b"")` returns the next. With a limit, a call also stops
            once it has inflated 64 KiB, or `extensions` have made as much of it: a few bytes of each message can hold
            as much as `max_size`.
        inflate: None, the default, or what decompresses messages with RSV1 set (RFC 7692, 6.2): called as
            ``inflate(data, fin, limit)`` for each piece of the message in order, `fin` True with the
            last, `limit` the bytes that the message may still grow (-1: no limit). It returns `bytes` or
            raises a `PeerError`. Any other exception of it escapes, and ends the decoder as a failure does.
        extensions: None, the default, or what takes extensions off the frames that come, before this decoder sees
            them; see `events.Extensions`. What it raises escapes, and ends the decoder as a failure does.
        buffer: writable, at least 1 KiB: the memory that `get_buffer` lends, which may be shared between decoders
            whose calls do not interleave. None, the default, for one of its own, of 64 KiB, made when needed.

    Raises:
        ValueError: a limit is negative or zero, or the buffer is too small or not of a native format.
        TypeError: a limit is no integer, or the buffer is not writable and contiguous.
        RuntimeError: the decoder was made already.
    """

    __slots__ = (
        "_buffer",
        "_busy",
        "_checked",
        "_compressed",
        "_done",
        "_emitted",
        "_extensions",
        "_fin",
        "_fragments",
        "_inflate",
        "_inflated",
        "_input",
        "_lent",
        "_mask",
        "_masked",
        "_max_events",
        "_max_fragments",
        "_max_size",
        "_message",
        "_opcode",
        "_partial",
        "_remaining",
        "_size",
        "_stopped",
        "_streaming",
    )

    def __init__(
        self,
        *,
        masked: bool,
        max_size: int | None = 1048576,
        max_fragments: int | None = None,
        max_events: int | None = None,
        inflate: Inflate | None = None,
        extensions: Extensions | None = None,
        buffer: bytearray | memoryview | None = None,
    ) -> None:
        if hasattr(self, "_busy"):
            raise RuntimeError(f"{type(self).__name__}.__init__() was called twice")
        self._masked = bool(masked)
        self._max_size = _limit("max_size", max_size)
        self._max_fragments = _limit("max_fragments", max_fragments)
        self._max_events = _limit("max_events", max_events)
        self._inflate = inflate
        self._extensions = extensions
        self._buffer = None if buffer is None else _receive_buffer(buffer)
        self._streaming = False
        self._input = bytearray()  # received, not yet parsed
        self._done = False  # after a Close or a failure
        self._stopped = False  # by max_events
        self._inflated = 0  # bytes, by this call, where max_events bounds it
        self._busy = False  # while `inflate` or `extensions` may be running
        self._lent = 0  # bytes, by get_buffer
        # The data frame whose payload is being received:
        self._partial = False
        self._fin = False
        self._mask = b""
        self._remaining = 0
        # The message that is being assembled; its opcode is 0 between messages:
        self._opcode = 0
        self._compressed = False
        self._fragments = 0
        self._size = 0  # bytes so far, decompressed, delivered pieces included
        self._emitted = 0  # of these, delivered as pieces
        self._message = bytearray()  # the others
        self._checked = 0  # of these, whole characters of UTF-8

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    @property
    def streaming(self) -> bool:
        """Whether messages are delivered piece by piece, as `Fragment` events; may be set at any time.

        A message of which a piece was delivered goes on in pieces to its end.
        """
        return self._streaming

    @streaming.setter
    def streaming(self, value: bool) -> None:
        self._streaming = bool(value)

    @property
    def held(self) -> int:
        """The bytes that are kept of an unfinished frame or message."""
        held = len(self._input) + len(self._message)
        return held if self._extensions is None else held + self._extensions.held

    @property
    def in_message(self) -> bool:
        """Whether a message has begun to arrive and its last frame has not; meaningless after a failure."""
        return self._opcode != 0

    @property
    def pending(self) -> bool:
        """Whether `max_events` stopped the last call, so that ``feed(b"")`` may go on; it may return nothing yet."""
        return self._stopped

    def feed(self, data: BytesLike) -> list[Event]:
        """Take in received bytes, of any number, and return the events they complete, in order.

        Raises:
            TypeError: `data` is not bytes-like.
            RuntimeError: the call was made by this decoder's own `inflate` or `extensions`.
        """
        received = memoryview(_octets(data))
        self._lent = 0
        if self._busy:
            raise RuntimeError("the decoder is at work: feed() was called from within inflate(), or by another thread")
        if self._done:
            return []
        return self._parse(received)

    def get_buffer(self, sizehint: int = -1) -> memoryview:
        """Lend memory to receive into; which memory, and how much, is the decoder's choice.

        It is lent until the next call of `buffer_updated`, `feed` or `get_buffer`: what is written to it
        later may show in a message.

        Args:
            sizehint: ignored, there for `asyncio.BufferedProtocol`. Default: -1.

        Raises:
            RuntimeError: the call was made by this decoder's own `inflate` or `extensions`.
        """
        if self._busy:
            raise RuntimeError(
                "the decoder is at work: get_buffer() was called from within inflate(), or by another thread"
            )
        if self._buffer is None:
            self._buffer = memoryview(bytearray(RECEIVE_SIZE))
        self._lent = len(self._buffer)
        return self._buffer

    def buffer_updated(self, nbytes: int) -> list[Event]:
        """Take in the first bytes of what `get_buffer` lent, and return the events they complete.

        Raises:
            ValueError: `nbytes` is negative, or more than was lent.
            TypeError: `nbytes` is no integer.
            RuntimeError: the call was made by this decoder's own `inflate` or `extensions`.
        """
        nbytes = operator.index(nbytes)
        if not 0 <= nbytes <= self._lent:
            raise ValueError(f"nbytes must be from 0 to the {self._lent} bytes lent, got {nbytes}")
        self._lent = 0
        return self.feed(b"" if self._buffer is None else self._buffer[:nbytes])

    def _parse(self, received: memoryview) -> list[Event]:
        events: list[Event] = []
        self._stopped = False
        self._inflated = 0
        self._busy = True
        try:
            if self._extensions is None:
                self._input += received
            else:
                # A few bytes of each frame may stand for as much as `max_size`, as where they are inflated.
                most = 0 if self._input else sys.maxsize if self._max_events is None else MOST_INFLATED
                self._input += self._extensions.receive(bytes(received), most)
            while self._payload(events) if self._partial else self._frame(events):
                if self._done:
                    break
                if len(events) == self._max_events or self._inflated >= MOST_INFLATED:
                    self._stopped = bool(self._input)
                    break
            self._emit(events)
            if self._extensions is not None and not (self._done or self._stopped):
                if self._extensions.failure is not None:
                    raise self._extensions.failure
                self._stopped = self._extensions.pending
        except PeerError as failure:
            self._emit(events)
            # Its traceback would keep this decoder alive for as long as the event.
            events.append(failure.with_traceback(None))
            self._done = True
        except BaseException:
            # `inflate` or `extensions` is at fault, not the peer. The data it was given is lost, so decoding cannot go
            # on.
            self._done = True
            raise
        finally:
            self._busy = False
            if self._done:
                self._input.clear()
                self._message.clear()
        return events

    def _frame(self, events: list[Event]) -> bool:
        """Parse the head of a frame, and the whole of a control frame; False if more input is needed."""
        data = self._input
        if len(data) < 2:
            return False
        first, second = data[0], data[1]
        opcode = first & 0x0F
        fin = bool(first & 0x80)
        control = bool(opcode & _CONTROL)
        # RFC 6455, 5.2: reserved bits "MUST be 0 unless an extension is negotiated that defines meanings for non-zero
        # values". RFC 7692, 6: "An endpoint MUST NOT set the "Per-Message Compressed" bit of control frames and
        # non-first fragments of a data message."
        reserved = first & 0x70
        if reserved and not (reserved == 0x40 and self._inflate is not None and opcode in (1, 2)):
            raise ProtocolError(f"reserved bits 0x{reserved:02x} set in a frame with opcode 0x{opcode:x}")
        if opcode not in _OPCODES:
            raise ProtocolError(f"reserved opcode 0x{opcode:x}")
        if control:
            # RFC 6455, 5.5: "All control frames MUST have a payload length of 125 bytes or less and MUST NOT be
            # fragmented."
            if not fin:
                raise ProtocolError(f"control frame with opcode 0x{opcode:x} is fragmented")
        elif opcode == Opcode.CONT:
            # RFC 6455, 5.4: "The fragments of one message MUST NOT be interleaved between the fragments of another
            # message unless an extension has been negotiated that can interpret the interleaving."
            if not self._opcode:
                raise ProtocolError("continuation frame without a message to continue")
        elif self._opcode:
            raise ProtocolError("new message before the last one was finished")
        # RFC 6455, 5.1: "The server MUST close the connection upon receiving a frame that is not masked." "A client
        # MUST close a connection if it detects a masked frame."
        if bool(second & 0x80) != self._masked:
            raise ProtocolError("frame is not masked" if self._masked else "frame is masked")
        length = second & 0x7F
        position = 2
        if length > 125:
            if control:
                raise ProtocolError(f"control frame with opcode 0x{opcode:x} has more than 125 bytes")
            position = 4 if length == 126 else 10
            if len(data) < position:
                return False
            length = int.from_bytes(data[2:position], "big")
            # RFC 6455, 5.2: "the minimal number of bytes MUST be used to encode the length"; of 64 bits, "the most
            # significant bit MUST be 0".
            if length < (126 if position == 4 else 65536):
                raise ProtocolError(f"length {length} is not encoded in the shortest form")
            if length >> 63:
                raise ProtocolError(f"length {length} has its most significant bit set")
        if not control:
            self._check_limits(length, compressed=bool(reserved) if opcode else self._compressed)
        mask = b""
        if self._masked:
            if len(data) < position + 4:
                return False
            mask = bytes(data[position : position + 4])
            position += 4
        if control:
            if len(data) < position + length:
                return False
            if self._emit(events):
                return True  # What came before it goes first; then this frame again.
            payload = bytes(data[position : position + length])
            del data[: position + length]
            self._control(opcode, _unmask(payload, mask), events)
            return True
        del data[:position]
        if opcode:
            self._opcode = opcode
            self._compressed = bool(reserved)
        self._fragments += 1
        self._fin = fin
        self._mask = mask
        self._remaining = length
        self._partial = True
        return True

    def _check_limits(self, length: int, compressed: bool) -> None:
        if self._max_fragments is not None and self._fragments >= self._max_fragments:
            raise PayloadTooBig(f"message has more than {self._max_fragments} fragments")
        # What a compressed frame holds is bounded while it is inflated.
        if compressed:
            return
        if self._max_size is not None and length > self._max_size - self._size:
            self._too_big(length, self._max_size)
        # Pieces that are delivered one by one may be more in all than fits into one object.
        if length > sys.maxsize - len(self._message) and not (self._streaming or self._emitted):
            self._too_big(length, sys.maxsize)

    def _too_big(self, more: int, limit: int) -> NoReturn:
        raise PayloadTooBig(f"message has {self._size + more} bytes or more, the limit is {limit}")

    def _control(self, opcode: int, payload: bytes, events: list[Event]) -> None:
        if opcode == Opcode.PING:
            events.append(Ping(payload))
        elif opcode == Opcode.PONG:
            events.append(Pong(payload))
        else:
            events.append(_parse_close(payload))
            self._done = True

    def _payload(self, events: list[Event]) -> bool:
        """Take what there is of a data frame's payload; False if more input is needed."""
        if self._remaining and not self._input:
            return False
        chunk = bytes(self._input[: self._remaining])
        del self._input[: len(chunk)]
        self._remaining -= len(chunk)
        ends = self._remaining == 0
        plain = _unmask(chunk, self._mask)
        if self._mask:
            turn = len(chunk) % 4
            self._mask = self._mask[turn:] + self._mask[:turn]
        if self._compressed and self._inflate is not None:
            limit = -1 if self._max_size is None else self._max_size - self._size
            plain = self._inflate(plain, ends and self._fin, limit)
            if not isinstance(plain, bytes):
                raise TypeError(f"inflate must return bytes, got {type(plain).__name__}")
            if self._max_size is not None and len(plain) > limit:
                self._too_big(len(plain), self._max_size)
            if self._max_events is not None:
                self._inflated += len(plain)
        if len(plain) > sys.maxsize - len(self._message):
            self._too_big(len(plain), sys.maxsize)
        self._message += plain
        self._size += len(plain)
        if self._opcode == Opcode.TEXT:
            self._check_text(final=ends and self._fin)
        if not ends:
            return False
        self._partial = False
        if self._fin:
            self._finish(events)
        return True

    def _check_text(self, *, final: bool) -> None:
        """Fail at the first byte that cannot be UTF-8 (RFC 6455, 8.1), be the message finished or not."""
        # RFC 6455, 8.1: "When an endpoint is to interpret a byte stream as UTF-8 but finds that the byte stream is not,
        # in fact, a valid UTF-8 stream, that endpoint MUST _Fail the WebSocket Connection_."
        try:
            self._checked += codecs.utf_8_decode(self._message[self._checked :], "strict", final)[1]
            # CPython waits for the third byte of a surrogate, though the second tells already.
            rest = self._message[self._checked :]
            valid = rest[:1] != b"\xed" or rest[1:2] < b"\xa0"
        except UnicodeDecodeError as exc:
            self._checked += exc.start
            valid = False
        if not valid:
            raise InvalidPayload(f"text message is not UTF-8 at byte {self._emitted + self._checked}")

    def _finish(self, events: list[Event]) -> None:
        data = bytes(self._message)
        message = data.decode() if self._opcode == Opcode.TEXT else data
        events.append(Fragment(message, True) if self._streaming or self._emitted else message)
        self._message.clear()
        self._opcode = self._fragments = self._size = self._emitted = self._checked = 0

    def _emit(self, events: list[Event]) -> bool:
        """In streaming mode, deliver what has arrived of a message, up to its last whole character.

        That never exceeds `max_events`: either the piece is the event that fills the list, or no piece is left to emit.
        """
        ready = self._checked if self._opcode == Opcode.TEXT else len(self._message)
        if not ready or not (self._streaming or self._emitted):
            return False
        data = bytes(self._message[:ready])
        events.append(Fragment(data.decode() if self._opcode == Opcode.TEXT else data, False))
        del self._message[:ready]
        self._emitted += ready
        self._checked = 0
        return True


def _parse_close(payload: bytes) -> Close:
    """Parse the body of a Close frame (RFC 6455, 5.5.1 and 7.4)."""
    if not payload:
        return Close(1005)
    if len(payload) == 1:
        # RFC 6455, 5.5.1: "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned integer".
        raise ProtocolError("close frame with a body of 1 byte")
    code = int.from_bytes(payload[:2], "big")
    # RFC 6455, 7.4.1: 1005, 1006 and 1015 "MUST NOT be set as a status code in a Close control frame by an endpoint".
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise ProtocolError(f"close frame with the code {code}")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError as exc:
        at = exc.start
    raise InvalidPayload(f"close reason is not UTF-8 at byte {at}")


def _unmask(data: bytes, mask: bytes) -> bytes:
    return apply_mask(data, mask) if mask else data  # type: ignore[return-value]


def _octets(data: BytesLike) -> bytes:
    try:
        return copied(data)
    except TypeError:
        raise TypeError(f"expected a bytes-like object, got {type(data).__name__}") from None


def _writable(out: bytearray | memoryview, name: str) -> memoryview:
    try:
        view = out if type(out) is memoryview else memoryview(out)
    except TypeError:
        raise TypeError(f"{name} must be a bytes-like object, got {type(out).__name__}") from None
    if view.readonly or not view.c_contiguous:
        raise TypeError(f"{name} must be writable and contiguous")
    return view


def _receive_buffer(buffer: bytearray | memoryview) -> memoryview:
    view = _writable(buffer, "buffer")
    if view.format != "B" or view.ndim != 1:  # else shared as it is: thousands of decoders may lend the same
        view = view.cast("B")
    if len(view) < 1024:
        raise ValueError(f"buffer must have at least 1024 bytes, got {len(view)}")
    return view


def _limit(name: str, value: int | None) -> int | None:
    if value is None:
        return None
    value = operator.index(value)
    if value < 1:
        raise ValueError(f"{name} must be positive or None, got {value}")
    return min(value, _LONGEST)


def _payload(data: str | BytesLike) -> bytes:
    if isinstance(data, str):
        return str.encode(data)
    try:
        return copied(data)
    except TypeError:
        raise TypeError(f"expected str or a bytes-like object, got {type(data).__name__}") from None
