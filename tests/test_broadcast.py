"""`broadcast`: one message to many connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from client_helpers import Peer, scripted, url_of
from shared import echo, until

import wsfast
from wsfast.codes import CloseCause
from wsfast.deflate.context import CompressorPool

pytestmark = pytest.mark.anyio


async def hold(ws: wsfast.WebSocket) -> None:
    """Keep a connection open."""
    await ws.wait_closed()


@contextlib.asynccontextmanager
async def clients(
    count: int, *, server_options: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[wsfast.Server, list[wsfast.WebSocket]]]:
    """Run a server with some clients."""
    async with wsfast.serve(hold, "127.0.0.1", 0, **(server_options or {})) as server:
        opened = [await wsfast.connect(url_of(server), **options) for _ in range(count)]
        await until(lambda: len(server.connections) == count)
        try:
            yield server, opened
        finally:
            await asyncio.gather(*(ws.close() for ws in opened))


MESSAGES: list[tuple[Any, bool | None, Any]] = [
    ("text ☃", None, "text ☃"),
    ("", None, ""),
    (b"\x00\xff", None, b"\x00\xff"),
    (bytearray(b"abc"), None, b"abc"),
    (memoryview(b"abcdef")[::2], None, b"ace"),
    (b"text", True, "text"),
    ("binary", False, b"binary"),
    ("x" * 100_000, None, "x" * 100_000),
]


async def test_to_all() -> None:
    async with clients(5) as (server, opened):
        for message, text, expected in MESSAGES:
            wsfast.broadcast(server.connections, message, text=text)
            for ws in opened:
                assert await ws.recv() == expected
        assert server.counters["messages_sent"] == 5 * len(MESSAGES)


async def test_in_order_with_other_messages() -> None:
    async with clients(2) as (server, opened):
        for number in range(200):
            if number % 3:
                wsfast.broadcast(server.connections, str(number))
            else:
                for ws in server.connections:
                    ws.send_nowait(str(number))
        for ws in opened:
            for number in range(200):
                assert await ws.recv() == str(number)


async def test_compressed_once_for_a_class() -> None:
    """With context takeover on both sides, and messages of each connection's own in between."""
    deflate = {"compression": "deflate"}
    async with clients(3, server_options=deflate, **deflate) as (server, opened):
        plain = await wsfast.connect(url_of(server))
        forgetful = await wsfast.connect(url_of(server), compression=wsfast.Deflate(server_no_context_takeover=True))
        opened += [plain, forgetful]
        await until(lambda: len(server.connections) == 5)
        for turn in range(5):
            message = f"turn {turn}: " + "the same again and again; " * 100
            wsfast.broadcast(server.connections, message)
            for number, ws in enumerate(server.connections):
                await ws.send(f"own {number % 1}: " + message)
            for ws in opened:
                assert await ws.recv() == message
                assert await ws.recv() == "own 0: " + message
        assert opened[0].counters["bytes_received"] < 5 * 600
        assert plain.counters["bytes_received"] > 5 * 5000


async def test_what_does_not_get_smaller_is_sent_plain() -> None:
    deflate = {"compression": wsfast.Deflate(threshold=1)}  # 0 would ask for every message to be compressed
    async with clients(2, server_options=deflate, **deflate) as (server, opened):
        noise = os.urandom(5000)
        wsfast.broadcast(server.connections, noise)
        for ws in opened:
            assert await ws.recv() == noise
            assert ws.counters["bytes_received"] == 5004


@pytest.mark.parametrize(
    ("message", "compress", "size"),
    [
        ("short " * 20, None, 120 + 2),
        ("short " * 20, True, None),
        ("long " * 1000, None, None),
        ("long " * 1000, False, 5000 + 4),
        (os.urandom(5000), True, 5000 + 4),  # it gets no smaller
    ],
)
async def test_the_choice_by_message(message: Any, compress: bool | None, size: int | None) -> None:
    async with clients(1, server_options={"compression": "deflate"}, compression="deflate") as (server, opened):
        plain = await wsfast.connect(url_of(server))
        opened.append(plain)
        await until(lambda: len(server.connections) == 2)
        for _ in range(6):
            before = opened[0].counters["bytes_received"]
            wsfast.broadcast(server.connections, message, compress=compress)
            for ws in opened:
                assert await ws.recv() == message
            received = opened[0].counters["bytes_received"] - before
            if size is None:
                assert received < len(message) * 2 // 3
            else:
                assert received == size


async def test_noise_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """After four messages that did not shrink, those that follow are not even tried for a while."""
    tried: list[bytes] = []
    compress = CompressorPool.compress

    def noting(self: CompressorPool, data: bytes) -> bytes:
        tried.append(data)
        return compress(self, data)

    monkeypatch.setattr(CompressorPool, "compress", noting)
    deflate = {"compression": "deflate"}
    noise = [os.urandom(1000) for _ in range(13)]
    async with clients(2, server_options=deflate, **deflate) as (server, opened):
        for message in noise:
            wsfast.broadcast(server.connections, message)
            for ws in opened:
                assert await ws.recv() == message
    assert tried == [*noise[:4], noise[12]]


