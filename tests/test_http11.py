"""HTTP/1.1 heads: what is taken, what is refused and how, the same however the bytes are cut (RFC 9112)."""

from __future__ import annotations

import contextlib
import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from wsfast._built import EXTENSIONS
from wsfast.exceptions import HandshakeRefused, InvalidMessage, InvalidState
from wsfast.handshake import _head_py, check_request
from wsfast.handshake.body import MAX_BODY
from wsfast.handshake.http11 import (
    MAX_HEAD,
    MAX_HEADERS,
    MAX_LINE,
    HeadLimits,
    Request,
    RequestParser,
    Response,
    ResponseParser,
    find_fields,
    refuse,
    text_response,
)
from wsfast.http import Headers, HeadersView

TWINS: list[Any] = [_head_py]
if EXTENSIONS:
    from wsfast.handshake import _head

    TWINS.append(_head)
GET = b"GET / HTTP/1.1\r\nHost: h\r\n"
SAMPLE = (  # RFC 6455, 1.2
    b"GET /chat?a=b HTTP/1.1\r\n"
    b"Host: server.example.com\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Origin: http://example.com\r\n"
    b"Sec-WebSocket-Protocol: chat, superchat\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)


def fields_of(request: Request) -> dict[str, str]:
    """Return the headers that the handshake looks at, as the parser found them and as they stand in the bytes."""
    fields = find_fields(request.raw)
    assert request._found is None or request._found[0] == fields
    return fields


def outcome(pieces: list[bytes]) -> tuple[object, ...]:
    """Feed the pieces; say what came of it, in values that can be compared."""
    parser = RequestParser()
    for index, piece in enumerate(pieces):
        try:
            request = parser.feed(piece)
        except HandshakeRefused as exc:
            return "refused", str(exc), exc.response.serialize()
        assert len(parser._buffer or b"") <= MAX_HEAD + 1
        if request is not None:
            rest = parser.trailing + b"".join(pieces[index + 1 :])
            return request.raw, rest, fields_of(request), list(request.headers.items())
    return ("incomplete",)


def check_cuts(data: bytes) -> tuple[object, ...]:
    """Check that the outcome does not depend on how the data is cut, and return it."""
    whole = outcome([data])
    step = max(1, len(data) // 512)
    for cut in range(0, len(data) + 1, step):
        assert outcome([data[:cut], data[cut:]]) == whole
    assert outcome([data[i : i + 1] for i in range(len(data))]) == whole
    return whole


def test_sample() -> None:
    parser = RequestParser()
    request = parser.feed(SAMPLE)
    assert request is not None
    assert request.method == "GET"
    assert request.path == request.target == "/chat?a=b"
    assert request.headers["hOST"] == "server.example.com"
    assert request.headers.getall("sec-websocket-protocol") == ["chat, superchat"]
    assert request.headers is request.headers
    assert request.raw == SAMPLE
    assert parser.trailing == b""
    assert repr(request) == "<Request GET '/chat?...'>"


def test_heads_that_come_whole() -> None:
    """The twins take the same ones: a good head with each byte replaced by other kinds of bytes, cut, at the limits."""
    head = (
        b"GET /a HTTP/1.1\r\nHost: \t h\r\nconnection:a\r\nX-Y: b\r\nCONNECTION: \xe4 \t\r\nUpgrade:\r\n"
        b"Sec-WebSocket-Key: c\r\n\r\n"
    )
    fields = {"Host": "h", "Connection": "a\n\xe4", "Upgrade": "", "Sec-WebSocket-Key": "c"}
    twins = [twin.take_head for twin in TWINS]
    assert [take(head + b"\x81\r\n", 999, 6) for take in twins] == [(len(head), fields, None)] * len(twins)
    cases = [(head, size, count) for size in range(len(head) + 2) for count in (0, 5, 6, 7)]
    cases += [(head[:cut], 999, 6) for cut in range(len(head))]
    for at in range(len(head)):
        for byte in b'\0\t\r\n "#/:;Aaz{-\x1f\x7f\x80\xff':
            cases.append((head[:at] + bytes([byte]) + head[at + 1 :], 999, 6))
    outcomes = {take: [take(*case) for case in cases] for take in twins}
    assert outcomes[twins[0]] == outcomes[twins[-1]]
    assert len({str(outcome) for outcome in outcomes[twins[0]]}) > 100  # of good ones there are many, too


USUAL = {
    "Host": "a-1.example:8080",
    "Upgrade": "WebSocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def test_a_key_of_usual_fields_is_that_which_a_closer_look_finds() -> None:
    """The twins agree, and no request gets by that has to be refused: each value with other characters, or without."""
    hosts = ("h", "h:", "h:1", "h:12345", ":1", "h:1:2", "h:a", "[::1]", "")
    connections = ("upgrade", "Upgrade, close", "keep-alive", "")
    cases = [
        dict(USUAL),
        *(USUAL | {"Host": host} for host in hosts),
        *(USUAL | {"Connection": c} for c in connections),
    ]
    cases += [USUAL | {name: "0"} for name in ("Origin", "Content-Length", "Transfer-Encoding")]
    cases += [{other: value for other, value in USUAL.items() if other != name} for name in USUAL]
    for name, value in USUAL.items():
        cases += [
            USUAL | {name: value[:at] + char + value[at:]} for at in range(len(value) + 1) for char in "=Aa,\t\xe4"
        ]
        cases += [USUAL | {name: value[:at] + char + value[at + 1 :]} for at in range(len(value)) for char in "=Zz+:1 "]
        cases.append(USUAL | {name: f"{value}\n{value}"})
    keys = [_head_py.find_key(fields) for fields in cases]
    for twin in TWINS[1:]:
        assert [twin.find_key(fields) for fields in cases] == keys
    assert 20 < sum(key is not None for key in keys) < len(keys) // 2
    for fields, key in zip(cases, keys, strict=True):
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if "\n" not in value)
        request = Request(f"GET / HTTP/1.1\r\n{lines}\r\n".encode("latin-1"))  # nobody has looked for a key in it
        if key is not None:
            assert check_request(request).key == key


def test_pairs_in_lower_case() -> None:
    head = b"GET / HTTP/1.1\r\nHost: \t h \r\nX-Y:a\r\nABCXYZ-abc_~: b: c\xe4\r\nempty:\r\nHost: again\r\n\r\n"
    known = {b"host": b"host", b"a": b"a"}
    for twin in TWINS:
        last = {b"abcxyz-abc_~": (b"abcxyz-abc_~", b"b: c"), b"host": (known[b"host"], b"")}
        pairs = twin.lower_pairs(head, known, last)
        assert pairs == [
            (b"host", b"h"),
            (b"x-y", b"a"),
            (b"abcxyz-abc_~", b"b: c\xe4"),
            (b"empty", b""),
            (b"host", b"again"),
        ]
        assert pairs[0][0] is known[b"host"]
        assert pairs[1][1] is known[b"a"]
        assert last == {b"abcxyz-abc_~": pairs[2], b"host": pairs[4]}
        again = twin.lower_pairs(head.replace(b" h ", b"again"), known, last)
        assert again[0] is again[4] is pairs[4]
        assert again[2] is pairs[2]
        # Neither a name that is not there, nor a long value, is kept.
        long = twin.lower_pairs(b"GET / HTTP/1.1\r\nHost:%b\r\nX-Y:a\r\n\r\n" % (b"a" * 257), known, last)
        assert long == [(b"host", b"a" * 257), (b"x-y", b"a")]
        assert last == {b"abcxyz-abc_~": pairs[2], b"host": pairs[4]}
        assert twin.lower_pairs(b"GET / HTTP/1.1\r\n\r\n", known, last) == []
        # No peer's: what is not well-formed is read all the same, and not beyond its end.
        assert twin.lower_pairs(b"GET / HTTP/1.1\r\na b\r\n", known, last) == []
        assert twin.lower_pairs(b"GET", known, last) == []


def test_request_keeps_nothing_but_bytes() -> None:
    request = RequestParser().feed(SAMPLE)
    assert request is not None
    assert request.raw is SAMPLE
    check_request(request)
    assert request._found is None
    assert request._headers is None
    assert not hasattr(request, "__dict__")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_buffers(kind: type) -> None:
    data = bytearray(SAMPLE + b"\x81")
    parser = RequestParser()
    request = parser.feed(kind(data))
    assert request is not None
    data[:] = bytes(len(data))  # the receive buffer is used again
    assert (request.raw, parser.trailing) == (SAMPLE, b"\x81")
    parser = RequestParser()
    data[:] = SAMPLE + b"\x81"
    assert parser.feed(kind(data[:50])) is None
    request = parser.feed(kind(data[50:]))
    assert request is not None
    assert (request.raw, parser.trailing) == (SAMPLE, b"\x81")


@pytest.mark.parametrize(
    "data",
    [
        SAMPLE,
        GET + b"\r\n",
        b"\r\n" + GET + b"\r\n",  # RFC 9112, 2.2: one empty line before is ignored
        b"GET / HTTP/1.1\r\nhOsT:h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:\t h \t\r\nX:\r\nY: \r\n\r\n",
        b"GET /?" + bytes(c for c in range(0x21, 0x7F) if c != 0x23) + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        GET + b"X: " + bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)]) + b"\r\n\r\n",
        GET + b"!#$%&'*+-.^_`|~09azAZ: x\r\n\r\n",
        GET + b"Content-Length: 0\r\n\r\n",
        GET + b"Connection: a\r\nUpgrade: x\r\nconnection: b\r\n\r\n",
        b"GET http://h/a?b HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET WSS://h:1 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET ws://[::1]:1?q HTTP/1.1\r\nHost: h\r\n\r\n",
        *(
            b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
            for host in (
                b"a.example:65535",
                b"h:",
                b"127.0.0.1",
                b"[::1]",
                b"[::ffff:1.2.3.4]:80",
                b"[fe80::1%25eth0]",
                b"a_b-c~d!$&'()*+,;=%41",
            )
        ),
        GET + b"\r\n" + b"\nHost: other\r\n\r\n",  # what follows is not looked at
    ],
)
def test_good(data: bytes) -> None:
    raw, *_ = check_cuts(data)
    head, end, _ = data.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    assert raw == head + end


