"""The loops over text of the Cython codec, each that this processor has, beside CPython's decoder and encoder."""

from __future__ import annotations

import os
import platform
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from codec_helpers import cut, feed_all, trace
from vectors import RFC_KEY, TEXT, frame

from wsfast import _codec
from wsfast.events import Fragment
from wsfast.exceptions import InvalidPayload

choose = _codec._choose  # type: ignore[attr-defined]
LEVELS = ["plain", "neon"] if platform.machine() in ("aarch64", "arm64") else ["plain", "avx2", "avx512"]
KINDS = {
    "ascii": "a \x00\x7f~",
    "latin-1": "aé\x80ÿ ",
    "two": "aя\x80\u07ff\xff",
    "three": "a漢\u0800\ud7ff\ue000\uffff",
    "four": "a\U00010000\U0001f600\U000fffff\U0010ffff",
    "all": "a\x7f\x80ÿĀ\u07ff\u0800€\uffff\U00010000\U0010ffff",
}


@pytest.fixture(params=range(len(LEVELS)), ids=LEVELS, autouse=True)
def level(request: pytest.FixtureRequest) -> Iterator[int]:
    """Use vector code up to a level."""
    if choose(request.param) != request.param:
        choose(len(LEVELS))
        pytest.skip("this processor has no such instructions, or the compiler does not know them")
    yield request.param
    choose(len(LEVELS))


def check(data: bytes) -> None:
    """Decode data, in one piece and received in two, and encode it again."""
    text = data.decode()
    stream = frame(TEXT, data, key=RFC_KEY)
    for pieces in ([stream], [stream[: len(stream) // 2 + 4], stream[len(stream) // 2 + 4 :]]):
        (decoded,) = feed_all(_codec.Decoder(masked=True, max_size=None), pieces)
        assert decoded == text
        # It is as wide as CPython would make it; joined, since some of CPython's own keep their UTF-8 as well.
        assert sys.getsizeof(decoded + "!") == sys.getsizeof(data.decode() + "!")
        assert decoded.isascii() == text.isascii()
    encoder = _codec.Encoder()
    encoder.message(text)
    encoder.message("behind")
    assert encoder.take() == frame(TEXT, data) + frame(TEXT, b"behind")


def mixture(rnd: random.Random, most: int) -> str:
    """Return runs of characters of some of the kinds."""
    kinds = rnd.sample(list(KINDS.values()), rnd.randint(1, 3))
    size, text = rnd.randint(0, most), ""
    while len(text) < size:
        text += "".join(rnd.choices(rnd.choice(kinds), k=rnd.randint(1, rnd.choice([2, 9, 70]))))
    return text[:size]


@pytest.mark.parametrize("last", [0x7F, 0xFF, 0x7FF, 0xFFFF, 0x10FFFF])
def test_every_character(last: int) -> None:
    text = "".join(chr(c) for c in range(last + 1) if not 0xD800 <= c < 0xE000)
    check(text.encode())


@pytest.mark.parametrize("kind", KINDS)
def test_every_length_and_place(kind: str) -> None:
    """Characters at the borders of blocks, and across them."""
    for size in range(200):
        for character in KINDS[kind][:2]:
            check((character * size).encode())
        for other in KINDS[kind]:
            check((KINDS[kind][0] * size + other).encode())
            check((KINDS[kind][0] * size + KINDS[kind][1] + other * (size % 67)).encode())


@pytest.mark.parametrize("seed", range(10))
def test_mixtures(seed: int) -> None:
    rnd = random.Random(seed)
    for _ in range(300):
        check(mixture(rnd, rnd.choice([40, 200, 3000])).encode())


@pytest.mark.parametrize("seed", range(10))
def test_pieces_of_text(seed: int) -> None:
    """In streaming mode, each is as wide as its own characters need."""
    rnd = random.Random(seed)
    for _ in range(100):
        text = mixture(rnd, rnd.choice([40, 200, 3000]))
        decoder = _codec.Decoder(masked=True, max_size=None)
        decoder.streaming = True
        events = feed_all(decoder, cut(frame(TEXT, text.encode(), key=RFC_KEY), rnd.choice([1, 7, 64, 100, 1000])))
        assert all(type(event) is Fragment for event in events)
        pieces = [event.data for event in events]
        assert "".join(pieces) == text
        for piece in pieces:
            assert sys.getsizeof(piece + "!") == sys.getsizeof(piece.encode().decode() + "!")


@pytest.mark.parametrize("seed", range(10))
def test_what_is_wrong_is_found_where_cpython_finds_it(seed: int) -> None:
    rnd = random.Random(seed)
    for _ in range(300):
        data = bytearray(("é" + mixture(rnd, rnd.choice([20, 100, 400]))).encode())
        at = rnd.randrange(len(data))
        data[at : at + rnd.choice([0, 1, 3])] = rnd.choice([b"", b"\x80", b"\xff", b"\xed\xa0\x80", b"\xf0", b"\xc3"])
        try:
            expected: object = data.decode()
        except UnicodeDecodeError as exc:
            expected = InvalidPayload(f"text message is not UTF-8 at byte {exc.start}")
        stream = frame(TEXT, bytes(data), key=RFC_KEY)
        for pieces in ([stream], cut(stream, 100)):
            assert trace(feed_all(_codec.Decoder(masked=True), pieces)) == trace([expected])


@pytest.mark.parametrize("character", ["é", "漢", "\U0001f600"])
def test_surrogates_are_refused_at_every_place(character: str) -> None:
    encoder = _codec.Encoder()
    for size in range(1, 140, 3):
        for place in range(size):
            with pytest.raises(UnicodeEncodeError, match=f"position {place}: surrogates not allowed"):
                encoder.message(character * place + "\udc80" + character * (size - place))
    assert encoder.take() == b""


def test_nothing_is_written_behind_the_end(level: int) -> None:
    """Python's debugging allocator has guard bytes there."""
    program = (
        "import random, test_codec_utf8 as tests\n"
        f"tests.choose({level})\n"
        "rnd = random.Random(1)\n"
        "for size in range(2000):\n"
        "    tests.check(tests.mixture(rnd, size % 300).encode())\n"
    )
    environment = os.environ | {"PYTHONMALLOC": "debug", "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)


@pytest.fixture(scope="module")
def page_ends(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that runs the loops in C where memory ends."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("this needs a C compiler")
    program = tmp_path_factory.mktemp("page_ends") / "page_ends"
    here = Path(__file__).parent
    source = here / "text_at_page_ends.c"
    headers = here.parent / "src" / "wsfast"
    subprocess.run([*compiler.split(), "-O2", "-w", f"-I{headers}", source, "-o", program], check=True)
    return program


@pytest.mark.skipif(sys.platform == "win32", reason="pages are mapped as POSIX has it")
def test_memory_ends_where_the_text_ends(level: int, page_ends: Path) -> None:
    subprocess.run([page_ends, str(level)], check=True, timeout=60)
