"""Memory that a program lends: whoever lent it may resize it when the call has returned, on PyPy too."""

from __future__ import annotations

import array
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

import wsfast
from wsfast.octets import copied, is_bytes_like, nbytes
from wsfast.testing import pair

KEY = b"abcd"


@pytest.fixture
def lent() -> bytearray:
    return bytearray(b"\x82\x05hello")


def resize(memory: bytearray) -> None:
    """Which is a BufferError while there is a view of it."""
    memory.extend(b"more" * 100)
    memory.clear()


def encoder_call(name: str, *before: object, **options: Any) -> Callable[[ModuleType, bytearray], object]:
    return lambda codec, lent: getattr(codec.Encoder(mask=False), name)(*before, lent, **options)


def apply_as_key(codec: ModuleType, lent: bytearray) -> object:
    del lent[4:]
    return codec.apply_mask(b"x", lent)


CALLS: dict[str, Callable[[ModuleType, bytearray], object]] = {
    "apply_mask": lambda codec, lent: codec.apply_mask(lent, KEY),
    "apply_mask, the key": apply_as_key,
    "apply_mask, in place": lambda codec, lent: codec.apply_mask(lent, KEY, lent),
    "encode_frame": lambda codec, lent: codec.encode_frame(2, lent, mask=KEY),
    "Encoder.message": encoder_call("message"),
    "Encoder.frame": encoder_call("frame", 2),
    "Encoder.encoded": encoder_call("encoded"),
    "Decoder.feed": lambda codec, lent: codec.Decoder(masked=False).feed(lent),
    "Decoder.feed, a part of a frame": lambda codec, lent: lent.pop() and codec.Decoder(masked=False).feed(lent),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_codec_keeps_nothing(name: str, codec: ModuleType, lent: bytearray) -> None:
    CALLS[name](codec, lent)
    resize(lent)


def test_a_refused_call_keeps_nothing(codec: ModuleType, lent: bytearray) -> None:
    with pytest.raises(ValueError, match="out must have 3 bytes"):
        codec.apply_mask(b"abc", KEY, lent)
    with pytest.raises(ValueError, match="mask must have 4 bytes"):
        codec.apply_mask(lent, b"abc")
    resize(lent)


async def send_stream(ws: wsfast.WebSocket, lent: bytearray) -> None:
    async def pieces() -> Any:
        yield lent

    await ws.send(pieces())


SENDS: dict[str, Callable[[wsfast.WebSocket, bytearray], Any]] = {
    "send": lambda ws, lent: ws.send(lent),
    "send, in fragments": lambda ws, lent: ws.send([lent]),
    "send, an async iterable": send_stream,
    "send_nowait": lambda ws, lent: ws.send_nowait(lent),
    "ping": lambda ws, lent: ws.ping(lent),
    "pong": lambda ws, lent: ws.pong(lent),
    "broadcast": lambda ws, lent: wsfast.broadcast([ws], lent),
}


@pytest.mark.anyio
@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("name", SENDS)
async def test_a_connection_keeps_nothing(name: str, compression: Any, lent: bytearray) -> None:
    async with pair(compression=compression, server_options={"compression": compression}) as (client, server):
        called = SENDS[name](client, lent)
        if called is not None and hasattr(called, "__await__"):
            await called
        resize(lent)
        if name not in ("ping", "pong"):
            assert await server.recv() == b"\x82\x05hello"


def test_what_is_no_bytes() -> None:
    numbers = array.array("i", [1, 2])
    assert copied(numbers) == numbers.tobytes()  # type: ignore[arg-type]
    assert nbytes(numbers) == len(numbers.tobytes())  # type: ignore[arg-type]
    every_other = memoryview(b"abcdef")[::2]
    assert copied(every_other) == b"ace"
    assert nbytes(every_other) == 3
    whole = b"abc"
    assert copied(whole) is whole
    for other in ("abc", 3, None, [1]):
        assert not is_bytes_like(other)
        for function in (copied, nbytes):
            with pytest.raises(TypeError, match="bytes-like"):
                function(other)  # type: ignore[arg-type]
    assert is_bytes_like(numbers)