def test_names_in_any_case_and_repeated() -> None:
    request = RequestParser().feed(GET + b"UPGRADE: a\r\nConnection: a \r\nconnection: b\r\n\r\n")
    assert request is not None
    assert fields_of(request) == {"Host": "h", "Upgrade": "a", "Connection": "a\nb"}
    assert fields_of(request) == {"Host": "h", "Upgrade": "a", "Connection": "a\nb"}  # once more, from the bytes
    assert request.headers.getall("Connection") == ["a", "b"]


@pytest.mark.parametrize(
    ("target", "path"),
    [(b"/", "/"), (b"/a?b", "/a?b"), (b"http://h/a?b", "/a?b"), (b"http://h", "/"), (b"http://h?b", "/?b")],
)
def test_path(target: bytes, path: str) -> None:
    request = RequestParser().feed(b"GET " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n")
    assert request is not None
    assert request.target == target.decode()
    assert request.path == path


@pytest.mark.parametrize("trailing", [b"\x82\x84TEST\0\0\0\0", b"\r\n\r\n", SAMPLE, b"x" * 100_000])
def test_trailing(trailing: bytes) -> None:
    assert check_cuts(SAMPLE + trailing)[:2] == (SAMPLE, trailing)


def host(*lines: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def target(value: bytes) -> bytes:
    return b"GET " + value + b" HTTP/1.1\r\nHost: h\r\n\r\n"


REFUSED: dict[str, list[tuple[bytes, int, str]]] = {
    "3.2 Host": [
        (host(), 400, "Host"),
        (host(b"X: y"), 400, "Host"),
        (host(b"Host: a", b"Host: b"), 400, "expected one Host header, got 2: 'a, b'"),
        (host(b"Host: a", b"host: a"), 400, "expected one Host header"),
        (host(b"Host:"), 400, "Host"),
        (host(b"Host: a, b"), 400, "Host"),
        (host(b"Host: a b"), 400, "Host"),
        (host(b"Host: a/b"), 400, "Host"),
        (host(b"Host: u@a"), 400, "Host"),
        (host(b"Host: http://a"), 400, "Host"),
        (host(b"Host: a:b"), 400, "Host"),
        (host(b"Host: a:1:2"), 400, "Host"),
        (host(b"Host: a:65536"), 400, "Host"),
        (host(b"Host: a:123456"), 400, "Host"),
        (host(b"Host: :80"), 400, "Host"),
        (host(b"Host: a%4"), 400, "Host"),
        (host(b"Host: a%"), 400, "Host"),
        (host(b"Host: caf\xe9"), 400, "Host header|a host and a port"),
        (host(b"Host: ::1"), 400, "Host"),
        (host(b"Host: [::1"), 400, "Host"),
        (host(b"Host: [1:2]"), 400, "Host"),
        (host(b"Host: [::1]x"), 400, "Host"),
    ],
    "3 request line": [
        (b"\r\n\r\n", 400, "request line"),
        (b"\r\n\r\n" + GET + b"\r\n", 400, "request line"),
        (b"GET\r\n\r\n", 400, "request line"),
        (b"GET /\r\n\r\n", 400, "request line"),  # HTTP/0.9
        (b" GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400, "request line"),
        (b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400, "request line"),
        (b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400, "request line"),
        (b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400, "request line"),
        (b"GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", 400, "first line"),
        (b"G@T / HTTP/1.1\r\nHost: h\r\n\r\n", 400, "request line"),
        (b"GET / HTTP/11\r\nHost: h\r\n\r\n", 400, "request line"),
        (b"GET / http/1.1\r\nHost: h\r\n\r\n", 400, "request line"),
        (b"GET / HTTP/1.1\nHost: h\n\n", 400, "first line"),
        (b"GET / HTTP/1.1\rHost: h\r\n\r\n", 400, "first line"),
    ],
    "4.2.1 GET by HTTP/1.1": [
        (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505, "HTTP/2.0"),
        (b"GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505, "HTTP/1.2"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: h\r\n\r\n", 405, "CONNECT"),
    ],
    "3.2 target": [
        (target(b"*"), 400, "target"),
        (target(b"a"), 400, "target"),
        (target(b"a:80"), 400, "target"),
        (target(b"/#f"), 400, "target"),
        (target(b"http://h/#f"), 400, "target"),
        (target(b"ftp://h/"), 400, "target"),
        (target(b"http:///"), 400, "target"),
        (target(b"http://u:p@h/"), 400, "target"),
        (target(b"http://h:99999/"), 400, "target"),
        (target(b"http://[1:2]/"), 400, "target"),
        (target(b"/\x00"), 400, "first line"),
        (target(b"/\x7f"), 400, "first line"),
        (target(b"/\x1b[31m"), 400, "first line"),
        (target(b"/\xc3\xa9"), 400, "first line"),
    ],
    "5 headers": [
        (GET + b"X : y\r\n\r\n", 400, "header"),  # 5.1: no space before the colon
        (GET + b"X\t: y\r\n\r\n", 400, "header"),
        (GET + b"Upgrade : websocket\r\n\r\n", 400, "header"),
        (GET + b"X: y\r\n z\r\n\r\n", 400, "header"),  # 5.2: no folding
        (GET + b"X: y\r\n\tz\r\n\r\n", 400, "header"),
        (b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400, "header"),
        (GET + b"X\r\n\r\n", 400, "header"),
        (GET + b": y\r\n\r\n", 400, "header"),
        (GET + b"X(: y\r\n\r\n", 400, "header"),
        (GET + b"\xe9: y\r\n\r\n", 400, "header"),
        (GET + b"X: y\nZ: a\r\n\r\n", 400, "header"),
        (GET + b"X: y\rZ: a\r\n\r\n", 400, "header"),
        (GET + b"X: y\r\r\n\r\n", 400, "header"),
        (GET + b"X: \x00\r\n\r\n", 400, "header"),
        (GET + b"X: \x0b\r\n\r\n", 400, "header"),
        (GET + b"X: \x7f\r\n\r\n", 400, "header"),
        (GET + b"\n", 400, "header"),
        (GET + b"\r\r\n", 400, "header"),
    ],
    "3 what is not HTTP/1.1": [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "as TLS begins"),  # a ClientHello
        (b"\x80\x2e\x01\x00\x02", 400, "first line"),  # SSL 2
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "HTTP/2"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 400, "request line"),
        (b"\x00" * 20, 400, "first line"),
        (b"\n" * 20, 400, "first line"),
        (b"\xff\xfe", 400, "first line"),
    ],
}
"""By the section of RFC 9112 (4.2.1: of RFC 6455) that has the rule: ``pytest -k 4.2.1`` finds its tests."""


@pytest.mark.parametrize(
    ("data", "status", "text"),
    [pytest.param(*row, id=f"{section}-{row[0][:60]!a}") for section, rows in REFUSED.items() for row in rows],
)
def test_refused(data: bytes, status: int, text: str) -> None:
    check_cuts(data)
    parser = RequestParser()
    with pytest.raises(HandshakeRefused, match=text) as info:
        parser.feed(data)
    assert info.value.response.status_code == status
    assert str(info.value).isprintable()
    assert str(info.value).isascii()
    assert len(str(info.value)) < 400
    check_refusal(info.value.response)
    assert ("Allow" in info.value.response.headers) == (status == 405)
    with pytest.raises(InvalidState):
        parser.feed(b"")


@pytest.mark.parametrize(
    ("data", "text", "line"),
    [
        (b"\x16\x03\x01", "expected HTTP, got b'\\x16', as TLS begins", b"\x16"),
        (b"GET\x16", "CR LF at the end of the first line, got b'\\x16' after b'GET'", b"GET\x16"),
        (b"GET / HTTP/1.1\rX", "CR LF at the end of the first line, got b'\\rX' after", b"GET / HTTP/1.1\rX"),
        (b"GET /?token\x00X", "CR LF at the end of the first line, got b'\\x00' after", b"GET /?..."),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "a request line, got b'SSH-2.0-OpenSSH_9.6'", b"SSH-2.0-OpenSSH_9.6"),
        (b"GET /a token b HTTP/1.1\r\n", "a request line, got b'GET /a ... HTTP/1.1'", b"GET /a ... HTTP/1.1"),
        (b"GET ws://u:p@h/ b HTTP/1.1\r\n", "got b'GET ws://...h/ ... HTTP/1.1'", b"GET ws://...h/ ... HTTP/1.1"),
        (b"GET / HTTP/2.0\r\n", "HTTP/1.1, got b'HTTP/2.0'", None),
        (GET + b"X: y\rZ", "CR LF at the end of a header, got b'\\rZ' after b'X' and 3 bytes more", None),
        (GET + b"X: y\x16", "CR LF at the end of a header, got b'\\x16' after b'X' and 3 bytes more", None),
        (GET + b"X y\r\n", "a header's name and a colon", None),
    ],
)
def test_what_is_told_of_a_request_that_is_wrong(data: bytes, text: str, line: bytes | None) -> None:
    """The first line, if it is that which is wrong, is also kept by itself."""
    with pytest.raises(HandshakeRefused, match=re.escape(text)) as info:
        RequestParser().feed(data)
    assert info.value.line == line


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"ICY 200 OK\r\n\r\n", b"ICY 200 OK"),
        (b"\x15\x03\x01", b"\x15"),
        (b"HTTP/1.1 101 X\r\nA : b\r\n\r\n", None),
        (b"HTTP/1.1 101 X\r\nA: b\x00\r\n\r\n", None),
    ],
)
def test_the_first_line_of_a_response_that_is_wrong_is_kept(data: bytes, line: bytes | None) -> None:
    with pytest.raises(InvalidMessage) as info:
        ResponseParser().feed(data)
    assert info.value.line == line


