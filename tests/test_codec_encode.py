"""`encode_frame` and `Encoder` of both codecs."""

from __future__ import annotations

import array
import os
import sys
from types import ModuleType
from typing import Any

import pytest
from codec_helpers import decode
from vectors import (
    BINARY,
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
    RFC_KEY,
    TEXT,
    frame,
    xor,
)

from wsfast.codes import Opcode
from wsfast.events import Close, Ping, Pong


class Name(str):
    """A `str` that tries to say something else."""

    __slots__ = ()

    def encode(self, *args: Any) -> Any:
        return 7


@pytest.mark.parametrize(
    ("arguments", "options", "expected"),
    [
        # RFC 6455, 5.7
        ((TEXT, b"Hello"), {}, HELLO),
        ((TEXT, "Hello"), {}, HELLO),
        ((TEXT, "Hello"), {"mask": RFC_KEY}, HELLO_MASKED),
        ((TEXT, "Hel"), {"fin": False}, HELLO_FRAGMENTS[0]),
        ((CONT, "lo"), {}, HELLO_FRAGMENTS[1]),
        ((PING, b"Hello"), {}, PING_HELLO),
        ((PONG, b"Hello"), {"mask": RFC_KEY}, PONG_HELLO_MASKED),
        ((BINARY, bytes(256)), {}, b"\x82\x7e\x01\x00" + bytes(256)),
        ((BINARY, bytes(65536)), {}, b"\x82\x7f\0\0\0\0\0\1\0\0" + bytes(65536)),
        # RFC 7692, 7.2.3.1
        ((TEXT, bytes.fromhex("f248cdc9c90700")), {"rsv1": True}, bytes.fromhex("c107f248cdc9c90700")),
        ((TEXT, b"x"), {"rsv1": True, "fin": False, "mask": bytes(4)}, b"\x41\x81\0\0\0\0x"),
        # Defaults
        ((PING,), {}, b"\x89\x00"),
        ((Opcode.CLOSE, b"\x03\xe8"), {}, b"\x88\x02\x03\xe8"),
        ((CLOSE,), {"mask": b"\1\2\3\4"}, b"\x88\x80\1\2\3\4"),
    ],
)
def test_frame(codec: ModuleType, arguments: tuple[Any, ...], options: dict[str, Any], expected: bytes) -> None:
    made = codec.encode_frame(*arguments, **options)
    assert type(made) is bytes
    assert made == expected


@pytest.mark.parametrize("key", [None, b"\x01\x80\xfe\x7f"])
@pytest.mark.parametrize("opcode", [CONT, TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 124, 125, 126, 127, 128, 65534, 65535, 65536, 65537, 200000])
def test_length_forms_there_and_back(codec: ModuleType, size: int, opcode: int, key: bytes | None) -> None:
    """RFC 6455, 5.2: the shortest of three forms."""
    payload = bytes(b % 128 for b in range(size))
    made = codec.encode_frame(opcode, payload, mask=key)
    assert made == frame(opcode, payload, key=key)
    if opcode != CONT:
        expected = payload.decode() if opcode == TEXT else payload
        assert decode(codec, made, masked=key is not None) == [expected]


@pytest.mark.parametrize("text", GOOD_UTF8)
def test_text_there_and_back(codec: ModuleType, text: str) -> None:
    for key in (None, RFC_KEY):
        made = codec.encode_frame(TEXT, text, mask=key)
        assert made == frame(TEXT, text.encode(), key=key)
        assert decode(codec, made, masked=key is not None) == [text]


@pytest.mark.parametrize(
    ("opcode", "payload", "event"),
    [
        (PING, b"", Ping(b"")),
        (PING, bytes(125), Ping(bytes(125))),
        (PONG, b"answer", Pong(b"answer")),
        (CLOSE, b"", Close(1005)),
        (CLOSE, b"\x03\xe8", Close(1000)),
        (CLOSE, b"\x0f\xa0" + b"r" * 123, Close(4000, "r" * 123)),
    ],
)
def test_control_there_and_back(codec: ModuleType, opcode: int, payload: bytes, event: object) -> None:
    assert decode(codec, codec.encode_frame(opcode, payload)) == [event]
    assert decode(codec, codec.encode_frame(opcode, payload, mask=RFC_KEY), masked=True) == [event]


