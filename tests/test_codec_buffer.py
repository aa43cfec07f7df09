"""`get_buffer` and `buffer_updated` of both codecs: receiving into memory that the decoder lends."""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import mmap
import sys
from types import ModuleType
from typing import Any

import pytest
from codec_helpers import cut, feed_all, receive_all, trace
from vectors import BINARY, CLOSE, CONT, HELLO, PING, TEXT, declare, frame, xor

from wsfast._built import EXTENSIONS
from wsfast.events import Close, Fragment, Ping
from wsfast.exceptions import InvalidPayload, ProtocolError

KEY = b"\xa1\x00\x0f\x7c"


def write(decoder: Any, data: bytes) -> list[Any]:
    lent = decoder.get_buffer()
    assert len(lent) >= len(data)
    lent[: len(data)] = data
    events: list[Any] = decoder.buffer_updated(len(data))
    return events


def test_lends_writable_memory(codec: ModuleType) -> None:
    decoder = codec.Decoder(masked=False)
    for hint in (-1, 0, 1, 2**40):
        lent = decoder.get_buffer(hint)
        assert type(lent) is memoryview
        assert not lent.readonly
        assert lent.contiguous
        assert lent.itemsize == lent.ndim == 1
        assert lent.nbytes >= 1024
    assert len(codec.Decoder(masked=False).get_buffer()) == 65536


def test_events(codec: ModuleType) -> None:
    decoder = codec.Decoder(masked=False)
    assert write(decoder, HELLO + frame(PING) + HELLO[:3]) == ["Hello", Ping(b"")]
    assert decoder.held == 1
    assert write(decoder, HELLO[3:]) == ["Hello"]
    assert decoder.held == 0
    assert trace(write(decoder, HELLO + frame(3))) == trace(["Hello", ProtocolError("reserved opcode 0x3")])
    assert write(decoder, HELLO) == []


def test_mixes_with_feed(codec: ModuleType) -> None:
    data = bytes(i % 253 for i in range(60_000))
    stream = frame(BINARY, data, key=KEY)
    decoder = codec.Decoder(masked=True)
    events: list[Any] = []
    for i, piece in enumerate(cut(stream, 5003)):
        events += decoder.feed(piece) if i % 2 else receive_all(decoder, [piece])
    assert events == [data]


def test_lent_and_not_used(codec: ModuleType) -> None:
    """A transport may ask and then get nothing, or give the bytes otherwise."""
    data = bytes(i % 253 for i in range(60_000))
    stream = frame(BINARY, data, key=KEY)
    decoder = codec.Decoder(masked=True)
    assert decoder.feed(stream[:10]) == []
    decoder.get_buffer()
    assert decoder.feed(stream[10:14]) == []
    decoder.get_buffer()
    decoder.get_buffer()
    assert decoder.feed(stream[14:50_000]) == []
    decoder.get_buffer()
    assert decoder.feed(stream[50_000:] + HELLO[:1]) == [data]
    decoder = codec.Decoder(masked=True)
    assert decoder.feed(stream[:14]) == []
    decoder.get_buffer()
    assert decoder.feed(stream[14:] + frame(TEXT, b"next", key=KEY)) == [data, "next"]


def test_zero_bytes(codec: ModuleType) -> None:
    decoder = codec.Decoder(masked=False)
    assert decoder.buffer_updated(0) == []
    decoder.get_buffer()
    assert decoder.buffer_updated(0) == []
    decoder.feed(declare(BINARY, 100_000))
    decoder.get_buffer()
    assert decoder.buffer_updated(0) == []
    assert decoder.held == 0
    assert receive_all(decoder, [bytes(100_000)]) == [bytes(100_000)]


def test_zero_bytes_fetch_what_is_pending(codec: ModuleType) -> None:
    decoder = codec.Decoder(masked=False, max_events=1)
    assert decoder.feed(HELLO * 2) == ["Hello"]
    assert decoder.buffer_updated(0) == ["Hello"]


@pytest.mark.parametrize("nbytes", [-1, 65537, 2**31, 2**63, 2**64, -(2**63), -(2**64)])
def test_refuses_counts_that_were_not_lent(codec: ModuleType, nbytes: int) -> None:
    decoder = codec.Decoder(masked=False)
    decoder.get_buffer()
    with pytest.raises(ValueError) as info:  # noqa: PT011
        decoder.buffer_updated(nbytes)
    assert str(info.value) == f"nbytes must be from 0 to the 65536 bytes lent, got {nbytes}"
    assert write(decoder, HELLO) == ["Hello"]


@pytest.mark.parametrize("nbytes", [1.0, float("nan"), "1", None, b"1"])
def test_refuses_counts_that_are_no_integers(codec: ModuleType, nbytes: object) -> None:
    decoder = codec.Decoder(masked=False)
    decoder.get_buffer()
    with pytest.raises(TypeError) as info:
        decoder.buffer_updated(nbytes)
    assert str(info.value) == f"'{type(nbytes).__name__}' object cannot be interpreted as an integer"


