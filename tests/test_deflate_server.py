"""permessage-deflate end to end: what is on the wire of servers and clients, in which order, with how much memory."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import itertools
import json
import os
import random
import subprocess
import sys
import threading
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import aiohttp.web
import pytest
import websockets.asyncio.client
import websockets.asyncio.server
from client_helpers import Peer, scripted, url_of
from peers import node_peer, node_process
from raw import MASK, RawClient, open_raw
from shared import echo, port_of, until
from vectors import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory

import wsfast
import wsfast.sync
from wsfast import Deflate, DeflateBudget
from wsfast.deflate.backends import BACKENDS
from wsfast.deflate.context import CompressorPool, PerMessageDeflate

pytestmark = pytest.mark.anyio

TAIL = b"\x00\x00\xff\xff"
RSV1 = 4
JSON = json.dumps([{"id": number, "price": number * 1.25, "side": "buy"} for number in range(40)])
SMALL = json.dumps({"id": 1})


class Wire:
    """A raw client that has negotiated compression, with a stream in each direction."""

    def __init__(self, raw: RawClient) -> None:
        self.raw = raw
        self.answer = raw.headers.get("sec-websocket-extensions")
        self._takeover_in = "server_no_context_takeover" not in (self.answer or "")
        self._takeover_out = "client_no_context_takeover" not in (self.answer or "")
        self._inflater = zlib.decompressobj(-15)
        self._deflater = zlib.compressobj(wbits=-9)

    def pack(self, data: str | bytes) -> bytes:
        """Compress a message."""
        if not self._takeover_out:
            self._deflater = zlib.compressobj(wbits=-9)
        data = data.encode() if isinstance(data, str) else data
        return (self._deflater.compress(data) + self._deflater.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)

    def unpack(self, payload: bytes) -> bytes:
        """Inflate a message."""
        if not self._takeover_in:
            self._inflater = zlib.decompressobj(-15)
        return self._inflater.decompress(payload + TAIL)

    def send(self, data: str | bytes) -> None:
        """Send a compressed message."""
        opcode = TEXT if isinstance(data, str) else BINARY
        self.raw.send(frame(opcode, self.pack(data), rsv=RSV1, key=MASK))

    async def receive(self) -> tuple[bool, str | bytes]:
        """Read a message: whether it was compressed, and what it is."""
        first = await self.raw.receive()
        assert first.opcode in (TEXT, BINARY), first
        payload, last = first.payload, first
        while not last.fin:
            last = await self.raw.receive()
            assert last.opcode == CONT
            assert last.rsv == 0
            payload += last.payload
        assert first.rsv in (0, RSV1)
        data = self.unpack(payload) if first.rsv else payload
        return bool(first.rsv), data.decode() if first.opcode == TEXT else data


async def offer(server: Any, *offers: str) -> RawClient:
    """Connect and offer extensions, each in a header of its own."""
    client = await open_raw(server)
    lines = "\r\nSec-WebSocket-Extensions: ".join(offers)
    await client.handshake(headers={"Sec-WebSocket-Extensions": lines} if offers else {})
    assert client.status == 101
    return client


@contextlib.asynccontextmanager
async def wired(
    handler: Any = echo, *, offers: str = "permessage-deflate; client_max_window_bits", **options: Any
) -> AsyncIterator[Wire]:
    """Run a server and connect to it; `options` are those of `Deflate`, and `max_size`."""
    limits = {name: options.pop(name) for name in ("max_size", "ping_interval", "max_buffered") if name in options}
    options.setdefault("threshold", 1)
    async with (
        wsfast.serve(handler, "127.0.0.1", 0, compression=Deflate(**options), **limits) as server,
        await offer(server, offers) as raw,
    ):
        wire = Wire(raw)
        assert wire.answer is not None
        yield wire


@contextlib.asynccontextmanager
async def handed(**options: Any) -> AsyncIterator[tuple[wsfast.WebSocket, Wire]]:
    """Like `wired`, with the server's end of the connection."""
    opened: asyncio.Future[wsfast.WebSocket] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def handler(ws: wsfast.WebSocket) -> None:
        opened.set_result(ws)
        await done.wait()

    async with wired(handler, **options) as wire, asyncio.timeout(30):
        try:
            yield await opened, wire
        finally:
            done.set()


def work_of(ws: wsfast.WebSocket) -> PerMessageDeflate:
    """Return what compresses and inflates on a connection."""
    compression = ws._open_channel().connection.compression
    assert isinstance(compression, PerMessageDeflate)
    return compression


# --- Negotiation by the server --------------------------------------------------------------------------

DEFAULT = "permessage-deflate; server_max_window_bits=12"
FORGETFUL = "permessage-deflate; server_no_context_takeover; server_max_window_bits=12"

OFFERS: list[tuple[tuple[str, ...], str | None]] = [
    ((), None),
    (("permessage-deflate",), DEFAULT),
    (("permessage-deflate; client_max_window_bits",), f"{DEFAULT}; client_max_window_bits=12"),
    (("permessage-deflate; client_max_window_bits=10",), f"{DEFAULT}; client_max_window_bits=10"),
    (('permessage-deflate; client_max_window_bits="10"',), f"{DEFAULT}; client_max_window_bits=10"),
    (('permessage-deflate;\tserver_max_window_bits = "10" ',), "permessage-deflate; server_max_window_bits=10"),
    (('permessage-deflate; server_max_window_bits="1\\0"',), "permessage-deflate; server_max_window_bits=10"),
    (("permessage-deflate; client_max_window_bits=8",), f"{DEFAULT}; client_max_window_bits=8"),
    (("permessage-deflate; server_max_window_bits=8",), "permessage-deflate; server_max_window_bits=8"),
    (("permessage-deflate; server_max_window_bits=15",), DEFAULT),
    (("permessage-deflate; server_no_context_takeover",), FORGETFUL),
    (
        ("permessage-deflate; client_no_context_takeover",),
        "permessage-deflate; client_no_context_takeover; server_max_window_bits=12",
    ),
    # Declined as a whole, never in half.
    (("permessage-deflate; server_max_window_bits=7",), None),
    (('permessage-deflate; server_max_window_bits="7"',), None),
    (("permessage-deflate; server_max_window_bits=16",), None),
    (("permessage-deflate; server_max_window_bits=08",), None),
    (('permessage-deflate; server_max_window_bits="08"',), None),
    (("permessage-deflate; client_max_window_bits=16",), None),
    (("permessage-deflate; client_max_window_bits; client_max_window_bits",), None),
    (("permessage-deflate; client_max_window_bits=10; client_max_window_bits",), None),
    (("permessage-deflate; server_max_window_bits",), None),
    (("permessage-deflate; client_max_window_bits=010",), None),
    (("permessage-deflate; server_no_context_takeover=1",), None),
    (("permessage-deflate; server_no_context_takeover; server_no_context_takeover",), None),
    (("permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",), None),
    (("permessage-deflate; unknown",), None),
    (("permessage-deflate; client_max_window_bits; unknown=1",), None),
    (("x-permessage-deflate-foo",), None),
    (("permessage-deflate-foo, x-webkit-deflate-frame",), None),
    (("PerMessage-Deflate",), None),
    # The first acceptable one, over lists and repeated headers.
    (("permessage-deflate; server_max_window_bits=7, permessage-deflate; server_no_context_takeover",), FORGETFUL),
    (("x-foo", "permessage-deflate; unknown", "permessage-deflate; server_no_context_takeover"), FORGETFUL),
]