OTHER = [
    (b"POST / HTTP/1.1\r\nHost: h\r\n\r\n", 405, "POST"),
    (b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", 405, "HEAD"),
    (b"get / HTTP/1.1\r\nHost: h\r\n\r\n", 405, "get"),
    (b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 405, "OPTIONS"),
    (b"OPTIONS / HTTP/1.0\r\n\r\n", 405, "OPTIONS"),  # HAProxy
    (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", 405, "POST"),
    (b"GET / HTTP/1.0\r\n\r\n", 426, "without Upgrade"),
    (b"GET / HTTP/1.0\r\nHost: h\r\nConnection: close\r\n\r\n", 426, "without Upgrade"),  # nginx
    (SAMPLE.replace(b"HTTP/1.1", b"HTTP/1.0"), 426, "without Upgrade"),  # RFC 9110, 7.8
    # RFC 9112, 6: a body
    (GET + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "Transfer-Encoding, got 'chunked'"),
    (GET + b"transfer-encoding: identity\r\n\r\n", 400, "Transfer-Encoding"),
    (GET + b"Transfer-Encoding:\r\n\r\n", 400, "Transfer-Encoding"),
    (GET + b"Content-Length: 1\r\n\r\nx", 400, "Content-Length but 0, once, got '1'"),
    (GET + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n", 400, "Content-Length"),
    (GET + b"Content-Length: 0, 0\r\n\r\n", 400, "Content-Length"),
    (GET + b"Content-Length: -0\r\n\r\n", 400, "Content-Length"),
    (GET + b"Content-Length:\r\n\r\n", 400, "Content-Length"),
]
"""What is a request, but not for a WebSocket."""


@pytest.mark.parametrize(("data", "status", "text"), OTHER, ids=[f"4.2.1-{data[:60]!a}" for data, *_ in OTHER])
def test_other_requests(data: bytes, status: int, text: str) -> None:
    """RFC 9110, 7.8: Upgrade by HTTP/1.0 is ignored; 15.5.6: a 405 names the methods that are allowed."""
    raw = check_cuts(data)[0]
    assert isinstance(raw, bytes)
    assert raw.partition(b"\r\n\r\n")[0] == data.partition(b"\r\n\r\n")[0]
    request = RequestParser().feed(data)
    assert request is not None
    assert request.method == data.split()[0].decode()
    assert f"HTTP/{request.http_version}".encode() in data
    assert request.path == data.split()[1].decode()
    with pytest.raises(HandshakeRefused, match=text) as info:
        check_request(request)
    assert info.value.response.status_code == status
    check_refusal(info.value.response)
    assert ("Allow" in info.value.response.headers) == (status == 405)


def test_an_error_for_head_has_no_body() -> None:
    """RFC 9110, 9.3.2; the header tells the length of what GET would get."""
    with pytest.raises(HandshakeRefused) as info:
        RequestParser().feed(b"HEAD / HTTP/1.1\r\n\r\n")
    head, _, body = info.value.response.serialize().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert not body
    assert int(info.value.response.headers["Content-Length"]) > 10


def test_the_answer_to_head_has_no_body() -> None:
    """RFC 9110, 9.3.2: "the server MUST NOT send content in the response" to HEAD."""
    response = text_response(200, "hello")
    assert response.serialize() == response.serialize(with_body=False) + b"hello"


@pytest.mark.parametrize(
    ("limits", "good", "bad", "name"),
    [
        (HeadLimits(max_line=30), b"X: " + b"y" * 27, b"X: " + b"y" * 28, "max_line"),
        (HeadLimits(max_head=100), b"X: " + b"y" * 68, b"X: " + b"y" * 69, "max_head"),
        (HeadLimits(max_headers=2), b"X: y", b"X: y\r\nY: z", "max_headers"),
        (HeadLimits(max_line=20_000, max_head=40_000), b"X: " + b"y" * 19_997, b"X: " + b"y" * 19_998, "max_line"),
        (HeadLimits(max_headers=1000), b"\r\n".join([b"a:"] * 999), b"\r\n".join([b"a:"] * 1000), "max_headers"),
    ],
)
@pytest.mark.parametrize("step", [1, 1_000_000])
def test_limits(limits: HeadLimits, good: bytes, bad: bytes, name: str, step: int) -> None:
    def feed(parser: RequestParser | ResponseParser, data: bytes) -> object:
        return [parser.feed(data[i : i + step]) for i in range(0, len(data), step)][-1]

    def response(lines: bytes) -> bytes:
        return b"HTTP/1.1 101 O\r\nHost: h\r\n" + lines + b"\r\n\r\n"

    assert feed(RequestParser(limits), GET + good + b"\r\n\r\n") is not None
    with pytest.raises(HandshakeRefused, match=rf"\({name}\)") as info:
        feed(RequestParser(limits), GET + bad + b"\r\n\r\n")
    assert info.value.response.status_code == 431
    assert f"({name})".encode() in info.value.response.body
    assert feed(ResponseParser(limits=limits), response(good)) is not None
    with pytest.raises(InvalidMessage, match=rf"\({name}\)"):
        feed(ResponseParser(limits=limits), response(bad))


@pytest.mark.parametrize("value", [0, -1, "8192", 1.5, None, True])
@pytest.mark.parametrize("name", ["max_line", "max_head", "max_headers"])
def test_wrong_limits(name: str, value: object) -> None:
    with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
        HeadLimits.checked(**{name: value})  # type: ignore[arg-type]
    assert getattr(HeadLimits.checked(**{name: 1}), name) == 1


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies(how: Callable[[Any], Any]) -> None:
    request = RequestParser().feed(SAMPLE)
    assert request is not None
    assert request.headers
    again = how(request)
    assert (type(again), again.raw, again.headers) == (Request, SAMPLE, request.headers)
    headers = how(request.headers)
    assert (type(headers), headers, repr(headers)) == (HeadersView, request.headers, repr(request.headers))
    assert [*headers.raw_items()] == [*request.headers.raw_items()]
    changed = headers.copy()
    changed.add("X", "y")
    assert ([*changed.raw_items()], type(changed)) == ([*request.headers.raw_items(), ("X", "y")], Headers)
    assert type(changed.copy()) is Headers
    assert "X" not in request.headers
    response = text_response(404, "hello", {"X": "y"})
    twin = how(response)
    assert twin.serialize() == response.serialize()
    refused = refuse(405, "Expected GET", "what", {"Allow": "GET"})
    refused.add_note("a note")
    error = how(refused)
    assert (str(error), error.response.serialize()) == ("what", refused.response.serialize())
    assert error.__notes__ == ["a note"]


def check_refusal(response: Response) -> None:
    """Check a refusal as another program reads it."""
    raw = response.serialize()
    head, _, body = raw.partition(b"\r\n\r\n")
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "close" in response.headers.getall("Connection")
    assert response.headers["Content-Length"] == str(len(body))
    assert 10 < len(body) < 200
    assert body.endswith(b".\n")
    parser = ResponseParser()
    parsed = parser.feed(raw)
    assert parsed is not None
    assert (parsed.status_code, parsed.body) == (response.status_code, body)
    assert parsed.headers == response.headers
    assert head.startswith(b"HTTP/1.1 %d " % response.status_code)
    assert response.reason_phrase


def pad(size: int) -> bytes:
    """A valid request of this many bytes, no line of which is long."""
    head = GET
    while size - len(head) - 2 > 2000:
        head += b"X: " + b"y" * 995 + b"\r\n"
    return head + b"X: " + b"y" * (size - len(head) - 7) + b"\r\n\r\n"


@pytest.mark.parametrize("size", [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, MAX_HEAD - 1, MAX_HEAD])
def test_head_within_limit(size: int) -> None:
    data = pad(size)
    assert len(data) == size
    assert check_cuts(data + b"frame")[:2] == (data, b"frame")


@pytest.mark.parametrize("size", [MAX_HEAD + 1, MAX_HEAD + 2, MAX_HEAD + 3, MAX_HEAD + 4, 70_000, 300_000])
def test_head_past_limit(size: int) -> None:
    data = pad(size)
    assert len(data) == size
    result = check_cuts(data)
    assert result[0] == "refused"
    assert b"HTTP/1.1 431 Request Header Fields Too Large\r\n" in result[2]  # type: ignore[operator]
    assert "16384" in str(result[1])


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda size: b"GET /" + b"a" * (size - 14) + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414),
        (lambda size: GET + b"X:" + b"a" * (size - 2) + b"\r\n\r\n", 431),
    ],
)
def test_line_limit(make, status: int) -> None:  # type: ignore[no-untyped-def]
    for size in (MAX_LINE - 1, MAX_LINE):
        data = make(size)
        assert max(map(len, data.split(b"\r\n"))) == size
        assert check_cuts(data)[0] == data
    for size in (MAX_LINE + 1, MAX_LINE + 2, MAX_HEAD, 100_000):
        result = check_cuts(make(size))
        assert result[0] == "refused"
        assert b"HTTP/1.1 %d " % status in result[2]  # type: ignore[operator]
        assert "8192" in str(result[1])


