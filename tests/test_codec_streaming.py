"""Streaming mode of both codecs: messages in pieces, as `Fragment` events, as they arrive."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from codec_helpers import cut, feed_all, merged, receive_all, trace
from vectors import BINARY, CLOSE, CONT, PING, PONG, TEXT, declare, frame, xor

from wsfast.events import Close, Fragment, Ping, Pong
from wsfast.exceptions import InvalidPayload, PayloadTooBig, ProtocolError

KEY = b"\x11\x22\x33\x44"


def streaming(codec: ModuleType, **options: Any) -> Any:
    decoder = codec.Decoder(**{"masked": False, **options})
    assert decoder.streaming is False
    decoder.streaming = True
    assert decoder.streaming is True
    return decoder


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (frame(TEXT, b"Hello"), [Fragment("Hello", True)]),
        (frame(BINARY, b"Hello"), [Fragment(b"Hello", True)]),
        (frame(TEXT), [Fragment("", True)]),
        (frame(BINARY), [Fragment(b"", True)]),
        (frame(TEXT, b"Hel", fin=False), [Fragment("Hel", False)]),
        (frame(TEXT, b"Hel", fin=False) + frame(CONT, b"lo"), [Fragment("Hello", True)]),
        (frame(BINARY, fin=False) + frame(CONT, fin=False), []),
        (frame(BINARY, b"a", fin=False) + frame(CONT, b"b", fin=False), [Fragment(b"ab", False)]),
        (frame(BINARY, b"abcdef")[:5], [Fragment(b"abc", False)]),
        (frame(BINARY, b"a") + frame(TEXT, b"b"), [Fragment(b"a", True), Fragment("b", True)]),
        # Control frames come where they stood.
        (frame(PING, b"1") + frame(BINARY, b"a"), [Ping(b"1"), Fragment(b"a", True)]),
        (
            frame(BINARY, b"a", fin=False) + frame(PING) + frame(PONG) + frame(CONT, b"b"),
            [Fragment(b"a", False), Ping(b""), Pong(b""), Fragment(b"b", True)],
        ),
        (frame(BINARY, b"a", fin=False) + frame(CLOSE), [Fragment(b"a", False), Close(1005)]),
        # Whole characters only.
        (frame(TEXT, b"a\xe2\x82", fin=False), [Fragment("a", False)]),
        (frame(TEXT, b"\xe2\x82", fin=False), []),
        (
            frame(TEXT, b"a\xe2\x82", fin=False) + frame(PING) + frame(CONT, b"\xac!"),
            [Fragment("a", False), Ping(b""), Fragment("€!", True)],
        ),
        # What came before a failure is delivered.
        (frame(BINARY, b"a", fin=False) + frame(3), [Fragment(b"a", False), ProtocolError("reserved opcode 0x3")]),
        (
            frame(TEXT, b"good\xff", fin=False),
            [Fragment("good", False), InvalidPayload("text message is not UTF-8 at byte 4")],
        ),
        (frame(TEXT, b"\xff"), [InvalidPayload("text message is not UTF-8 at byte 0")]),
        (
            frame(TEXT, b"ab", fin=False) + frame(CONT, b"c\xe2\x82"),
            [Fragment("abc", False), InvalidPayload("text message is not UTF-8 at byte 3")],
        ),
    ],
)
@pytest.mark.parametrize("way", [feed_all, receive_all])
def test_events_of_one_read(codec: ModuleType, way: Any, stream: bytes, expected: list[Any]) -> None:
    assert trace(way(streaming(codec), [stream])) == trace(expected)


def test_what_one_read_brings_is_one_piece(codec: ModuleType) -> None:
    decoder = streaming(codec)
    stream = frame(BINARY, b"0", fin=False) + b"".join(frame(CONT, b"%d" % i, fin=False) for i in range(1, 1000))
    assert decoder.feed(stream) == [Fragment(b"".join(b"%d" % i for i in range(1000)), False)]
    assert decoder.held == 0
    assert decoder.feed(frame(CONT)) == [Fragment(b"", True)]


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000, 4096, 65536, 1 << 20])
def test_pieces_join_to_the_message(codec: ModuleType, size: int, text: bool) -> None:
    message: Any = "abcdefg€ä\U0001f600" * (20 if size < 1000 else 15000)
    data = message.encode()
    if not text:
        message = data
    half = len(data) // 2 + 1
    opcode = TEXT if text else BINARY
    stream = frame(opcode, data, key=KEY) + frame(opcode, data[:half], fin=False, key=KEY)
    stream += frame(PING, b"!", key=KEY) + frame(CONT, data[half:], key=KEY)
    for way in (feed_all, receive_all):
        decoder = streaming(codec, masked=True)
        events = way(decoder, cut(stream, size))
        ping = events.index(Ping(b"!"))
        del events[ping]
        assert merged(events) == [Fragment(message, True)] * 2
        assert decoder.held == 0
        for event in events:
            assert event.data or event.final
            assert type(event.data) is type(message)


def test_little_is_held(codec: ModuleType) -> None:
    for way in (feed_all, receive_all):
        decoder = streaming(codec, max_size=None, masked=True)
        decoder.feed(declare(TEXT, 2**40, key=KEY))
        data = xor("€".encode() * 40_000, KEY)
        for i, piece in enumerate(cut(data, 1000)):
            events = way(decoder, [piece])
            assert events == [Fragment("€" * ((i + 1) * 1000 // 3 - i * 1000 // 3), False)]
            assert decoder.held == (i + 1) * 1000 % 3


def test_split_character_is_held(codec: ModuleType) -> None:
    decoder = streaming(codec)
    decoder.feed(frame(TEXT, "\U0001f600a".encode())[:2])
    data = "\U0001f600a".encode()
    for count in range(3):
        assert decoder.feed(data[count : count + 1]) == []
        assert decoder.held == count + 1
    assert decoder.feed(data[3:4]) == [Fragment("\U0001f600", False)]
    assert decoder.held == 0
    assert decoder.feed(data[4:]) == [Fragment("a", True)]


def test_a_message_begun_whole_may_go_on_in_pieces(codec: ModuleType) -> None:
    decoder = codec.Decoder(masked=False)
    assert decoder.feed(frame(TEXT, b"abc", fin=False)) == []
    decoder.streaming = True
    assert decoder.held == 3
    assert decoder.feed(b"") == [Fragment("abc", False)]
    assert decoder.feed(frame(CONT, b"d")) == [Fragment("d", True)]


def test_a_message_begun_in_pieces_ends_in_pieces(codec: ModuleType) -> None:
    decoder = streaming(codec)
    assert decoder.feed(frame(BINARY, b"a", fin=False)) == [Fragment(b"a", False)]
    decoder.streaming = False
    assert decoder.feed(frame(CONT, b"b", fin=False)) == [Fragment(b"b", False)]
    assert decoder.feed(frame(CONT, b"c") + frame(BINARY, b"d")) == [Fragment(b"c", True), b"d"]
    decoder.streaming = True
    assert decoder.feed(frame(BINARY, fin=False)) == []
    decoder.streaming = False  # nothing of it was delivered
    assert decoder.feed(frame(CONT, b"e")) == [b"e"]


def test_switched_on_while_memory_is_lent(codec: ModuleType) -> None:
    decoder = codec.Decoder(masked=False)
    assert decoder.feed(declare(BINARY, 100_000)) == []
    lent = decoder.get_buffer()
    lent[:5] = b"01234"
    decoder.streaming = True
    assert decoder.buffer_updated(5) == [Fragment(b"01234", False)]
    assert receive_all(decoder, [bytes(99_990)])
    assert merged(receive_all(decoder, [b"56789"])) == [Fragment(b"56789", True)]


def test_value_is_a_bool(codec: ModuleType) -> None:
    decoder = codec.Decoder(masked=False)
    decoder.streaming = 7
    assert decoder.streaming is True
    decoder.streaming = ""
    assert decoder.streaming is False


def test_limits_count_what_was_delivered(codec: ModuleType) -> None:
    decoder = streaming(codec, max_size=10)
    assert decoder.feed(frame(BINARY, bytes(6), fin=False)) == [Fragment(bytes(6), False)]
    assert decoder.feed(frame(CONT, bytes(4), fin=False)) == [Fragment(bytes(4), False)]
    assert trace(decoder.feed(frame(CONT, b"x"))) == trace(
        [PayloadTooBig("message has 11 bytes or more, the limit is 10")]
    )


def test_place_of_a_bad_byte_counts_what_was_delivered(codec: ModuleType) -> None:
    decoder = streaming(codec)
    assert decoder.feed(frame(TEXT, "aä€".encode(), fin=False)) == [Fragment("aä€", False)]
    assert trace(decoder.feed(frame(CONT, b"b\xc3("))) == trace(
        [Fragment("b", False), InvalidPayload("text message is not UTF-8 at byte 7")]
    )


def test_inflated_pieces(codec: ModuleType) -> None:
    limits = []

    def inflate(data: bytes, fin: bool, limit: int) -> bytes:
        limits.append(limit)
        return data * 2

    decoder = streaming(codec, inflate=inflate, max_size=100)
    assert decoder.feed(frame(TEXT, b"abc", fin=False, rsv=4)) == [Fragment("abcabc", False)]
    assert decoder.feed(frame(CONT, b"xyz")[:4]) == [Fragment("xyxy", False)]
    assert decoder.feed(b"z") == [Fragment("zz", True)]
    assert limits == [100, 94, 90]


class TestMaxEvents:
    def test_pieces_count(self, codec: ModuleType) -> None:
        decoder = streaming(codec, max_events=1)
        stream = frame(BINARY, b"a", fin=False) + frame(PING) + frame(CONT, b"b", fin=False) + frame(CLOSE)
        events = decoder.feed(stream)
        assert events == [Fragment(b"a", False)]
        for expected in (Ping(b""), Fragment(b"b", False), Close(1005)):
            assert decoder.pending
            assert decoder.feed(b"") == [expected]
        assert not decoder.pending
        assert decoder.feed(b"") == []

    def test_a_piece_that_did_not_fit_is_pending(self, codec: ModuleType) -> None:
        decoder = streaming(codec, max_events=2)
        events = decoder.feed(frame(PING) + frame(BINARY, b"a") + frame(BINARY, b"b", fin=False))
        assert events == [Ping(b""), Fragment(b"a", True)]
        assert decoder.pending
        assert decoder.feed(b"") == [Fragment(b"b", False)]
        assert not decoder.pending

    def test_a_piece_that_was_held_while_not_streaming(self, codec: ModuleType) -> None:
        decoder = codec.Decoder(masked=False, max_events=1)
        assert decoder.feed(frame(BINARY, b"a", fin=False)) == []
        decoder.streaming = True
        assert decoder.feed(frame(PING)) == [Fragment(b"a", False)]
        assert decoder.pending
        assert decoder.feed(b"") == [Ping(b"")]
        assert not decoder.pending

    @pytest.mark.parametrize("most", range(1, 8))
    def test_never_more(self, codec: ModuleType, most: int) -> None:
        stream = b"".join(
            frame(TEXT, b"%d" % i, fin=False)
            + frame(PING)
            + frame(CONT, b"!", fin=i % 2 == 1)
            + (b"" if i % 2 else end)
            for i, end in enumerate([frame(CONT, b"?")] * 20)
        )
        whole = streaming(codec).feed(stream)
        decoder = streaming(codec, max_events=most)
        events = decoder.feed(stream)
        assert len(events) == most
        while decoder.pending:
            more = decoder.feed(b"")
            assert len(more) <= most
            events += more
        assert decoder.held == 0
        assert merged(events) == merged(whole)
