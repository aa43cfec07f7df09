"""The opening handshake's rules, both sides (RFC 6455, 4)."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from websockets.client import ClientProtocol
from websockets.http11 import Request as TheirRequest
from websockets.http11 import Response as TheirResponse
from websockets.server import ServerProtocol
from websockets.uri import parse_uri as parse_their_uri

from wsfast import handshake as hs
from wsfast.exceptions import (
    HandshakeRefused,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderFormat,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
HEADERS = {
    "Host": "h",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def parse(raw: bytes) -> hs.Request:
    request = hs.RequestParser().feed(raw)
    assert request is not None
    return request


def request(*added: tuple[str, str], without: str = "") -> hs.Request:
    """A good request, but for what is said."""
    headers = [(name, value) for name, value in HEADERS.items() if name != without]
    lines = [f"{name}: {value}\r\n" for name, value in [*headers, *added]]
    return parse(f"GET / HTTP/1.1\r\n{''.join(lines)}\r\n".encode("latin-1"))


# -------------------------------------------------------------------------------------------------- the server


def test_accept_key() -> None:
    assert hs.accept_key(KEY) == ACCEPT  # RFC 6455, 1.3


def refusal(asked: hs.Request) -> tuple[int, str, str]:
    """Return status, body and reason of the refusal of a request."""
    with pytest.raises(HandshakeRefused) as info:
        hs.check_request(asked)
    return info.value.response.status_code, info.value.response.body.decode(), str(info.value)


@pytest.mark.parametrize("method", ["POST", "HEAD", "get", "GETS"])
def test_another_method(method: str) -> None:
    """RFC 6455, 4.2.1, item 1; RFC 9110, 15.5.6: a 405 names the methods that are allowed."""
    good = request().raw
    asked = parse(method.encode() + good.removeprefix(b"GET"))
    with pytest.raises(HandshakeRefused, match=f"expected method GET, got '?{method}'?") as info:
        hs.check_request(asked)
    assert info.value.response.status_code == 405
    assert info.value.response.headers["Allow"] == "GET"
    assert info.value.response.body.startswith(b"Expected GET")


def test_a_request_with_a_body() -> None:
    """Its bytes would be taken for frames."""
    status, body, reason = refusal(request(("Transfer-Encoding", "chunked")))
    assert (status, body[:23]) == (400, "Unexpected request body")
    assert "expected no Transfer-Encoding, got" in reason
    assert "chunked" in reason
    for lengths in (("1",), ("0", "0"), ("00",)):
        status, body, reason = refusal(request(*(("Content-Length", length) for length in lengths)))
        assert (status, body[:23]) == (400, "Unexpected request body")
        assert "expected no Content-Length but 0, once, got" in reason
        assert ", ".join(lengths) in reason
    assert hs.check_request(request(("Content-Length", "0"))).key == KEY


def test_a_request_can_be_judged_twice() -> None:
    asked = request(("Origin", "http://here"))
    assert hs.check_request(asked) == hs.check_request(asked)
    assert hs.check_request(asked).origin == "http://here"


def test_sample() -> None:
    # The acceptance vector of Seastar's WebSocket server.
    upgrade = hs.check_request(request(("Sec-WebSocket-Protocol", "echo")))
    assert upgrade == hs.Upgrade(KEY, ["echo"], [], None)
    assert hs.accept_response(upgrade.key, "echo") == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"Sec-WebSocket-Protocol: echo\r\n"
        b"\r\n"
    )
    assert b"Sec-WebSocket-Protocol" not in hs.accept_response(upgrade.key)


def test_chromium() -> None:
    upgrade = hs.check_request(
        parse(
            b"GET /chat?room=1 HTTP/1.1\r\n"
            b"Host: 127.0.0.1:8765\r\n"
            b"Connection: Upgrade\r\n"
            b"Pragma: no-cache\r\n"
            b"Cache-Control: no-cache\r\n"
            b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0\r\n"
            b"Upgrade: websocket\r\n"
            b"Origin: http://127.0.0.1:8765\r\n"
            b"Sec-WebSocket-Version: 13\r\n"
            b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
            b"Accept-Language: en-US,en;q=0.9\r\n"
            b"Cookie: session=abc; theme=dark\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
            b"Sec-WebSocket-Protocol: chat.v2, chat.v1\r\n"
            b"\r\n"
        )
    )
    assert upgrade == hs.Upgrade(
        key=KEY,
        subprotocols=["chat.v2", "chat.v1"],
        extensions=[("permessage-deflate", [("client_max_window_bits", None)])],
        origin="http://127.0.0.1:8765",
    )


def test_firefox() -> None:
    lines = (
        b"GET / HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert hs.check_request(parse(lines)).key == KEY


@pytest.mark.parametrize(
    "added",
    [
        [("Connection", "upgrade"), ("Upgrade", "WebSocket")],
        [("Connection", "keep-alive,UPGRADE"), ("Upgrade", "WEBSOCKET")],
        [("Connection", "close, keep-alive"), ("connection", "x, Upgrade"), ("Upgrade", "h2c, websocket")],
        [("CONNECTION", ", upgrade ,"), ("UPGRADE", "h2c"), ("upgrade", "websocket")],
        [("Connection", "Upgrade "), ("Upgrade", " websocket\t")],
    ],
)
def test_upgrade_lists(added: list[tuple[str, str]]) -> None:
    base = [("Host", "h"), ("sec-websocket-key", f"{KEY} "), ("SEC-WEBSOCKET-VERSION", "13")]
    lines = "".join(f"{name}: {value}\r\n" for name, value in base + added)
    assert hs.check_request(parse(f"GET / HTTP/1.1\r\n{lines}\r\n".encode())).key == KEY


def changed(name: str, *values: str) -> hs.Request:
    """A good request with these headers of one name instead of its own."""
    return request(*((name, value) for value in values), without=name)


REFUSED: list[tuple[str, tuple[str, ...], int, str]] = [
    # RFC 6455, 4.2.1, item 3
    ("Upgrade", (), 426, "without Upgrade"),
    ("Upgrade", ("h2c",), 426, "got 'h2c'"),
    ("Upgrade", ("websocket/13",), 426, "websocket/13"),
    ("Upgrade", ("websockets",), 426, "websockets"),
    ("Upgrade", ("a b",), 400, "Upgrade"),
    ("Upgrade", ("",), 400, "Upgrade"),
    # item 4
    ("Connection", (), 400, "Connection: Upgrade, got none"),
    ("Connection", ("keep-alive",), 400, "Connection: Upgrade, got 'keep-alive'"),
    ("Connection", ("Upgrade keep-alive",), 400, "Connection"),
    ("Connection", ("close", "keep-alive"), 400, "'close, keep-alive'"),
    ("Connection", ("",), 400, "Connection"),
    # item 5
    ("Sec-WebSocket-Key", (), 400, "got none"),
    ("Sec-WebSocket-Key", (KEY, KEY), 400, f"got '{KEY}, {KEY}'"),
    ("Sec-WebSocket-Key", (f"{KEY}, {KEY}",), 400, "Key"),
    ("Sec-WebSocket-Key", ("",), 400, "Key"),
    ("Sec-WebSocket-Key", (base64.b64encode(bytes(15)).decode(),), 400, "16 bytes"),
    ("Sec-WebSocket-Key", (base64.b64encode(bytes(17)).decode(),), 400, "16 bytes"),
    ("Sec-WebSocket-Key", (base64.b64encode(bytes(18)).decode(),), 400, "16 bytes"),
    ("Sec-WebSocket-Key", (KEY[:-1],), 400, "16 bytes"),
    ("Sec-WebSocket-Key", (KEY + "=",), 400, "16 bytes"),
    ("Sec-WebSocket-Key", ("-_" + KEY[2:],), 400, "16 bytes"),  # base64url
    ("Sec-WebSocket-Key", (KEY[:10] + " " + KEY[10:],), 400, "16 bytes"),
    # item 6, and 4.4
    ("Sec-WebSocket-Version", (), 426, "got none"),
    ("Sec-WebSocket-Version", ("12",), 426, "got '12'"),
    ("Sec-WebSocket-Version", ("14",), 426, "got '14'"),
    ("Sec-WebSocket-Version", ("013",), 426, "got '013'"),
    ("Sec-WebSocket-Version", ("+13",), 426, "got"),
    ("Sec-WebSocket-Version", ("13, 8",), 426, "got"),
    ("Sec-WebSocket-Version", ("13", "13"), 426, "once, got '13, 13'"),
    ("Sec-WebSocket-Version", ("",), 426, "got ''"),
    # items 7 to 9
    ("Origin", ("http://a", "http://a"), 400, "at most one Origin"),
    ("Sec-WebSocket-Protocol", ("",), 400, "Protocol"),
    ("Sec-WebSocket-Protocol", ("a, a",), 400, "once"),
    ("Sec-WebSocket-Protocol", ("a", "b, a"), 400, "once"),
    ("Sec-WebSocket-Protocol", ("a b",), 400, "Protocol"),
    ("Sec-WebSocket-Extensions", ("a;",), 400, "Extensions"),
    ("Sec-WebSocket-Extensions", ("a", "b c"), 400, "Extensions"),
    ("Sec-WebSocket-Extensions", ('a; b="c', 'd"'), 400, "Extensions"),
]


SECTIONS = {
    "Upgrade": "4.2.1-3",
    "Connection": "4.2.1-4",
    "Sec-WebSocket-Key": "4.2.1-5",
    "Sec-WebSocket-Version": "4.2.1-6-4.4",
    "Origin": "4.2.1-7-10.2",
    "Sec-WebSocket-Protocol": "4.2.1-8-11.3.4",
    "Sec-WebSocket-Extensions": "4.2.1-9-9.1",
}
"""Where RFC 6455 has the rule for a header of a request: ``pytest -k 4.2.1`` finds its tests."""


@pytest.mark.parametrize(
    ("name", "values", "status", "text"), REFUSED, ids=[f"{SECTIONS[name]}-{values}" for name, values, *_ in REFUSED]
)
def test_refused(name: str, values: tuple[str, ...], status: int, text: str) -> None:
    with pytest.raises(HandshakeRefused, match=re.escape(text)) as info:
        hs.check_request(changed(name, *values))
    response = info.value.response
    assert response.status_code == status
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "close" in response.headers.getall("Connection")
    if status == 426:
        # RFC 9110, 15.5.22; RFC 6455, 4.4.
        assert response.headers["Upgrade"] == "websocket"
        assert response.headers["Sec-WebSocket-Version"] == "13"
        assert "Upgrade" in response.headers.getall("Connection")
    assert str(info.value).isprintable()


def test_an_upgrade_in_http_1_0_is_ignored() -> None:
    """RFC 9110, 7.8: "A server MUST ignore an Upgrade header field that is received in an HTTP/1.0 request"."""
    status, _, reason = refusal(parse(request().raw.replace(b"HTTP/1.1", b"HTTP/1.0", 1)))
    assert (status, reason) == (426, "expected a request for a WebSocket, got one without Upgrade")


def test_plain_http() -> None:
    with pytest.raises(HandshakeRefused) as info:
        hs.check_request(parse(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"))
    assert info.value.response.status_code == 426
    assert b"WebSocket endpoint" in info.value.response.body


def test_log_text_is_escaped_and_short() -> None:
    for name in ("Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol"):
        with pytest.raises(HandshakeRefused) as info:
            hs.check_request(changed(name, "\xe9\x85 " + "x" * 5000))
        text = str(info.value)
        assert text.isascii()
        assert text.isprintable()
        assert len(text) < 400
        # Of subprotocols, which may be secrets, only what is wrong is told.
        assert ("\\xe9" if name == "Sec-WebSocket-Protocol" else "\\xe9\\x85") in text
        assert b"xxx" not in info.value.response.body


def test_a_request_can_be_checked_twice() -> None:
    one = request(("Origin", "a"))
    assert hs.check_request(one) == hs.check_request(one)
    assert one._found is None


def test_repeated_lists() -> None:
    upgrade = hs.check_request(
        request(
            ("Sec-WebSocket-Protocol", "echo, chat"),
            ("Sec-WebSocket-Protocol", "Chat"),
            ("Sec-WebSocket-Extensions", "a; b=1"),
            ("Sec-WebSocket-Extensions", "a, c"),
        )
    )
    assert upgrade.subprotocols == ["echo", "chat", "Chat"]
    assert upgrade.extensions == [("a", [("b", "1")]), ("a", []), ("c", [])]


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        (None, None, True),
        (None, "http://a", True),
        ([], None, False),
        ([], "http://a", False),
        ([None], None, True),
        ([None], "http://a", False),
        (["http://a"], None, False),
        (["http://a"], "http://a", True),
        (["http://a"], "http://A", False),
        (["http://a"], "http://a.evil", False),
        (["http://b", None, "http://a"], "http://a", True),
        ([re.compile(r"https?://([a-z]+\.)?a\.example")], "https://b.a.example", True),
        ([re.compile(r"https?://([a-z]+\.)?a\.example")], "https://a.example.evil", False),
        ([re.compile(r"https?://([a-z]+\.)?a\.example")], "xhttps://a.example", False),
        ([re.compile(".*")], None, False),
        (["null"], "null", True),
        ([""], "", True),
    ],
)
def test_origins(origins: hs.Origins | None, origin: str | None, allowed: bool) -> None:
    one = request() if origin is None else request(("Origin", origin))
    if allowed:
        assert hs.check_request(one, origins).origin == origin
        return
    came = "none" if origin is None else repr(origin)
    with pytest.raises(HandshakeRefused, match=re.escape(f"expected an allowed Origin, got {came}")) as info:
        hs.check_request(one, origins)
    assert info.value.response.status_code == 403


def test_several_origins_are_refused_before_they_are_matched() -> None:
    """RFC 6454, 7.3: "the user agent MUST NOT include more than one Origin header field in any HTTP request"."""
    with pytest.raises(HandshakeRefused) as info:
        hs.check_request(request(("Origin", "a"), ("Origin", "b")), ["a", re.compile("a(.|\n)*")])
    assert info.value.response.status_code == 400


@pytest.mark.parametrize(
    ("offers", "registered", "chosen"),
    [
        (["echo", "chat"], {"chat", "echo"}, "echo"),
        (["x", "chat"], {"chat", "echo"}, "chat"),
        (["ECHO"], {"echo"}, None),
        ([], {"echo"}, None),
        (["a"], {}, None),
    ],
)
def test_select_subprotocol(offers: list[str], registered: Any, chosen: str | None) -> None:
    assert hs.select_subprotocol(offers, registered) == chosen


def test_accept_response() -> None:
    raw = hs.accept_response(
        KEY,
        "chat",
        "permessage-deflate; client_max_window_bits=10",
        {"X-A": "b"},
        date="Sun, 06 Nov 1994 08:49:37 GMT",
        server="wsfast",
    )
    response = hs.Response.from_head(raw)
    assert (response.status_code, response.reason_phrase) == (101, "Switching Protocols")
    assert list(response.headers.items()) == [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", ACCEPT),
        ("Sec-WebSocket-Protocol", "chat"),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits=10"),
        ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("Server", "wsfast"),
        ("X-A", "b"),
    ]
    assert response.serialize() == raw
    pairs = CIMultiDict([("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")])
    for headers in (pairs, list(pairs.items())):
        assert hs.accept_response(KEY, headers=headers).endswith(b"\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n")


@pytest.mark.parametrize(
    "arguments",
    [
        {"subprotocol": "a b"},
        {"subprotocol": "a\r\nX: y"},
        {"extensions": "a\r\nX: y"},
        {"headers": {"X": "a\r\nY: b"}},
        {"headers": {"X\r\nY": "a"}},
        {"headers": [("X", "\x00")]},
        {"date": "x\n"},
        {"server": "x\r"},
    ],
)
def test_accept_response_injection(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        hs.accept_response(KEY, **arguments)


@pytest.mark.parametrize("headers", [{"X": ["a"]}, {"X": b"a"}, [("X", None)]])
def test_accept_response_of_a_wrong_type(headers: Any) -> None:
    with pytest.raises(TypeError, match="X"):
        hs.accept_response(KEY, headers=headers)


def test_accept_response_with_a_str_that_cannot_be_hashed() -> None:
    class Text(str):
        __hash__ = None  # type: ignore[assignment]

    assert hs.accept_response(KEY, headers=[("X", Text("a"))]).endswith(b"\r\nX: a\r\n\r\n")
    with pytest.raises(ValueError, match="control characters"):
        hs.accept_response(KEY, headers=[("X", Text("a\r\nY: b"))])


@given(st.binary(max_size=300))
def test_check_request_raises_one_thing(data: bytes) -> None:
    good = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-"
    for prefix in (b"", good):
        try:
            one = hs.RequestParser().feed(b"GET / HTTP/1.1\r\nHost: h\r\n" + prefix + data + b"\r\n\r\n")
            if one is not None:
                hs.check_request(one)
        except HandshakeRefused as exc:
            assert 400 <= exc.response.status_code < 600  # noqa: PT017
            assert str(exc).isprintable()  # noqa: PT017


# -------------------------------------------------------------------------------------------------- the client


def client(uri: str = "ws://h/", **arguments: Any) -> hs.ClientHandshake:
    return hs.ClientHandshake(hs.parse_uri(uri), key=KEY, **arguments)


def test_request() -> None:
    """RFC 6455, 4.1: what the client's request "MUST" contain."""
    handshake = client(
        "wss://[::1]:8443/chat?a=b",
        origin="https://a",
        subprotocols=["chat", "echo"],
        extensions=[("permessage-deflate", [("client_max_window_bits", None)])],
        user_agent_header="wsfast/1",
        additional_headers={"X-A": "b"},
    )
    assert handshake.request.raw == (
        b"GET /chat?a=b HTTP/1.1\r\n"
        b"Host: [::1]:8443\r\n"
        b"Origin: https://a\r\n"
        b"User-Agent: wsfast/1\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: chat, echo\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
        b"X-A: b\r\n"
        b"\r\n"
    )
    assert handshake.request.path == "/chat?a=b"
    assert handshake.key == KEY


