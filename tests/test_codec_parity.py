"""The twins are equal: the same streams, arguments and signatures give the same from `_codec` and `_codec_py`.

`_codec_py` is the specification; what this file finds different is a bug of one of them, or a gap in the other
tests of the codec.
"""

from __future__ import annotations

import array
import ctypes
import inspect
import mmap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from codec_helpers import Trace, cut, feed_all, merged, receive_all, trace
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from vectors import BINARY, CLOSE, CONT, HELLO, PING, PONG, TEXT, declare, frame

import wsfast
from wsfast import _codec, _codec_py
from wsfast.codes import Opcode
from wsfast.events import Close, Fragment, Ping, Pong
from wsfast.exceptions import InvalidPayload, PayloadTooBig

TWINS: tuple[ModuleType, ModuleType] = (_codec_py, _codec)
WAYS = (feed_all, receive_all)


# --- Byte streams -----------------------------------------------------------------------------------------------------

texts = st.text(st.sampled_from("aZ 0\x00\x7f\x80ßÿ\u07ff\u0800€\ud7ff\ue000\uffff\U00010000\U0001f600\U0010ffff"))
sizes = st.sampled_from([0, 1, 2, 3, 4, 7, 8, 9, 63, 124, 125, 126, 127, 128, 1000, 4095, 4096, 4097])
keys = st.one_of(st.just(b"\0\0\0\0"), st.binary(min_size=4, max_size=4))


@st.composite
def payloads(draw: st.DrawFn, opcode: int) -> bytes:
    """Draw the payload of a frame, mostly a right one."""
    if opcode == CLOSE:
        code = draw(st.sampled_from([1000, 1001, 1005, 1014, 1015, 3000, 4999, 5000, 999, 0]))
        reason = draw(texts).encode()[:123]
        return draw(st.sampled_from([b"", b"\x03", code.to_bytes(2, "big") + reason, b"\x03\xe8\xff"]))
    if opcode in (PING, PONG):
        return draw(st.binary(max_size=130))
    if draw(st.booleans()):
        return draw(texts).encode()
    unit = draw(st.sampled_from([b"x", "ä".encode(), "€".encode(), "\U0001f600".encode(), b"\xff", b"0123456\xc3\xa9"]))
    return (unit * draw(sizes))[: draw(sizes)] if draw(st.booleans()) else unit * draw(sizes)


@st.composite
def messages(draw: st.DrawFn, key: bytes | None) -> bytes:
    """Draw a message in one to five frames, with control frames between them."""
    opcode = draw(st.sampled_from([TEXT, BINARY]))
    data = draw(payloads(opcode))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    rsv = draw(st.sampled_from([0, 0, 0, 4]))
    stream = b""
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        stream += frame(CONT if i else opcode, part, fin=last, rsv=0 if i else rsv, key=key)
        if not last and draw(st.booleans()):
            control = draw(st.sampled_from([PING, PONG]))
            stream += frame(control, draw(st.binary(max_size=20)), key=key)
    return stream


@st.composite
def odd_frames(draw: st.DrawFn, key: bytes | None) -> bytes:
    """Draw a frame of which any field may be wrong."""
    opcode = draw(st.one_of(st.sampled_from([CONT, TEXT, BINARY, CLOSE, PING, PONG]), st.integers(0, 15)))
    rsv = draw(st.sampled_from([0, 0, 0, 0, 1, 2, 4, 7]))
    fin = draw(st.booleans())
    if draw(st.integers(0, 9)) == 0:
        lengths = [0, 125, 126, 65535, 65536, 1 << 20, (1 << 20) + 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
        return declare(opcode, draw(st.sampled_from(lengths)), fin=fin, rsv=rsv, key=key) + draw(st.binary(max_size=99))
    data = draw(payloads(opcode))
    forms = [None, None, None, 16, 64] if len(data) < 65536 else [None]
    other_key = draw(st.sampled_from([key, key, key, key, None, b"ABCD"]))
    return frame(opcode, data, fin=fin, rsv=rsv, key=other_key, form=draw(st.sampled_from(forms)))


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, bool]:
    """Draw a byte stream and whether it is a client's: valid, with odd frames, or with bytes changed."""
    key = draw(st.one_of(st.none(), keys))
    parts = draw(st.lists(st.one_of(messages(key), messages(key), odd_frames(key)), min_size=1, max_size=5))
    stream = bytearray(b"".join(parts))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2, 5]))):
        if stream:
            at = draw(st.integers(0, len(stream) - 1))
            kind = draw(st.integers(0, 2))
            if kind == 0:
                stream[at] = draw(st.integers(0, 255))
            elif kind == 1:
                del stream[at : at + draw(st.integers(1, 4))]
            else:
                stream[at:at] = draw(st.binary(min_size=1, max_size=4))
    return bytes(stream), key is not None


