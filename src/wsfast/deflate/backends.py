"""The choice of the DEFLATE library: the standard zlib, isal or zlib-ng.

Measured on the bare objects with 1 KiB JSON messages, context takeover, 12 bits of window, memory level 5, under
CPython 3.11, zlib 1.2.13, isal 1.9.1, zlib-ng 1.1.0: microseconds of CPU, share of the size that is left, KiB for each
context in full use. ``python -m benchmarks.deflate_memory`` measures whole connections.

    compress        us    ratio   KiB      inflate     us     KiB
    isal 1          8.0   0.271   61       isal        7.4    58
    zlib 3         16.0   0.277   37       zlib        5.4    11
    zlib-ng 2      12.4   0.269  160       zlib-ng     4.4    15
    zlib-ng 1       4.7   0.377  160
    zlib 6         20.9   0.248   37

So, by default: isal compresses up to level 3 (it is twice as fast as zlib for the same ratio, thirty times on data that
does not shrink) and zlib above, where isal has nothing to offer; zlib-ng inflates contexts that live on, zlib all
others (a new inflater costs it 0.8 us, the other two 6 to 7). isal does not inflate: it is slower on small messages,
needs 58 KiB whatever the window, and what the peer sends is better left to the most tested code. zlib-ng does not
compress: its contexts are too large to have one for each connection. isal's are of one size, so with context takeover
it leaves the work to zlib if the memory level is below the default of 5: who sets that wants small contexts.

All three compress and inflate without the GIL, whatever the size; test_zlib.py holds that where it matters, with the
sizes that are compressed in threads.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Protocol

__all__ = ["BACKENDS", "FULL_FLUSH", "SYNC_FLUSH", "Backend", "Compressor", "Decompressor", "choose"]

# The same numbers in all three; test_zlib.py holds that.
SYNC_FLUSH = zlib.Z_SYNC_FLUSH
FULL_FLUSH = zlib.Z_FULL_FLUSH

_KIB = 1024


class Compressor(Protocol):
    """The type of what `zlib.compressobj` returns."""

    def compress(self, data: bytes | bytearray | memoryview, /) -> bytes: ...

    def flush(self, mode: int, /) -> bytes: ...


class Decompressor(Protocol):
    """The type of what `zlib.decompressobj` returns."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes | bytearray | memoryview, max_length: int = 0, /) -> bytes: ...


class Backend:
    """One DEFLATE library: how to make its objects, and what they weigh.

    Args:
        name: `zlib`, `isal` or `zlib_ng`.
        module: the import name of the module with zlib's interface.
        levels: for each of zlib's levels 1 to 9, the library's own.
        compress_memory: (window bits, memory level) -> bytes that a compressor holds when its window is full.
        decompress_memory: window bits -> bytes that a decompressor holds when its window is full.
        narrow: at 9 bits it never looks back more than 256 bytes, so that it can serve a window of 8 bits.

    Raises:
        ImportError: the library is not installed.
    """

    __slots__ = (
        "_compressobj",
        "_decompressobj",
        "_levels",
        "compress_memory",
        "decompress_memory",
        "error",
        "name",
        "narrow",
    )

    def __init__(
        self,
        name: str,
        module: str,
        *,
        levels: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9),
        compress_memory: Callable[[int, int], int],
        decompress_memory: Callable[[int], int],
        narrow: bool = True,
    ) -> None:
        library = import_module(module)
        self.name: str = name
        self.error: type[Exception] = library.error
        self.narrow: bool = narrow
        self.compress_memory: Callable[[int, int], int] = compress_memory
        self.decompress_memory: Callable[[int], int] = decompress_memory
        self._compressobj = library.compressobj
        self._decompressobj = library.decompressobj
        self._levels = levels

    def __repr__(self) -> str:
        return f"<Backend {self.name}>"

    def compressor(self, level: int, bits: int, mem_level: int) -> Compressor:
        """Make a raw compressor that never refers back further than the window.

        Args:
            level: zlib's, 1 to 9.
            bits: of the window, 8 to 15; 8 only if `narrow`.
            mem_level: zlib's, 1 to 9; the size of its tables. isal has no use for it.
        """
        # zlib refuses 8 bits for a raw stream. At 9 bits it looks back at most 512 - 262 bytes (MAX_DIST, which leaves
        # room for MIN_LOOKAHEAD), which a peer with 256 bytes can follow. test_zlib.py measures the distances.
        compressor: Compressor = self._compressobj(self._levels[level - 1], zlib.DEFLATED, -max(bits, 9), mem_level)
        return compressor

    def decompressor(self, bits: int) -> Decompressor:
        """Make a raw decompressor.

        Args:
            bits: the largest window that the peer may use, 8 to 15.
        """
        # Peers whose zlib makes 9 bits of 8 are followed as well.
        decompressor: Decompressor = self._decompressobj(-max(bits, 9))
        return decompressor


def _find_backends() -> dict[str, Backend]:
    # The formulas are upper bounds of the measured resident memory, at most a fifth above it.
    backends = {
        "zlib": Backend(
            "zlib",
            "zlib",
            compress_memory=lambda bits, mem_level: (4 << bits) + (512 << mem_level) + 8 * _KIB,
            decompress_memory=lambda bits: (1 << bits) + 8 * _KIB,
        )
    }
    extra: list[Callable[[], Backend]] = [
        lambda: Backend(
            "isal",
            "isal.isal_zlib",
            # Its level 0 leaves half as much again; its levels 2 and 3 take 48 KiB more and give next to nothing.
            levels=(1,) * 9,
            compress_memory=lambda bits, mem_level: 64 * _KIB,
            decompress_memory=lambda bits: 60 * _KIB,
            narrow=False,
        ),
        lambda: Backend(
            "zlib_ng",
            "zlib_ng.zlib_ng",
            compress_memory=lambda bits, mem_level: (4 << bits) + 152 * _KIB,
            decompress_memory=lambda bits: (1 << bits) + 13 * _KIB,
        ),
    ]
    for make in extra:
        try:
            backend = make()
        except ImportError:
            continue
        backends[backend.name] = backend
    return backends


BACKENDS = _find_backends()
"""The libraries that are installed, by name."""

_FASTEST_LEVELS = 3
_DEFAULT_MEM_LEVEL = 5


def choose(
    level: int, bits: int, mem_level: int, *, takeover: bool, peer_takeover: bool, name: str | None = None
) -> tuple[Backend, Backend]:
    """Choose the library that compresses and the one that inflates.

    Args:
        level: zlib's, 1 to 9.
        bits: of this side's window, 8 to 15.
        mem_level: zlib's, 1 to 9.
        takeover: this side's context lives on between messages.
        peer_takeover: the peer's context lives on between messages.
        name: a backend for everything that it can do. Default: the environment's WSFAST_ZLIB, else the best of each.

    Raises:
        ValueError: no such backend, or it is not installed.
    """
    name = name or os.environ.get("WSFAST_ZLIB") or None
    standard = BACKENDS["zlib"]
    if name is None:
        fast = level <= _FASTEST_LEVELS and (mem_level >= _DEFAULT_MEM_LEVEL or not takeover)
        compress = BACKENDS.get("isal", standard) if fast else standard
        inflate = BACKENDS.get("zlib_ng", standard) if peer_takeover else standard
    elif name in BACKENDS:
        compress = inflate = BACKENDS[name]
    else:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)} (those that are installed), got {name!r}")
    if bits < 9 and not compress.narrow:
        compress = standard
    return compress, inflate
