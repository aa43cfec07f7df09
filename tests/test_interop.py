"""Clients of others against each form of handler: the `websockets` library's, and Node.js's `ws`."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import websockets
from certificates import make_certificates
from peers import node_peer, node_process
from websockets.typing import Subprotocol

import wsfast

MESSAGES: list[str | bytes] = ["", "text", "Grüße, 世界 🙂" * 50, b"\x00\xff" * 70, b"x" * 70_000, "y" * 200_000]


closed: list[tuple[int | None, str | None]] = []
"""What the server was told at the end of each connection, by the forms that can ask."""


class EchoListener(wsfast.Listener):
    def on_message(self, message: str | bytes) -> None:
        self.ws.send_nowait(message)

    def on_close(self, code: int, reason: str) -> None:
        closed.append((code, reason))


@asynccontextmanager
async def echo_server(**options: Any) -> AsyncIterator[tuple[wsfast.Server, int]]:
    closed.clear()
    listen = {"ssl": options.pop("ssl", None)}
    server = wsfast.Server(**options)

    @server.handler("messages")
    @server.handler(None)
    async def messages(ws: wsfast.WebSocket) -> None:
        try:
            async for message in ws:
                await ws.send(message)
        finally:
            closed.append((ws.close_code, ws.close_reason))

    @server.stream_handler("stream")
    async def stream(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        while data := await reader.read():
            await writer.write(data)
            await writer.flush()

    server.register_listener("listener", EchoListener)
    async with server:
        await server.start("127.0.0.1", 0, **listen)
        yield server, server.sockets[0].getsockname()[1]


def joined(messages: list[str | bytes]) -> bytes:
    return b"".join(message.encode() if isinstance(message, str) else message for message in messages)


# --- websockets ---------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("form", [None, "messages", "listener"])
async def test_websockets_and_messages(form: str | None, compression: Any) -> None:
    offers: Any = None if form is None else ["unknown", form]
    async with (
        echo_server(compression=compression) as (_, port),
        websockets.connect(f"ws://127.0.0.1:{port}/path?query", subprotocols=offers, max_size=None) as ws,
    ):
        assert ws.subprotocol == form
        assert ws.response is not None
        assert bool(ws.response.headers.get("Sec-WebSocket-Extensions")) == (compression is not None)
        for message in MESSAGES:
            await ws.send(message)
            assert await ws.recv() == message
        # In fragments, a text and a binary message.
        in_fragments: list[tuple[Any, str | bytes]] = [
            (["a", "", "ß", "c"], "aßc"),
            ([b"1", b"2" * 70_000], b"1" + b"2" * 70_000),
        ]
        for fragments, whole in in_fragments:
            await ws.send(fragments)
            assert await ws.recv() == whole
        # Many at once.
        for number in range(500):
            await ws.send(f"message {number}")
        assert [await ws.recv() for _ in range(500)] == [f"message {number}" for number in range(500)]
        assert await (await ws.ping(b"payload")) >= 0
        await ws.close(3000, "that is all")
    # Code and reason come back (RFC 6455, 5.5.1).
    assert (ws.close_code, ws.close_reason) == (3000, "that is all")
    assert closed == [(3000, "that is all")]


@pytest.mark.anyio
@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_websockets_and_a_stream(compression: Any) -> None:
    async with (
        echo_server(compression=compression) as (_, port),
        websockets.connect(f"ws://127.0.0.1:{port}/", subprotocols=[Subprotocol("stream")], max_size=None) as ws,
    ):
        for message in MESSAGES:
            await ws.send(message)
        expected = joined(MESSAGES)
        received = b""
        while len(received) < len(expected):
            piece = await ws.recv()
            assert isinstance(piece, bytes)
            received += piece
        assert received == expected


@pytest.mark.anyio
@pytest.mark.parametrize("form", [None, "messages", "stream", "listener"])
async def test_websockets_and_a_server_that_stops(form: str | None) -> None:
    offers: Any = None if form is None else [form]
    async with (
        echo_server() as (server, port),
        websockets.connect(f"ws://127.0.0.1:{port}/", subprotocols=offers) as ws,
    ):
        await ws.send(b"a")
        assert await ws.recv() == b"a"
        server.close()
        with pytest.raises(websockets.ConnectionClosedOK):
            await ws.recv()
        assert ws.close_code == 1001
        await server.wait_closed()


@pytest.mark.anyio
@pytest.mark.parametrize("form", ["messages", "stream", "listener"])
async def test_websockets_over_tls(form: str, tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    context: ssl.SSLContext = made.server_context()
    async with (
        echo_server(ssl=context) as (_, port),
        websockets.connect(
            f"wss://127.0.0.1:{port}/", ssl=made.client_context(), subprotocols=[Subprotocol(form)]
        ) as ws,
    ):
        await ws.send(b"x" * 100_000)
        received = b""
        while len(received) < 100_000:
            received += await ws.recv(decode=False)
        assert received == b"x" * 100_000


# --- Node.js ------------------------------------------------------------------------------------------------

NODE_CLIENT = """
const WebSocket = require('ws');
const [port, form, deflate] = process.argv.slice(1);
const sizes = [0, 1, 125, 126, 65535, 65536, 300000];
const byte = (i) => Buffer.alloc(sizes[i], 97 + i);
const offers = form === '-' ? [] : [form];
const ws = new WebSocket(`ws://127.0.0.1:${port}/`, offers, { perMessageDeflate: deflate === 'yes' });
const received = [];
let bytes = 0, texts = 0, pongs = 0;
const expected = 2 * sizes.reduce((a, b) => a + b) + 6;
const done = () => (form === 'stream' ? bytes === expected : received.length === 2 * sizes.length + 1) && pongs === 1;
const check = () => { if (done()) ws.close(4000, 'f\\u00fcnf'); };
ws.on('open', () => {
    sizes.forEach((_, i) => { ws.send(byte(i)); ws.send(byte(i).toString()); });
    ws.ping('ping');
    ws.send('a\\u00e4', { fin: false });
    ws.send(Buffer.from('b'), { fin: false });
    ws.send('cd', { fin: true });
});
ws.on('pong', (data) => { pongs += data.toString() === 'ping'; check(); });
ws.on('message', (data, binary) => { received.push(data); bytes += data.length; texts += !binary; check(); });
ws.on('error', (error) => { console.log(JSON.stringify({ error: String(error) })); process.exit(); });
ws.on('close', (code, reason) => {
    const whole = Buffer.concat(received).toString();
    const sent = sizes.map((_, i) => byte(i).toString().repeat(2)).join('') + 'a\\u00e4bcd';
    const order = received.map((data) => data.length);
    console.log(JSON.stringify({
        protocol: ws.protocol, extensions: ws.extensions, same: whole === sent, texts, pongs, code,
        reason: reason.toString(), order: form === 'stream' ? [] : order,
    }));
    process.exit();
});
"""


@pytest.mark.node
@node_peer
@pytest.mark.anyio
@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])
@pytest.mark.parametrize("form", [None, "messages", "stream", "listener"])
async def test_node(form: str | None, deflate: bool) -> None:
    async with (
        echo_server(compression="deflate" if deflate else None) as (_, port),
        node_process(NODE_CLIENT, str(port), form or "-", "yes" if deflate else "no") as line,
    ):
        told = json.loads(line)
    assert closed == ([] if form == "stream" else [(4000, "fünf")])
    assert told.pop("extensions").startswith("permessage-deflate" if deflate else "")
    sizes = [0, 1, 125, 126, 65535, 65536, 300000]
    assert told == {
        "protocol": form or "",
        "same": True,
        "texts": 0 if form == "stream" else len(sizes) + 1,
        "pongs": 1,
        "code": 4000,
        "reason": "fünf",
        "order": [] if form == "stream" else [size for size in sizes for _ in range(2)] + [6],
    }


@pytest.mark.node
@node_peer
@pytest.mark.anyio
async def test_node_is_told_why_it_is_refused() -> None:
    async with (
        echo_server() as (_, port),
        node_process(NODE_CLIENT, str(port), "unknown", "no") as line,
    ):
        assert "400" in json.loads(line)["error"]