@pytest.mark.parametrize(("offers", "answer"), OFFERS)
async def test_offers(offers: tuple[str, ...], answer: str | None) -> None:
    compression = Deflate(threshold=1)
    async with (
        wsfast.serve(echo, "127.0.0.1", 0, compression=compression) as server,
        await offer(server, *offers) as raw,
    ):
        assert raw.headers.get("sec-websocket-extensions") == answer
        wire = Wire(raw)
        for _ in range(3):
            if answer is None:
                raw.send(frame(TEXT, JSON.encode(), key=MASK))
            else:
                wire.send(JSON)
            assert await wire.receive() == (answer is not None, JSON)
        await raw.end()


@pytest.mark.parametrize(
    "offers",
    [
        "permessage-deflate; server_max_window_bits=",
        'permessage-deflate; server_max_window_bits=""',
        'permessage-deflate; server_max_window_bits="10',
        'permessage-deflate; server_max_window_bits=" 10"',
        "permessage-deflate;",
        "permessage-deflate; ; client_max_window_bits",
        "permessage-deflate client_max_window_bits",
        "permessage-deflate; client_max_window_bits 10",
        "permessage-deflate/1",
    ],
)
async def test_a_header_that_is_none_is_refused(offers: str) -> None:
    """RFC 6455, 9.1: what is not by the grammar fails the handshake; it is not for an extension to decline."""
    budget = DeflateBudget(1 << 20)
    compression = Deflate(budget=budget)
    async with wsfast.serve(echo, "127.0.0.1", 0, compression=compression) as server, await open_raw(server) as raw:
        await raw.handshake(headers={"Sec-WebSocket-Extensions": f"permessage-deflate, {offers}"})
        assert raw.status == 400
        assert "Sec-WebSocket-Extensions" in raw.body.decode()
    assert budget.used == 0


async def test_without_compression_nothing_is_agreed() -> None:
    async with (
        wsfast.serve(echo, "127.0.0.1", 0) as server,
        await offer(server, "permessage-deflate") as raw,
    ):
        assert "sec-websocket-extensions" not in raw.headers


@pytest.mark.parametrize("bits", [8, 9, 10, 15])
async def test_the_server_keeps_to_its_window(bits: int) -> None:
    """A message repeats what lies further back than the window; an inflater of that size can follow."""
    rng = random.Random(bits)
    block = rng.randbytes(700)
    message = (block + rng.randbytes(1 << bits)) * 3 + block
    async with wired(offers=f"permessage-deflate; server_max_window_bits={bits}", server_max_window_bits=15) as wire:
        assert f"server_max_window_bits={bits}" in str(wire.answer)
        inflater = zlib.decompressobj(-bits)
        for _ in range(3):
            wire.send(message)
            received = await wire.raw.receive()
            assert received.rsv == RSV1
            assert inflater.decompress(received.payload + TAIL) == message


async def test_the_server_forgets_if_it_said_so() -> None:
    async with wired(offers="permessage-deflate; server_no_context_takeover; client_no_context_takeover") as wire:
        replies = set()
        for _ in range(3):
            wire.send(JSON)
            received = await wire.raw.receive()
            replies.add(received.payload)
            assert wire.unpack(received.payload) == JSON.encode()
        assert len(replies) == 1  # nothing refers to the message before


async def test_the_server_remembers_otherwise() -> None:
    async with wired() as wire:
        sizes = []
        for _ in range(2):
            wire.send(JSON)
            received = await wire.raw.receive()
            sizes.append(len(received.payload))
            assert wire.unpack(received.payload) == JSON.encode()
        assert sizes[1] * 4 < sizes[0]