@pytest.mark.parametrize(
    "payload",
    [
        bytearray(b"abcd"),
        memoryview(b"abcd"),
        memoryview(b"a.b.c.d.")[::2],
        array.array("I", b"abcd"),
        Name("abcd"),
    ],
    ids=lambda payload: type(payload).__name__,
)
def test_payload_types(codec: ModuleType, payload: object) -> None:
    assert codec.encode_frame(BINARY, payload) == b"\x82\x04abcd"
    assert codec.encode_frame(BINARY, payload, mask=RFC_KEY) == frame(BINARY, b"abcd", key=RFC_KEY)
    encoder = codec.Encoder()
    encoder.frame(BINARY, payload)
    encoder.message(payload)
    first = 0x81 if isinstance(payload, str) else 0x82
    assert encoder.take() == b"\x82\x04abcd" + bytes([first, 4]) + b"abcd"


REFUSED: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    *(((opcode,), {}, ValueError, f"unknown opcode {opcode}") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    ((16,), {}, ValueError, "unknown opcode 16"),
    ((-1,), {}, ValueError, "unknown opcode -1"),
    ((0x81,), {}, ValueError, "unknown opcode 129"),
    ((2**63,), {}, ValueError, f"unknown opcode {2**63}"),
    ((-(2**64) + 1,), {}, ValueError, f"unknown opcode {-(2**64) + 1}"),
    ((1.0,), {}, TypeError, "'float' object cannot be interpreted as an integer"),
    ((None,), {}, TypeError, "'NoneType' object cannot be interpreted as an integer"),
    (("1",), {}, TypeError, "'str' object cannot be interpreted as an integer"),
    (([],), {}, TypeError, "'list' object cannot be interpreted as an integer"),
    *(((op, b"x"), {"fin": False}, ValueError, "a control frame cannot be fragmented") for op in (CLOSE, PING, PONG)),
    *(
        ((op, bytes(126)), {}, ValueError, "a control frame's payload must have at most 125 bytes, got 126")
        for op in (CLOSE, PING, PONG)
    ),
    (
        (PING, "\u20ac" * 42),
        {},
        ValueError,
        "a control frame's payload must have at most 125 bytes, got 126",
    ),
    ((BINARY, None), {}, TypeError, "expected str or a bytes-like object, got NoneType"),
    ((BINARY, 7), {}, TypeError, "expected str or a bytes-like object, got int"),
    ((BINARY, [b"x"]), {}, TypeError, "expected str or a bytes-like object, got list"),
    (
        (TEXT, "ab\udc80"),
        {},
        UnicodeEncodeError,
        "'utf-8' codec can't encode character '\\udc80' in position 2: surrogates not allowed",
    ),
    (
        (TEXT, "\U0001f600\ud800\udfff"),
        {},
        UnicodeEncodeError,
        "'utf-8' codec can't encode characters in position 1-2: surrogates not allowed",
    ),
]


@pytest.mark.parametrize(("arguments", "options", "kind", "text"), REFUSED)
def test_refuses(
    codec: ModuleType, arguments: tuple[Any, ...], options: dict[str, Any], kind: type[Exception], text: str
) -> None:
    encoders = [codec.Encoder(), codec.Encoder(mask=True)]
    for call in (codec.encode_frame, *(encoder.frame for encoder in encoders)):
        with pytest.raises(kind) as info:
            call(*arguments, **options)
        assert type(info.value) is kind
        assert str(info.value) == text
    for encoder in encoders:
        assert len(encoder) == 0
        assert encoder.take() == b""