@pytest.mark.parametrize(("start", "status"), [(b"GET /", 414), (GET + b"X: ", 431), (b"a" * 100, 414)])
def test_line_that_never_ends(start: bytes, status: int) -> None:
    parser = RequestParser()
    assert parser.feed(start) is None
    line = start.rpartition(b"\n")[2]
    for _ in range(MAX_LINE - len(line)):
        assert parser.feed(b"a") is None
    with pytest.raises(HandshakeRefused) as info:
        parser.feed(b"a")
    assert info.value.response.status_code == status


@pytest.mark.parametrize("line", [b"X: y\r\n", b"a:\r\n", b"connection: b\r\n"])
def test_header_count(line: bytes) -> None:
    for count in (MAX_HEADERS - 1, MAX_HEADERS):
        data = GET + line * (count - 1) + b"\r\n"
        raw, _, _, headers = check_cuts(data)
        assert raw == data
        assert len(headers) == count  # type: ignore[arg-type]
    for count in (MAX_HEADERS + 1, 1000):
        result = check_cuts(GET + line * (count - 1) + b"\r\n")
        assert b"HTTP/1.1 431 " in result[2]  # type: ignore[operator]
        assert "128" in str(result[1])


def test_a_drip_takes_linear_time() -> None:
    # Each byte is looked at once: counted, as a clock would be flaky.
    parser = RequestParser()
    parser.feed(GET + b"X: ")
    for n in range(MAX_LINE - 10):
        parser.feed(b"y")
        assert parser._position == len(GET) + 3 + n + 1