# --- Negotiation by the client --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ({}, "permessage-deflate; server_max_window_bits=7"),
        ({"server_max_window_bits": 14}, "permessage-deflate; server_max_window_bits=15"),
        ({}, "permessage-deflate; server_max_window_bits=010"),
        ({}, "permessage-deflate; client_max_window_bits"),
        ({}, "permessage-deflate; server_no_context_takeover; server_no_context_takeover"),
        ({}, 'permessage-deflate; server_max_window_bits="7"'),
        ({}, "permessage-deflate; client_max_window_bits=16"),
        ({}, "permessage-deflate; client_max_window_bits=08"),
        ({}, "permessage-deflate; client_no_context_takeover=1"),
        ({}, "permessage-deflate; unknown"),
        ({}, "permessage-deflate, permessage-deflate"),
        ({}, "x-webkit-deflate-frame"),
        ({}, "x-permessage-deflate-foo"),
        ({"server_no_context_takeover": True}, "permessage-deflate"),
        ({"server_max_window_bits": 10}, "permessage-deflate"),
        ({"server_max_window_bits": 10}, "permessage-deflate; server_max_window_bits=11"),
    ],
)
async def test_an_invalid_answer_fails_the_handshake(options: dict[str, Any], answer: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.accept(f"Sec-WebSocket-Extensions: {answer}")
        assert await peer.until_end() == b""

    budget = DeflateBudget(1 << 20)
    async with scripted(script) as server:
        with pytest.raises(wsfast.NegotiationError):
            await wsfast.connect(url_of(server), compression=Deflate(budget=budget, **options))
    gc.collect()
    assert budget.used == 0


@pytest.mark.parametrize(
    ("options", "answer", "agreed"),
    [
        # (takeover, bits, peer_takeover, peer_bits)
        ({}, 'permessage-deflate; server_max_window_bits="10"; client_max_window_bits="9"', (True, 9, True, 10)),
        # RFC 7692, 7.1.1 and 7.1.2.1: what was not asked for may be granted.
        ({}, "permessage-deflate; server_no_context_takeover", (True, 12, False, 15)),
        ({}, "permessage-deflate; client_no_context_takeover", (False, 12, True, 15)),
        ({}, "permessage-deflate; server_max_window_bits=8", (True, 12, True, 8)),
        ({"server_max_window_bits": 10}, "permessage-deflate; server_max_window_bits=9", (True, 12, True, 9)),
        ({"client_max_window_bits": 10}, "permessage-deflate; client_max_window_bits=15", (True, 10, True, 15)),
    ],
)
async def test_an_answer_that_is_kept_to(
    options: dict[str, Any], answer: str, agreed: tuple[bool, int, bool, int]
) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.accept(f"Sec-WebSocket-Extensions: {answer}")
        await peer.until_end()

    async with scripted(script) as server:
        ws = await wsfast.connect(url_of(server), compression=Deflate(**options))
        p = work_of(ws).parameters
        assert (p.takeover, p.bits, p.peer_takeover, p.peer_bits) == agreed
        ws.abort()
        await ws.wait_closed()


async def test_a_declined_offer_goes_on_uncompressed() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        assert peer.header("Sec-WebSocket-Extensions") == "permessage-deflate; client_max_window_bits"
        peer.accept()
        assert (await peer.reader.readexactly(2))[0] == 0x81
        await peer.until_end()

    async with scripted(script) as server:
        ws = await wsfast.connect(url_of(server), compression="deflate")
        await ws.send("a" * 100, compress=True)  # without effect
        ws.abort()
        await ws.wait_closed()


# --- What is refused ------------------------------------------------------------------------------------


async def closes_with(wire: Wire, code: int, *frames: bytes) -> None:
    wire.raw.send(*frames)
    assert (await wire.raw.receive_close())[0] == code
    await wire.raw.receive_eof()


async def test_rsv1_without_agreement() -> None:
    async with wsfast.serve(echo, "127.0.0.1", 0, compression="deflate") as server, await offer(server) as raw:
        await closes_with(Wire(raw), 1002, frame(TEXT, b"\x00", rsv=RSV1, key=MASK))


@pytest.mark.parametrize("wrong", ["continuation", "continuation of a plain message", "ping", "pong", "close", "rsv2"])
async def test_rsv1_where_it_does_not_belong(wrong: str) -> None:
    async with wired() as wire:
        packed = wire.pack("a" * 100)
        frames = {
            "continuation": [
                frame(TEXT, packed[:3], fin=False, rsv=RSV1, key=MASK),
                frame(CONT, packed[3:], rsv=RSV1, key=MASK),
            ],
            "continuation of a plain message": [
                frame(TEXT, b"plain", fin=False, key=MASK),
                frame(CONT, packed, rsv=RSV1, key=MASK),
            ],
            "ping": [frame(PING, b"", rsv=RSV1, key=MASK)],
            "pong": [frame(PONG, b"", rsv=RSV1, key=MASK)],
            "close": [frame(CLOSE, b"", rsv=RSV1, key=MASK)],
            "rsv2": [frame(TEXT, packed, rsv=RSV1 | 2, key=MASK)],
        }
        await closes_with(wire, 1002, *frames[wrong])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("payload", [b"\xff\xff\xff", b"\x06", b"\x4b\xff\xff\xff"])
async def test_corrupt_data(payload: bytes, backend: str) -> None:
    async with wired(backend=backend) as wire:
        await closes_with(wire, 1007, frame(TEXT, payload, rsv=RSV1, key=MASK))


async def test_text_that_is_not_utf8_once_it_is_inflated() -> None:
    async with wired() as wire:
        await closes_with(wire, 1007, frame(TEXT, wire.pack(b"\xff" * 100), rsv=RSV1, key=MASK))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fragments", [1, 5])
async def test_max_size_is_that_of_the_message(backend: str, fragments: int) -> None:
    def cut(payload: bytes) -> list[bytes]:
        size = -(-len(payload) // fragments)
        parts = [payload[i : i + size] for i in range(0, len(payload), size)]
        last = len(parts) - 1
        return [
            frame(CONT if i else BINARY, part, fin=i == last, rsv=0 if i else RSV1, key=MASK)
            for i, part in enumerate(parts)
        ]

    async with wired(backend=backend, max_size=10_000) as wire:
        wire.raw.send(*cut(wire.pack(bytes(10_000))))
        assert await wire.receive() == (True, bytes(10_000))
        await closes_with(wire, 1009, *cut(wire.pack(bytes(10_001))))


async def test_a_bomb_takes_no_memory() -> None:
    """64 MiB in 64 KiB: the server inflates one limit's worth, says 1009 and goes on with the others."""
    deflater = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(64)) + deflater.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < 1 << 17
    async with wsfast.serve(echo, "127.0.0.1", 0, compression=Deflate(threshold=1)) as server:
        async with await offer(server, "permessage-deflate") as raw:
            wire = Wire(raw)
            wire.send(JSON)
            assert await wire.receive() == (True, JSON)
            tracemalloc.start()
            try:
                await closes_with(wire, 1009, frame(BINARY, bomb, rsv=RSV1, key=MASK))
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert peak < 4 << 20
        async with await offer(server, "permessage-deflate") as raw:
            wire = Wire(raw)
            wire.send(JSON)
            assert await wire.receive() == (True, JSON)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("blocks", ["stored", "fixed"])
async def test_blocks_that_hold_nothing_take_no_memory(blocks: str, opcode: int) -> None:
    """One frame of 32 MiB of empty blocks, thrice the limit and more, is a message of nothing."""
    block = {"stored": b"\x00\x00\x00\xff\xff", "fixed": b"\x02\x08\x20\x80\x00"}[blocks]
    assert zlib.decompressobj(-15).decompress(block * 1000, 1) == b""
    part = block * 13107
    count = (32 << 20) // len(part)
    size = count * len(part) + 1
    head = bytes((0xC0 | opcode, 0xFF)) + size.to_bytes(8, "big") + bytes(4)
    async with wired() as wire:
        wire.send(JSON)
        assert await wire.receive() == (True, JSON)
        tracemalloc.start()
        try:
            wire.raw.send(head)
            for _ in range(count):
                wire.raw.send(part)
                await wire.raw.writer.drain()
            wire.raw.send(b"\x00")
            assert await wire.receive() == (False, "" if opcode == TEXT else b"")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 4 << 20
        wire.send(JSON)
        assert await wire.receive() == (True, JSON)


@pytest.mark.parametrize("form", ["handler", "listener"])
async def test_many_small_bombs_in_one_read(form: str) -> None:
    """50 messages of 1 MiB, each allowed, in 52 KB: they are inflated as they are taken, and others get turns."""
    deflater = zlib.compressobj(9, wbits=-15)
    packed = (deflater.compress(bytes(1 << 20)) + deflater.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
    taken: list[int] = []
    turns: list[int] = []
    go_on = asyncio.Event()

    class Take(wsfast.Listener):
        def on_message(self, message: str | bytes) -> None:
            assert len(message) == 1 << 20
            taken.append(len(message))

    async def take(ws: wsfast.WebSocket) -> None:
        await go_on.wait()
        async for message in ws:
            assert len(message) == 1 << 20
            taken.append(len(message))

    server = wsfast.Server(compression="deflate")
    if form == "listener":
        server.register_listener(None, Take)
    else:
        server.register_handler(None, take)
    async with server:
        await server.start("127.0.0.1", 0)
        async with await offer(server, "permessage-deflate; client_no_context_takeover") as raw:
            tracemalloc.start()
            try:
                raw.send(frame(BINARY, packed, rsv=RSV1, key=MASK) * 50)
                if form == "handler":
                    (ws,) = server.connections
                    await until(lambda: ws._open_channel().paused)
                    go_on.set()
                while len(taken) < 50:
                    turns.append(len(taken))
                    await asyncio.sleep(0)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert peak < 8 << 20
            assert len(set(turns)) > 25
            await raw.end()


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
async def test_bombs_one_after_the_other_do_not_grow_the_process() -> None:
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    deflater = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(32)) + deflater.flush(zlib.Z_SYNC_FLUSH)
    async with wsfast.serve(echo, "127.0.0.1", 0, compression="deflate") as server:
        before = 0
        for number in range(25):
            async with await offer(server, "permessage-deflate") as raw:
                await closes_with(Wire(raw), 1009, frame(BINARY, bomb, rsv=RSV1, key=MASK))
            if number == 4:
                before = resident()
        assert resident() - before < 16 << 20


# --- Messages -------------------------------------------------------------------------------------------


async def test_threshold_and_the_choice_by_message() -> None:
    async with handed(threshold=256) as (ws, wire):
        await ws.send(SMALL)
        assert await wire.receive() == (False, SMALL)
        await ws.send(JSON)
        assert await wire.receive() == (True, JSON)
        await ws.send(SMALL, compress=True)
        assert await wire.receive() == (True, SMALL)
        await ws.send(JSON, compress=False)
        assert await wire.receive() == (False, JSON)
        await ws.send(JSON.encode(), text=True, compress=True)
        assert await wire.receive() == (True, JSON)
        await ws.send(memoryview(JSON.encode()))
        assert await wire.receive() == (True, JSON.encode())
        await ws.send("", compress=True)
        assert await wire.receive() == (True, "")
        ws.send_nowait("ä" * 1000)
        assert await wire.receive() == (True, "ä" * 1000)
        ws.send_nowait(SMALL)
        assert await wire.receive() == (False, SMALL)
        assert ws.counters["messages_sent"] == 9
        with pytest.raises(UnicodeEncodeError):
            ws.send_nowait("\ud800" * 1000)
        await ws.send(JSON)
        assert await wire.receive() == (True, JSON)


async def test_noise_is_sent_plain_for_a_while() -> None:
    rng = random.Random(1)
    async with handed() as (ws, wire):
        packed = []
        for _ in range(40):
            noise = rng.randbytes(1000)
            await ws.send(noise)
            compressed, data = await wire.receive()
            assert data == noise
            packed.append(compressed)
        assert packed[:4] == [True] * 4
        assert packed.count(True) == 6


async def test_fragments() -> None:
    async with handed() as (ws, wire):
        await ws.send(["a" * 1000, "", "ä" * 1000])
        assert await wire.receive() == (True, "a" * 1000 + "ä" * 1000)
        await ws.send([b"plain", b" fragments"], compress=False)
        assert await wire.receive() == (False, b"plain fragments")
        await ws.send(JSON)
        assert await wire.receive() == (True, JSON)


async def test_a_message_in_pieces() -> None:
    """`recv_streaming` hands out what a fragment inflates to before the next one comes."""
    async with handed() as (ws, wire):
        deflater = zlib.compressobj(wbits=-9)
        taken: list[str | bytes] = []

        async def take() -> None:
            async for piece in ws.recv_streaming():
                taken.append(piece)  # noqa: PERF401, it is looked at meanwhile

        task = asyncio.ensure_future(take())
        await asyncio.sleep(0)
        first = deflater.compress(b"one " * 500) + deflater.flush(zlib.Z_SYNC_FLUSH)
        wire.raw.send(frame(TEXT, first, fin=False, rsv=RSV1, key=MASK))
        await until(lambda: taken)
        second = (deflater.compress(b"two " * 500) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
        wire.raw.send(frame(CONT, second, key=MASK))
        await task
        assert "".join(map(str, taken)) == "one " * 500 + "two " * 500


async def test_a_stream() -> None:
    async def handler(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        while data := await reader.read():
            await writer.write(data)
            await writer.flush()

    server = wsfast.Server(compression="deflate")
    server.register_stream_handler(None, handler)
    async with server:
        await server.start("127.0.0.1", 0)
        async with await offer(server, "permessage-deflate") as raw:
            wire = Wire(raw)
            wire.send(JSON * 5)
            assert await wire.receive() == (True, (JSON * 5).encode())
            # What is small is sent as it is here too, and noise is found out.
            wire.send(SMALL)
            assert await wire.receive() == (False, SMALL.encode())
            rng = random.Random(2)
            packed = []
            for _ in range(20):
                wire.send(noise := rng.randbytes(600))
                compressed, data = await wire.receive()
                assert data == noise
                packed.append(compressed)
            assert packed[:4] == [True] * 4
            assert not any(packed[4:12])


# --- Order ----------------------------------------------------------------------------------------------


async def test_nothing_overtakes_what_a_thread_compresses() -> None:
    """Messages from two tasks, large and small, in the order of the calls."""
    async with handed(executor_threshold=5000) as (ws, wire):
        rng = random.Random(3)
        messages = [f"{number} " + "ä€x"[number % 3] * rng.choice([0, 100, 3000, 60_000]) for number in range(60)]
        sending = asyncio.gather(*(ws.send(message) for message in messages))
        for message in messages:
            assert await wire.receive() == (True, message)
        await sending
        assert ws._open_channel().is_sending is False


async def test_a_cancelled_send_is_finished() -> None:
    async with handed(executor_threshold=5000) as (ws, wire):
        for number in range(10):
            task = asyncio.ensure_future(ws.send(f"{number} " + "x" * 300_000))
            for _ in range(1 + number % 3):  # before its first step it would have sent nothing
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await ws.send(f"after {number}")
            assert await wire.receive() == (True, f"{number} " + "x" * 300_000)
            assert await wire.receive() == (True, f"after {number}")


async def test_memory_that_the_caller_uses_again() -> None:
    async with handed(executor_threshold=5000) as (ws, wire):
        memory = bytearray(b"a" * 2_000_000)
        task = asyncio.ensure_future(ws.send(memory))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        memory[:] = b"b" * len(memory)
        assert await wire.receive() == (True, b"a" * 2_000_000)


class Held:
    """A compressor that stays at work until it is told to go on."""

    def __init__(self, work: PerMessageDeflate) -> None:
        self._compressor = work._new_compressor()
        self.flush = self._compressor.flush
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def compress(self, data: bytes) -> bytes:
        self.entered.set()
        assert self.go_on.wait(30)
        return self._compressor.compress(data)


@contextlib.asynccontextmanager
async def held(
    monkeypatch: pytest.MonkeyPatch, **options: Any
) -> AsyncIterator[tuple[wsfast.WebSocket, Wire, Held, asyncio.Future[None]]]:
    """A connection on which a thread is at work on a large message."""
    async with handed(executor_threshold=5000, **options) as (ws, wire):
        work = work_of(ws)
        compressor = Held(work)
        monkeypatch.setattr(work, "_compressor", compressor)
        sending = asyncio.ensure_future(ws.send("x" * 10_000))
        try:
            await until(compressor.entered.is_set)
            yield ws, wire, compressor, sending
        finally:
            compressor.go_on.set()
            await asyncio.wait([sending])


async def test_waiting_senders_that_are_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    async with held(monkeypatch) as (ws, wire, compressor, _):
        tasks = [asyncio.ensure_future(ws.send(f"{number} " + "y" * 50_000)) for number in range(12)]
        await asyncio.sleep(0)
        for task in tasks[1::2]:
            task.cancel()
        compressor.go_on.set()
        await asyncio.wait(tasks)
        assert await wire.receive() == (True, "x" * 10_000)
        for number in range(0, 12, 2):
            assert await wire.receive() == (True, f"{number} " + "y" * 50_000)
        await ws.send("last")
        assert await wire.receive() == (True, "last")


async def test_what_waits_for_a_thread_and_what_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async with held(monkeypatch) as (ws, wire, compressor, sending):
        later = [asyncio.ensure_future(ws.send(message)) for message in ("one", "y" * 10_000, ["thr", "ee"])]
        await asyncio.sleep(0)
        with pytest.raises(wsfast.ConcurrencyError, match="several steps"):
            ws.send_nowait("now")
        with pytest.raises(ExceptionGroup) as caught:
            wsfast.broadcast([ws], JSON, raise_exceptions=True)
        assert [type(exc) for exc in caught.value.exceptions] == [wsfast.ConcurrencyError]
        # Control frames and what is received do not wait.
        await ws.ping()
        assert (await wire.raw.receive()).opcode == PING
        wire.send(JSON)
        assert await ws.recv() == JSON
        assert not sending.done()
        # Nor does the sweeper of idle compressors know that one is in use: the next message begins afresh.
        work = work_of(ws)
        work.free_idle(0)
        assert work.free_idle(1e9)
        compressor.go_on.set()
        for message in ("x" * 10_000, "one", "y" * 10_000, "three"):
            assert await wire.receive() == (True, message)
        await asyncio.gather(sending, *later)
        ws.send_nowait("now")
        wsfast.broadcast([ws], JSON, raise_exceptions=True)
        assert await wire.receive() == (True, "now")
        assert await wire.receive() == (True, JSON)


@pytest.mark.parametrize("end", ["close", "peer's close", "reset", "abort"])
async def test_the_end_while_a_thread_compresses(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """The end does not wait, or for `close_timeout` at most: whose message is not sent is told, and nothing is kept."""
    budget = DeflateBudget(1 << 20)
    async with held(monkeypatch, budget=budget) as (ws, wire, compressor, sending):
        assert budget.used > 0
        work = work_of(ws)
        busy = work.watched
        assert busy is not None
        later = asyncio.ensure_future(ws.send("later"))
        await asyncio.sleep(0)
        if end == "close":
            host = ws._open_channel().host
            monkeypatch.setattr(host, "limits", dataclasses.replace(host.limits, close_timeout=0.05))
            ws.close_nowait()
            assert (await wire.raw.receive_close())[0] == 1000
            wire.raw.send(frame(CLOSE, (1000).to_bytes(2, "big"), key=MASK))
            await wire.raw.receive_eof()
        elif end == "peer's close":
            await wire.raw.end()
        elif end == "reset":
            wire.raw.reset()
        else:
            ws.abort()
        wire.raw.abort()
        await ws.wait_closed()
        assert not sending.done()
        assert budget.used == 0
        compressor.go_on.set()
        for task in (sending, later):
            with pytest.raises(wsfast.ConnectionClosed):
                await task
        assert not busy
        assert work.memory == 0


@pytest.mark.parametrize("begun", [False, True], ids=["before it waits", "while it waits"])
async def test_the_end_while_a_thread_compresses_what_was_cancelled(
    monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """There is nobody left to tell that it was not sent."""
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    async with held(monkeypatch) as (ws, _, compressor, sending):
        for _ in range(2 * begun):
            await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        outbox = ws._open_channel().outbox
        ws.abort()
        await ws.wait_closed()
        assert outbox.busy
        compressor.go_on.set()
        await until(lambda: not outbox.busy)
        assert ws.counters["messages_sent"] == 0
    gc.collect()
    assert not told


async def test_a_message_that_cannot_be_compressed_leaves_the_connection_usable() -> None:
    async with handed(executor_threshold=5000) as (ws, wire):
        with pytest.raises(UnicodeDecodeError):
            await ws.send(b"\xff" * 10_000, text=True)
        with pytest.raises(UnicodeEncodeError):
            await ws.send("\ud800" * 10_000)
        await ws.send("a" * 10_000)
        assert await wire.receive() == (True, "a" * 10_000)


async def test_a_failing_compressor_starts_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    async with handed() as (ws, wire):
        await ws.send(JSON)
        assert await wire.receive() == (True, JSON)

        class Failing:
            def compress(self, data: bytes) -> bytes:
                raise MemoryError

        work = work_of(ws)
        monkeypatch.setattr(work, "_compressor", Failing())
        with pytest.raises(MemoryError):
            await ws.send(JSON)
        await ws.send(JSON)
        assert await wire.receive() == (True, JSON)


# --- Memory ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ping_interval", [None, 20.0])
async def test_idle_compressors_are_freed(ping_interval: float | None) -> None:
    async with handed(idle=0.3, ping_interval=ping_interval) as (ws, wire):
        work = work_of(ws)
        assert work.memory == 0
        for _ in range(2):
            await ws.send(JSON)
            first = await wire.raw.receive()
            assert wire.unpack(first.payload) == JSON.encode()
            assert work.memory > 0
            await until(lambda: work.memory == 0)
        # It starts afresh: the inflater needs nothing that was before.
        assert zlib.decompressobj(-15).decompress(first.payload + TAIL) == JSON.encode()
        wire.send(JSON)
        assert await ws.recv() == JSON
        assert work.memory > 0  # the inflater stays: the peer may refer to what it sent


async def test_compressors_that_are_never_freed() -> None:
    async with handed(idle=None) as (ws, wire):
        work = work_of(ws)
        await ws.send(JSON)
        assert await wire.receive() == (True, JSON)
        assert work.memory > 0
        assert work.watched is None
        timer = ws._open_channel().host.timer
        assert timer._sweepers == {}
        await wire.raw.end()
        await ws.wait_closed()
        assert timer._sweepers == {}
        assert work.memory == 0


async def test_compressors_in_use_stay() -> None:
    async with handed(idle=1.0) as (ws, wire):
        work = work_of(ws)
        await ws.send(JSON)
        compressor = work._compressor
        for _ in range(15):
            await asyncio.sleep(0.1)
            await ws.send(JSON)
            assert work._compressor is compressor
        for _ in range(16):
            assert await wire.receive() == (True, JSON)


async def test_the_timer_rests_without_connections() -> None:
    async with wsfast.serve(echo, "127.0.0.1", 0, compression=Deflate(idle=1.0), ping_interval=None) as server:
        async with await offer(server, "permessage-deflate") as raw:
            sweeper = server.timer.sweeper(1.0)
            assert sweeper.due
            wire = Wire(raw)
            wire.send(JSON)
            await wire.receive()
            assert len(sweeper.busy) == 1
        await until(lambda: not server.connections)
        assert not sweeper.due
        assert not sweeper.busy


async def test_the_budget_is_the_servers() -> None:
    """Connections reserve until it is spent, the next ones do without contexts, and what ends gives back, once."""
    budget = DeflateBudget(150_000)
    deflate = Deflate(budget=budget, threshold=1)
    async with wsfast.serve(echo, "127.0.0.1", 0, compression=deflate) as server:
        clients = [await offer(server, "permessage-deflate; client_max_window_bits") for _ in range(5)]
        poor = ["no_context_takeover" in client.headers["sec-websocket-extensions"] for client in clients]
        rich = poor.count(False)
        assert poor == [False] * rich + [True] * (5 - rich)
        assert 1 <= rich < 5
        each = budget.used // rich
        for client in clients:
            wire = Wire(client)
            for _ in range(2):
                wire.send(JSON)
                assert await wire.receive() == (True, JSON)
        for ws in server.connections:
            parameters = work_of(ws).parameters
            assert (work_of(ws).memory > 0) == parameters.takeover
        # One ends well, one is dropped, one misbehaves.
        await clients[0].end()
        clients[0].abort()
        await until(lambda: budget.used == each * (rich - 1))
        for client in clients[1:]:
            client.send(b"\xff\xff")
            client.reset()
        await until(lambda: budget.used == 0)
        async with await offer(server, "permessage-deflate") as again:
            assert "no_context_takeover" not in again.headers["sec-websocket-extensions"]
    assert budget.used == 0


async def _raise(ws: wsfast.WebSocket) -> None:
    raise RuntimeError("on purpose")


async def _return(ws: wsfast.WebSocket) -> None:
    pass


async def _wait(ws: wsfast.WebSocket) -> None:
    await ws.wait_closed()


async def _send_half(ws: wsfast.WebSocket) -> None:
    async def half() -> AsyncIterator[str]:
        yield "a" * 1000
        await ws.wait_closed()

    await ws.send(half())


@pytest.mark.parametrize(
    ("handler", "act"),
    [
        (_raise, "nothing"),
        (_return, "nothing"),
        (_wait, "nothing"),  # not even a pong
        (_wait, "half close"),
        (_wait, "stop"),
        (_send_half, "reset"),
    ],
)
async def test_the_budget_comes_back_however_a_connection_ends(handler: Any, act: str) -> None:
    budget = DeflateBudget(1 << 20)
    limits: dict[str, Any] = {"ping_interval": 0.1, "ping_timeout": 0.1, "close_timeout": 0.1}
    async with (
        wsfast.serve(handler, "127.0.0.1", 0, compression=Deflate(budget=budget), **limits) as server,
        await offer(server, "permessage-deflate") as raw,
    ):
        assert budget.used > 0
        if act == "half close":
            raw.writer.write_eof()
        elif act == "stop":
            server.close()
            await server.wait_closed()
        elif act == "reset":
            assert (await raw.receive()).rsv == RSV1
            raw.reset()
        await until(lambda: budget.used == 0)


def _refuse(ws: wsfast.WebSocket, request: Any) -> Any:
    return ws.respond(403, "no")


def _fail(*args: Any) -> Any:
    raise RuntimeError("on purpose")


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"process_request": _refuse}, 403),
        ({"process_request": _fail}, 500),
        ({"select_subprotocol": _fail}, 500),
        ({"origins": ["https://example.org"]}, 403),
    ],
)
async def test_a_handshake_that_fails_takes_nothing_of_the_budget(options: dict[str, Any], status: int) -> None:
    budget = DeflateBudget(1 << 20)
    deflate = Deflate(budget=budget)
    async with (
        wsfast.serve(echo, "127.0.0.1", 0, compression=deflate, **options) as server,
        await open_raw(server) as raw,
    ):
        await raw.handshake(headers={"Sec-WebSocket-Extensions": "permessage-deflate"})
        assert raw.status == status
        assert budget.used == 0


async def test_a_client_gives_the_budget_back() -> None:
    budget = DeflateBudget(1 << 20)
    deflate = Deflate(budget=budget)
    async with wsfast.serve(echo, "127.0.0.1", 0, compression="deflate") as server:
        uri = url_of(server)
        async with wsfast.connect(uri, compression=deflate):
            assert budget.used > 0
        assert budget.used == 0
        ws = await wsfast.connect(uri, compression=deflate)
        ws.abort()
        await ws.wait_closed()
        assert budget.used == 0
        with pytest.raises(RuntimeError, match="on purpose"):
            await wsfast.connect_listener(_fail, uri, compression=deflate)
        await until(lambda: budget.used == 0)
        # Cancelled at each step of the way.
        for steps in itertools.count(1):
            connecting = asyncio.ensure_future(wsfast.connect(uri, compression=deflate)._await())
            for _ in range(steps):
                await asyncio.sleep(0)
            if not connecting.cancel():
                break
            with contextlib.suppress(asyncio.CancelledError):
                (await connecting).abort()
            await until(lambda: budget.used == 0)
        (await connecting).abort()

        def in_a_thread() -> None:
            with wsfast.sync.connect(uri, compression=deflate):
                assert budget.used > 0

        await until(lambda: budget.used == 0)
        await asyncio.to_thread(in_a_thread)
        assert budget.used == 0


async def test_a_refused_handshake_gives_the_budget_back() -> None:
    budget = DeflateBudget(1 << 20)
    made: list[int] = []

    def listener(ws: wsfast.WebSocket) -> wsfast.Listener:
        made.append(budget.used)
        raise RuntimeError("no")

    server = wsfast.Server(compression=Deflate(budget=budget))
    server.register_listener(None, listener)
    async with server:
        await server.start("127.0.0.1", 0)
        async with await offer(server, "permessage-deflate") as raw:
            assert (await raw.receive_close())[0] == 1011
            raw.send(frame(CLOSE, (1011).to_bytes(2, "big"), key=MASK))
            await raw.receive_eof()
        await until(lambda: budget.used == 0)
    assert made[0] > 0


# --- Broadcast ------------------------------------------------------------------------------------------


async def test_broadcast_compresses_once_for_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    compress = CompressorPool.compress

    def counting(self: CompressorPool, data: bytes) -> bytes:
        calls.append(len(data))
        return compress(self, data)

    offers = [
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=10",
        "x-foo",
    ]
    async with wsfast.serve(echo, "127.0.0.1", 0, compression=Deflate(threshold=1)) as server:
        wires = [Wire(await offer(server, offers[number % 3])) for number in range(9)]
        await until(lambda: len(server.connections) == 9)
        for wire in wires:
            if wire.answer is not None:
                wire.send(JSON)  # so that there are contexts
                assert await wire.receive() == (True, JSON)
        monkeypatch.setattr(CompressorPool, "compress", counting)
        for _ in range(2):
            wsfast.broadcast(server.connections, JSON)
            for wire in wires:
                assert await wire.receive() == (wire.answer is not None, JSON)
        assert calls == [len(JSON)] * 4
        monkeypatch.undo()
        for wire in wires:
            if wire.answer is not None:
                wire.send(JSON)
                assert await wire.receive() == (True, JSON)
            wire.raw.abort()


# --- Others ---------------------------------------------------------------------------------------------

NOISE = os.urandom(3000)
MESSAGES: list[str | bytes] = ["", "a", SMALL, JSON, JSON.encode(), NOISE, "ä€🙂" * 20_000, b"x" * 400_000, JSON]

CONFIGS: dict[str, dict[str, Any]] = {
    "default": {},
    "all messages": {"threshold": 0},
    "no takeover": {"server_no_context_takeover": True, "client_no_context_takeover": True, "threshold": 0},
    "narrow": {"server_max_window_bits": 9, "client_max_window_bits": 9, "threshold": 0, "mem_level": 1},
    "wide": {"server_max_window_bits": 15, "client_max_window_bits": 15, "level": 9, "mem_level": 9, "threshold": 0},
    "threads": {"executor_threshold": 1000, "threshold": 0},
    **{name: {"backend": name, "threshold": 0} for name in BACKENDS},
}

config = pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS)


