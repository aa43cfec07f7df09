"""`Decoder.feed` of both codecs: the rules of RFC 6455, section 5, each as bytes and outcome.

Every stream of the tables is decoded from both sides, whole, cut in two at every offset, byte by byte, and
through lent memory: the outcome is the same.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from codec_helpers import cut, decode, feed_all, receive_all, trace
from vectors import (
    ACCEPTED_CLOSE_CODES,
    BINARY,
    BROKEN_UTF8,
    CLOSE,
    CONT,
    GOOD_UTF8,
    HELLO,
    HELLO_FRAGMENTS,
    HELLO_MASKED,
    PING,
    PING_HELLO,
    PONG,
    PONG_HELLO_MASKED,
    TEXT,
    Broken,
    declare,
    frame,
)

from wsfast.codes import CloseCode
from wsfast.events import Close, Ping, Pong
from wsfast.exceptions import InvalidPayload, PayloadTooBig, PeerError, ProtocolError

KEY = b"\x9a\x00\x7f\xc3"


def check(codec: ModuleType, stream: bytes, expected: list[Any], *, masked: bool = False, **options: Any) -> None:
    """Decode a stream in every manner and hold each outcome against the expected one."""
    wanted = trace(expected)

    def new() -> Any:
        return codec.Decoder(masked=masked, **options)

    assert trace(new().feed(stream)) == wanted
    assert trace(receive_all(new(), [stream])) == wanted
    assert trace(feed_all(new(), cut(stream, 1))) == wanted
    offsets = range(len(stream)) if len(stream) < 400 else [*range(20), *range(len(stream) - 20, len(stream))]
    for at in offsets:
        assert trace(feed_all(new(), [stream[:at], stream[at:]])) == wanted, at
        assert trace(receive_all(new(), [stream[:at], stream[at:]])) == wanted, at


VALID: list[tuple[str, list[tuple[int, bytes, bool]], list[Any]]] = [
    ("5.6 text", [(TEXT, b"Hello", True)], ["Hello"]),
    ("5.6 empty text", [(TEXT, b"", True)], [""]),
    ("5.6 binary", [(BINARY, b"\x00\xff", True)], [b"\x00\xff"]),
    ("5.6 empty binary", [(BINARY, b"", True)], [b""]),
    ("5.6 binary need not be text", [(BINARY, b"\xff\xfe", True)], [b"\xff\xfe"]),
    ("5.4 two fragments", [(TEXT, b"Hel", False), (CONT, b"lo", True)], ["Hello"]),
    ("5.4 binary fragments", [(BINARY, b"\xff", False), (CONT, b"", False), (CONT, b"\xfe", True)], [b"\xff\xfe"]),
    ("5.4 empty fragments", [(TEXT, b"", False), (CONT, b"", False), (CONT, b"", True)], [""]),
    ("5.4 empty last fragment", [(TEXT, b"ab", False), (CONT, b"", True)], ["ab"]),
    ("5.4 empty first fragment", [(TEXT, b"", False), (CONT, b"ab", True)], ["ab"]),
    (
        "5.4 control frames between fragments",
        [(TEXT, b"He", False), (PING, b"1", True), (CONT, b"l", False), (PONG, b"2", True), (CONT, b"lo", True)],
        [Ping(b"1"), Pong(b"2"), "Hello"],
    ),
    ("5.4 one message after another", [(TEXT, b"a", False), (CONT, b"b", True), (BINARY, b"c", True)], ["ab", b"c"]),
    ("5.5.2 ping", [(PING, b"", True), (PING, bytes(125), True)], [Ping(b""), Ping(bytes(125))]),
    ("5.5.3 pong", [(PONG, b"", True), (PONG, b"unasked", True)], [Pong(b""), Pong(b"unasked")]),
    ("5.5.1 close", [(CLOSE, b"", True)], [Close(1005)]),
    ("5.5.1 close with a code", [(CLOSE, b"\x03\xe8", True)], [Close(1000)]),
    ("5.5.1 close with a reason", [(CLOSE, b"\x0f\xa1" + "wegen ß".encode(), True)], [Close(4001, "wegen ß")]),
    ("5.5.1 longest reason", [(CLOSE, b"\x03\xe9" + b"r" * 123, True)], [Close(1001, "r" * 123)]),
    ("5.5.1 close amid a message", [(TEXT, b"He", False), (CLOSE, b"\x03\xe8", True)], [Close(1000)]),
    (
        "5.5.1 nothing after a close",
        [(TEXT, b"x", True), (CLOSE, b"", True), (TEXT, b"y", True), (PING, b"", True), (7, b"", True)],
        ["x", Close(1005)],
    ),
    ("8.1 a character cut in three", [(TEXT, b"\xe2", False), (CONT, b"\x82", False), (CONT, b"\xac", True)], ["€"]),
    (
        "8.1 a character around a ping",
        [(TEXT, b"x\xf0\x9f", False), (PING, b"\xff", True), (CONT, b"\x98\x80", True)],
        [Ping(b"\xff"), "x\U0001f600"],
    ),
    ("lengths of every form", [(BINARY, bytes(n), True) for n in (125, 126, 127)], [bytes(n) for n in (125, 126, 127)]),
]


@pytest.mark.parametrize("key", [None, KEY], ids=["from-server", "from-client"])
@pytest.mark.parametrize(("frames", "expected"), [row[1:] for row in VALID], ids=[row[0] for row in VALID])
def test_valid_streams(
    codec: ModuleType, frames: list[tuple[int, bytes, bool]], expected: list[Any], key: bytes | None
) -> None:
    stream = b"".join(frame(opcode, payload, fin=fin, key=key) for opcode, payload, fin in frames)
    check(codec, stream, expected, masked=key is not None)


@pytest.mark.parametrize("size", [65535, 65536, 65537, 200_001])
@pytest.mark.parametrize("key", [None, KEY])
def test_long_messages(codec: ModuleType, size: int, key: bytes | None) -> None:
    data = bytes(i % 127 for i in range(size))
    stream = frame(TEXT, data, key=key) + frame(BINARY, data, key=key) + frame(TEXT, b"next", key=key)
    expected = [data.decode(), data, "next"]
    for size_of_piece in (1000, 4096, 65536, len(stream)):
        for feeding in (feed_all, receive_all):
            assert feeding(codec.Decoder(masked=key is not None), cut(stream, size_of_piece)) == expected


def test_long_fragments_received_in_place(codec: ModuleType) -> None:
    text = "0123456789abcdefg€\U0001f600" * 6000
    data = text.encode()
    for at in (9000, 50_019, 50_020, 50_021, 50_022, 100_000):
        stream = frame(TEXT, data[:at], fin=False, key=KEY) + frame(CONT, data[at:], key=KEY)
        for size in (700, 5000, 65536):
            assert receive_all(codec.Decoder(masked=True), cut(stream, size)) == [text]


def test_rfc_examples(codec: ModuleType) -> None:
    """RFC 6455, 5.7."""
    check(codec, HELLO + PING_HELLO + b"".join(HELLO_FRAGMENTS), ["Hello", Ping(b"Hello"), "Hello"])
    check(codec, HELLO_MASKED + PONG_HELLO_MASKED, ["Hello", Pong(b"Hello")], masked=True)
    assert decode(codec, b"\x82\x7e\x01\x00" + bytes(256)) == [bytes(256)]
    assert decode(codec, b"\x82\x7f\0\0\0\0\0\1\0\0" + bytes(65536)) == [bytes(65536)]


def test_message_types(codec: ModuleType) -> None:
    events = decode(codec, HELLO + frame(BINARY, b"x") + frame(TEXT, "ä".encode()) + frame(TEXT, b"long" * 5000))
    assert [type(event) for event in events] == [str, bytes, str, str]


PROTOCOL_ERRORS: list[tuple[str, bytes, str]] = [
    # RFC 6455, 5.2: reserved bits, reserved opcodes.
    *(
        (
            f"5.2 reserved bits {rsv}, opcode {op}",
            frame(op, b"x", rsv=rsv),
            f"reserved bits 0x{rsv << 4:02x} set in a frame with opcode 0x{op:x}",
        )
        for op in (TEXT, BINARY, CLOSE, PING, PONG)
        for rsv in range(1, 8)
    ),
    (
        "5.2 reserved bits in a continuation",
        frame(TEXT, b"x", fin=False) + frame(CONT, b"x", rsv=4),
        "reserved bits 0x40 set in a frame with opcode 0x0",
    ),
    *((f"5.2 opcode {op}", frame(op), f"reserved opcode 0x{op:x}") for op in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    ("5.2 the bits come first", frame(3, rsv=1), "reserved bits 0x10 set in a frame with opcode 0x3"),
    # RFC 6455, 5.2: the shortest encoding.
    ("5.2 16 bits for 0", frame(BINARY, b"", form=16), "length 0 is not encoded in the shortest form"),
    ("5.2 16 bits for 125", frame(TEXT, bytes(125), form=16), "length 125 is not encoded in the shortest form"),
    ("5.2 64 bits for 125", declare(TEXT, 125), "length 125 is not encoded in the shortest form"),
    ("5.2 64 bits for 65535", declare(BINARY, 65535), "length 65535 is not encoded in the shortest form"),
    ("5.2 64 bits for 0", declare(BINARY, 0), "length 0 is not encoded in the shortest form"),
    # RFC 6455, 5.2: "the most significant bit MUST be 0".
    ("5.2 2**63", declare(BINARY, 2**63), f"length {2**63} has its most significant bit set"),
    ("5.2 2**63 + 5", declare(TEXT, 2**63 + 5), f"length {2**63 + 5} has its most significant bit set"),
    ("5.2 2**64 - 1", declare(TEXT, 2**64 - 1), f"length {2**64 - 1} has its most significant bit set"),
    # RFC 6455, 5.4
    ("5.4 nothing to continue", frame(CONT, b"x"), "continuation frame without a message to continue"),
    ("5.4 nothing to continue, open", frame(CONT, fin=False), "continuation frame without a message to continue"),
    (
        "5.4 text amid text",
        frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
        "new message before the last one was finished",
    ),
    (
        "5.4 binary amid text",
        frame(TEXT, b"", fin=False) + frame(BINARY, b"b", fin=False),
        "new message before the last one was finished",
    ),
    # RFC 6455, 5.5
    *(
        (f"5.5 opcode {op} fragmented", frame(op, fin=False), f"control frame with opcode 0x{op:x} is fragmented")
        for op in (CLOSE, PING, PONG)
    ),
    *(
        (
            f"5.5 opcode {op} too long, {form} bits",
            frame(op, bytes(126), form=form),
            f"control frame with opcode 0x{op:x} has more than 125 bytes",
        )
        for op in (CLOSE, PING, PONG)
        for form in (16, 64)
    ),
    (
        "5.5 too long by its form only",
        frame(PING, b"x", form=16),
        "control frame with opcode 0x9 has more than 125 bytes",
    ),
    # RFC 6455, 5.5.1
    ("5.5.1 one byte", frame(CLOSE, b"\x03"), "close frame with a body of 1 byte"),
]


def unmasked_to_masked(stream: bytes, key: bytes) -> bytes:
    """Mask each frame of a stream, however wrong: its declared length counts, and what is missing is missing."""
    out = b""
    while stream:
        second = stream[1]
        head = {126: 4, 127: 10}.get(second, 2)
        length = second if second < 126 else int.from_bytes(stream[2:head], "big")
        payload = stream[head : head + length]
        out += stream[:1] + bytes([second | 0x80]) + stream[2:head] + key
        out += bytes(b ^ key[i % 4] for i, b in enumerate(payload))
        stream = stream[head + length :]
    return out


@pytest.mark.parametrize("key", [None, KEY], ids=["from-server", "from-client"])
@pytest.mark.parametrize(
    ("stream", "text"), [row[1:] for row in PROTOCOL_ERRORS], ids=[row[0] for row in PROTOCOL_ERRORS]
)
def test_protocol_errors(codec: ModuleType, stream: bytes, text: str, key: bytes | None) -> None:
    before, after = frame(TEXT, b"before"), frame(TEXT, b"after")
    stream = before + frame(PING, b"?") + stream + after
    if key is not None:
        stream = unmasked_to_masked(stream, key)
    check(codec, stream, ["before", Ping(b"?"), ProtocolError(text)], masked=key is not None)


def test_nothing_to_continue_any_more(codec: ModuleType) -> None:
    """RFC 6455, 5.4."""
    failure = ProtocolError("continuation frame without a message to continue")
    check(codec, frame(TEXT, b"a", fin=False) + frame(CONT, b"b") + frame(CONT), ["ab", failure])
    check(codec, frame(TEXT, b"a") + frame(CONT), ["a", failure])


@pytest.mark.parametrize("op", [TEXT, BINARY, PING, CLOSE])
def test_mask_direction(codec: ModuleType, op: int) -> None:
    """RFC 6455, 5.1: a client must mask, a server must not."""
    check(codec, frame(op), [ProtocolError("frame is not masked")], masked=True)
    check(codec, frame(op, key=KEY), [ProtocolError("frame is masked")], masked=False)
    check(codec, frame(op, key=bytes(4)), [ProtocolError("frame is masked")], masked=False)


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (b"\x83\x80", "reserved opcode 0x3"),
        (b"\xf1\x80", "reserved bits 0x70 set in a frame with opcode 0x1"),
        (b"\x80\x80", "continuation frame without a message to continue"),
        (b"\x09\x80", "control frame with opcode 0x9 is fragmented"),
        (b"\x89\xfe", "control frame with opcode 0x9 has more than 125 bytes"),
        (b"\x81\x05", "frame is not masked"),
        (b"\x81\xfe\x00\x7d", "length 125 is not encoded in the shortest form"),
        (b"\x82\xff" + b"\xff" * 8, f"length {2**64 - 1} has its most significant bit set"),
    ],
)
def test_fails_as_soon_as_the_head_tells(codec: ModuleType, head: bytes, text: str) -> None:
    """RFC 6455, 5.1 to 5.5: a rule that the head breaks is known before the payload has come."""
    decoder = codec.Decoder(masked=True)
    assert decoder.feed(head[:-1]) == []
    assert trace(decoder.feed(head[-1:])) == trace([ProtocolError(text)])


def test_every_close_code(codec: ModuleType) -> None:
    """RFC 6455, 7.4.1: 0 to 999, 1004 to 1006, 1015 to 2999 and above 4999 do not stand in a Close frame."""
    for code in [*range(5100), 65535]:
        body = code.to_bytes(2, "big") + b"why"
        event: Any = ProtocolError(f"close frame with the code {code}")
        if code in ACCEPTED_CLOSE_CODES:
            event = Close(code, "why")
        assert trace(decode(codec, frame(CLOSE, body))) == trace([event]), code


@pytest.mark.parametrize("broken", BROKEN_UTF8, ids=lambda broken: broken.name)
def test_close_reason_must_be_utf8(codec: ModuleType, broken: Broken) -> None:
    """RFC 6455, 5.5.1 and 8.1."""
    stream = frame(CLOSE, b"\x03\xe8" + broken.data)
    check(codec, stream, [InvalidPayload(f"close reason is not UTF-8 at byte {broken.at}")])


def test_failures_name_their_code(codec: ModuleType) -> None:
    """RFC 6455, 7.4.1: 1002, 1007, 1009; nothing is left that would keep the decoder alive."""
    for stream, code in [
        (frame(3), CloseCode.PROTOCOL_ERROR),
        (frame(TEXT, b"\xff"), CloseCode.INVALID_DATA),
        (frame(TEXT, b"\xff", fin=False), CloseCode.INVALID_DATA),
        (frame(CLOSE, b"\x03\xe8\xff"), CloseCode.INVALID_DATA),
        (declare(TEXT, 2**20 + 1), CloseCode.MESSAGE_TOO_BIG),
    ]:
        (failure,) = decode(codec, stream)
        assert isinstance(failure, PeerError)
        assert failure.code == code
        assert failure.reason == str(failure)
        assert failure.__traceback__ is None
        assert failure.__context__ is None


class TestUTF8:
    """RFC 6455, 8.1, and groups 6.x of the Autobahn|Testsuite."""

    @pytest.mark.parametrize("text", GOOD_UTF8)
    @pytest.mark.parametrize("key", [None, KEY])
    def test_valid(self, codec: ModuleType, text: str, key: bytes | None) -> None:
        data = text.encode()
        check(codec, frame(TEXT, data, key=key), [text], masked=key is not None)
        for size in (1, 2, 3, 5):
            pieces = cut(data, size)
            stream = frame(TEXT, b"", fin=False) + b"".join(frame(CONT, piece, fin=False) for piece in pieces)
            assert decode(codec, stream + frame(CONT)) == [text]
            assert feed_all(codec.Decoder(masked=False), cut(stream + frame(CONT), 1)) == [text]

    def test_every_character(self, codec: ModuleType) -> None:
        text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
        data = text.encode()
        stream = frame(TEXT, data, key=KEY)
        assert decode(codec, stream, masked=True, max_size=None) == [text]
        assert feed_all(codec.Decoder(masked=True, max_size=None), cut(stream, 4099)) == [text]
        fragments = frame(TEXT, b"", fin=False) + b"".join(frame(CONT, p, fin=False) for p in cut(data, 4099))
        assert decode(codec, fragments + frame(CONT), max_size=None) == [text]

    @pytest.mark.parametrize("key", [None, KEY])
    @pytest.mark.parametrize("broken", BROKEN_UTF8, ids=lambda broken: broken.name)
    def test_invalid(self, codec: ModuleType, broken: Broken, key: bytes | None) -> None:
        failure = InvalidPayload(f"text message is not UTF-8 at byte {broken.at}")
        check(codec, frame(TEXT, broken.data, key=key), [failure], masked=key is not None)
        stream = frame(TEXT, broken.data, fin=False, key=key) + frame(CONT, key=key)
        check(codec, stream, [failure], masked=key is not None)

    @pytest.mark.parametrize("broken", BROKEN_UTF8, ids=lambda broken: broken.name)
    @pytest.mark.parametrize("manner", ["frame", "fragments", "pings"])
    def test_fails_at_the_first_bad_byte(self, codec: ModuleType, broken: Broken, manner: str) -> None:
        """6.4.x: fail fast, inside a frame that declares more, inside a message that goes on."""
        decoder = codec.Decoder(masked=False)
        prefix = "good so far: κόσμε"
        data = prefix.encode() + broken.data
        at, known = (n + len(prefix.encode()) for n in (broken.at, broken.known))
        pings = []
        if manner == "frame":
            assert decoder.feed(frame(TEXT, data + b"and more")[: -len(data) - 8]) == []
        for count in range(1, len(data) + 1):
            byte = data[count - 1 : count]
            if manner == "frame":
                events = decoder.feed(byte)
            else:
                stream = frame(TEXT if count == 1 else CONT, byte, fin=False)
                events = decoder.feed((frame(PING, byte) if manner == "pings" else b"") + stream)
            if manner == "pings":
                pings.append(events.pop(0))
            if count < known:
                assert events == [], count
            else:
                assert trace(events) == trace([InvalidPayload(f"text message is not UTF-8 at byte {at}")])
                assert decoder.held == 0
                return
        # Only the end of the message tells that it is truncated.
        assert known > len(data)
        if manner == "frame":
            decoder.feed(b"and more")
        else:
            assert trace(decoder.feed(frame(CONT))) == trace(
                [InvalidPayload(f"text message is not UTF-8 at byte {at}")]
            )

    def test_truncated_at_the_end_of_a_message(self, codec: ModuleType) -> None:
        for broken in BROKEN_UTF8:
            if broken.known > len(broken.data):
                decoder = codec.Decoder(masked=False)
                stream = frame(TEXT, broken.data, fin=False)
                assert decoder.feed(stream) == []
                assert trace(decoder.feed(frame(CONT))) == trace(
                    [InvalidPayload(f"text message is not UTF-8 at byte {broken.at}")]
                )

    @pytest.mark.parametrize("size", [5000, 70_000, 300_000])
    def test_inside_a_long_frame(self, codec: ModuleType, size: int) -> None:
        """A bad byte deep inside, received in place, of which more is still to come."""
        data = "ä".encode() * (size // 2) + b"\xed\xa0"
        head = declare(TEXT, 1_000_000, key=KEY)
        masked = bytes(b ^ KEY[i % 4] for i, b in enumerate(data))
        failure = trace([InvalidPayload(f"text message is not UTF-8 at byte {size // 2 * 2}")])
        for feeding in (feed_all, receive_all):
            for piece in (1, 1001, 65536) if size == 5000 else (1001, 65536):
                decoder = codec.Decoder(masked=True)
                assert feeding(decoder, cut((head + masked)[:-1], piece)) == []
                assert trace(feeding(decoder, [(head + masked)[-1:]])) == failure

    def test_the_place_counts_from_the_start_of_the_message(self, codec: ModuleType) -> None:
        stream = frame(TEXT, b"12345", fin=False) + frame(CONT, b"67890", fin=False) + frame(CONT, b"1\xff")
        check(codec, stream, [InvalidPayload("text message is not UTF-8 at byte 11")])


class TestEnd:
    """After a Close or a failure all further data is dropped (RFC 6455, 5.5.1 and 7.1.7)."""

    @pytest.mark.parametrize("last", [frame(CLOSE, b"\x03\xe8"), frame(3), frame(TEXT, b"\xff"), declare(TEXT, 2**62)])
    def test_data_is_dropped(self, codec: ModuleType, last: bytes) -> None:
        decoder = codec.Decoder(masked=False)
        events = decoder.feed(HELLO + last + HELLO + b"\x81")
        assert len(events) == 2
        assert events[0] == "Hello"
        for data in (b"", HELLO, b"\xff" * 100_000, frame(3), b"lo"):
            assert decoder.feed(data) == []
            assert decoder.held == 0
            assert not decoder.pending
        view = decoder.get_buffer()
        view[:7] = HELLO
        assert decoder.buffer_updated(7) == []
        assert decoder.held == 0

    def test_an_unfinished_message_is_let_go(self, codec: ModuleType) -> None:
        decoder = codec.Decoder(masked=False)
        decoder.feed(frame(BINARY, bytes(50_000), fin=False))
        assert decoder.held == 50_000
        assert decoder.feed(frame(CLOSE)) == [Close(1005)]
        assert decoder.held == 0

    def test_wrong_arguments_are_still_refused(self, codec: ModuleType) -> None:
        decoder = codec.Decoder(masked=False)
        decoder.feed(frame(CLOSE))
        with pytest.raises(TypeError, match=r"^expected a bytes-like object, got str$"):
            decoder.feed("text")


class TestHeld:
    def test_counts_what_is_kept(self, codec: ModuleType) -> None:
        decoder = codec.Decoder(masked=True)
        assert decoder.held == 0
        stream = frame(PING, b"12345", key=KEY)
        for count in range(1, len(stream)):
            assert decoder.feed(stream[count - 1 : count]) == []
            assert decoder.held == count
        assert decoder.feed(stream[-1:]) == [Ping(b"12345")]
        assert decoder.held == 0

    def test_counts_an_unfinished_message(self, codec: ModuleType) -> None:
        decoder = codec.Decoder(masked=False)
        decoder.feed(frame(TEXT, b"abc", fin=False))
        assert decoder.held == 3
        decoder.feed(frame(CONT, b"defgh")[:-1])
        assert decoder.held == 7
        assert decoder.feed(b"h") == ["abcdefgh"]
        assert decoder.held == 0

    def test_empty_input(self, codec: ModuleType) -> None:
        decoder = codec.Decoder(masked=False)
        assert decoder.feed(b"") == []
        decoder.feed(HELLO[:3])
        assert decoder.feed(b"") == []
        assert decoder.held == 1
        assert decoder.feed(HELLO[3:]) == ["Hello"]


class TestInflate:
    """RFC 7692, 6: RSV1 marks the first frame of a compressed message; the rest is the inflater's."""

    class Recorder:
        def __init__(self, answers: list[Any] | None = None) -> None:
            self.calls: list[tuple[bytes, bool, int]] = []
            self.answers = answers

        def __call__(self, data: bytes, fin: bool, limit: int) -> Any:
            assert type(data) is bytes
            assert type(fin) is bool
            assert type(limit) is int
            self.calls.append((data, fin, limit))
            answer = data if self.answers is None else self.answers.pop(0)
            if isinstance(answer, BaseException):
                raise answer
            return answer

    def test_whole_message(self, codec: ModuleType) -> None:
        inflate = self.Recorder([b"inflated"])
        stream = frame(TEXT, b"deflated", rsv=4, key=KEY)
        assert decode(codec, stream, masked=True, inflate=inflate) == ["inflated"]
        assert inflate.calls == [(b"deflated", True, 1048576)]

    def test_messages_without_rsv1_are_left_alone(self, codec: ModuleType) -> None:
        inflate = self.Recorder()
        stream = frame(TEXT, b"plain") + frame(BINARY, b"pl", fin=False) + frame(CONT, b"ain")
        assert decode(codec, stream, inflate=inflate) == ["plain", b"plain"]
        assert inflate.calls == []

    def test_fragments_in_order(self, codec: ModuleType) -> None:
        inflate = self.Recorder([b"ab", b"", b"cde", b"f"])
        stream = (
            frame(BINARY, b"1", fin=False, rsv=4)
            + frame(CONT, b"", fin=False)
            + frame(PING, b"between")
            + frame(CONT, b"2", fin=False)
            + frame(CONT, b"")
            + frame(TEXT, b"plain")
        )
        assert decode(codec, stream, inflate=inflate, max_size=10) == [Ping(b"between"), b"abcdef", "plain"]
        assert inflate.calls == [(b"1", False, 10), (b"", False, 8), (b"2", False, 8), (b"", True, 5)]

    def test_empty_message(self, codec: ModuleType) -> None:
        inflate = self.Recorder()
        assert decode(codec, frame(TEXT, rsv=4), inflate=inflate, max_size=None) == [""]
        assert inflate.calls == [(b"", True, -1)]

    def test_pieces_follow_the_cuts_of_the_input(self, codec: ModuleType) -> None:
        for feeding in (feed_all, receive_all):
            inflate = self.Recorder()
            decoder = codec.Decoder(masked=True, inflate=inflate, max_size=100)
            stream = frame(TEXT, b"abcdefg", rsv=4, key=KEY)
            assert feeding(decoder, [stream[:6], stream[6:8], stream[8:9], stream[9:]]) == ["abcdefg"]
            assert inflate.calls == [(b"ab", False, 100), (b"c", False, 98), (b"defg", True, 97)]

    def test_large_message_in_pieces(self, codec: ModuleType) -> None:
        data = bytes(i % 251 for i in range(300_000))
        for feeding in (feed_all, receive_all):
            inflate = self.Recorder()
            stream = frame(BINARY, data, rsv=4, key=KEY)
            assert feeding(codec.Decoder(masked=True, inflate=inflate), cut(stream, 50_000)) == [data]
            assert b"".join(call[0] for call in inflate.calls) == data
            assert [call[1] for call in inflate.calls] == [False] * (len(inflate.calls) - 1) + [True]

    def test_text_is_checked_as_it_is_inflated(self, codec: ModuleType) -> None:
        inflate = self.Recorder([b"good\xe2\x82", b"\xac\xff"])
        decoder = codec.Decoder(masked=False, inflate=inflate)
        assert decoder.feed(frame(TEXT, b"1", fin=False, rsv=4)) == []
        assert trace(decoder.feed(frame(CONT, b"2", fin=False))) == trace(
            [InvalidPayload("text message is not UTF-8 at byte 7")]
        )

    def test_text_cut_off(self, codec: ModuleType) -> None:
        inflate = self.Recorder([b"\xe2\x82"])
        events = decode(codec, frame(TEXT, b"1", rsv=4), inflate=inflate)
        assert trace(events) == trace([InvalidPayload("text message is not UTF-8 at byte 0")])

    @pytest.mark.parametrize(
        ("rsv", "opcode"),
        [(4, CLOSE), (4, PING), (4, PONG), (4, CONT), *((r, op) for r in (1, 2, 3, 5, 6, 7) for op in (TEXT, BINARY))],
    )
    def test_bits_that_no_extension_defines(self, codec: ModuleType, rsv: int, opcode: int) -> None:
        inflate = self.Recorder()
        stream = frame(TEXT, b"x", fin=False, rsv=4) if opcode == CONT else b""
        events = decode(codec, stream + frame(opcode, b"x", rsv=rsv), inflate=inflate)
        text = f"reserved bits 0x{rsv << 4:02x} set in a frame with opcode 0x{opcode:x}"
        assert trace(events) == trace([ProtocolError(text)])
        assert len(inflate.calls) == (opcode == CONT)

    def test_new_compressed_message_amid_another(self, codec: ModuleType) -> None:
        stream = frame(TEXT, b"x", fin=False, rsv=4) + frame(TEXT, b"y", rsv=4)
        events = decode(codec, stream, inflate=self.Recorder())
        assert trace(events) == trace([ProtocolError("new message before the last one was finished")])

    @pytest.mark.parametrize("kind", [ProtocolError, InvalidPayload, PayloadTooBig])
    def test_failures_of_the_inflater(self, codec: ModuleType, kind: type[PeerError]) -> None:
        inflate = self.Recorder([kind("bad block")])
        decoder = codec.Decoder(masked=False, inflate=inflate)
        events = decoder.feed(HELLO + frame(TEXT, b"x", rsv=4) + HELLO)
        assert trace(events) == trace(["Hello", kind("bad block")])
        assert decoder.feed(HELLO) == []
        assert decoder.held == 0

    @pytest.mark.parametrize("error", [ValueError("bug"), MemoryError(), KeyboardInterrupt(), SystemExit(3)])
    def test_other_exceptions_escape(self, codec: ModuleType, error: BaseException) -> None:
        for feeding in (feed_all, receive_all):
            decoder = codec.Decoder(masked=False, inflate=self.Recorder([error]))
            with pytest.raises(type(error)) as info:
                feeding(decoder, [HELLO + frame(TEXT, b"x", rsv=4) + HELLO])
            assert info.value is error
            assert decoder.feed(HELLO) == []
            assert decoder.held == 0

    @pytest.mark.parametrize(
        ("answer", "name"),
        [(None, "NoneType"), ("text", "str"), (7, "int"), ([1, 2], "list"), (bytearray(b"x"), "bytearray")],
    )
    def test_wrong_return_types(self, codec: ModuleType, answer: object, name: str) -> None:
        decoder = codec.Decoder(masked=False, inflate=self.Recorder([answer]))
        with pytest.raises(TypeError, match=f"^inflate must return bytes, got {name}$"):
            decoder.feed(frame(TEXT, b"x", rsv=4))
        assert decoder.feed(HELLO) == []

    def test_must_be_callable_when_it_is_called(self, codec: ModuleType) -> None:
        decoder = codec.Decoder(masked=False, inflate=7)
        assert decoder.feed(HELLO) == ["Hello"]
        with pytest.raises(TypeError, match=r"^'int' object is not callable$"):
            decoder.feed(frame(TEXT, b"x", rsv=4))

    @pytest.mark.parametrize(
        ("method", "arguments"), [("feed", (HELLO,)), ("buffer_updated", (0,)), ("get_buffer", ())]
    )
    def test_may_not_feed_its_own_decoder(self, codec: ModuleType, method: str, arguments: tuple[Any, ...]) -> None:
        errors: list[Any] = []

        def inflate(data: bytes, fin: bool, limit: int) -> bytes:
            with pytest.raises(RuntimeError) as info:
                getattr(decoder, method)(*arguments)
            errors.append(str(info.value))
            assert decoder.held >= 0
            assert decoder.pending is False
            decoder.streaming = False
            return data

        decoder = codec.Decoder(masked=False, inflate=inflate)
        stream = frame(TEXT, b"one", rsv=4) + frame(TEXT, b"two")
        assert feed_all(decoder, [stream]) == ["one", "two"]
        assert receive_all(decoder, [stream]) == ["one", "two"]
        name = "get_buffer" if method == "get_buffer" else "feed"
        assert (
            errors == [f"the decoder is at work: {name}() was called from within inflate(), or by another thread"] * 2
        )

    def test_may_use_another_decoder(self, codec: ModuleType) -> None:
        def inflate(data: bytes, fin: bool, limit: int) -> bytes:
            return decode(codec, data)[0].encode()  # type: ignore[no-any-return]

        assert decode(codec, frame(TEXT, HELLO, rsv=4), inflate=inflate) == ["Hello"]
