"""The DEFLATE libraries: all there, all alike where it matters, and within the window that was agreed."""

import random
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from importlib import import_module

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inflate_reference import inflate

from wsfast.deflate import backends as _zlib
from wsfast.deflate.backends import BACKENDS, FULL_FLUSH, SYNC_FLUSH, Backend, choose

NAMES = ["zlib", "isal", "zlib_ng"]
MODULES = {"zlib": "zlib", "isal": "isal.isal_zlib", "zlib_ng": "zlib_ng.zlib_ng"}
WORDS = [b'{"price":', b"true", b"12.5", b',"size":', b"\x00\x01", b"abcdefgh" * 5]


def text(seed: int, size: int) -> bytes:
    """Make data with matches at all distances."""
    rng = random.Random(seed)
    out = bytearray()
    while len(out) < size:
        if len(out) > 20 and rng.random() < 0.5:
            start = rng.randrange(len(out) - 10)
            out += out[start : start + rng.randrange(4, 40)]
        else:
            out += rng.choice(WORDS) if rng.random() < 0.5 else rng.randbytes(4)
    return bytes(out[:size])


def test_all_are_installed() -> None:
    # The suite must not be green because a library is missing.
    assert sorted(BACKENDS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_flushes_have_the_same_numbers(name: str) -> None:
    module = import_module(MODULES[name])
    assert (module.Z_SYNC_FLUSH, module.Z_FULL_FLUSH) == (SYNC_FLUSH, FULL_FLUSH)
    assert repr(BACKENDS[name]) == f"<Backend {name}>"


@pytest.mark.parametrize("bits", range(8, 16))
@pytest.mark.parametrize("name", NAMES)
def test_window_is_kept(name: str, bits: int) -> None:
    # 8 bits is what zlib refuses for a raw stream, and what its 9 must therefore serve.
    for level in (1, 3, 6, 9):
        backend = choose(level, bits, 5, takeover=True, peer_takeover=True, name=name)[0]
        compressor = backend.compressor(level, bits, 5)
        messages = [text(seed, 700 + 400 * seed) for seed in range(6)]
        stream = b"".join(compressor.compress(m) + compressor.flush(SYNC_FLUSH) for m in messages)
        result = inflate(stream)
        assert result.data == b"".join(messages)
        assert 0 < result.farthest <= 1 << bits
        assert result.complete


@pytest.mark.parametrize("name", NAMES)
def test_full_flush_forgets(name: str) -> None:
    for level in (1, 3, 6, 9):
        compressor = BACKENDS[name].compressor(level, 15, 5)
        data = text(1, 3000)
        first = compressor.compress(data) + compressor.flush(FULL_FLUSH)
        for size in (1, 5, 300, 2999, 3000):
            again = compressor.compress(data[:size]) + compressor.flush(FULL_FLUSH)
            assert inflate(again).data == data[:size]  # it checks that nothing refers to before the start
            assert again.endswith(b"\x00\x00\xff\xff")
        assert inflate(first).data == data


@pytest.mark.parametrize("level", [1, 3, 6, 9])
@pytest.mark.parametrize("sender", NAMES)
@settings(max_examples=40, deadline=None)
@given(
    bits=st.integers(8, 15),
    mem_level=st.integers(1, 9),
    messages=st.lists(
        st.one_of(
            st.binary(min_size=1, max_size=300),
            st.builds(text, st.integers(0, 2**16), st.integers(1, 9000)),
            st.builds(lambda b, n: b * n, st.binary(min_size=1, max_size=3), st.integers(1, 40_000)),
            st.builds(lambda seed, n: random.Random(seed).randbytes(n), st.integers(0, 2**16), st.integers(1, 70_000)),
        ),
        min_size=1,
        max_size=5,
    ),
    cuts=st.lists(st.integers(0, 5000), max_size=4),
)
def test_all_read_all(
    sender: str, level: int, bits: int, mem_level: int, messages: list[bytes], cuts: list[int]
) -> None:
    backend = choose(level, bits, mem_level, takeover=True, peer_takeover=True, name=sender)[0]
    compressor = backend.compressor(level, bits, mem_level)
    receivers = [BACKENDS[name].decompressor(bits) for name in NAMES]
    for message in messages:
        out = compressor.compress(message) + compressor.flush(SYNC_FLUSH)
        assert out.endswith(b"\x00\x00\xff\xff")
        for receiver in receivers:
            parts = []
            left = out
            for cut in cuts:
                parts.append(receiver.decompress(left[:cut], 0))
                left = left[cut:]
            # One more than there is: all of it comes, nothing is pending, nothing is left over.
            parts.append(receiver.decompress(left, len(message) - sum(map(len, parts)) + 1))
            assert b"".join(parts) == message
            assert not receiver.eof
            assert receiver.decompress(b"", 0) == b""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", [1, 299, 300, 301, 32767, 32768, 65536, 99_999, 100_000])
def test_length_limit(name: str, limit: int) -> None:
    data = b"a" * 100_000
    compressor = zlib.compressobj(wbits=-15)
    packed = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert BACKENDS[name].decompressor(15).decompress(packed, limit) == data[:limit]


@pytest.mark.parametrize("name", NAMES)
def test_final_block(name: str) -> None:
    decompressor = BACKENDS[name].decompressor(15)
    assert decompressor.decompress(bytes.fromhex("f348cdc9c90700 00"), 100) == b"Hello"
    assert decompressor.eof
    assert decompressor.unused_data == b"\x00"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("junk", [b"\x07\x00", b"\xff" * 9, b"\x06\x00\x00\x00", bytes.fromhex("04c00000ffff")])
def test_errors(name: str, junk: bytes) -> None:
    backend = BACKENDS[name]
    with pytest.raises(backend.error):
        backend.decompressor(15).decompress(junk, 0)


def _lets_others_run(call: Callable[[], object], most: int = 2000) -> bool:
    """Call something until another thread runs meanwhile, so many times at most, and tell whether one did.

    The interpreter takes the GIL from nobody meanwhile, so another thread runs only where the call gives it away.
    """
    turns = 0
    found: list[bool] = []

    def work() -> None:
        for _ in range(most):
            before = turns
            call()
            if turns != before:
                found.append(True)
                return
        found.append(False)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        while not found:
            turns += 1
            time.sleep(0)  # gives it away
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    return found[0]


@pytest.mark.parametrize("name", NAMES)
def test_work_is_done_without_the_gil(name: str) -> None:
    data = text(2, 256 * 1024)  # what is compressed in threads
    compressor = BACKENDS[name].compressor(3, 12, 5)
    decompressor = BACKENDS[name].decompressor(12)
    packer = zlib.compressobj(wbits=-12)
    packed = packer.compress(data) + packer.flush(FULL_FLUSH)
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        assert not _lets_others_run(lambda: data.count(b"x"), most=200)
    assert _lets_others_run(lambda: compressor.compress(data) + compressor.flush(SYNC_FLUSH))
    assert _lets_others_run(lambda: decompressor.decompress(packed, len(data) + 1))


def chosen(
    level: int,
    bits: int,
    mem_level: int = 5,
    *,
    takeover: bool = True,
    peer_takeover: bool = True,
    name: str | None = None,
) -> list[str]:
    backends = choose(level, bits, mem_level, takeover=takeover, peer_takeover=peer_takeover, name=name)
    return [backend.name for backend in backends]


def test_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WSFAST_ZLIB", raising=False)
    assert chosen(1, 15) == chosen(3, 12) == chosen(3, 9, 9) == ["isal", "zlib_ng"]
    assert chosen(3, 12, peer_takeover=False) == ["isal", "zlib"]
    assert chosen(4, 12) == chosen(9, 12, takeover=False) == ["zlib", "zlib_ng"]
    # Those who want small contexts get them.
    assert chosen(3, 12, 4) == ["zlib", "zlib_ng"]
    assert chosen(3, 12, 4, takeover=False) == ["isal", "zlib_ng"]
    # isal can not keep within a window of 8 bits.
    assert chosen(3, 8) == ["zlib", "zlib_ng"]
    assert chosen(9, 8, name="isal") == ["zlib", "isal"]
    assert chosen(9, 12, 1, name="isal") == ["isal", "isal"]
    assert chosen(1, 8, name="zlib_ng") == ["zlib_ng", "zlib_ng"]


def test_choice_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSFAST_ZLIB", "zlib")
    assert chosen(1, 15) == ["zlib", "zlib"]
    assert chosen(1, 15, name="isal") == ["isal", "isal"]
    monkeypatch.setenv("WSFAST_ZLIB", "")
    assert chosen(1, 15) == ["isal", "zlib_ng"]
    monkeypatch.setenv("WSFAST_ZLIB", "gzip")
    with pytest.raises(ValueError, match=r"backend must be one of zlib, isal, zlib_ng \(those that are inst.*'gzip'"):
        chosen(1, 15)


def test_choice_without_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WSFAST_ZLIB", raising=False)

    def missing(name: str) -> object:
        if name != "zlib":
            raise ImportError(name)
        return zlib

    monkeypatch.setattr(_zlib, "import_module", missing)
    found = _zlib._find_backends()
    assert list(found) == ["zlib"]
    monkeypatch.setattr(_zlib, "BACKENDS", found)
    assert chosen(3, 12) == ["zlib", "zlib"]
    with pytest.raises(ValueError, match=r"one of zlib \(those that are installed\), got 'isal'"):
        chosen(3, 12, name="isal")


_MEASURE = """
import random, sys
from wsfast.deflate.backends import BACKENDS, SYNC_FLUSH
def rss():
    # Without the pages of libraries, which the kernel takes back and reads again as it likes.
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon:"))
backend, level, bits, mem_level = BACKENDS[sys.argv[1]], 3, int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(0)
data = b"".join(b'{"id": %d, "price": %f}' % (rng.randrange(10**6), rng.random()) for _ in range(6000))
c = backend.compressor(level, bits, mem_level)
pieces = [data[i:i + 2048] for i in range(0, len(data), 2048)]
packed = [c.compress(p) + c.flush(SYNC_FLUSH) for p in pieces]
# Small contexts take many, so that what the allocator rounds up to does not count.
count = 1000 if bits < 10 else 100
if bits < 10: pieces, packed = pieces[:8], packed[:8]
start = rss()
many = [backend.compressor(level, bits, mem_level) for _ in range(count)]
for c in many:
    for p in pieces: c.compress(p) + c.flush(SYNC_FLUSH)
middle = rss()
more = [backend.decompressor(bits) for _ in range(count)]
for d in more:
    for p in packed: d.decompress(p)
print((middle - start) // count, (rss() - middle) // count)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("bits", "mem_level"), [(9, 1), (12, 5), (15, 8)])
@pytest.mark.parametrize("name", NAMES)
def test_memory_is_estimated_from_above(name: str, bits: int, mem_level: int) -> None:
    argv = [sys.executable, "-c", _MEASURE, name, str(bits), str(mem_level)]
    run = subprocess.run(argv, capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)})
    compressor, decompressor = map(int, run.stdout.split())
    backend: Backend = BACKENDS[name]
    for real, estimate in (
        (compressor, backend.compress_memory(bits, mem_level)),
        (decompressor, backend.decompress_memory(bits)),
    ):
        assert estimate / 2 < real < estimate + 1024