async def exchange(send: Callable[[Any], Any], receive: Callable[[], Any]) -> None:
    for _ in range(2):
        for message in MESSAGES:
            await send(message)
            assert await receive() == message


@config
async def test_with_itself(options: dict[str, Any]) -> None:
    deflate = Deflate(**options)
    async with (
        wsfast.serve(echo, "127.0.0.1", 0, compression=deflate) as server,
        wsfast.connect(url_of(server), compression=deflate) as ws,
    ):
        assert ws.response is not None
        assert "permessage-deflate" in ws.response.headers["Sec-WebSocket-Extensions"]
        await exchange(ws.send, ws.recv)
        received = ws.counters["bytes_received"]
        await ws.send("z" * 100_000)
        assert await ws.recv() == "z" * 100_000
        assert ws.counters["bytes_received"] - received < 2000


@pytest.mark.parametrize("client", BACKENDS)
@pytest.mark.parametrize("server", BACKENDS)
async def test_backends_with_each_other(server: str, client: str) -> None:
    async with (
        wsfast.serve(echo, "127.0.0.1", 0, compression=Deflate(backend=server, threshold=0)) as running,
        wsfast.connect(url_of(running), compression=Deflate(backend=client, threshold=0)) as ws,
    ):
        await exchange(ws.send, ws.recv)


