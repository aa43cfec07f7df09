"""Bytes of RFC 6455, and of the rules it names, that more than one test reads.

Frames are written as a peer would send them, without masks; `mask_frames` turns a server's frames into a
client's. Tests may not build what they expect with the code they test: `frame` here is a second writing.
"""

from __future__ import annotations

from typing import NamedTuple

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

RFC_KEY = bytes.fromhex("37fa213d")
"""The masking key of the examples in RFC 6455, 5.7."""

HELLO = b"\x81\x05Hello"
HELLO_MASKED = bytes.fromhex("818537fa213d7f9f4d5158")
HELLO_FRAGMENTS = b"\x01\x03Hel", b"\x80\x02lo"
PING_HELLO = b"\x89\x05Hello"
PONG_HELLO_MASKED = bytes.fromhex("8a8537fa213d7f9f4d5158")


def xor(data: bytes, key: bytes) -> bytes:
    """Mask byte by byte, as RFC 6455, 5.3 puts it: octet i with octet i modulo 4 of the key."""
    return bytes(octet ^ key[i % 4] for i, octet in enumerate(data))


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    key: bytes | None = None,
    form: int | None = None,
) -> bytes:
    """Build a frame, a wrong one if asked for.

    Args:
        rsv: the three reserved bits, RSV1 being 4.
        key: four bytes to mask with, or None.
        form: the length encoding to use, 7, 16 or 64 bits; None for the shortest.
    """
    length = len(payload)
    if form is None:
        form = 7 if length < 126 else 16 if length < 65536 else 64
    flag = 0 if key is None else 0x80
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if form == 7:
        head += bytes([flag | length])
    elif form == 16:
        head += bytes([flag | 126]) + length.to_bytes(2, "big")
    else:
        head += bytes([flag | 127]) + length.to_bytes(8, "big")
    return head + payload if key is None else head + key + xor(payload, key)


def declare(opcode: int, length: int, *, fin: bool = True, rsv: int = 0, key: bytes | None = None) -> bytes:
    """Build the head of a frame that declares a length in 64 bits, true or not."""
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode, (0 if key is None else 0x80) | 127])
    return head + length.to_bytes(8, "big") + (key or b"")


class Broken(NamedTuple):
    """Text that is not UTF-8."""

    name: str
    data: bytes
    at: int
    """Where the first sequence that cannot be UTF-8 begins."""
    known: int
    """How many bytes must have come before that is certain; past the end if only the end tells."""


