"""`apply_mask` of both codecs."""

from __future__ import annotations

import array
import ctypes
import mmap
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vectors import RFC_KEY, xor

KEY = bytes.fromhex("0180ff7e")


@pytest.mark.parametrize("size", [*range(70), 125, 126, 127, 255, 1023, 4096, 65535, 65536, 65543])
def test_masks_every_length(codec: ModuleType, size: int) -> None:
    data = bytes(i * 7 & 0xFF for i in range(size))
    masked = codec.apply_mask(data, KEY)
    assert type(masked) is bytes
    assert masked == xor(data, KEY)
    assert codec.apply_mask(masked, KEY) == data


def test_rfc_example(codec: ModuleType) -> None:
    """RFC 6455, 5.7."""
    assert codec.apply_mask(b"Hello", RFC_KEY) == bytes.fromhex("7f9f4d5158")
    assert codec.apply_mask(bytes.fromhex("7f9f4d5158"), RFC_KEY) == b"Hello"


def test_any_data_and_key(codec: ModuleType) -> None:
    @given(data=st.binary(max_size=300), key=st.binary(min_size=4, max_size=4))
    def check(data: bytes, key: bytes) -> None:
        assert codec.apply_mask(data, key) == xor(data, key)

    check()


@pytest.mark.parametrize("offset", range(9))
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 64, 1000])
def test_writes_in_place_at_any_alignment(codec: ModuleType, offset: int, size: int) -> None:
    memory = bytearray(b"\xaa" * (size + 32))
    data = bytes(range(256)) * 4
    memory[offset : offset + size] = data[:size]
    view = memoryview(memory)[offset : offset + size]
    assert codec.apply_mask(view, KEY, view) is None
    assert memory[offset : offset + size] == xor(data[:size], KEY)
    assert memory[:offset] == b"\xaa" * offset
    assert memory[offset + size :] == b"\xaa" * (32 - offset)


@pytest.mark.parametrize("shift", [-9, -8, -3, -1, 1, 3, 8, 9])
def test_out_may_overlap_data(codec: ModuleType, shift: int) -> None:
    data = bytes(range(100))
    memory = bytearray(b"\0" * 16 + data + b"\0" * 16)
    codec.apply_mask(memoryview(memory)[16:116], KEY, memoryview(memory)[16 + shift : 116 + shift])
    assert memory[16 + shift : 116 + shift] == xor(data, KEY)


def test_key_may_lie_in_out(codec: ModuleType) -> None:
    memory = bytearray(KEY + bytes(range(60)))
    expected = xor(bytes(memory), KEY)
    codec.apply_mask(memory, memoryview(memory)[:4], memory)
    assert memory == expected


def test_takes_any_bytes_like_object(codec: ModuleType) -> None:
    numbers = array.array("I", [1, 2, 0xFFFFFFFF])
    assert codec.apply_mask(numbers, KEY) == xor(numbers.tobytes(), KEY)
    assert codec.apply_mask(memoryview(b"a.b.c.d.")[::2], KEY) == xor(b"abcd", KEY)
    assert codec.apply_mask(memoryview(b"abcd")[::-1], KEY) == xor(b"dcba", KEY)
    assert codec.apply_mask(b"abcd", memoryview(KEY)[::-1]) == xor(b"abcd", KEY[::-1])
    assert codec.apply_mask(b"abcd", array.array("I", KEY)) == xor(b"abcd", KEY)
    assert codec.apply_mask(bytearray(b"abcd"), bytearray(KEY)) == xor(b"abcd", KEY)
    assert codec.apply_mask(memoryview(bytes(6)).cast("B", (2, 3)), KEY) == KEY + KEY[:2]
    assert codec.apply_mask((ctypes.c_int32 * 2)(1, 2), KEY) == xor(bytes((ctypes.c_int32 * 2)(1, 2)), KEY)
    with mmap.mmap(-1, 16) as memory:
        memory[:] = b"0123456789abcdef"
        assert codec.apply_mask(memory, KEY, memory) is None
        assert memory[:] == xor(b"0123456789abcdef", KEY)


@pytest.mark.parametrize(
    "out",
    [
        bytearray(8),
        array.array("I", [0, 0]),
        memoryview(bytearray(8)),
        memoryview(bytearray(8)).cast("H"),
        memoryview(bytearray(8)).cast("B", (2, 4)),
        (ctypes.c_uint8 * 8)(),
        (ctypes.c_int32 * 2)(),
    ],
    ids=lambda out: type(out).__name__,
)
def test_writes_to_any_writable_memory(codec: ModuleType, out: object) -> None:
    assert codec.apply_mask(b"abcdefgh", KEY, out) is None
    assert bytes(memoryview(out)) == xor(b"abcdefgh", KEY)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 1, 3, 5, 8])
def test_refuses_a_mask_of_another_length(codec: ModuleType, size: int) -> None:
    with pytest.raises(ValueError, match=f"^mask must have 4 bytes, got {size}$"):
        codec.apply_mask(b"data", bytes(size))


@pytest.mark.parametrize("size", [0, 3, 5])
def test_refuses_an_out_of_another_length(codec: ModuleType, size: int) -> None:
    with pytest.raises(ValueError, match=f"^out must have 4 bytes as data has, got {size}$"):
        codec.apply_mask(b"data", KEY, bytearray(size))


@pytest.mark.parametrize(
    ("data", "mask", "out", "text"),
    [
        ("text", KEY, None, "expected a bytes-like object, got str"),
        (None, KEY, None, "expected a bytes-like object, got NoneType"),
        (7, KEY, None, "expected a bytes-like object, got int"),
        ([1], KEY, None, "expected a bytes-like object, got list"),
        (b"data", "mask", None, "expected a bytes-like object, got str"),
        (b"data", None, None, "expected a bytes-like object, got NoneType"),
        (b"data", KEY, "four", "out must be a bytes-like object, got str"),
        (b"data", KEY, b"four", "out must be writable and contiguous"),
        (b"data", KEY, memoryview(b"four"), "out must be writable and contiguous"),
        (b"data", KEY, memoryview(bytearray(8))[::2], "out must be writable and contiguous"),
    ],
)
def test_refuses_wrong_types(codec: ModuleType, data: object, mask: object, out: object, text: str) -> None:
    with pytest.raises(TypeError) as info:
        codec.apply_mask(data, mask, out)
    assert str(info.value) == text