CLIENTS = {
    "default": ClientPerMessageDeflateFactory(),
    "no takeover": ClientPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True),
    "narrow": ClientPerMessageDeflateFactory(server_max_window_bits=9, client_max_window_bits=9),
    "narrowest": ClientPerMessageDeflateFactory(server_max_window_bits=8, client_max_window_bits=9),
    "wide": ClientPerMessageDeflateFactory(server_max_window_bits=15, client_max_window_bits=15),
}


@config
@pytest.mark.parametrize("factory", CLIENTS.values(), ids=CLIENTS)
async def test_websockets_as_the_client(factory: Any, options: dict[str, Any]) -> None:
    async with (
        wsfast.serve(echo, "127.0.0.1", 0, compression=Deflate(**options)) as server,
        websockets.asyncio.client.connect(url_of(server), extensions=[factory], compression=None) as ws,
    ):
        assert len(ws.protocol.extensions) == 1
        await exchange(ws.send, ws.recv)


SERVERS = {
    "default": ServerPerMessageDeflateFactory(),
    "no takeover": ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True),
    "narrow": ServerPerMessageDeflateFactory(server_max_window_bits=9, client_max_window_bits=9),
    "wide": ServerPerMessageDeflateFactory(server_max_window_bits=15, client_max_window_bits=15),
}


