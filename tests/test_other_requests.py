"""What a server does with requests that are not for a WebSocket, over real sockets (RFC 9110; RFC 6455, 4.2.1)."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hostile import Peer, serving
from shared import echo

import wsfast

pytestmark = pytest.mark.anyio

HEALTH_CHECKS = {
    "nginx": b"GET /healthz HTTP/1.0\r\nHost: backend\r\nConnection: close\r\n\r\n",
    "HAProxy": b"OPTIONS /healthz HTTP/1.0\r\n\r\n",
    "HEAD": b"HEAD /healthz HTTP/1.1\r\nHost: backend\r\n\r\n",
    "AWS": b"GET /healthz HTTP/1.1\r\nHost: 10.0.0.1:80\r\nUser-Agent: ELB-HealthChecker/2.0\r\n\r\n",
    "POST": b"POST /healthz HTTP/1.1\r\nHost: backend\r\nContent-Length: 5\r\n\r\nhello",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: backend\r\n\r\n",
}


def health(ws: wsfast.WebSocket, request: wsfast.Request) -> wsfast.Response | None:
    if request.path in ("/healthz", "*"):
        return ws.respond(200, f"{request.method} by {request.http_version}\n")
    return None


async def ask(server: wsfast.Server, request: bytes) -> tuple[int, bytes, bytes]:
    peer = await Peer.dial(server)
    try:
        await peer.send(request)
        head, _, body = (await peer.read_to_end()).partition(b"\r\n\r\n")
    finally:
        peer.close()
    return int(head.split()[1]), head, body


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("name", HEALTH_CHECKS)
async def test_process_request_is_asked(name: str, later: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def health_later(ws: wsfast.WebSocket, request: wsfast.Request) -> wsfast.Response | None:
        return health(ws, request)

    caplog.set_level(logging.DEBUG, "wsfast")
    hook: Any = health_later if later else health
    data = HEALTH_CHECKS[name]
    async with serving(echo, process_request=hook) as server:
        status, head, body = await ask(server, data)
        method, version = data.split()[0], data.split(b"\r\n")[0][-3:]
        text = b"%s by %s\n" % (method, version)
        assert status == 200
        assert body == (b"" if method == b"HEAD" else text)
        assert b"Content-Length: %d" % len(text) in head
        assert server.counters["refused"] == {200: 1}
        told = [record for record in caplog.records if "process_request answered" in record.getMessage()]
        assert [record.levelno for record in told] == [logging.DEBUG]
        assert method.decode() in told[0].getMessage()
        assert "200" in told[0].getMessage()


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"HEAD / HTTP/1.1", 405),
        (b"OPTIONS / HTTP/1.1", 405),
        (b"OPTIONS / HTTP/1.0", 405),
        (b"DELETE / HTTP/1.1", 405),
        (b"CONNECT a:1 HTTP/1.1", 405),
        (b"GET / HTTP/1.1", 426),
        (b"GET / HTTP/1.0", 426),
        (b"GET / HTTP/2.0", 505),
    ],
    ids=lambda value: f"4.2.1-{value.decode()}" if isinstance(value, bytes) else str(value),
)
async def test_what_nobody_answers(request_line: bytes, status: int, hooked: bool) -> None:
    """RFC 9110, 9.3.2: no content for HEAD; 15.5.6 and 15.5.22: what a 405 and a 426 must name."""
    async with serving(echo, process_request=health if hooked else None) as server:
        came, head, body = await ask(server, request_line + b"\r\nHost: h\r\n\r\n")
        assert came == status
        assert bool(body) == (not request_line.startswith(b"HEAD"))
        assert (b"\r\nAllow: GET" in head) == (status == 405)
        assert (b"\r\nUpgrade: websocket" in head) == (status == 426)
        assert server.counters["refused"] == {status: 1}
        assert server.counters["opened"] == 0


async def test_a_websocket_cannot_begin_by_http_1_0() -> None:
    """RFC 9110, 7.8: "A server MUST ignore an Upgrade header field that is received in an HTTP/1.0 request."."""
    async with serving(echo, process_request=health) as server:
        status, _, _ = await ask(
            server,
            b"GET / HTTP/1.0\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        assert status == 426


async def test_limits_of_the_head_are_options(caplog: pytest.LogCaptureFixture) -> None:
    cookie = "c=" + "x" * 20_000
    async with serving(echo, max_line=32_768, max_head=65_536) as server:
        port = server.sockets[0].getsockname()[1]
        async with wsfast.connect(f"ws://127.0.0.1:{port}/", additional_headers={"Cookie": cookie}) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"
        status, _, body = await ask(server, b"GET / HTTP/1.1\r\nHost: h\r\nCookie: " + b"x" * 40_000 + b"\r\n\r\n")
        assert status == 431
        assert b"32768 bytes (max_line)" in body
        assert server.counters["refused"] == {431: 1}
    async with serving(echo, response_headers={"Set-Cookie": cookie}) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(wsfast.InvalidMessage, match=r"8192 bytes \(max_line\)"):
            await wsfast.connect(uri)
        async with wsfast.connect(uri, max_line=32_768, max_head=65_536) as ws:
            assert ws.response is not None
            assert ws.response.headers["Set-Cookie"] == cookie


@pytest.mark.parametrize("name", ["max_line", "max_head", "max_headers"])
@pytest.mark.parametrize("value", [0, "1", None])
async def test_wrong_limits_are_named(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
        wsfast.Server(**{name: value})
    with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
        wsfast.connect("ws://h/", **{name: value})