def test_least_request() -> None:
    one = client().request
    assert one.raw == b"".join(
        [b"GET / HTTP/1.1\r\n", *(f"{name}: {value}\r\n".encode() for name, value in HEADERS.items()), b"\r\n"]
    )
    assert hs.check_request(parse(one.raw)) == hs.Upgrade(KEY, [], [], None)


def test_keys_are_drawn() -> None:
    keys = {hs.generate_key() for _ in range(100)}
    keys |= {hs.ClientHandshake(hs.parse_uri("ws://h")).key for _ in range(100)}
    assert len(keys) == 200
    assert all(len(base64.b64decode(key, validate=True)) == 16 for key in keys)


@pytest.mark.parametrize(
    ("uri", "arguments", "value"),
    [
        ("ws://Aladdin:open%20sesame@h/", {}, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ("ws://user@h/", {}, "Basic dXNlcjo="),
        ("ws://h/", {"bearer_token": "abc"}, "Bearer abc"),
        ("ws://u:p@h/", {"bearer_token": "abc"}, "Bearer abc"),
        ("ws://u:p@h/", {"additional_headers": [("authorization", "Digest x")]}, "Digest x"),
        ("ws://h/", {}, None),
    ],
)
def test_authorization(uri: str, arguments: dict[str, Any], value: str | None) -> None:
    one = client(uri, **arguments).request
    assert one.headers.getall("Authorization", []) == ([] if value is None else [value])


def test_additional_headers_replace() -> None:
    one = client(
        origin="http://a",
        user_agent_header="wsfast",
        additional_headers=[("host", "other"), ("ORIGIN", "b"), ("User-agent", "c"), ("Cookie", "d"), ("Cookie", "e")],
    ).request
    assert one.headers.getall("Host") == ["other"]
    assert one.headers.getall("Origin") == ["b"]
    assert one.headers.getall("User-Agent") == ["c"]
    assert one.headers.getall("Cookie") == ["d", "e"]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"origin": "a\r\nX: y"}, ValueError, "Origin"),
        ({"user_agent_header": "a\x00"}, ValueError, "User-Agent"),
        ({"subprotocols": ["a b"]}, ValueError, "subprotocol"),
        ({"subprotocols": []}, ValueError, "at least one"),
        ({"subprotocols": ["a", "a"]}, ValueError, "once"),
        ({"subprotocols": "chat"}, TypeError, "list"),
        ({"extensions": [("a b", [])]}, ValueError, "extension"),
        ({"extensions": [("a", [("b", "c\r\n")])]}, ValueError, "value of b"),
        ({"additional_headers": {"X": "a\r\nY: b"}}, ValueError, "X"),
        ({"additional_headers": {"X: a\r\nY": "b"}}, ValueError, "name"),
        ({"additional_headers": [("Host", "a"), ("host", "b")]}, ValueError, "one Host"),
        ({"additional_headers": [(1, "a")]}, TypeError, "name as str, got int"),
        ({"bearer_token": "a\r\nb"}, ValueError, "bearer"),
        *(
            ({"additional_headers": {name: "x"}}, ValueError, f"{name} cannot be added")
            for name in (
                "Connection",
                "content-length",
                "Sec-WebSocket-Accept",
                "Sec-WebSocket-Extensions",
                "Sec-WebSocket-Key",
                "sec-websocket-protocol",
                "Sec-WebSocket-Version",
                "Transfer-Encoding",
                "UPGRADE",
            )
        ),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        client(**arguments)