@config
@pytest.mark.parametrize("factory", SERVERS.values(), ids=SERVERS)
async def test_websockets_as_the_server(factory: Any, options: dict[str, Any]) -> None:
    async def handler(ws: websockets.asyncio.server.ServerConnection) -> None:
        async for message in ws:
            await ws.send(message)

    async with (
        websockets.asyncio.server.serve(handler, "127.0.0.1", 0, extensions=[factory], compression=None) as server,
        wsfast.connect(url_of(server), compression=Deflate(**options)) as ws,
    ):
        assert ws.response is not None
        assert "permessage-deflate" in ws.response.headers["Sec-WebSocket-Extensions"]
        await exchange(ws.send, ws.recv)


@config
@pytest.mark.parametrize("bits", [15, 9])
async def test_aiohttp_as_the_client(bits: int, options: dict[str, Any]) -> None:
    async with (
        wsfast.serve(echo, "127.0.0.1", 0, compression=Deflate(**options)) as server,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{port_of(server)}/", compress=bits) as ws,
    ):
        assert ws.compress

        async def send(message: str | bytes) -> None:
            await (ws.send_str(message) if isinstance(message, str) else ws.send_bytes(message))

        async def receive() -> Any:
            return (await ws.receive()).data

        await exchange(send, receive)