def test_used_up() -> None:
    parser = RequestParser()
    assert parser.feed(SAMPLE)
    with pytest.raises(InvalidState, match="each handshake"):
        parser.feed(SAMPLE)


def test_log_text_is_escaped_and_short() -> None:
    with pytest.raises(HandshakeRefused) as info:
        RequestParser().feed(b"GET /\r\n" + b"\r\n")
    assert str(info.value) == "expected a request line, got b'GET /'"
    with pytest.raises(HandshakeRefused) as info:
        RequestParser().feed(GET + b"A: " + b"b" * 5000 + b"\x1b]0;x\x07\r\n\r\n")
    assert str(info.value) == ("expected CR LF at the end of a header, got b'\\x1b' after b'A' and 5002 bytes more")
    assert b"\x1b" not in info.value.response.serialize()


PIECES = st.sampled_from(
    [
        b"GET ", b"POST ", b"/", b"/a", b"http://h", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\r\n\r\n", b"\r", b"\n",
        b" ", b"\t", b":", b"Host: h\r\n", b"Host: ", b"GET / HTTP/1.1\r\n", GET, b"X: y\r\n",
        b"X", b"\x00", b"\x7f", b"\x80", b"Upgrade: websocket\r\n", b"Content-Length: 0\r\n", b"Connection: a\r\n",
        b"Transfer-Encoding: chunked\r\n", b"a" * 100, b"a" * 9000, b"X: y\r\n" * 100, b"Y: " + b"z" * 5000 + b"\r\n",
    ]
)  # fmt: skip