@pytest.mark.parametrize("large", [False, True])
def test_lent_once(codec: ModuleType, large: bool) -> None:
    decoder = codec.Decoder(masked=False)
    if large:
        decoder.feed(declare(BINARY, 100_000))
    text = r"^nbytes must be from 0 to the 0 bytes lent, got 1$"
    with pytest.raises(ValueError, match=text):
        decoder.buffer_updated(1)
    decoder.get_buffer()[:1] = b"\x81"
    decoder.buffer_updated(1)
    with pytest.raises(ValueError, match=text):
        decoder.buffer_updated(1)
    decoder.get_buffer()
    decoder.feed(b"")
    with pytest.raises(ValueError, match=text):
        decoder.buffer_updated(1)
    decoder.get_buffer()
    decoder.buffer_updated(0)
    with pytest.raises(ValueError, match=text):
        decoder.buffer_updated(1)


class TestOwnBuffer:
    @pytest.mark.parametrize(
        "buffer",
        [
            bytearray(1024),
            memoryview(bytearray(5000)),
            memoryview(bytearray(5000))[100:],
            array.array("I", bytes(2048)),
            memoryview(bytearray(2048)).cast("d"),
            memoryview(bytearray(2048)).cast("B", (2, 1024)),
            mmap.mmap(-1, 4096),
        ],
        ids=lambda buffer: type(buffer).__name__,
    )
    def test_is_lent(self, codec: ModuleType, buffer: Any) -> None:
        decoder = codec.Decoder(masked=False, buffer=buffer)
        lent = decoder.get_buffer()
        assert len(lent) == memoryview(buffer).nbytes
        lent[:7] = HELLO
        assert bytes(memoryview(buffer).cast("B")[:7] if memoryview(buffer).ndim == 1 else HELLO) == HELLO
        assert decoder.buffer_updated(7) == ["Hello"]
        assert receive_all(decoder, [frame(BINARY, bytes(50_000)), frame(TEXT, b"x")]) == [bytes(50_000), "x"]

    def test_is_shared(self, codec: ModuleType) -> None:
        memory = memoryview(bytearray(2048))
        decoders = [codec.Decoder(masked=True, buffer=memory) for _ in range(3)]
        streams = [frame(TEXT, b"%d" % i * 3000, key=KEY) + frame(PING, b"p", key=KEY) for i in range(3)]
        events: list[list[Any]] = [[], [], []]
        for at in range(0, 4000, 700):
            for i, decoder in enumerate(decoders):
                events[i] += receive_all(decoder, [streams[i][at : at + 700]])
        assert events == [[str(i) * 3000, Ping(b"p")] for i in range(3)]

    def test_a_view_is_lent_as_it_is(self, codec: ModuleType) -> None:
        """Thousands of connections of a loop share one object."""
        memory = memoryview(bytearray(2048))
        assert codec.Decoder(masked=False, buffer=memory).get_buffer() is memory

    @pytest.mark.parametrize(
        ("buffer", "kind", "text"),
        [
            (bytearray(1023), ValueError, "buffer must have at least 1024 bytes, got 1023"),
            (bytearray(), ValueError, "buffer must have at least 1024 bytes, got 0"),
            (array.array("I", bytes(1020)), ValueError, "buffer must have at least 1024 bytes, got 1020"),
            (bytes(2048), TypeError, "buffer must be writable and contiguous"),
            (memoryview(bytes(2048)), TypeError, "buffer must be writable and contiguous"),
            (memoryview(bytearray(4096))[::2], TypeError, "buffer must be writable and contiguous"),
            ("x" * 2048, TypeError, "buffer must be a bytes-like object, got str"),
            (2048, TypeError, "buffer must be a bytes-like object, got int"),
            ([0] * 2048, TypeError, "buffer must be a bytes-like object, got list"),
        ],
    )
    def test_refuses(self, codec: ModuleType, buffer: object, kind: type[Exception], text: str) -> None:
        with pytest.raises(kind) as info:
            codec.Decoder(masked=False, buffer=buffer)
        assert str(info.value) == text

    def test_released_by_its_owner(self, codec: ModuleType) -> None:
        memory = memoryview(bytearray(2048))
        decoder = codec.Decoder(masked=False, buffer=memory)
        decoder.get_buffer()[:7] = HELLO
        memory.release()
        with pytest.raises(ValueError, match=r"^operation forbidden on released memoryview object$"):
            decoder.buffer_updated(7)
        with pytest.raises(ValueError, match=r"^operation forbidden on released memoryview object$"):
            decoder.get_buffer()

    def test_released_while_it_is_parsed(self, codec: ModuleType) -> None:
        """Whether that is refused or not is the codec's choice, the bytes are right either way."""
        memory = memoryview(bytearray(4096))

        def inflate(data: bytes, fin: bool, limit: int) -> bytes:
            with contextlib.suppress(BufferError):
                memory.release()
            gc.collect()
            return data

        decoder = codec.Decoder(masked=False, buffer=memory, inflate=inflate)
        stream = frame(TEXT, b"one", rsv=4) + frame(TEXT, b"two" * 1000)
        decoder.get_buffer()[: len(stream)] = stream
        assert decoder.buffer_updated(len(stream)) == ["one", "two" * 1000]