@config
async def test_aiohttp_as_the_server(options: dict[str, Any]) -> None:
    async def handler(request: aiohttp.web.Request) -> aiohttp.web.WebSocketResponse:
        ws = aiohttp.web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            await (ws.send_str if message.type is aiohttp.WSMsgType.TEXT else ws.send_bytes)(message.data)
        return ws

    app = aiohttp.web.Application()
    app.router.add_get("/", handler)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        uri = f"ws://127.0.0.1:{runner.addresses[0][1]}/"
        async with wsfast.connect(uri, compression=Deflate(**options)) as ws:
            assert ws.response is not None
            assert "permessage-deflate" in ws.response.headers["Sec-WebSocket-Extensions"]
            await exchange(ws.send, ws.recv)
    finally:
        await runner.cleanup()


NODE_OPTIONS = {
    "default": {"threshold": 0},
    "no takeover": {"threshold": 0, "serverNoContextTakeover": True, "clientNoContextTakeover": True},
    "narrow": {"threshold": 0, "serverMaxWindowBits": 9, "clientMaxWindowBits": 9},
    "wide": {"threshold": 0, "serverMaxWindowBits": 15, "clientMaxWindowBits": 15},
}

NODE_CLIENT = """
const WebSocket = require('ws');
const [port, options] = process.argv.slice(1);
const ws = new WebSocket(`ws://127.0.0.1:${port}/`, { perMessageDeflate: JSON.parse(options) });
const json = JSON.stringify(Array.from({ length: 50 }, (_, id) => ({ id, side: 'buy' })));
const messages = ['', 'a', json, Buffer.from(json), Buffer.alloc(300000, 'x'), 'ä€🙂'.repeat(20000), json, json];
let next = 0, same = 0;
ws.on('open', () => ws.send(messages[0]));
ws.on('message', (data, binary) => {
    const wanted = messages[next];
    same += binary === Buffer.isBuffer(wanted) && data.equals(Buffer.from(wanted));
    if (++next < messages.length) ws.send(messages[next]); else ws.close(1000);
});
const tell = (error) => {
    console.log(JSON.stringify({ extensions: ws.extensions, same, of: messages.length, error }));
    process.exit();
};
ws.on('error', (error) => tell(String(error)));
ws.on('close', (code) => tell(code === 1000 ? null : code));
"""