@pytest.mark.parametrize(
    ("mask", "kind", "text"),
    [
        (b"", ValueError, "mask must have 4 bytes, got 0"),
        (b"abc", ValueError, "mask must have 4 bytes, got 3"),
        (bytes(5), ValueError, "mask must have 4 bytes, got 5"),
        ("abcd", TypeError, "expected a bytes-like object, got str"),
        (False, TypeError, "expected a bytes-like object, got bool"),
        (0, TypeError, "expected a bytes-like object, got int"),
    ],
)
def test_refuses_masks(codec: ModuleType, mask: object, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as info:
        codec.encode_frame(TEXT, "x", mask=mask)
    assert str(info.value) == text


def test_mask_of_any_bytes_like_type(codec: ModuleType) -> None:
    for mask in (bytearray(RFC_KEY), memoryview(RFC_KEY), memoryview(RFC_KEY[::-1])[::-1], array.array("I", RFC_KEY)):
        assert codec.encode_frame(TEXT, "Hello", mask=mask) == HELLO_MASKED


class TestEncoder:
    def test_gathers_until_taken(self, codec: ModuleType) -> None:
        encoder = codec.Encoder()
        assert len(encoder) == 0
        assert encoder.take() == b""
        encoder.message("Hello")
        assert len(encoder) == 7
        encoder.message(b"\1\2")
        encoder.frame(Opcode.PING, b"?")
        encoder.frame(Opcode.TEXT, "Hel", fin=False)
        encoder.frame(Opcode.CONT, "lo")
        encoder.frame(Opcode.BINARY, b"z", rsv1=True)
        expected = HELLO + b"\x82\x02\1\2" + b"\x89\x01?" + b"\x01\x03Hel\x80\x02lo" + b"\xc2\x01z"
        assert len(encoder) == len(expected)
        taken = encoder.take()
        assert type(taken) is bytes
        assert taken == expected
        assert len(encoder) == 0
        assert encoder.take() == b""
        encoder.message("Hello")
        assert encoder.take() == HELLO

    def test_frames_that_were_encoded_before(self, codec: ModuleType) -> None:
        for mask in (False, True):
            encoder = codec.Encoder(mask=mask)
            encoder.encoded(b"")
            assert encoder.take() == b""
            for frames in (HELLO, bytearray(HELLO), memoryview(HELLO * 2)[::2], array.array("I", b"12345678")):
                encoder.encoded(frames)
                encoder.encoded(frames)
                assert encoder.take() == bytes(memoryview(frames)) * 2
            for wrong, name in (("text", "str"), (None, "NoneType"), (7, "int")):
                with pytest.raises(TypeError, match=f"^expected a bytes-like object, got {name}$"):
                    encoder.encoded(wrong)
            assert encoder.take() == b""

    @pytest.mark.parametrize("size", [2, 100, 40000])
    @pytest.mark.parametrize("mask", [False, True])
    def test_frames_that_were_encoded_before_stay_as_they_are(self, codec: ModuleType, size: int, mask: bool) -> None:
        frames = bytes(range(256)) * (size // 256) + bytes(size % 256)
        before, digest = bytes(bytearray(frames)), hash(frames)
        encoders = [codec.Encoder(mask=mask) for _ in range(3)]  # a broadcast hands them to many
        for encoder in encoders:
            encoder.encoded(frames)
            assert len(encoder) == size
        assert encoders[0].take() == before
        for i in range(300):
            encoders[1].frame(Opcode.PING, b"%d" % i)
        encoders[1].encoded(frames)
        taken = encoders[1].take()
        assert taken.startswith(before)
        assert taken.endswith(before)
        encoders[0].message("more")
        assert not encoders[0].take().startswith(before)
        del encoders
        assert (frames, hash(frames)) == (before, digest)

    def test_taken_bytes_stay_as_they_are(self, codec: ModuleType) -> None:
        encoder = codec.Encoder()
        encoder.message("first")
        first = encoder.take()
        encoder.message("second, and longer than the first was")
        assert first == b"\x81\x05first"

    @pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 300000])
    @pytest.mark.parametrize("text", [False, True])
    def test_sizes(self, codec: ModuleType, size: int, text: bool) -> None:
        data = b"m" * size
        message = data.decode() if text else data
        encoder = codec.Encoder()
        encoder.message(message)
        encoder.message("next")
        assert encoder.take() == frame(TEXT if text else BINARY, data) + b"\x81\x04next"
        masking = codec.Encoder(mask=True)
        masking.message(message)
        masking.message("next")
        assert decode(codec, masking.take(), masked=True) == [message, "next"]

    @pytest.mark.parametrize("text", GOOD_UTF8)
    def test_text(self, codec: ModuleType, text: str) -> None:
        encoder, masking = codec.Encoder(), codec.Encoder(mask=True)
        for _ in range(3):
            encoder.message(text)
            encoder.frame(TEXT, text)
            masking.message(text)
            masking.frame(TEXT, text)
        assert encoder.take() == frame(TEXT, text.encode()) * 6
        assert decode(codec, masking.take(), masked=True) == [text] * 6

    def test_many_frames_in_one_buffer(self, codec: ModuleType) -> None:
        encoder = codec.Encoder()
        expected = b""
        for size in (*range(300), 65535, 65536):
            encoder.message(bytes([size % 251]) * size)
            expected += frame(BINARY, bytes([size % 251]) * size)
        assert len(encoder) == len(expected)
        assert encoder.take() == expected

    def test_a_failed_message_leaves_no_trace(self, codec: ModuleType) -> None:
        for mask in (False, True):
            encoder = codec.Encoder(mask=mask)
            encoder.message("before")
            length = len(encoder)
            with pytest.raises(UnicodeEncodeError):
                encoder.message("\ud800")
            with pytest.raises(TypeError, match=r"^expected str or a bytes-like object, got dict$"):
                encoder.message({})
            with pytest.raises(ValueError, match=r"^unknown opcode 5$"):
                encoder.frame(5, b"x" * 5000)
            assert len(encoder) == length
            encoder.message("after")
            assert decode(codec, encoder.take(), masked=mask) == ["before", "after"]

    def test_each_frame_has_a_key_of_its_own(self, codec: ModuleType) -> None:
        """RFC 6455, 5.3: a fresh key for each frame, that cannot be predicted."""
        encoder = codec.Encoder(mask=True)
        keys = set()
        for _ in range(5000):
            encoder.message(b"abcdefgh")
            made = encoder.take()
            assert made[:2] == b"\x82\x88"
            key = made[2:6]
            assert made[6:] == xor(b"abcdefgh", key)
            keys.add(key)
        assert len(keys) > 4990  # 5,000 of 2**32: two of the same have a chance of 0.3 %

    # From Python 3.15 on, whatever is loaded: the child does nothing that a lock of another thread could hold up.
    @pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
    @pytest.mark.skipif(sys.platform == "emscripten", reason="a system without processes")
    def test_keys_are_not_shared_after_a_fork(self, codec: ModuleType) -> None:
        encoder = codec.Encoder(mask=True)
        encoder.message(b"")  # draw a block of keys
        encoder.take()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                for _ in range(8):
                    encoder.message(b"")
                os.write(writer, encoder.take())
            finally:
                os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        with os.fdopen(reader, "rb") as pipe:
            theirs = pipe.read()
        for _ in range(8):
            encoder.message(b"")
        ours = encoder.take()
        assert len(theirs) == len(ours) == 48
        assert not {ours[i : i + 6] for i in range(0, 48, 6)} & {theirs[i : i + 6] for i in range(0, 48, 6)}

    def test_mask_is_a_keyword(self, codec: ModuleType) -> None:
        with pytest.raises(TypeError):
            codec.Encoder(True)