async def test_from_clients() -> None:
    """A client masks the message for each server."""
    for compression in (None, "deflate"):
        async with wsfast.serve(echo, "127.0.0.1", 0, compression=compression) as server:
            opened = [await wsfast.connect(url_of(server), compression=compression) for _ in range(3)]
            for message, text, expected in MESSAGES:
                wsfast.broadcast(opened, message, text=text)
                for ws in opened:
                    assert await ws.recv() == expected
            await asyncio.gather(*(ws.close() for ws in opened))


async def test_connections_that_are_not_open_are_skipped() -> None:
    async with clients(3) as (server, opened):
        await opened[0].close()
        await until(lambda: len(server.connections) == 2)
        closing = next(iter(server.connections))
        closing.close_nowait()
        opening = wsfast.WebSocket()
        wsfast.broadcast([*server.connections, opening, *opened[:1]], "x", raise_exceptions=True)
        received = []
        for ws in opened[1:]:
            with contextlib.suppress(wsfast.ConnectionClosed):
                received.append(await ws.recv())
        assert received == ["x"]


async def test_in_the_middle_of_a_message(caplog: pytest.LogCaptureFixture) -> None:
    async with clients(2) as (server, opened):
        busy, free = server.connections
        go_on = asyncio.Event()

        async def pieces() -> AsyncIterator[str]:
            yield "a"
            yield "b"
            await go_on.wait()
            yield "c"

        task = asyncio.create_task(busy.send(pieces()))
        await asyncio.sleep(0.01)
        wsfast.broadcast([busy, free], "x")
        assert [record.levelname for record in caplog.records if "broadcast skipped" in record.getMessage()] == [
            "WARNING"
        ]
        with pytest.raises(ExceptionGroup) as caught:
            wsfast.broadcast([busy, free], "y", raise_exceptions=True)
        assert [type(exc) for exc in caught.value.exceptions] == [wsfast.ConcurrencyError]
        go_on.set()
        await task
        wsfast.broadcast([busy, free], "z")
        received = sorted([[await ws.recv() for _ in range(n)] for ws, n in await sort_by_first(opened)])
        assert received == [["abc", "z"], ["x", "y", "z"]]


async def sort_by_first(opened: list[wsfast.WebSocket]) -> list[tuple[wsfast.WebSocket, int]]:
    """Tell how many messages each client will get: the one of the busy connection gets two."""
    await until(lambda: all(ws.counters["messages_received"] >= 2 for ws in opened))
    return [(ws, ws.counters["messages_received"]) for ws in opened]


@pytest.mark.parametrize("overflow", ["error", "drop", "close"])
@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_slow_receivers_hold_bounded_memory(overflow: Any, compression: Any) -> None:
    limit = 500_000

    async def script(peer: Peer) -> None:
        await peer.read_head()
        extension = ["Sec-WebSocket-Extensions: permessage-deflate"] if compression else []
        peer.accept(*extension)
        await asyncio.sleep(3600)

    async with scripted(script) as server:
        slow = await wsfast.connect(
            url_of(server), max_buffered=limit, overflow=overflow, compression=compression, close_timeout=0.2
        )
        noise = os.urandom(50_000)
        skipped = 0
        for _ in range(400):
            try:
                wsfast.broadcast([slow], noise, raise_exceptions=True)
            except* wsfast.BufferFull:
                skipped += 1
            assert slow.buffered_amount <= limit + 100
            await asyncio.sleep(0)
        if overflow == "error":
            assert skipped > 100
        else:
            assert skipped == 0
        if overflow == "close":
            assert slow.close_cause is CloseCause.OVERFLOW or slow.state is not wsfast.State.OPEN
        else:
            assert slow.state is wsfast.State.OPEN
        slow.abort()
        await slow.wait_closed()


async def test_slow_receivers_of_a_server() -> None:
    async with wsfast.serve(hold, "127.0.0.1", 0, max_buffered=500_000, overflow="drop") as server:
        ws = await wsfast.connect(url_of(server), read_limit=1000)
        (slow,) = server.connections
        for _ in range(400):
            wsfast.broadcast(server.connections, b"x" * 50_000)
            assert slow.buffered_amount <= 500_100
            await asyncio.sleep(0)
        assert slow.counters["messages_sent"] < 400
        ws.abort()
        await ws.wait_closed()


def test_wrong_messages() -> None:
    for message in (1, None, ["a"], {"a": 1}):
        with pytest.raises(TypeError, match="str or bytes-like"):
            wsfast.broadcast([], message)  # type: ignore[arg-type]
    with pytest.raises(UnicodeDecodeError):
        wsfast.broadcast([], b"\xff", text=True)
    with pytest.raises(UnicodeEncodeError):
        wsfast.broadcast([], "\ud800")


async def test_those_of_one_turn_are_one_write() -> None:
    """Between two calls nothing goes out, so that a turn costs each connection one write."""
    async with clients(2) as (server, opened):
        channels: list[Any] = [ws._channel for ws in server.connections]
        for number in range(100):
            wsfast.broadcast(server.connections, f"{number:08}")
        assert [channel.bytes_sent for channel in channels] == [0, 0]
        for ws in opened:
            for number in range(100):
                assert await ws.recv() == f"{number:08}"
        assert [channel.bytes_sent for channel in channels] == [1000, 1000]
