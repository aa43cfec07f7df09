"""Differential fuzzing of the decoders: the Cython one and the Python one take the same bytes in the same pieces.

The first bytes of the input choose the options, the rest are the stream, or instructions to build one of frames. Three
things must hold:

* through `feed`, each call leaves the same events, `held` and `pending` on both;
* through `get_buffer` and `buffer_updated`, where they lend different amounts, the messages are the same in the end;
* neither raises anything.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from wsfast import _codec, _codec_py
from wsfast.events import Fragment
from wsfast.exceptions import InvalidPayload, PayloadTooBig, PeerError

from .source import Cuts, Source

SIZES = (None, 1, 2, 5, 125, 126, 127, 1000, 4095, 4096, 4097, 16384, 65535, 65536, 1 << 20, 1 << 63)
COUNTS = (None, 1, 2, 3, 7)
LENGTHS = (0, 1, 2, 3, 4, 5, 8, 30, 124, 125, 126, 127, 4095, 4096, 4097, 5000, 16384, 20000, 65535, 65536)


class Inflater:
    """Stands for permessage-deflate: gives back each byte twice, and fails at a 0xEE."""

    def __call__(self, data: bytes, fin: bool, limit: int) -> bytes:
        if b"\xee" in data:
            raise InvalidPayload("compressed data is invalid: 0xee")
        doubled = bytearray(2 * len(data))
        doubled[::2] = doubled[1::2] = data
        return bytes(doubled)


class Options:
    """What the first bytes of the input choose."""

    def __init__(self, source: Source) -> None:
        flags = source.byte()
        self.masked = bool(flags & 1)
        self.streaming = bool(flags & 2)
        self.compressed = bool(flags & 4)
        self.built = bool(flags & 8)
        self.toggled = bool(flags & 16)
        self.small_buffer = bool(flags & 32)
        self.max_size = source.choice(SIZES)
        self.max_fragments = source.choice(COUNTS)
        self.max_events = source.choice(COUNTS)
        self.cuts = source.byte()

    def make(self, codec: ModuleType) -> Any:
        """Make a decoder of one of the codecs."""
        decoder = codec.Decoder(
            masked=self.masked,
            max_size=self.max_size,
            max_fragments=self.max_fragments,
            max_events=self.max_events,
            inflate=Inflater() if self.compressed else None,
            buffer=bytearray(1024) if self.small_buffer else None,
        )
        decoder.streaming = self.streaming
        return decoder


def build(source: Source, masked: bool) -> bytes:
    """Build a stream of frames as the input says, mostly proper ones."""
    stream = bytearray()
    while source and len(stream) < 100_000:
        first = source.byte()
        shape = source.byte()
        size = source.choice(LENGTHS) if shape & 1 else source.number(16)
        payload = source.take(min(size, 1 + shape % 32))
        payload = (payload * (size // len(payload) + 1))[:size] if payload else b"a" * size
        declared = size + (source.number(3) if shape & 64 else 0)
        flag = 128 if masked != bool(shape & 128 and first & 32) else 0
        if declared < 126 and not shape & 32:
            head = bytes((first, flag | declared))
        elif declared < 65536:
            head = bytes((first, flag | 126)) + declared.to_bytes(2, "big")
        else:
            head = bytes((first, flag | 127)) + declared.to_bytes(8, "big")
        stream += head
        if flag:
            key = source.take(4).ljust(4, b"\x5a")
            stream += key
            payload = _codec_py.apply_mask(payload, key)  # type: ignore[assignment]
        stream += payload
    return bytes(stream)


def observe(decoder: Any, events: list[Any]) -> tuple[Any, ...]:
    """Return what a call left behind, in a form that can be compared."""
    return [_plain(event) for event in events], decoder.held, decoder.pending


def _plain(event: Any) -> tuple[Any, ...]:
    if isinstance(event, PeerError):
        return type(event), event.code, event.reason, str(event)
    return type(event), event


def messages(events: list[Any], compressed: bool) -> list[Any]:
    """Join pieces to messages, as the pieces depend on the cuts; drop what is unfinished, and a failure's text.

    Where a compressed message is both too big and no UTF-8, the cuts decide which is found first.
    """
    joined: list[Any] = []
    parts: list[Any] = []
    for event in events:
        if isinstance(event, Fragment):
            parts.append(event.data)
            if event.final:
                joined.append(type(event.data)().join(parts))
                parts = []
        elif compressed and isinstance(event, (InvalidPayload, PayloadTooBig)):
            joined.append((InvalidPayload, PayloadTooBig))
        elif isinstance(event, PeerError):
            joined.append((type(event), event.code))
        else:
            joined.append(event)
    return joined


def feed(options: Options, stream: bytes) -> list[Any]:
    """Feed both decoders call by call, and return all events."""
    fast, plain = options.make(_codec), options.make(_codec_py)
    total: list[Any] = []
    for number, piece in enumerate(Cuts(options.cuts).split(stream)):
        if options.toggled and number % 3 == 2:
            fast.streaming = plain.streaming = not plain.streaming
        data = piece
        for _ in range(100_000):
            events, expected = fast.feed(data), plain.feed(data)
            got, want = observe(fast, events), observe(plain, expected)
            if got != want:
                raise AssertionError(f"feed, piece {number}: Cython {got!r:.2000}, Python {want!r:.2000}")
            total += expected
            if not plain.pending:
                break
            data = b""
        else:
            raise AssertionError("pending never ends")
    return total


def receive(options: Options, codec: ModuleType, stream: bytes) -> list[Any]:
    """Let a decoder lend memory, as a transport would, and return all events."""
    decoder = options.make(codec)
    total: list[Any] = []
    at = 0
    cuts = Cuts(options.cuts)
    while at < len(stream):
        lent = decoder.get_buffer(-1)
        size = min(len(lent), cuts.next(), len(stream) - at)
        lent[:size] = stream[at : at + size]
        del lent
        if options.toggled:
            decoder.streaming = bool(at & 1)
        at += size
        total += decoder.buffer_updated(size)
        for _ in range(100_000):
            if not decoder.pending:
                break
            total += decoder.feed(b"")
        else:
            raise AssertionError("pending never ends")
    return total


def run(data: bytes) -> None:
    """Check one input."""
    source = Source(data)
    options = Options(source)
    stream = build(source, options.masked) if options.built else source.rest()
    fed = messages(feed(options, stream), options.compressed)
    fast = messages(receive(options, _codec, stream), options.compressed)
    plain = messages(receive(options, _codec_py, stream), options.compressed)
    if not fed == fast == plain:
        raise AssertionError(f"fed {fed!r:.2000}, received by Cython {fast!r:.2000}, by Python {plain!r:.2000}")