class TestLargeMessages:
    """A large message may be received straight into its own memory, of which views may be kept."""

    @pytest.mark.parametrize("text", [False, True])
    @pytest.mark.parametrize("size", [4095, 4096, 4097, 16_384, 65_536, 65_537, 1_000_000])
    @pytest.mark.parametrize("first", [0, 1, 5, 3000])
    def test_any_size(self, codec: ModuleType, size: int, text: bool, first: int) -> None:
        data = bytes(32 + i % 91 for i in range(size))
        message = data.decode() if text else data
        stream = frame(TEXT if text else BINARY, data, key=KEY) + frame(TEXT, b"n" * 200, key=KEY)
        head = 8 if size < 65536 else 14
        decoder = codec.Decoder(masked=True)
        events = decoder.feed(stream[: head + first])
        events += receive_all(decoder, [stream[head + first :]])
        assert events == [message, "n" * 200]
        assert [type(event) for event in events] == [type(message), str]

    @pytest.mark.parametrize("key", [None, KEY])
    @pytest.mark.parametrize("size", [4096, 30_000, 65_536])
    @pytest.mark.parametrize("wide", ["", "é", "€", "😀"])
    def test_text_that_may_turn_out_wide(self, codec: ModuleType, key: bytes | None, size: int, wide: str) -> None:
        """One character that is not ASCII, wherever it comes, and the text is ASCII again in the next message."""
        for at in (0, 1, 20_000, 65_500, 65_535, 65_536, 99_999, 100_000):
            text = "a" * at + wide + "z" * (100_000 - at)
            data = text.encode()
            third = len(data) // 3
            whole = frame(TEXT, data, key=key)
            parts = frame(TEXT, data[:third], fin=False, key=key) + frame(CONT, data[third:], key=key)
            after = frame(TEXT, b"n" * 50_000, key=key)
            for receive in (receive_all, feed_all):
                for stream in (whole, parts):
                    events = receive(codec.Decoder(masked=bool(key)), cut(stream + after, size))
                    assert events == [text, "n" * 50_000]
                    assert [event.isascii() for event in events] == [not wide, True]

    @pytest.mark.parametrize("key", [None, KEY])
    def test_text_that_is_wrong(self, codec: ModuleType, key: bytes | None) -> None:
        for at in (0, 65_500, 99_999):
            data = bytearray(b"a" * 100_000)
            data[at] = 0xE2
            for receive in (receive_all, feed_all):
                events = receive(codec.Decoder(masked=bool(key)), cut(frame(TEXT, bytes(data), key=key), 30_000))
                assert trace(events) == trace([InvalidPayload(f"text message is not UTF-8 at byte {at}")])

    def test_lends_no_more_than_the_frame(self, codec: ModuleType) -> None:
        """What follows the frame must not land in the message."""
        decoder = codec.Decoder(masked=False)
        decoder.feed(declare(BINARY, 100_000) + bytes(90_000))
        stream = bytes(10_000) + HELLO
        events: list[Any] = []
        while stream:
            lent = decoder.get_buffer()
            count = min(len(lent), len(stream))
            lent[:count] = stream[:count]
            events += decoder.buffer_updated(count)
            stream = stream[count:]
        assert events == [bytes(100_000), "Hello"]

    def test_many_reads(self, codec: ModuleType) -> None:
        data = bytes(i % 241 for i in range(200_000))
        for size in (1, 10, 4096, 50_000):
            pieces = [frame(BINARY, data, key=KEY)[:14], *cut(xor(data, KEY), size)]
            if size == 1:
                pieces = [*pieces[:1000], b"".join(pieces[1000:])]
            assert receive_all(codec.Decoder(masked=True), pieces) == [data]

    def test_control_frames_between_large_fragments(self, codec: ModuleType) -> None:
        data = bytes(50_000)
        stream = frame(BINARY, data, fin=False) + frame(PING, b"?") + frame(CONT, data, fin=False)
        stream += frame(CONT, data) + frame(CLOSE)
        for size in (4000, 30_000, len(stream)):
            assert receive_all(codec.Decoder(masked=False), cut(stream, size)) == [Ping(b"?"), data * 3, Close(1005)]

    def test_views_that_are_kept(self, codec: ModuleType) -> None:
        """A view kept past its time is the caller's fault, but does no harm to other memory."""
        data = xor(b"a" * 600_000, KEY)
        for end in ("finish", "fail", "stream", "drop"):
            decoder = codec.Decoder(masked=True)
            decoder.feed(declare(TEXT, 600_000, key=KEY) + data[:10])
            kept = []
            count = 10
            while count < 500_000:
                lent = decoder.get_buffer()
                n = min(len(lent), 500_000 - count)
                lent[:n] = data[count : count + n]
                kept.append(lent)
                assert decoder.buffer_updated(n) == []
                count += n
            events: list[Any] = []
            if end == "finish":
                events = receive_all(decoder, [data[count:]])
                assert events == ["a" * 600_000]
            elif end == "fail":
                (failure,) = receive_all(decoder, [b"\xff" * 10])
                assert failure.code == 1007
            elif end == "stream":
                decoder.streaming = True
                events = decoder.feed(b"")
                assert events == [Fragment("a" * count, False)]
            del decoder
            gc.collect()
            for view in kept:
                view[:] = b"z" * len(view)
            assert all(set(event) == {"a"} for event in events if isinstance(event, str))

    def test_a_kept_view_does_not_stop_the_decoder(self, codec: ModuleType) -> None:
        decoder = codec.Decoder(masked=False)
        data = bytes(i % 251 for i in range(300_000))
        pieces = cut(frame(BINARY, data), 3000)
        kept, events = [], []
        for piece in pieces:
            while piece:
                lent = decoder.get_buffer()
                count = min(len(lent), len(piece))
                lent[:count] = piece[:count]
                kept.append(lent)
                events += decoder.buffer_updated(count)
                piece = piece[count:]
        assert events == [data]