BROKEN_UTF8 = [
    Broken("6.3.1 surrogate inside", bytes.fromhex("cebae1bdb9cf83cebcceb5eda080656469746564"), 11, 13),
    Broken("6.4.1 above U+10FFFF inside", bytes.fromhex("cebae1bdb9cf83cebcceb5f4908080656469746564"), 11, 13),
    Broken("6.6.2 truncated", bytes.fromhex("ce"), 0, 2),
    Broken("6.6.4 truncated after one", bytes.fromhex("cebae1"), 2, 4),
    Broken("6.6.5 truncated after one", bytes.fromhex("cebae1bd"), 2, 5),
    Broken("6.8.1 five bytes", bytes.fromhex("f888808080"), 0, 1),
    Broken("6.8.2 six bytes", bytes.fromhex("fc8480808080"), 0, 1),
    Broken("6.10.1 above U+10FFFF", bytes.fromhex("f7bfbfbf"), 0, 1),
    Broken("6.10.2 five bytes", bytes.fromhex("fbbfbfbfbf"), 0, 1),
    Broken("6.10.3 six bytes", bytes.fromhex("fdbfbfbfbfbf"), 0, 1),
    Broken("6.11.5 first after the last", bytes.fromhex("f4908080"), 0, 2),
    Broken("6.12.1 continuation alone", bytes.fromhex("80"), 0, 1),
    Broken("6.12.2 continuation alone", bytes.fromhex("bf"), 0, 1),
    Broken("6.12.8 every continuation", bytes(range(0x80, 0xC0)), 0, 1),
    *(Broken(f"6.13 start 0x{b:02x} then a space", bytes([b, 0x20]), 0, 2) for b in range(0xC2, 0xF5)),
    *(Broken(f"6.13 never a start 0x{b:02x}", bytes([b, 0x20]), 0, 1) for b in (0xC0, 0xC1, *range(0xF5, 0x100))),
    Broken("6.14.1 last byte missing", bytes.fromhex("df"), 0, 2),
    Broken("6.14.2 last byte missing", bytes.fromhex("e080"), 0, 2),
    Broken("6.14.3 last byte missing", bytes.fromhex("efbf"), 0, 3),
    Broken("6.14.4 last byte missing", bytes.fromhex("f08080"), 0, 2),
    Broken("6.14.6 last byte missing", bytes.fromhex("f3bfbf"), 0, 4),
    Broken("6.15 several incomplete", bytes.fromhex("dfefbfeda080"), 0, 2),
    Broken("6.16.1 impossible byte", bytes.fromhex("fe"), 0, 1),
    Broken("6.16.2 impossible byte", bytes.fromhex("ff"), 0, 1),
    Broken("6.16.3 impossible bytes", bytes.fromhex("fefeffff"), 0, 1),
    Broken("6.17.1 overlong slash", bytes.fromhex("c0af"), 0, 1),
    Broken("6.17.2 overlong slash", bytes.fromhex("e080af"), 0, 2),
    Broken("6.17.3 overlong slash", bytes.fromhex("f08080af"), 0, 2),
    Broken("6.17.4 overlong slash", bytes.fromhex("f8808080af"), 0, 1),
    Broken("6.17.5 overlong slash", bytes.fromhex("fc80808080af"), 0, 1),
    Broken("6.18.1 overlong maximum", bytes.fromhex("c1bf"), 0, 1),
    Broken("6.18.2 overlong maximum", bytes.fromhex("e09fbf"), 0, 2),
    Broken("6.18.3 overlong maximum", bytes.fromhex("f08fbfbf"), 0, 2),
    Broken("6.19.1 overlong NUL", bytes.fromhex("c080"), 0, 1),
    Broken("6.19.2 overlong NUL", bytes.fromhex("e08080"), 0, 2),
    Broken("6.19.3 overlong NUL", bytes.fromhex("f0808080"), 0, 2),
    Broken("6.20.1 surrogate", bytes.fromhex("eda080"), 0, 2),
    Broken("6.20.2 surrogate", bytes.fromhex("edadbf"), 0, 2),
    Broken("6.20.4 surrogate", bytes.fromhex("edaf80"), 0, 2),
    Broken("6.20.5 surrogate", bytes.fromhex("edb080"), 0, 2),
    Broken("6.20.7 surrogate", bytes.fromhex("edbfbf"), 0, 2),
    Broken("6.21.1 surrogate pair", bytes.fromhex("eda080edb080"), 0, 2),
    Broken("6.21.8 surrogate pair", bytes.fromhex("edafbfedbfbf"), 0, 2),
    Broken("third byte wrong", bytes.fromhex("e182ff"), 0, 3),
    Broken("fourth byte wrong", bytes.fromhex("f1828341"), 0, 4),
    Broken("after ASCII of more than a word", b"0123456789abcdefghi\xff", 19, 20),
    Broken("after ASCII and a character", b"0123456789\xe2\x82\xacabcdefgh\xc3(", 21, 23),
]
"""All that groups 6.3 to 6.21 of the Autobahn|Testsuite send as invalid, and a few more."""

GOOD_UTF8 = [
    "",
    "a",
    "Hello-µ@ßöäüàá-UTF-8!!",
    "\u03ba\u1f79\u03c3\u03bc\u03b5",
    "\x00\x7f\x80\u07ff\u0800\uffff\U00010000\U0010ffff",
    "\ud7ff\ue000\ufffd\ufffe",
    "\U000fffff\U0003fffe\ufdd0",
    "0123456789" * 20 + "\u20ac" + "0123456789" * 20,
    "\U0001f600" * 100,
]
"""All that groups 6.1 to 6.23 of the Autobahn|Testsuite send as valid, in short."""

ACCEPTED_CLOSE_CODES = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})
"""The codes that may stand in a Close frame (RFC 6455, 7.4, and the IANA registry)."""
