"""The usual request, read in one step: the twins agree, and agree with the way of all others."""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from types import ModuleType

import pytest

from wsfast.exceptions import HandshakeRefused
from wsfast.handshake import RequestParser, _request_py, check_request
from wsfast.handshake.http11 import MAX_HEADERS, MAX_LINE

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
SAMPLE = (
    b"GET /chat?a=b HTTP/1.1\r\n"
    b"Host: example.com:8765\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: " + KEY.encode() + b"\r\n"
    b"Origin: https://example.com\r\n"
    b"Sec-WebSocket-Protocol: chat, superchat\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)
PLAIN = (
    b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: " + KEY.encode() + b"\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture(params=["_request", "_request_py"], ids=["cython", "python"])
def twin(request: pytest.FixtureRequest) -> ModuleType:
    """Each twin. A missing extension is an error, never a skip."""
    return importlib.import_module(f"wsfast.handshake.{request.param}")


def with_header(line: bytes, before: bytes = PLAIN) -> bytes:
    return before[:-2] + line + b"\r\n\r\n"


def replaced(old: bytes, new: bytes, data: bytes = PLAIN) -> bytes:
    assert data.count(old) == 1
    return data.replace(old, new)


def test_what_is_found(twin: ModuleType) -> None:
    deflate = "permessage-deflate; client_max_window_bits"
    assert twin.read_usual(SAMPLE) == (len(SAMPLE), KEY, "https://example.com", "chat, superchat", deflate)
    assert twin.read_usual(PLAIN + b"GET / HTTP/1.1\r\n\r\n") == (len(PLAIN), KEY, None, None, None)
    assert twin.read_usual(with_header(b"Origin:\t \xe9x")) == (len(PLAIN) + 13, KEY, "\xe9x", None, None)
    assert twin.read_usual(with_header(b"Origin:")) == (len(PLAIN) + 9, KEY, "", None, None)


USUAL = [
    replaced(b"websocket\r", b"WebSocket\r"),
    replaced(b"Connection: Upgrade", b"CONNECTION: upgrade"),
    replaced(b"Connection: Upgrade", b"connection:\t Keep-Alive, upgrade"),
    *(replaced(b"Host: h", b"Host: " + host) for host in (b"127.0.0.1:1", b"a-b.C:59999", b"h:0000", b"-", b".")),
    with_header(b"X: " + bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])),
    with_header(b"!#$%&'*+-.^_`|~09azAZ:x"),
    replaced(b"GET /", b"GET /" + bytes(c for c in range(0x21, 0x7F) if c != 0x23)),
    with_header(b"\r\n".join([b"a:"] * (MAX_HEADERS - 5))),
    with_header(b"X: " + b"x" * (MAX_LINE - len(PLAIN) - 5)),
]
UNUSUAL = [
    b"",
    b"GET /",
    b"\r\n" + PLAIN,
    replaced(b"GET /", b"GET http://h/"),
    replaced(b"GET ", b"PUT "),
    replaced(b"HTTP/1.1", b"HTTP/1.0"),
    replaced(b"websocket\r", b"websocket, x\r"),
    replaced(b"websocket\r", b"websocket \r"),
    replaced(b"Connection: Upgrade", b"Connection: Upgrade, keep-alive"),
    replaced(b"Connection: Upgrade", b"Connection: Upgrade\r\nConnection: Upgrade"),
    replaced(b": 13", b": 12"),
    replaced(b": 13", b": 013"),
    *(
        replaced(b"Host: h", b"Host: " + host)
        for host in (b"[::1]", b"h:60000", b"h:123456", b"h:", b":80", b"h:8a", b"h_", b"h:1:2", b"")
    ),
    replaced(KEY.encode(), KEY.encode()[1:]),
    replaced(KEY.encode(), b"*" + KEY.encode()[1:]),
    replaced(KEY.encode(), KEY.encode()[:-2] + b"A="),
    *(
        PLAIN.replace(line, b"")
        for line in (
            b"Host: h\r\n",
            b"Upgrade: websocket\r\n",
            b"Connection: Upgrade\r\n",
            b"Sec-WebSocket-Version: 13\r\n",
        )
    ),
    with_header(b"Content-Length: 0"),
    with_header(b"transfer-encoding: chunked"),
    with_header(b"Host: h"),
    with_header(b"Origin: a\r\nOrigin: b"),
    with_header(b"Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b"),
    with_header(b"Sec-WebSocket-Extensions: a\r\nsec-websocket-extensions: b"),
    with_header(b"X: a\tb "),
    with_header(b"X: "),
    with_header(b"X : a"),
    with_header(b" X: a"),
    with_header(b": a"),
    with_header(b"X"),
    with_header(b"X: \x7f"),
    with_header(b"X: a\nY: b"),
    with_header(b"X: a\rY: b"),
    with_header(b"\r\n".join([b"a:"] * (MAX_HEADERS - 4))),
    with_header(b"X: " + b"x" * (MAX_LINE - len(PLAIN) - 4)),
    *(PLAIN[:size] for size in range(5, len(PLAIN), 3)),
]