class TestUsedAgain:
    """A large message that nobody refers to any more is memory for a later one; nobody may be able to tell."""

    SIZE = 100_000

    def receive(self, decoder: Any, kind: str, letter: str, size: int = SIZE) -> Any:
        payload = (letter * size).encode()[:size]
        opcode = BINARY if kind == "binary" else TEXT
        return receive_all(decoder, cut(frame(opcode, payload, key=KEY), 30_000))[0]

    def expected(self, kind: str, letter: str, size: int = SIZE) -> Any:
        payload = (letter * size).encode()[:size]
        return payload if kind == "binary" else payload.decode()

    @pytest.mark.skipif(not EXTENSIONS, reason="only the extension does it")
    @pytest.mark.parametrize("kind", ["binary", "text"])
    @pytest.mark.parametrize("size", [SIZE, SIZE - 1, SIZE // 2, SIZE // 2 - 1, SIZE + 1, 16_384, 2**20])
    def test_by_the_next_of_about_its_size(self, kind: str, size: int) -> None:
        codec = importlib.import_module("wsfast._codec")
        codec._drop_spares()
        decoder = codec.Decoder(masked=True)
        message = self.receive(decoder, kind, "e")
        assert message == self.expected(kind, "e")
        place = id(message)
        del message
        other = bytearray(self.SIZE + 64)  # would be given the memory if it was free
        message = self.receive(decoder, kind, "f", size)
        assert message == self.expected(kind, "f", size)
        if size == self.SIZE:
            assert id(message) == place
        elif not self.SIZE // 2 <= size <= self.SIZE:
            assert id(message) != place
        assert not any(other)

    @pytest.mark.parametrize("kind", ["binary", "text", "wide"])
    def test_held_messages_stay(self, codec: ModuleType, kind: str) -> None:
        decoder = codec.Decoder(masked=True)
        letters = "ÿ€𝄞☃ж" if kind == "wide" else "abcdefgh"
        held = [self.receive(decoder, kind, letter, 96_000) for letter in letters]
        views = [memoryview(self.receive(decoder, "binary", letter)) for letter in "abcdefgh"]
        for letter in "ijklmnop":
            self.receive(decoder, kind, letter)
        assert held == [self.expected(kind, letter, 96_000) for letter in letters]
        assert views == [self.expected("binary", letter) for letter in "abcdefgh"]

    @pytest.mark.parametrize("kind", ["binary", "text"])
    def test_hashes(self, codec: ModuleType, kind: str) -> None:
        decoder = codec.Decoder(masked=True)
        for letter in "abcdefgh":
            message = self.receive(decoder, kind, letter)
            assert hash(message) == hash(self.expected(kind, letter))

    def test_interned_text(self, codec: ModuleType) -> None:
        decoder = codec.Decoder(masked=True)
        for letter in "abcdefgh":
            sys.intern(self.receive(decoder, "text", letter))
            message = self.receive(decoder, "text", letter.upper())
            assert message == self.expected("text", letter.upper())
            assert sys.intern(self.expected("text", letter)) == self.expected("text", letter)
