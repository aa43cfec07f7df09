"""The limits of both decoders: at, just under, just over; and that work and memory stay in proportion."""

from __future__ import annotations

import sys
import time
import tracemalloc
from types import ModuleType
from typing import Any

import pytest
from codec_helpers import cut, decode, feed_all, receive_all, trace
from vectors import BINARY, CONT, HELLO, PING, TEXT, declare, frame

from wsfast.events import Close, Fragment, Ping
from wsfast.exceptions import PayloadTooBig, ProtocolError

KEY = b"\x01\x02\x03\x04"


def too_big(size: int, limit: int) -> PayloadTooBig:
    return PayloadTooBig(f"message has {size} bytes or more, the limit is {limit}")


class TestMaxSize:
    @pytest.mark.parametrize("limit", [1, 5, 124, 125, 126, 127, 65535, 65536, 100_000])
    @pytest.mark.parametrize("key", [None, KEY])
    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_one_frame(self, codec: ModuleType, limit: int, key: bytes | None, opcode: int) -> None:
        def message(size: int) -> Any:
            return "m" * size if opcode == TEXT else b"m" * size

        masked = key is not None
        for size in (limit - 1, limit):
            stream = frame(opcode, b"m" * size, key=key)
            for way in (feed_all, receive_all):
                for pieces in ([stream], cut(stream, max(1, limit // 3))):
                    assert way(codec.Decoder(masked=masked, max_size=limit), pieces) == [message(size)]
        stream = frame(TEXT, b"ok"[:limit], key=key) + frame(opcode, b"m" * (limit + 1), key=key)
        for way in (feed_all, receive_all):
            for pieces in ([stream], cut(stream, max(1, limit // 3))):
                events = way(codec.Decoder(masked=masked, max_size=limit), pieces)
                assert trace(events) == trace(["ok"[:limit], too_big(limit + 1, limit)])

    def test_default_is_one_mebibyte(self, codec: ModuleType) -> None:
        assert decode(codec, frame(BINARY, bytes(1 << 20))) == [bytes(1 << 20)]
        assert trace(decode(codec, declare(BINARY, (1 << 20) + 1))) == trace([too_big((1 << 20) + 1, 1 << 20)])

    def test_none_is_no_limit(self, codec: ModuleType) -> None:
        data = bytes((1 << 20) + 1)
        assert decode(codec, frame(BINARY, data), max_size=None) == [data]
        assert decode(codec, declare(BINARY, sys.maxsize), max_size=None) == []

    @pytest.mark.parametrize("limit", [None, 2**63 - 1, 2**100])
    def test_none_is_no_more_than_an_object_can_hold(self, codec: ModuleType, limit: int | None) -> None:
        """A peer of a 32-bit platform can declare more than a process there has addresses."""
        first = frame(BINARY, b"12345", fin=False)
        too_much = trace([too_big(sys.maxsize + 1, sys.maxsize)])
        assert decode(codec, first + declare(CONT, sys.maxsize - 5), max_size=limit) == []
        assert trace(decode(codec, first + declare(CONT, sys.maxsize - 4), max_size=limit)) == too_much
        if sys.maxsize < 2**63 - 1:
            assert trace(decode(codec, declare(BINARY, sys.maxsize + 1), max_size=limit)) == too_much
            assert trace(decode(codec, declare(TEXT, sys.maxsize + 1), max_size=limit)) == too_much

    def test_pieces_may_be_more_than_an_object_can_hold(self, codec: ModuleType) -> None:
        decoder = codec.Decoder(masked=False, max_size=None)
        decoder.streaming = True
        first, length = frame(BINARY, b"12345", fin=False), min(sys.maxsize * 4, 2**63 - 1)
        for _ in range(2):
            assert decoder.feed(first + declare(CONT, length, fin=False)) == [Fragment(b"12345", False)]
            assert decoder.feed(b"678") == [Fragment(b"678", False)]
            assert decoder.held == 0
            decoder = codec.Decoder(masked=False, max_size=2**63 - 1)
            decoder.streaming = True
            length -= 5

    @pytest.mark.parametrize("limit", [2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64, 2**100])
    def test_large_limits(self, codec: ModuleType, limit: int) -> None:
        assert decode(codec, HELLO, max_size=limit) == ["Hello"]
        assert decode(codec, declare(BINARY, min(limit, sys.maxsize)), max_size=limit) == []
        if limit < 2**63 - 1:
            events = decode(codec, declare(BINARY, limit + 1), max_size=limit)
            assert trace(events) == trace([too_big(limit + 1, limit)])

    def test_lengths_do_not_wrap_around(self, codec: ModuleType) -> None:
        decoder = codec.Decoder(masked=False, max_size=100)
        decoder.feed(frame(BINARY, bytes(60), fin=False))
        for length in (2**63 - 1, 2**63 - 30, 2**32, 2**32 - 60):
            other = codec.Decoder(masked=False, max_size=100)
            other.feed(frame(BINARY, bytes(60), fin=False))
            assert trace(other.feed(declare(CONT, length))) == trace([too_big(60 + length, 100)])

    def test_fragments_are_counted_together(self, codec: ModuleType) -> None:
        first = frame(BINARY, b"123456", fin=False) + frame(CONT, b"", fin=False)
        assert decode(codec, first + frame(CONT, b"7890"), max_size=10) == [b"1234567890"]
        assert decode(codec, first + frame(CONT, b"789"), max_size=10) == [b"123456789"]
        assert trace(decode(codec, first + frame(CONT, b"7890+"), max_size=10)) == trace([too_big(11, 10)])
        assert decode(codec, (first + frame(CONT, b"7890")) * 2, max_size=10) == [b"1234567890"] * 2

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_refused_from_the_declared_length(self, codec: ModuleType, opcode: int) -> None:
        """Before the key, and before a byte of the payload."""
        for length in (1001, 65536, 2**62, 2**63 - 1):
            head = declare(opcode, length) if length > 65535 else frame(opcode, bytes(length))[:4]
            decoder = codec.Decoder(masked=True, max_size=1000)
            masked_head = head[:1] + bytes([head[1] | 0x80]) + head[2:]
            assert decoder.feed(masked_head[:-1]) == []
            assert trace(decoder.feed(masked_head[-1:])) == trace([too_big(length, 1000)])

    def test_control_frames_are_not_messages(self, codec: ModuleType) -> None:
        assert decode(codec, frame(PING, bytes(125)), max_size=1) == [Ping(bytes(125))]
        assert decode(codec, frame(8, b"\x03\xe8long"), max_size=1) == [Close(1000, "long")]

    def test_inflated_size(self, codec: ModuleType) -> None:
        """What a compressed frame holds counts, not what it declares."""
        limits = []

        def inflate(data: bytes, fin: bool, limit: int) -> bytes:
            limits.append(limit)
            return data[: len(data) // 2]

        stream = frame(BINARY, bytes(12), rsv=4, fin=False) + frame(CONT, bytes(8))
        assert decode(codec, stream, inflate=inflate, max_size=12) == [bytes(10)]
        assert limits == [12, 6]

    def test_an_inflater_that_passes_its_limit(self, codec: ModuleType) -> None:
        answers = [b"123456", b"7890", b"1"]
        decoder = codec.Decoder(masked=False, max_size=10, inflate=lambda data, fin, limit: answers.pop(0))
        assert decoder.feed(frame(BINARY, b"x", fin=False, rsv=4) + frame(CONT, b"x", fin=False)) == []
        assert decoder.held == 10
        assert trace(decoder.feed(frame(CONT, b"x"))) == trace([too_big(11, 10)])

    def test_compressed_frames_may_declare_more(self, codec: ModuleType) -> None:
        decoder = codec.Decoder(masked=False, max_size=10, inflate=lambda data, fin, limit: b"")
        assert decoder.feed(declare(BINARY, 2**62, rsv=4) + bytes(1000)) == []
        assert decoder.held == 0


class TestMaxFragments:
    @pytest.mark.parametrize("limit", [1, 2, 10])
    @pytest.mark.parametrize("payload", [b"", b"x"])
    def test_at_and_over(self, codec: ModuleType, limit: int, payload: bytes) -> None:
        def message(frames: int) -> bytes:
            if frames == 1:
                return frame(BINARY, payload)
            middle = frame(CONT, payload, fin=False) * (frames - 2)
            return frame(BINARY, payload, fin=False) + frame(PING) + middle + frame(CONT, payload)

        for frames in (limit - 1, limit):
            if frames:
                events = decode(codec, message(frames) * 2, max_fragments=limit)
                assert [event for event in events if event != Ping(b"")] == [payload * frames] * 2
        events = decode(codec, message(limit + 1), max_fragments=limit)
        failure = PayloadTooBig(f"message has more than {limit} fragments")
        assert trace(events) == trace([Ping(b""), failure])

    def test_none_is_no_limit(self, codec: ModuleType) -> None:
        stream = frame(BINARY, fin=False) + frame(CONT, fin=False) * 10_000 + frame(CONT)
        assert decode(codec, stream) == [b""]

    def test_compressed_too(self, codec: ModuleType) -> None:
        stream = frame(BINARY, b"a", fin=False, rsv=4) + frame(CONT, b"b", fin=False) + frame(CONT, b"c")
        inflate: Any = lambda data, fin, limit: data  # noqa: E731
        assert decode(codec, stream, inflate=inflate, max_fragments=3) == [b"abc"]
        failure = PayloadTooBig("message has more than 2 fragments")
        assert trace(decode(codec, stream, inflate=inflate, max_fragments=2)) == trace([failure])


class TestMaxEvents:
    def test_pending(self, codec: ModuleType) -> None:
        decoder = codec.Decoder(masked=False, max_events=2)
        assert not decoder.pending
        assert decoder.feed(HELLO * 5) == ["Hello"] * 2
        assert decoder.pending
        assert decoder.held == 3 * len(HELLO)
        assert decoder.feed(b"") == ["Hello"] * 2
        assert decoder.pending
        assert decoder.feed(b"") == ["Hello"]
        assert not decoder.pending
        assert decoder.feed(b"") == []

    def test_exactly_as_many(self, codec: ModuleType) -> None:
        decoder = codec.Decoder(masked=False, max_events=2)
        assert decoder.feed(HELLO * 2) == ["Hello"] * 2
        assert not decoder.pending
        assert decoder.held == 0

    def test_new_data_goes_behind(self, codec: ModuleType) -> None:
        decoder = codec.Decoder(masked=False, max_events=1)
        events = decoder.feed(b"".join(frame(TEXT, b"%d" % i) for i in range(3)))
        events += decoder.feed(frame(TEXT, b"3") + frame(TEXT, b"4")[:2])
        lent = decoder.get_buffer()
        lent[:1] = b"4"
        events += decoder.buffer_updated(1)
        while decoder.pending:
            events += decoder.feed(b"")
        assert events == ["0", "1", "2", "3", "4"]

    @pytest.mark.parametrize("most", [1, 2, 3, 100])
    def test_every_kind_counts(self, codec: ModuleType, most: int) -> None:
        stream = HELLO + frame(PING) + frame(BINARY, b"a", fin=False) + frame(10) + frame(CONT) + frame(8)
        whole = decode(codec, stream)
        decoder = codec.Decoder(masked=False, max_events=most)
        assert decoder.feed(stream) == whole[:most]
        assert feed_all(decoder, [b""]) == whole[most : 2 * most] + whole[2 * most :]
        assert not decoder.pending

    def test_what_was_inflated_counts(self, codec: ModuleType) -> None:
        calls: list[int] = []

        def inflate(data: bytes, fin: bool, limit: int) -> bytes:
            calls.append(len(data))
            return data * 10_000

        stream = b"".join(frame(BINARY, b"%d" % i, rsv=4) for i in range(8)) + HELLO + HELLO
        decoder = codec.Decoder(masked=False, max_events=100, inflate=inflate)
        assert decoder.feed(stream) == [b"%d" % i * 10_000 for i in range(7)]
        assert decoder.pending
        assert len(calls) == 7
        assert decoder.feed(b"") == [b"7" * 10_000, "Hello", "Hello"]
        assert not decoder.pending
        # In fragments too, where there may be no event yet.
        stream = (
            frame(BINARY, b"a" * 7, fin=False, rsv=4) + frame(CONT, b"b" * 7, fin=False) + frame(CONT, b"c") + HELLO
        )
        assert decoder.feed(stream) == []
        assert decoder.pending
        assert decoder.feed(b"") == []
        assert decoder.pending
        assert decoder.feed(b"") == [b"a" * 70_000 + b"b" * 70_000 + b"c" * 10_000, "Hello"]
        assert not decoder.pending
        # A failure is as good as an event, and what ends the input leaves nothing pending.
        decoder.feed(frame(BINARY, b"a" * 7, rsv=4))
        assert not decoder.pending
        assert len(decode(codec, stream, inflate=inflate)) == 2  # without max_events all at once

    def test_a_failure_comes_when_it_is_reached(self, codec: ModuleType) -> None:
        decoder = codec.Decoder(masked=False, max_events=1)
        assert decoder.feed(HELLO + frame(3) + HELLO) == ["Hello"]
        assert decoder.pending
        assert trace(decoder.feed(b"")) == trace([ProtocolError("reserved opcode 0x3")])
        assert not decoder.pending
        assert decoder.feed(b"") == []

    def test_drop_after_close(self, codec: ModuleType) -> None:
        decoder = codec.Decoder(masked=False, max_events=1)
        assert decoder.feed(frame(8) + HELLO) == [Close(1005)]
        assert not decoder.pending
        assert decoder.held == 0


@pytest.mark.parametrize("name", ["max_size", "max_fragments", "max_events"])
class TestArguments:
    @pytest.mark.parametrize("value", [0, -1, -(2**63), -(2**64)])
    def test_refuses_values(self, codec: ModuleType, name: str, value: int) -> None:
        with pytest.raises(ValueError) as info:  # noqa: PT011
            codec.Decoder(masked=False, **{name: value})
        assert str(info.value) == f"{name} must be positive or None, got {value}"

    @pytest.mark.parametrize("value", ["1", 1.0, float("nan"), float("inf"), b"1", [1]])
    def test_refuses_types(self, codec: ModuleType, name: str, value: object) -> None:
        with pytest.raises(TypeError) as info:
            codec.Decoder(masked=False, **{name: value})
        assert str(info.value) == f"'{type(value).__name__}' object cannot be interpreted as an integer"

    @pytest.mark.parametrize("value", [5, 2**63 - 1, 2**63, 2**64, 2**100, None])
    def test_accepts(self, codec: ModuleType, name: str, value: Any) -> None:
        assert decode(codec, HELLO * 3, **{name: value}) == ["Hello"] * 3


def test_keywords_only(codec: ModuleType) -> None:
    with pytest.raises(TypeError):
        codec.Decoder()
    with pytest.raises(TypeError):
        codec.Decoder(True)
    with pytest.raises(TypeError):
        codec.Decoder(masked=True, unknown=1)


class TestMemory:
    """Memory follows what arrived, not what a peer declares."""

    @staticmethod
    def peak(action: Any) -> int:
        tracemalloc.start()
        try:
            action()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("length", [2**30, 2**40, 2**62, 2**63 - 1])
    @pytest.mark.parametrize("way", [feed_all, receive_all])
    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_declared_and_not_sent(self, codec: ModuleType, length: int, way: Any, opcode: int) -> None:
        def refuse() -> None:
            decoder = codec.Decoder(masked=True)
            (failure,) = way(decoder, [declare(opcode, length, key=KEY) + b"a" * 100])
            assert failure.code == 1009

        def wait() -> None:
            decoder = codec.Decoder(masked=True, max_size=None)
            head = declare(opcode, min(length, sys.maxsize), key=bytes(4))
            assert way(decoder, [head, b"a" * 1000, b"b" * 1000]) == []
            assert decoder.held == 2000

        assert self.peak(refuse) < 200_000
        assert self.peak(wait) < 200_000

    def test_a_long_message_takes_few_times_its_size(self, codec: ModuleType) -> None:
        data = b"m" * 4_000_000
        stream = frame(BINARY, data, key=bytes(4))
        pieces = cut(stream, 60_000)
        for way in (feed_all, receive_all):
            decoder = codec.Decoder(masked=True, max_size=None)
            assert self.peak(lambda d=decoder, w=way: w(d, pieces)) < 5 * len(data)

    @pytest.mark.parametrize("fin", [True, False])
    def test_no_more_is_reserved_than_a_message_may_have(self, codec: ModuleType, fin: bool) -> None:
        """Room that is made ahead, for a message that is inflated in two pieces."""
        stream = frame(BINARY, b"abcd", fin=fin, rsv=4, key=bytes(4))
        decoder = codec.Decoder(masked=True, max_size=1 << 20, inflate=lambda data, fin, limit: bytes(len(data) << 18))
        assert self.peak(lambda: feed_all(decoder, [stream[:-2], stream[-2:]])) < 4 << 20


class TestLinearTime:
    """Twice the input takes about twice the time; what is quadratic takes four times, at these sizes far more."""

    @staticmethod
    def seconds(action: Any) -> float:
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            action()
            best = min(best, time.process_time() - start)
        return best

    def hold(self, make: Any, count: int) -> None:
        action, small = make(count), make(count // 8)
        assert self.seconds(action) < 8 * 4 * self.seconds(small) + 0.05

    @pytest.mark.parametrize("size", [100, 100_000])
    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_one_byte_fragments(self, codec: ModuleType, opcode: int, size: int) -> None:
        def make(count: int) -> Any:
            stream = frame(opcode, b"x", fin=False) + frame(CONT, b"x", fin=False) * (count - 2) + frame(CONT, b"x")
            pieces = cut(stream, size)

            def action() -> None:
                (message,) = feed_all(codec.Decoder(masked=False), pieces)
                assert len(message) == count

            return action

        self.hold(make, 200_000)

    def test_empty_fragments(self, codec: ModuleType) -> None:
        def make(count: int) -> Any:
            stream = frame(TEXT, fin=False) + frame(CONT, fin=False) * count + frame(CONT)
            return lambda: decode(codec, stream)

        self.hold(make, 200_000)

    @pytest.mark.parametrize("way", [feed_all, receive_all])
    def test_one_frame_in_small_pieces(self, codec: ModuleType, way: Any) -> None:
        def make(count: int) -> Any:
            pieces = cut(frame(TEXT, b"x" * count, key=KEY), 16)
            return lambda: way(codec.Decoder(masked=True, max_size=None), pieces)

        self.hold(make, 1_000_000)

    def test_tiny_messages_in_one_read(self, codec: ModuleType) -> None:
        def make(count: int) -> Any:
            stream = frame(TEXT, b"") * count
            return lambda: feed_all(codec.Decoder(masked=False, max_events=64), [stream])

        self.hold(make, 160_000)

    def test_pings_byte_by_byte(self, codec: ModuleType) -> None:
        def make(count: int) -> Any:
            pieces = cut(frame(PING, b"1234567") * count, 1)
            return lambda: feed_all(codec.Decoder(masked=False), pieces)

        self.hold(make, 16_000)

    def test_streaming(self, codec: ModuleType) -> None:
        def make(count: int) -> Any:
            pieces = cut(frame(TEXT, "€".encode() * count), 40)

            def action() -> None:
                decoder = codec.Decoder(masked=False, max_size=None)
                decoder.streaming = True
                feed_all(decoder, pieces)

            return action

        self.hold(make, 160_000)

    def test_encoder(self, codec: ModuleType) -> None:
        def make(count: int) -> Any:
            def action() -> None:
                encoder = codec.Encoder()
                for _ in range(count):
                    encoder.message("x" * 30)
                assert len(encoder.take()) == 32 * count

            return action

        self.hold(make, 200_000)