options = st.fixed_dictionaries(
    {},
    optional={
        "max_size": st.sampled_from([1, 10, 125, 126, 1000, 4096, None]),
        "max_fragments": st.sampled_from([1, 2, 3, None]),
        "max_events": st.sampled_from([1, 2, 3, None]),
    },
)


class Inflate:
    """A stand-in for an inflater, byte by byte: one grows, one is refused."""

    def __init__(self) -> None:
        self.calls: list[tuple[bytes, bool, int]] = []

    def __call__(self, data: bytes, fin: bool, limit: int) -> bytes:
        self.calls.append((data, fin, limit))
        if b"\x07" in data:
            raise InvalidPayload("the inflater does not like 0x07")
        out = data.replace(b"x", b"xyzx")
        if 0 <= limit < len(out):
            raise PayloadTooBig(f"more than {limit}")
        return out


def outcome(
    twin: ModuleType, way: Callable[..., Any], pieces: list[bytes], streaming: bool, deflate: bool, kwargs: Any
) -> tuple[list[Any], Any]:
    inflate = Inflate() if deflate else None
    decoder = twin.Decoder(inflate=inflate, **kwargs)
    decoder.streaming = streaming
    events = way(decoder, pieces)
    assert decoder.feed(b"") == []
    # Behind a failure it has no meaning.
    in_message = decoder.in_message and not any(isinstance(event, wsfast.PeerError) for event in events)
    return events, (decoder.held, decoder.pending, in_message, inflate and inflate.calls)


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(c, len(stream)) for c in cuts})
    return [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    drawn=streams(),
    cuts=st.lists(st.integers(0, 3000), max_size=8),
    kwargs=options,
    streaming=st.booleans(),
    deflate=st.booleans(),
)
def test_random_streams_at_random_cuts(
    drawn: tuple[bytes, bool], cuts: list[int], kwargs: dict[str, Any], streaming: bool, deflate: bool
) -> None:
    stream, masked = drawn
    kwargs = {**kwargs, "masked": masked}
    note(f"{stream!r}")
    pieces = split(stream, cuts)
    results = {}
    for way in WAYS:
        for twin in TWINS:
            results[way, twin] = outcome(twin, way, pieces, streaming, deflate, kwargs)
        (expected, state), (events, other) = (results[way, twin] for twin in TWINS)
        if way is feed_all:
            # Cut for cut the same, pieces of a streamed message and calls of the inflater too.
            assert trace(events) == trace(expected)
            assert other == state
        else:
            # In place, a twin may lend less at once.
            assert trace(merged(events)) == trace(merged(expected))
            assert other[:2] == state[:2]
    whole = trace(merged(outcome(_codec_py, feed_all, [stream], streaming, deflate, kwargs)[0]))
    for events, _ in results.values():
        # A failure of the inflater loses what came with it in one piece; else the cuts do not show.
        if not (deflate and whole and len(whole[-1]) == 4):
            assert trace(merged(events)) == whole