NODE_SERVER = """
const { WebSocketServer } = require('ws');
const perMessageDeflate = JSON.parse(process.argv[1]);
const server = new WebSocketServer({ port: 0, host: '127.0.0.1', perMessageDeflate });
server.on('connection', (ws) => ws.on('message', (data, binary) => ws.send(data, { binary })));
server.on('listening', () => console.log(server.address().port));
"""


@pytest.mark.node
@node_peer
@pytest.mark.parametrize("node", NODE_OPTIONS.values(), ids=NODE_OPTIONS)
async def test_node_as_the_client(node: dict[str, Any]) -> None:
    async with (
        wsfast.serve(echo, "127.0.0.1", 0, compression=Deflate(threshold=0)) as server,
        node_process(NODE_CLIENT, str(port_of(server)), json.dumps(node)) as line,
    ):
        told = json.loads(line)
    assert told.pop("extensions") == "permessage-deflate"
    assert told == {"same": 8, "of": 8, "error": None}


@pytest.mark.node
@node_peer
@pytest.mark.parametrize("node", NODE_OPTIONS.values(), ids=NODE_OPTIONS)
async def test_node_as_the_server(node: dict[str, Any]) -> None:
    async with node_process(NODE_SERVER, json.dumps(node)) as port:
        for name, options in CONFIGS.items():
            if name == "narrow" and node.get("serverMaxWindowBits") == 15:
                continue  # it wants to use 15 itself, and refuses the handshake with 400
            async with wsfast.connect(f"ws://127.0.0.1:{port}/", compression=Deflate(**options)) as ws:
                assert ws.response is not None
                assert "permessage-deflate" in ws.response.headers["Sec-WebSocket-Extensions"]
                await exchange(ws.send, ws.recv)


# --- The other codec, and the environment's choice ------------------------------------------------------

PROGRAM = """
import asyncio, json, sys
import wsfast
from wsfast.codec import IMPLEMENTATION

async def echo(ws):
    async for message in ws:
        await ws.send(message)

async def main():
    async with wsfast.serve(echo, "127.0.0.1", 0, compression=wsfast.Deflate(threshold=0)) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with wsfast.connect(uri, compression="deflate") as ws:
            parameters = ws._open_channel().connection.compression.parameters
            for size in (0, 10, 1000, 70_000, 500_000):
                for message in ("ä" * (size // 2), b"x" * size):
                    await ws.send(message)
                    assert await ws.recv() == message
    print(json.dumps([IMPLEMENTATION, parameters.compress.name, parameters.inflate.name]))

asyncio.run(main())
"""


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("codec", ["cython", "python"])
def test_the_environment_chooses(codec: str, backend: str) -> None:
    env = {**os.environ, "WSFAST_ZLIB": backend, "WSFAST_PURE_PYTHON": "1" if codec == "python" else ""}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [codec, backend, backend]


@pytest.mark.anyio
async def test_a_threshold_of_0_compresses_each_message_also_by_broadcast() -> None:
    """For peers that cannot read a message that is not compressed, once deflate is agreed on (libwebsockets 4.1)."""
    deflate = wsfast.Deflate(threshold=0)
    noise = random.Random(6).randbytes(500)
    async with wsfast.serve(echo, "127.0.0.1", 0, compression=deflate) as server, await open_raw(server) as raw:
        await raw.handshake(headers={"Sec-WebSocket-Extensions": "permessage-deflate"})
        (ws,) = server.connections
        for message in (b"", b"x", noise, *[noise] * 10):
            wsfast.broadcast([ws], message)
            await ws.send(message)
            for _ in range(2):
                assert (await raw.receive()).rsv == 4
