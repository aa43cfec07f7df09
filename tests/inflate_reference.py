"""A slow inflater after RFC 1951 that tells what zlib hides: how far back a stream refers, and where its blocks end."""

from __future__ import annotations

from dataclasses import dataclass, field

_LENGTHS = [*range(3, 11), 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258]
_LENGTH_BITS = [0] * 8 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4 + [0]
_DISTANCES = [1, 2, 3, 4]
_DISTANCE_BITS = [0, 0, 0, 0]
for _extra in range(1, 14):
    for _half in (0, 1):
        _DISTANCES.append((2 + _half << _extra) + 1)
        _DISTANCE_BITS.append(_extra)
_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]


@dataclass
class Inflated:
    """What a stream held.

    Attributes:
        data: the bytes.
        farthest: the largest distance of a back-reference, 0 without any.
        earliest: the smallest position that a back-reference reached, `len(data)` without any.
        kinds: the type of each block: 0 stored, 1 fixed, 2 dynamic.
        complete: the input ends where a block ends.
    """

    data: bytearray = field(default_factory=bytearray)
    farthest: int = 0
    kinds: list[int] = field(default_factory=list)
    complete: bool = False
    earliest: int = 1 << 62


def _codes(lengths: list[int]) -> dict[tuple[int, int], int]:
    code = 0
    codes = {}
    for length in range(1, max(lengths, default=0) + 1):
        for symbol, its in enumerate(lengths):
            if its == length:
                codes[length, code] = symbol
                code += 1
        code <<= 1
    return codes


_FIXED = _codes([8] * 144 + [9] * 112 + [7] * 24 + [8] * 8), _codes([5] * 30)


class _Bits:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> int:
        value = 0
        for i in range(count):
            if self.at >= len(self.data) * 8:
                raise EOFError
            value |= (self.data[self.at >> 3] >> (self.at & 7) & 1) << i
            self.at += 1
        return value

    def symbol(self, codes: dict[tuple[int, int], int]) -> int:
        code = length = 0
        while True:
            code = code << 1 | self.take(1)
            length += 1
            if (symbol := codes.get((length, code))) is not None:
                return symbol
            if length > 15:
                raise ValueError("no such code")


def inflate(data: bytes) -> Inflated:
    """Inflate a raw stream that may have any number of blocks, and need not have a final one.

    Raises:
        ValueError: it is no such stream, though not everything is checked.
    """
    bits = _Bits(data)
    result = Inflated()
    out = result.data
    while bits.at < len(data) * 8:
        result.complete = False
        try:
            final = bits.take(1)
            kind = bits.take(2)
            if kind == 3:
                raise ValueError("no such block")
            result.kinds.append(kind)
            if kind == 0:
                bits.at = (bits.at + 7) & ~7
                size = bits.take(16)
                if bits.take(16) != size ^ 0xFFFF:
                    raise ValueError("stored lengths differ")
                for _ in range(size):
                    out.append(bits.take(8))
            else:
                _inflate_block(bits, result, *(_FIXED if kind == 1 else _read_codes(bits)))
        except EOFError:
            return result
        if final:
            bits.at = (bits.at + 7) & ~7
        result.complete = True
    return result


def _read_codes(bits: _Bits) -> tuple[dict[tuple[int, int], int], dict[tuple[int, int], int]]:
    literals = bits.take(5) + 257
    distances = bits.take(5) + 1
    lengths = [0] * 19
    for i in range(bits.take(4) + 4):
        lengths[_ORDER[i]] = bits.take(3)
    codes = _codes(lengths)
    all_lengths: list[int] = []
    while len(all_lengths) < literals + distances:
        symbol = bits.symbol(codes)
        if symbol < 16:
            all_lengths.append(symbol)
        elif symbol == 16:
            all_lengths += [all_lengths[-1]] * (bits.take(2) + 3)
        else:
            all_lengths += [0] * (bits.take(3) + 3 if symbol == 17 else bits.take(7) + 11)
    return _codes(all_lengths[:literals]), _codes(all_lengths[literals:])


def _inflate_block(
    bits: _Bits, result: Inflated, literals: dict[tuple[int, int], int], distances: dict[tuple[int, int], int]
) -> None:
    out = result.data
    while (symbol := bits.symbol(literals)) != 256:
        if symbol < 256:
            out.append(symbol)
            continue
        size = _LENGTHS[symbol - 257] + bits.take(_LENGTH_BITS[symbol - 257])
        symbol = bits.symbol(distances)
        distance = _DISTANCES[symbol] + bits.take(_DISTANCE_BITS[symbol])
        if distance > len(out):
            raise ValueError("refers to before the start")
        result.farthest = max(result.farthest, distance)
        result.earliest = min(result.earliest, len(out) - distance)
        for _ in range(size):
            out.append(out[-distance])