@pytest.mark.parametrize("key", ["", "x", KEY + "\r\n", base64.b64encode(bytes(15)).decode()])
def test_bad_key(key: str) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        hs.ClientHandshake(hs.parse_uri("ws://h"), key=key)


@pytest.mark.parametrize("path", ["/a b", "/\r\nX: y", "/\x00", "/\xe9", "/#f", "a"])
def test_bad_path(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        hs.ClientHandshake(hs.URI(False, "h", 80, path, ""))


def test_bad_host() -> None:
    with pytest.raises(ValueError, match="Host"):
        hs.ClientHandshake(hs.URI(False, "h\r\nX: y", 80, "/", ""))


def respond(*added: tuple[str, str], without: str = "", status: int = 101) -> hs.Response:
    """A good response, but for what is said."""
    good = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": ACCEPT}
    headers = [(name, value) for name, value in good.items() if name != without]
    return hs.Response(status, None, CIMultiDict([*headers, *added]))


OFFERS: dict[str, Any] = {"subprotocols": ["chat", "echo"], "extensions": [("deflate", [("a", None)]), ("x", [])]}


@pytest.mark.parametrize(
    ("response", "agreement"),
    [
        (respond(), hs.Agreement(None, [])),
        (respond(("Upgrade", "WebSocket"), without="Upgrade"), hs.Agreement(None, [])),
        (respond(("Connection", "keep-alive, upgrade"), without="Connection"), hs.Agreement(None, [])),
        (respond(("Connection", "keep-alive")), hs.Agreement(None, [])),
        (respond(("Sec-WebSocket-Protocol", "echo")), hs.Agreement("echo", [])),
        (
            respond(("Sec-WebSocket-Extensions", "x, deflate; a=1")),
            hs.Agreement(None, [("x", []), ("deflate", [("a", "1")])]),
        ),
    ],
)
def test_good_response(response: hs.Response, agreement: hs.Agreement) -> None:
    assert client(**OFFERS).check_response(response) == agreement


def other(name: str, *values: str) -> hs.Response:
    return respond(*((name, value) for value in values), without=name)


BAD_RESPONSES: dict[str, list[tuple[hs.Response, type[InvalidHandshake], str]]] = {
    "4.1-1": [
        (respond(status=200), InvalidStatus, "HTTP 200, expected 101"),
        (respond(status=301), InvalidStatus, "HTTP 301"),
    ],
    "4.1-2": [
        (other("Upgrade"), InvalidUpgrade, "missing Upgrade"),
        (other("Upgrade", "h2c"), InvalidUpgrade, "'h2c': expected websocket"),
        (other("Upgrade", "websocket, h2c"), InvalidUpgrade, "'websocket, h2c': expected websocket"),
        (other("Upgrade", "websocket", "websocket"), InvalidUpgrade, "'websocket, websocket': expected"),
    ],
    "4.1-3": [
        (other("Connection"), InvalidUpgrade, "missing Connection"),
        (other("Connection", "close"), InvalidUpgrade, "'close': expected Upgrade"),
        (other("Connection", "a b"), InvalidHeaderFormat, "Connection"),
    ],
    "4.1-4": [
        (other("Sec-WebSocket-Accept"), InvalidHeader, "missing Sec-WebSocket-Accept"),
        (other("Sec-WebSocket-Accept", ""), InvalidHeader, "empty Sec-WebSocket-Accept"),
        (other("Sec-WebSocket-Accept", ACCEPT, ACCEPT), InvalidHeader, "once"),
        (other("Sec-WebSocket-Accept", ACCEPT[:-1]), InvalidHeader, "belongs to the key"),
        (other("Sec-WebSocket-Accept", ACCEPT.lower()), InvalidHeader, "belongs to the key"),
        (other("Sec-WebSocket-Accept", "\xe9"), InvalidHeader, "belongs to the key"),
    ],
    "4.1-5-11.3.2": [
        (respond(("Sec-WebSocket-Extensions", "other")), NegotiationError, "extension that was offered, got 'other'"),
        (respond(("Sec-WebSocket-Extensions", "x, other")), NegotiationError, "other"),
        (respond(("Sec-WebSocket-Extensions", "DEFLATE")), NegotiationError, "DEFLATE"),
        (respond(("Sec-WebSocket-Extensions", "x;")), InvalidHeaderFormat, "Extensions"),
        (respond(("Sec-WebSocket-Extensions", "")), InvalidHeaderFormat, "Extensions"),
        (respond(*[("Sec-WebSocket-Extensions", "x")] * 2), InvalidHeader, "once"),
    ],
    "4.1-6-11.3.4": [
        (respond(("Sec-WebSocket-Protocol", "other")), NegotiationError, r"\(2\), got 'other'"),
        (respond(("Sec-WebSocket-Protocol", "Chat")), NegotiationError, "'Chat'"),
        (respond(("Sec-WebSocket-Protocol", "chat, echo")), NegotiationError, r"\(2\), got '..., ...'"),
        (respond(("Sec-WebSocket-Protocol", "")), NegotiationError, "''"),
        (respond(*[("Sec-WebSocket-Protocol", "chat")] * 2), InvalidHeader, "once"),
    ],
}
"""By the item of RFC 6455, 4.1, "Once the client's opening handshake has been sent", that has the rule, and 11.3."""


@pytest.mark.parametrize(
    ("response", "error", "text"),
    [
        pytest.param(*row, id=f"{section}-{row[1].__name__}-{row[2]}")
        for section, rows in BAD_RESPONSES.items()
        for row in rows
    ],
)
def test_bad_response(response: hs.Response, error: type[InvalidHandshake], text: str) -> None:
    with pytest.raises(error, match=text) as info:
        client(**OFFERS).check_response(response)
    assert type(info.value) is error
    assert info.value.response is response


def test_nothing_was_offered() -> None:
    with pytest.raises(NegotiationError, match=r"\(none\)"):
        client().check_response(respond(("Sec-WebSocket-Protocol", "chat")))
    with pytest.raises(NegotiationError, match="extension"):
        client().check_response(respond(("Sec-WebSocket-Extensions", "x")))


# ---------------------------------------------------------------------------------- beside another implementation


def test_both_sides() -> None:
    handshake = hs.ClientHandshake(
        hs.parse_uri("ws://h:8765/a?b"), subprotocols=["x", "chat"], extensions=[("e", [("p", "1")])]
    )
    upgrade = hs.check_request(parse(handshake.request.raw))
    chosen = hs.select_subprotocol(upgrade.subprotocols, {"chat"})
    parser = hs.ResponseParser()
    response = parser.feed(hs.accept_response(upgrade.key, chosen, "e; p=1") + b"\x81\x00")
    assert response is not None
    assert handshake.check_response(response) == hs.Agreement("chat", [("e", [("p", "1")])])
    assert parser.trailing == b"\x81\x00"


def test_our_client_with_the_server_of_websockets() -> None:
    handshake = hs.ClientHandshake(hs.parse_uri("wss://[::1]/a?b"), subprotocols=["x", "chat"], origin="https://a")
    server = ServerProtocol(subprotocols=["chat"], origins=["https://a"])  # type: ignore[list-item]
    server.receive_data(handshake.request.raw)
    (event,) = server.events_received()
    assert isinstance(event, TheirRequest)
    assert event.path == "/a?b"
    server.send_response(server.accept(event))
    response = hs.ResponseParser().feed(b"".join(server.data_to_send()))
    assert response is not None
    assert handshake.check_response(response).subprotocol == "chat"


def test_our_server_with_the_client_of_websockets() -> None:
    their = ClientProtocol(parse_their_uri("ws://h:8765/a?b"), subprotocols=["x", "chat"])  # type: ignore[list-item]
    their.send_request(their.connect())
    one = parse(b"".join(their.data_to_send()))
    upgrade = hs.check_request(one)
    assert one.path == "/a?b"
    assert upgrade.subprotocols == ["x", "chat"]
    their.receive_data(hs.accept_response(upgrade.key, "chat", date="x", server="wsfast"))
    (event,) = their.events_received()
    assert isinstance(event, TheirResponse)
    assert their.handshake_exc is None
    assert their.subprotocol == "chat"


def test_a_server_header_of_another_type_is_named() -> None:
    with pytest.raises(TypeError, match=r"^expected the value of header Server as str, got list$"):
        hs.accept_response(KEY, server=["a"])  # type: ignore[arg-type]