def every_cut(stream: bytes, masked: bool, **kwargs: Any) -> None:
    expected: Trace | None = None
    for at in range(len(stream) + 1):
        for twin in TWINS:
            for way in WAYS:
                result = trace(way(twin.Decoder(masked=masked, **kwargs), [stream[:at], stream[at:]]))
                if expected is None:
                    expected = result
                assert result == expected, (twin, way, at)
    for twin in TWINS:
        for way in WAYS:
            for size in (1, 2, 3, 5):
                assert trace(way(twin.Decoder(masked=masked, **kwargs), cut(stream, size))) == expected


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(drawn=streams().filter(lambda drawn: len(drawn[0]) < 600), kwargs=options)
def test_random_streams_cut_at_every_position(drawn: tuple[bytes, bool], kwargs: dict[str, Any]) -> None:
    every_cut(*drawn, **kwargs)


@settings(max_examples=300, deadline=None)
@given(stream=st.binary(max_size=100), masked=st.booleans(), kwargs=options)
def test_noise_cut_at_every_position(stream: bytes, masked: bool, kwargs: dict[str, Any]) -> None:
    every_cut(stream, masked, **kwargs)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    unit=st.sampled_from(["x", "ß", "€", "\U0001f600", "0123456789ä", "ascii for a while, and then ö "]),
    size=st.sampled_from([65535, 65536, 65537, 100_000, 300_000]),
    key=st.one_of(st.none(), keys),
    places=st.lists(st.integers(0, 300_000), max_size=5),
    fragments=st.lists(st.integers(0, 300_000), max_size=3),
    bad=st.one_of(st.none(), st.tuples(st.integers(0, 300_000), st.sampled_from([0xFF, 0x80, 0xED, 0x41]))),
    opcode=st.sampled_from([TEXT, BINARY]),
    streaming=st.booleans(),
)
def test_large_messages(
    unit: str,
    size: int,
    key: bytes | None,
    places: list[int],
    fragments: list[int],
    bad: tuple[int, int] | None,
    opcode: int,
    streaming: bool,
) -> None:
    data = bytearray((unit * (size // len(unit.encode()) + 1)).encode()[:size])
    if bad is not None:
        data[bad[0] % size] = bad[1]
    parts = split(bytes(data), fragments)
    stream = b"".join(
        frame(CONT if i else opcode, part, fin=i == len(parts) - 1, key=key) for i, part in enumerate(parts)
    )
    stream += frame(TEXT, b"next", key=key)
    expected: Trace | None = None
    for way in WAYS:
        for pieces in (split(stream, places), cut(stream, 65536)):
            for twin in TWINS:
                decoder = twin.Decoder(masked=key is not None)
                decoder.streaming = streaming
                result = trace(merged(way(decoder, pieces)))
                if expected is None:
                    expected = result
                assert result == expected


# --- Encoding ---------------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    opcode=st.integers(-1, 17),
    payload=st.one_of(st.text(), st.binary(max_size=300), st.text(st.characters(categories=["Cs", "Ll"]), max_size=5)),
    flags=st.fixed_dictionaries({}, optional={"fin": st.booleans(), "rsv1": st.booleans()}),
    mask=st.one_of(st.none(), keys, st.binary(max_size=6)),
)
def test_encoding(opcode: int, payload: str | bytes, flags: dict[str, bool], mask: bytes | None) -> None:
    same_call(lambda twin: twin.encode_frame(opcode, payload, mask=mask, **flags))

    def gathered(twin: ModuleType) -> bytes:
        encoder = twin.Encoder()
        try:
            encoder.frame(opcode, payload, **flags)
        finally:
            encoder.message("after")
            taken: bytes = encoder.take()
            assert taken.endswith(b"\x81\x05after")
        return taken

    same_call(gathered)


# --- Hostile arguments ------------------------------------------------------------------------------------------------


def same_call(call: Callable[[ModuleType], Any]) -> None:
    """Hold that a call does the same with both twins: the same value, or an exception of one class and text."""
    results: list[tuple[object, object]] = []
    for twin in TWINS:
        try:
            results.append(("returned", call(twin)))
        except Exception as exc:
            results.append((type(exc), str(exc)))
    assert results[0] == results[1]


class Liar(int):
    """An integer with a text of its own."""

    __slots__ = ()

    def __str__(self) -> str:
        return "lie"

    __repr__ = __format__ = __str__  # type: ignore[assignment]


class Index:
    """An object that is an integer by `__index__` only."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __index__(self) -> int:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value  # type: ignore[no-any-return]


class Undecided:
    """An object that is neither true nor false."""

    def __bool__(self) -> bool:
        raise ZeroDivisionError("undecided")


class Text(str):
    """A subclass of `str`."""

    __slots__ = ()


class Bytes(bytes):
    """A subclass of `bytes`."""

    __slots__ = ()


def released() -> memoryview:
    view = memoryview(b"abcd")
    view.release()
    return view


def closed() -> mmap.mmap:
    memory = mmap.mmap(-1, 4096)
    memory.close()
    return memory


BUFFERS: list[Callable[[], Any]] = [
    lambda: b"",
    lambda: b"a",
    lambda: b"abcd",
    lambda: Bytes(b"abcd"),
    lambda: bytearray(),
    lambda: bytearray(b"abcd"),
    lambda: memoryview(b""),
    lambda: memoryview(b"abcd"),
    lambda: memoryview(bytearray(b"abcd")),
    lambda: memoryview(b"a.b.c.d.")[::2],
    lambda: memoryview(bytearray(b"a.b.c.d."))[::2],
    lambda: memoryview(b"abcd")[::-1],
    lambda: memoryview(b"abcd").cast("B", (2, 2)),
    lambda: memoryview(b"abcd").cast("c"),
    lambda: memoryview(b"abcd").cast("I"),
    lambda: memoryview(b"abcd").cast("?"),
    lambda: memoryview(b"abcd").cast("I", ()),
    lambda: array.array("I", b"abcd"),
    lambda: array.array("I"),
    lambda: array.array("d", [float("nan")]),
    lambda: array.array("u", "ab"),
    lambda: (ctypes.c_uint8 * 4)(1, 2, 3, 4),
    lambda: (ctypes.c_int32 * 1)(7),
    lambda: (ctypes.c_int32 * 0)(),
    lambda: ctypes.c_int32(7),
    lambda: ctypes.c_double(7),
    lambda: (ctypes.c_int16 * 2 * 2)(),
    lambda: ctypes.create_string_buffer(b"abc"),
    lambda: mmap.mmap(-1, 4),
    released,
    closed,
    lambda: "",
    lambda: "abcd",
    lambda: Text("abcd"),
    lambda: "\ud800",
    lambda: None,
    lambda: 0,
    lambda: 4,
    lambda: 2**63,
    lambda: float("nan"),
    lambda: [1, 2, 3, 4],
    lambda: (1, 2, 3, 4),
    dict,
    lambda: object,
    lambda: iter(b"abcd"),
    lambda: Undecided(),
]

NUMBERS: list[Any] = [
    *(-(2**64), -(2**63) - 1, -(2**63), -(2**31), -1, 0, 1, 2, 3, 7, 8, 15, 16, 255, 256, 1024, 65536, 65537),
    *(2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**100),
    *(True, False, None, 1.0, 1.5, float("nan"), float("inf"), 1j, "1", b"1", [], (1,), object),
    *(
        Liar(1),
        Liar(-1),
        Opcode.PING,
        Index(1),
        Index(-1),
        Index(2**70),
        Index("1"),
        Index(KeyError("no")),
        Undecided(),
    ),
]


@pytest.mark.parametrize("make", BUFFERS)
class TestHostileBuffers:
    def test_apply_mask(self, make: Callable[[], Any]) -> None:
        same_call(lambda twin: twin.apply_mask(make(), b"1234"))
        same_call(lambda twin: twin.apply_mask(b"12345", make()))
        same_call(lambda twin: twin.apply_mask(make(), make()))
        for size in (0, 1, 4, 8):
            same_call(lambda twin, n=size: twin.apply_mask(bytes(n), b"1234", make()))  # type: ignore[misc]
            same_call(lambda twin, n=size: twin.apply_mask(make(), b"1234", bytearray(n)))  # type: ignore[misc]

        def in_place(twin: ModuleType) -> bytes:
            memory = make()
            assert twin.apply_mask(memory, b"1234", memory) is None
            return bytes(memoryview(memory))

        same_call(in_place)

    def test_encode_frame(self, make: Callable[[], Any]) -> None:
        for mask in (None, b"1234"):
            same_call(lambda twin, m=mask: twin.encode_frame(1, make(), mask=m))  # type: ignore[misc]
        same_call(lambda twin: twin.encode_frame(9, b"ping", mask=make()))
        same_call(lambda twin: twin.encode_frame(make(), make(), mask=make()))
        same_call(lambda twin: twin.encode_frame(1, b"", fin=make()))
        same_call(lambda twin: twin.encode_frame(1, b"", rsv1=make()))

    def test_encoder(self, make: Callable[[], Any]) -> None:
        def gather(twin: ModuleType, call: Callable[[Any], Any]) -> Any:
            encoder = twin.Encoder()
            encoder.message("before")
            assert call(encoder) is None
            encoder.message("after")
            return encoder.take()

        same_call(lambda twin: gather(twin, lambda encoder: encoder.message(make())))
        same_call(lambda twin: gather(twin, lambda encoder: encoder.encoded(make())))
        same_call(lambda twin: gather(twin, lambda encoder: encoder.frame(2, make())))
        same_call(lambda twin: gather(twin, lambda encoder: encoder.frame(make(), make())))
        same_call(lambda twin: gather(twin, lambda encoder: encoder.frame(2, b"", fin=make(), rsv1=make())))
        same_call(lambda twin: len(twin.Encoder(mask=make())))

    def test_decoder(self, make: Callable[[], Any]) -> None:
        def feed(twin: ModuleType) -> Any:
            decoder = twin.Decoder(masked=False)
            return trace(decoder.feed(make())), trace(decoder.feed(HELLO)), decoder.held

        same_call(feed)
        same_call(lambda twin: trace(twin.Decoder(masked=make()).feed(HELLO)))
        same_call(lambda twin: trace(twin.Decoder(masked=False, inflate=make()).feed(HELLO + frame(1, rsv=4))))
        same_call(lambda twin: len(twin.Decoder(masked=False, buffer=make()).get_buffer()))

        def streaming(twin: ModuleType) -> Any:
            decoder = twin.Decoder(masked=False)
            decoder.streaming = make()
            return decoder.streaming

        same_call(streaming)

    def test_get_buffer(self, make: Callable[[], Any]) -> None:
        same_call(lambda twin: len(twin.Decoder(masked=False).get_buffer(make())))

    def test_inflate(self, make: Callable[[], Any]) -> None:
        def answer(twin: ModuleType) -> Any:
            decoder = twin.Decoder(masked=False, inflate=lambda data, fin, limit: make(), max_size=3)
            return trace(decoder.feed(HELLO + frame(BINARY, b"x", rsv=4) + HELLO)), trace(decoder.feed(HELLO))

        same_call(answer)


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: type(number).__name__)
class TestHostileNumbers:
    def test_encoding(self, number: Any) -> None:
        same_call(lambda twin: twin.encode_frame(number))
        same_call(lambda twin: twin.encode_frame(number, bytes(200)))
        same_call(lambda twin: twin.encode_frame(2, b"x", fin=number))
        same_call(lambda twin: twin.encode_frame(2, b"x", rsv1=number))
        same_call(lambda twin: twin.Encoder().frame(number))

    @pytest.mark.parametrize("name", ["max_size", "max_fragments", "max_events"])
    def test_limits(self, number: Any, name: str) -> None:
        same_call(lambda twin: trace(twin.Decoder(masked=False, **{name: number}).feed(HELLO * 3)))

        def inflate(twin: ModuleType) -> Any:
            inflate = Inflate()
            stream = frame(BINARY, b"x", rsv=4) + declare(TEXT, 2**62)
            events = twin.Decoder(masked=False, inflate=inflate, **{name: number}).feed(stream)
            return trace(events), inflate.calls

        same_call(inflate)

    @pytest.mark.parametrize("large", [False, True])
    def test_buffer_updated(self, number: Any, large: bool) -> None:
        def updated(twin: ModuleType, lent: bool) -> Any:
            decoder = twin.Decoder(masked=False)
            if lent:
                decoder.get_buffer()[:1] = b"\x81"
            return trace(decoder.buffer_updated(number)), decoder.held

        same_call(lambda twin: updated(twin, False))
        same_call(lambda twin: updated(twin, True))

    def test_get_buffer(self, number: Any) -> None:
        same_call(lambda twin: len(twin.Decoder(masked=False).get_buffer(number)))


def test_wrong_calls() -> None:
    for twin in TWINS:
        for call in (
            lambda t: t.apply_mask(),
            lambda t: t.apply_mask(b""),
            lambda t: t.apply_mask(b"", b"1234", None, None),
            lambda t: t.encode_frame(),
            lambda t: t.encode_frame(1, b"", True),
            lambda t: t.Encoder(True),
            lambda t: t.Encoder().message(),
            lambda t: t.Encoder().frame(1, b"", False),
            lambda t: t.Encoder().take(1),
            lambda t: t.Decoder(),
            lambda t: t.Decoder(True),
            lambda t: t.Decoder(masked=True).feed(),
            lambda t: t.Decoder(masked=True).buffer_updated(),
            lambda t: t.Decoder(masked=True, fin=True),
        ):
            with pytest.raises(TypeError):
                call(twin)  # type: ignore[no-untyped-call]
        for name in ("held", "in_message", "pending", "no_such_name"):
            with pytest.raises(AttributeError):
                setattr(twin.Decoder(masked=True), name, 1)


def test_events_are_the_same_classes() -> None:
    stream = HELLO + frame(BINARY) + frame(PING) + frame(PONG) + frame(CLOSE)
    for twin in TWINS:
        events = twin.Decoder(masked=False).feed(stream)
        assert [type(event) for event in events] == [str, bytes, Ping, Pong, Close]
        decoder = twin.Decoder(masked=False)
        decoder.streaming = True
        assert type(decoder.feed(HELLO)[0]) is Fragment


# --- Names and signatures ---------------------------------------------------------------------------------------------


def public_members(cls: type) -> list[str]:
    return sorted(name for name in vars(cls) if not name.startswith("_"))


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    """Names, kinds and defaults; C has no annotations."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def test_public_names() -> None:
    assert _codec.__all__ == _codec_py.__all__ == ["Decoder", "Encoder", "apply_mask", "encode_frame"]
    for name in _codec.__all__:
        if inspect.isclass(getattr(_codec_py, name)):
            assert public_members(getattr(_codec, name)) == public_members(getattr(_codec_py, name))
        assert getattr(_codec, name).__name__ == name
        assert getattr(_codec, name).__module__ == "wsfast._codec"
        assert getattr(_codec_py, name).__module__ == "wsfast._codec_py"


def test_signatures() -> None:
    compared = 0
    for name in _codec_py.__all__:
        ours, theirs = getattr(_codec_py, name), getattr(_codec, name)
        assert parameters(theirs) == parameters(ours), name
        if not inspect.isclass(ours):
            continue
        for member in public_members(ours):
            a, b = getattr(ours, member), getattr(theirs, member)
            assert callable(a) == callable(b)
            if callable(a):
                assert parameters(b) == parameters(a), member
                compared += 1
            else:
                assert inspect.isdatadescriptor(a)
                assert inspect.isdatadescriptor(b)
    assert compared >= 6


def test_docstrings() -> None:
    def first(thing: Any) -> str:
        text = inspect.getdoc(thing)
        assert text, thing
        line = text.splitlines()[0]
        assert line.endswith((".", ":"))
        return line

    for name in _codec_py.__all__:
        ours, theirs = getattr(_codec_py, name), getattr(_codec, name)
        assert first(ours) == first(theirs)
        if inspect.isclass(ours):
            for member in public_members(ours):
                assert first(getattr(ours, member)) == first(getattr(theirs, member)), member


def test_the_stub_cannot_drift() -> None:
    """The extension's stub re-exports the Python twin, name by name."""
    stub = Path(_codec_py.__file__).with_name("_codec.pyi").read_text()
    names = [*_codec_py.__all__, "__all__"]
    assert sorted(stub.splitlines()) == sorted(f"from ._codec_py import {name} as {name}" for name in names)