@given(st.lists(PIECES | st.binary(max_size=8), max_size=16), st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_in_any_cut(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = outcome([stream])
    assert outcome(pieces) == whole == outcome([b"", stream])


@given(st.lists(PIECES | st.binary(max_size=8), max_size=16))
@settings(max_examples=400)
def test_llhttp_reads_the_same_in_what_is_taken(parts: list[bytes]) -> None:
    result = outcome([b"".join(parts)])
    if isinstance(result[0], bytes):
        assert result[3] == llhttp_headers(result[0])


class _Headers:
    def __init__(self) -> None:
        self.headers: list[tuple[str, str]] = []

    def on_header(self, name: bytes, value: bytes | None) -> None:
        # httptools reports None or no value for an empty one.
        self.headers.append((name.decode("latin-1"), (value or b"").decode("latin-1").strip("\t ")))


def llhttp_headers(raw: bytes) -> list[tuple[str, str]]:
    httptools = pytest.importorskip("httptools", reason="httptools cannot be had everywhere")
    found = _Headers()
    parser = httptools.HttpRequestParser(found)
    with contextlib.suppress(httptools.HttpParserUpgrade):
        parser.feed_data(raw)
    return found.headers


@given(st.binary(max_size=200))
def test_garbage(stream: bytes) -> None:
    assert outcome([stream]) == outcome([bytes([byte]) for byte in stream])


# --------------------------------------------------------------------------------------------------- Response


def test_serialize() -> None:
    response = Response(200, "OK", CIMultiDict({"X-A": "b"}), b"body")
    assert response.serialize() == (
        b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"
    )  # fmt: skip
    assert repr(response) == "<Response 200 'OK'>"


@pytest.mark.parametrize(
    ("response", "raw"),
    [
        (Response(101), b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        (Response(204), b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"),
        (Response(304), b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n"),
        (Response(599), b"HTTP/1.1 599 \r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        (
            Response(200, "", CIMultiDict({"content-length": "9", "connection": "x"})),
            b"HTTP/1.1 200 \r\ncontent-length: 9\r\nconnection: x\r\n\r\n",
        ),
        (
            Response(200, "\xe9", CIMultiDict({"Transfer-Encoding": "chunked"}), b"0\r\n\r\n"),
            b"HTTP/1.1 200 \xe9\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
        ),
    ],
)
def test_serialize_framing(response: Response, raw: bytes) -> None:
    assert response.serialize() == raw


@pytest.mark.parametrize(
    ("reason", "name", "value"),
    [
        ("a\r\nb", "X", "y"),
        ("a\x00", "X", "y"),
        ("OK", "X\r\nY", "y"),
        ("OK", "X:", "y"),
        ("OK", "X", "y\r\nZ: a"),
        ("OK", "X", "y\x00"),
        ("OK", "X", "\u20ac"),
    ],
)
def test_injection(reason: str, name: str, value: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Response(200, reason, CIMultiDict({name: value}))
    response = Response(200)
    response.reason_phrase = reason
    response.headers[name] = value
    with pytest.raises(ValueError, match="expected"):
        response.serialize()


@pytest.mark.parametrize("made", [copy.copy, copy.deepcopy, lambda headers: pickle.loads(pickle.dumps(headers))])
def test_names_of_websockets_for_headers(made: Callable[[Any], Any]) -> None:
    raw = b"GET / HTTP/1.1\r\nX-A: 1\r\nOther: 2\r\nx-a: 3\r\n\r\n"
    pairs = [("X-A", "1"), ("Other", "2"), ("x-a", "3")]
    for thing in (Request(raw), Response(200, None, pairs), Response.from_head(b"HTTP/1.1 200 OK" + raw[14:])):
        for headers in (thing.headers, made(thing).headers):
            assert headers.get_all("x-A") == ["1", "3"]
            assert headers.get_all("none") == []
            assert list(headers.raw_items()) == pairs
            assert headers["X-a"] == "1"
    with pytest.raises(TypeError):
        Request(raw).headers["X-A"] = "4"  # type: ignore[index]


def test_the_headers_of_a_response_are_its_own() -> None:
    own = {"X-A": "1"}
    response = Response(200, None, own)
    response.headers["x-b"] = "2"
    assert own == {"X-A": "1"}
    assert list(Response(200, None, response.headers).headers.raw_items()) == [("X-A", "1"), ("x-b", "2")]


@pytest.mark.parametrize("wrong", ["X-A: 1", 5, b"x", [("X-A",)], ["X-A"]])
def test_headers_that_are_none(wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"headers must be a mapping, or pairs .*, got {type(wrong).__name__}$"):
        Response(200, None, wrong)


@pytest.mark.parametrize("status", [0, 99, 600, -1])
def test_bad_status(status: int) -> None:
    with pytest.raises(ValueError, match="status code"):
        Response(status)


def test_text_response() -> None:
    response = text_response(426, "caf\xe9\n", {"Upgrade": "websocket"})
    assert response.serialize() == (
        b"HTTP/1.1 426 Upgrade Required\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Connection: close\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 6\r\n"
        b"\r\n"
        b"caf\xc3\xa9\n"
    )
    with pytest.raises(ValueError, match="value of header X"):
        text_response(400, "", {"X": "a\r\nb"})


def test_refuse() -> None:
    exc = refuse(400, "For the client")
    assert str(exc) == "For the client"
    assert exc.response.body == b"For the client.\n"
    assert str(refuse(400, "For the client", "for the log")) == "for the log"


@pytest.mark.parametrize(
    ("raw", "status", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nA: b\r\na:  c \r\n\r\n", 200, "OK"),
        (b"HTTP/1.1 200 Very well\r\nA: b\r\na: c\r\n\r\n", 200, "Very well"),
        (b"HTTP/1.1 200\r\nA: b\r\na: c\r\n\r\n", 200, ""),
    ],
)
def test_from_head(raw: bytes, status: int, reason: str) -> None:
    response = Response.from_head(raw)
    assert (response.status_code, response.reason_phrase) == (status, reason)
    assert response.headers.getall("A") == ["b", "c"]


# --------------------------------------------------------------------------------------------- ResponseParser


def read(pieces: list[bytes], *, eof: bool = False, connect: bool = False) -> tuple[object, ...]:
    """Feed the pieces; say what came of it, in values that can be compared."""
    parser = ResponseParser(connect=connect)
    try:
        for index, piece in enumerate(pieces):
            response = parser.feed(piece)
            assert len(parser._buffer or b"") <= MAX_HEAD + 1
            if response is not None:
                rest = parser.trailing + b"".join(pieces[index + 1 :]) if parser.trailing or connect else b""
                if response.status_code == 101:
                    rest = parser.trailing + b"".join(pieces[index + 1 :])
                return response.status_code, response.reason_phrase, list(response.headers.items()), response.body, rest
        if eof:
            response = parser.feed_eof()
            return response.status_code, response.reason_phrase, list(response.headers.items()), response.body, b""
    except InvalidMessage as exc:
        return "invalid", str(exc)
    return ("incomplete",)


def read_cuts(data: bytes, *, eof: bool = False, connect: bool = False) -> tuple[object, ...]:
    whole = read([data], eof=eof, connect=connect)
    step = max(1, len(data) // 512)
    for cut in range(0, len(data) + 1, step):
        assert read([data[:cut], data[cut:]], eof=eof, connect=connect) == whole
    assert read([data[i : i + 1] for i in range(len(data))], eof=eof, connect=connect) == whole
    return whole


OK101 = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (OK101, 101, b""),
        (b"HTTP/1.1 101\r\nContent-Length: 5\r\n\r\n", 101, b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b""),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nbody", 404, b"body"),
        (b"HTTP/1.0 503 Busy\r\nContent-Length: 4\r\n\r\nbody", 503, b"body"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2;x=y\r\ndy\r\n0\r\n\r\n", 200, b"body"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\nzz\r\n", 200, b"bo"),  # a bad chunk
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nbody", 200, b""),
        (b"HTTP/1.1 400 B\xe9d\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n\r\n", 400, b"x"),
        (b"HTTP/1.1 426 U\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 1\r\n\r\nx", 426, b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, b"x"),
        # RFC 9110, 15.2: interim responses
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK101, 101, b""),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 102 P\r\n\r\n" + OK101, 101, b""),
        (b"HTTP/1.1 199 \r\n\r\nHTTP/1.1 500 E\r\nContent-Length: 1\r\n\r\nx", 500, b"x"),
        (b"HTTP/1.1 100 C\r\n\r\n" * 8 + OK101, 101, b""),
    ],
)
def test_response(data: bytes, status: int, body: bytes) -> None:
    result = read_cuts(data)
    assert (result[0], result[3]) == (status, body)


def test_response_trailing() -> None:
    assert read_cuts(OK101 + b"\x81\x00\r\n\r\n")[4] == b"\x81\x00\r\n\r\n"
    assert read_cuts(b"HTTP/1.1 100 C\r\n\r\n" + OK101 + b"\x81\x00")[4] == b"\x81\x00"


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort", b"short"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsh", b"sh"),
    ],
)
def test_response_until_eof(data: bytes, body: bytes) -> None:
    assert read_cuts(data) == ("incomplete",)
    result = read_cuts(data, eof=True)
    assert (result[0], result[3]) == (200, body)


@pytest.mark.parametrize("size", [MAX_BODY - 1, MAX_BODY, MAX_BODY + 1, 10 * MAX_BODY])
def test_body_limit(size: int) -> None:
    head = b"HTTP/1.1 500 E\r\n\r\n"
    parser = ResponseParser()
    response = parser.feed(head + b"x" * size)
    if size < MAX_BODY:
        assert response is None
        response = parser.feed_eof()
    assert response is not None
    assert response.body == b"x" * min(size, MAX_BODY)
    parser = ResponseParser()
    assert parser.feed(head) is None
    for _ in range(MAX_BODY - 1):
        assert parser.feed(b"x") is None
    response = parser.feed(b"xx")
    assert response is not None
    assert len(response.body) == MAX_BODY
    # Chunks of a byte would take h11 a while: their sizes count, too.
    parser = ResponseParser()
    response = parser.feed(b"HTTP/1.1 500 E\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * size)
    assert response is not None
    assert response.body == b"x" * len(range(3, MAX_BODY, 6))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"HTTP/2 200\r\n\r\n", "status line, got b'HTTP/2 200'"),
        (b"HTTP/1.1 600 X\r\n\r\n", "status line"),
        (b"HTTP/1.1 099 X\r\n\r\n", "status line"),
        (b"HTTP/1.1 20 X\r\n\r\n", "status line"),
        (b"HTTP/1.1 2000\r\n\r\n", "status line"),
        (b"HTTP/1.1  200 X\r\n\r\n", "status line"),
        (b"HTTP/1.0 101 X\r\n\r\n", "status line"),
        (b"ICY 200 OK\r\n\r\n", "status line"),
        (b"\r\n\r\n", "status line"),
        (SAMPLE, "status line"),
        (b"\x15\x03\x01\x00\x02\x02", "as TLS begins"),  # a TLS alert
        (b"\x81\x05hello", "first line"),
        (b"HTTP/1.1 101 X\nA: b\n\n", "first line"),
        (b"HTTP/1.1 101 X\r\nA : b\r\n\r\n", "header"),
        (b"HTTP/1.1 101 X\r\nA: b\r\n c\r\n\r\n", "header"),
        (b"HTTP/1.1 101 X\r\nA: b\x00\r\n\r\n", "header"),
        (b"HTTP/1.1 101 X\r\nA: b\rc\r\n\r\n", "header"),
        (b"HTTP/1.1 101 " + b"x" * MAX_LINE + b"\r\n\r\n", "8192"),
        (b"HTTP/1.1 101 X\r\nA: " + b"x" * MAX_LINE + b"\r\n\r\n", "8192"),
        (b"HTTP/1.1 101 X\r\n" + b"A: b\r\n" * 129 + b"\r\n", "128"),
        (b"HTTP/1.1 101 X\r\n" + (b"A: " + b"b" * 4000 + b"\r\n") * 5 + b"\r\n", "16384"),
        (b"HTTP/1.1 100 C\r\n\r\n" * 9 + OK101, "at most 8 interim"),
        (b"HTTP/1.1 100 C\r\n\r\n" * 10_000, "at most 8 interim"),
    ],
)
def test_bad_response(data: bytes, text: str) -> None:
    read_cuts(data)
    parser = ResponseParser()
    with pytest.raises(InvalidMessage, match=text) as info:
        parser.feed(data)
    assert str(info.value).isprintable()
    assert len(str(info.value)) < 400
    with pytest.raises(InvalidState):
        parser.feed(b"")
    with pytest.raises(InvalidState):
        parser.feed_eof()