@pytest.mark.parametrize("data", USUAL)
def test_usual(twin: ModuleType, data: bytes) -> None:
    assert twin.read_usual(data) is not None
    agree(data)


@pytest.mark.parametrize("data", UNUSUAL)
def test_unusual(twin: ModuleType, data: bytes) -> None:
    assert twin.read_usual(data) is None


def test_bytes_are_asked_for() -> None:
    with pytest.raises(TypeError):
        importlib.import_module("wsfast.handshake._request").read_usual(None)


def mutated(seed: int) -> Iterator[bytes]:
    chosen = random.Random(seed)
    pool = [SAMPLE, PLAIN, *USUAL[:8], *UNUSUAL[3:50]]
    for _ in range(4000):
        data = bytearray(chosen.choice(pool))
        for _ in range(chosen.choice((0, 1, 1, 1, 2, 3))):
            at = chosen.randrange(len(data) + 1)
            piece = chosen.choice(
                [bytes([chosen.randrange(256)]), b"\r\n", b" ", b"\t", b":", b"", b"Host: h\r\n", b"Origin: a\r\n"]
            )
            data[at : at + chosen.choice((0, 1, 1))] = piece
        yield bytes(data)


@pytest.mark.parametrize("seed", range(5))
def test_the_twins_agree(seed: int) -> None:
    fast = importlib.import_module("wsfast.handshake._request").read_usual
    for data in mutated(seed):
        assert fast(data) == _request_py.read_usual(data), data


@pytest.mark.parametrize("position", range(0, len(SAMPLE), 8))
def test_the_twins_agree_on_each_byte(position: int) -> None:
    fast = importlib.import_module("wsfast.handshake._request").read_usual
    for at in range(position, min(position + 8, len(SAMPLE))):
        for byte in range(256):
            data = SAMPLE[:at] + bytes([byte]) + SAMPLE[at + 1 :]
            assert fast(data) == _request_py.read_usual(data), data


def agree(data: bytes) -> None:
    """See that a request which is read at once means what it means when it comes in two pieces."""
    whole, cut = RequestParser(), RequestParser()
    one = whole.feed(data)
    assert cut.feed(data[:5]) is None
    other = cut.feed(data[5:])
    assert one is not None
    assert other is not None
    assert (one.raw, whole.trailing) == (other.raw, cut.trailing)
    assert (isinstance(one._found, tuple), isinstance(other._found, dict)) == (True, True)
    assert verdict(one) == verdict(other)


def verdict(request: object) -> object:
    try:
        return check_request(request)  # type: ignore[arg-type]
    except HandshakeRefused as exc:
        return str(exc), exc.response.serialize()


@pytest.mark.parametrize("seed", range(5))
def test_both_ways_agree(seed: int) -> None:
    found = 0
    for data in mutated(seed):
        if _request_py.read_usual(data) is not None:
            agree(data)
            found += 1
    assert found > 100
