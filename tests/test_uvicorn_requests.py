"""Requests for WebSockets under uvicorn: from proxies, too large, and behind others in one go."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgi_helpers import WAYS, Receive, Scope, Send, accept, running
from raw import PATIENCE, request, text
from shared import until

import wsfast.asgi

pytestmark = pytest.mark.anyio

ALL: dict[str, dict[str, Any]] = {**WAYS, "h11": {**WAYS["ws"], "http": "h11"}}


@pytest.mark.parametrize("way", list(ALL))
async def test_a_proxy_says_where_a_client_comes_from(way: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        where = wsfast.asgi.of(scope).remote_address[0]
        await send({"type": "websocket.send", "text": f"{scope['client'][0]} {scope['scheme']} {where}"})

    for trusted, told in ("127.0.0.1", "192.0.2.7 wss 192.0.2.7"), ("192.0.2.1", "127.0.0.1 ws 127.0.0.1"):
        async with running(app, forwarded_allow_ips=trusted, **ALL[way]) as run, await run.open() as client:
            await client.handshake(headers={"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"})
            assert await client.receive_message() == told


@pytest.mark.parametrize("way", list(ALL))
async def test_a_request_that_is_too_large_is_refused(way: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the application must not be called")

    async with running(app, **ALL[way]) as run:
        reader, writer = await asyncio.open_connection("127.0.0.1", run.port)
        writer.write(request(headers={"X-Large": "x" * 100_000}))
        assert (await asyncio.wait_for(reader.read(), PATIENCE)).startswith(b"HTTP/1.1 431 ")
        writer.close()


@pytest.mark.parametrize("before", [1, 3])
async def test_responses_come_before_a_websocket_that_was_asked_for_behind_them(before: int) -> None:
    """RFC 9112, 9.3.2: responses are sent "in the same order that the requests were received"."""
    release, asked = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await accept(receive, send)
            await send({"type": "websocket.send", "text": (await receive())["text"]})
            return
        asked.set()
        await release.wait()
        body = scope["path"].encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": body})

    async with running(app, **WAYS["http"]) as run:
        reader, writer = await asyncio.open_connection("127.0.0.1", run.port)
        requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(before))
        writer.write(requests + request() + text("ear")[:3])
        await asyncio.wait_for(asked.wait(), PATIENCE)
        writer.write(text("ear")[3:])
        release.set()
        got = await asyncio.wait_for(reader.readuntil(b"\x81\x03ear"), PATIENCE)
        heads = [part.partition(b"\r\n")[0] for part in got.split(b"HTTP/1.1 ")[1:]]
        assert heads == [b"200 OK"] * before + [b"101 Switching Protocols"]
        assert [b"\r\n\r\n/%d" % number in got for number in range(before)] == [True] * before
        writer.transport.abort()


async def test_behind_uvicorns_own_protocol_the_responses_come_and_the_connection_is_closed() -> None:
    release, asked = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        asked.set()
        await release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for more in range(50, -1, -1):  # more than the transport takes at once
            await send({"type": "http.response.body", "body": scope["path"].encode() * 50_000, "more_body": more > 0})

    async with running(app, **WAYS["ws"]) as run:
        reader, writer = await asyncio.open_connection("127.0.0.1", run.port)
        writer.write(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n" + request() + text("ear"))
        await asyncio.wait_for(asked.wait(), PATIENCE)
        release.set()
        got = await asyncio.wait_for(reader.read(), PATIENCE)
        heads = [part.partition(b"\r\n")[0] for part in got.split(b"HTTP/1.1 ")[1:]]
        assert heads == [b"200 OK", b"200 OK"]
        assert (got.count(b"/a"), got.count(b"/b")) == (51 * 50_000, 51 * 50_000)
        writer.close()
        await asyncio.wait_for(writer.wait_closed(), PATIENCE)
        assert not run.state.connections


async def test_what_comes_behind_a_request_that_waits_is_left_to_the_kernel() -> None:
    first, last, asked = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/last":
            asked.set()
        await (last if scope["path"] == "/last" else first).wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async with running(app, **WAYS["http"]) as run:
        _, writer = await asyncio.open_connection("127.0.0.1", run.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /last HTTP/1.1\r\nHost: x\r\n\r\n" + request())
        first.set()
        await asyncio.wait_for(asked.wait(), PATIENCE)
        (protocol,) = run.state.connections
        transport = protocol.transport
        writer.write(bytes(3_000_000))
        await until(lambda: protocol._waiting)
        assert not transport.is_reading()
        assert len(protocol._waiting) < 1_000_000
        writer.transport.abort()
        last.set()


async def test_requests_of_a_peer_that_reads_nothing_are_left_to_the_kernel() -> None:
    """The end of each response lets uvicorn read on, though thousands of requests wait for theirs."""
    answered = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal answered
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
        answered += 1

    async with running(app, **WAYS["http"]) as run:
        _, writer = await asyncio.open_connection("127.0.0.1", run.port)
        request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        writer.write(request * 100_000)
        await until(lambda: answered > 100)
        (protocol,) = run.state.connections
        assert len(protocol.pipeline) <= 2 * 262_144 / len(request)  # what asyncio and uvloop read at once
        writer.transport.abort()