@pytest.mark.parametrize(
    ("data", "came"),
    [
        (b"", "got nothing and then the end"),
        (b"HTTP/1.1 1", "got b'HTTP/1.1 1' and then the end"),
        (b"HTTP/1.1 100 C\r\n\r\n", "got nothing and then the end"),
        (b"HTTP/1.1 101 X\r\nA: b", "got b'HTTP/1.1 101 X', 4 bytes of headers and then the end"),
        (b"GET /?secret HTTP/1.1", "got b'GET /[?]... HTTP/1.1' and then the end"),
    ],
)
def test_response_that_ends_early(data: bytes, came: str) -> None:
    parser = ResponseParser()
    assert parser.feed(data) is None
    with pytest.raises(InvalidMessage, match=came):
        parser.feed_eof()
    with pytest.raises(InvalidState):
        parser.feed(b"")


@pytest.mark.parametrize("headers", [b"", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_connect(headers: bytes) -> None:
    # RFC 9110, 9.3.6: a 2xx to CONNECT has no body; the tunnel starts.
    for status in (200, 299):
        result = read_cuts(b"HTTP/1.1 %d Connection established\r\n" % status + headers + b"\r\n\x16\x03", connect=True)
        assert (result[0], result[3], result[4]) == (status, b"", b"\x16\x03")
    for status in (300, 407):
        refused = b"HTTP/1.1 %d Proxy Authentication Required\r\nContent-Length: 2\r\n\r\nno" % status
        assert read_cuts(refused, connect=True)[3] == b"no"


@given(
    st.lists(
        st.sampled_from(
            [
                b"HTTP/1.1 101 X\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 C\r\n\r\n", b"\r\n", b"A: b\r\n",
                b"\r", b"\n",
                b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"5\r\nabcde\r\n",
                b"0\r\n\r\n", b"x" * 9000,
                b"Upgrade: x\r\nConnection: Upgrade\r\n", b"Connection: close\r\n",
            ]
        )
        | st.binary(max_size=8),
        max_size=12,
    )
)  # fmt: skip
@settings(max_examples=300)
def test_any_response(parts: list[bytes]) -> None:
    stream = b"".join(parts)
    assert read(parts, eof=True)[:4] == read([stream], eof=True)[:4]


def test_request_without_parser() -> None:
    request = Request(SAMPLE)
    assert fields_of(request)["Host"] == "server.example.com"
    assert request.headers["Host"] == "server.example.com"
