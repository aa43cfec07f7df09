"""Backpressure both ways: memory follows the limits, not the peer, and what was paused goes on."""

from __future__ import annotations

import asyncio
import os
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hostile import (
    BINARY,
    CLOSE,
    CONT,
    PATIENCE,
    TEXT,
    Echo,
    Peer,
    certificate,
    close_frame,
    flood,
    frame,
    head,
    serving,
)
from shared import echo, until

import wsfast
from wsfast import ConnectionClosed
from wsfast.session import GRACE

pytestmark = pytest.mark.anyio

OVERHEAD = 64  # bytes that each held message counts for beside its own


async def blocked(peer: Peer, server: wsfast.Server, data: bytes, most: int = 2 << 20) -> int:
    """Send until TCP holds the peer back for good; return how many bytes went out."""
    sent = await flood(peer, server, data, most)
    assert sent < most, "TCP was to hold the peer back"
    return sent


class Step:
    """A handler, of messages or of a stream, that takes one thing at a time, when told."""

    def __init__(self) -> None:
        self.ws: wsfast.WebSocket | None = None
        self.go = asyncio.Semaphore(0)
        self.taken = 0

    async def opened(self, server: wsfast.Server) -> wsfast.WebSocket:
        """Open a connection to it."""
        await Peer.open(server)
        await until(lambda: self.ws)
        assert self.ws is not None
        return self.ws

    async def messages(self, ws: wsfast.WebSocket) -> None:
        self.ws = ws
        while True:
            await self.go.acquire()
            await ws.recv()
            self.taken += 1

    async def stream(self, reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        self.ws = writer._ws
        while True:
            await self.go.acquire()
            await reader.readexactly(1000)
            self.taken += 1


@pytest.mark.parametrize("form", ["messages", "stream"])
async def test_a_handler_that_does_not_read_pauses_the_transport(form: str) -> None:
    """In bytes held; the peer is held back by TCP, and reading goes on when a quarter is left."""
    step = Step()
    async with serving(getattr(step, form), buffers=16384) as server:
        peer = await Peer.open(server, buffers=4096)
        one = frame(BINARY, b"x" * 1000)
        sent = await blocked(peer, server, one * 16)
        ws = step.ws
        assert ws is not None
        channel = ws._channel
        # One read of 64 KiB may come on top of the limit.
        assert sent < 65536 * 2 + 400_000
        assert channel.paused

        def held() -> int:
            return channel.held if form == "messages" else len(channel.reader._buffer)

        assert 65536 < held() < 65536 * 2 + 70_000
        # Nothing is read while more than a quarter is held.
        received = ws.counters["bytes_received"]
        while held() > 65536 // 4 + 2000:
            step.go.release()
            taken = step.taken
            await until(lambda: step.taken == taken + 1)  # noqa: B023
            assert ws.counters["bytes_received"] == received
        for _ in range(4):
            step.go.release()
        await until(lambda: ws.counters["bytes_received"] > received)
        for _ in range(sent // len(one) - step.taken):
            step.go.release()
        await until(lambda: step.taken >= sent // len(one))


@pytest.mark.parametrize("count", [1023, 1024, 1025, 2000])
async def test_many_tiny_messages_count_for_more_than_their_bytes(count: int) -> None:
    """Each counts 64 bytes more than it has: 64 KiB are 1,024 empty messages."""
    step = Step()
    async with serving(step.messages) as server:
        peer = await Peer.open(server)
        await peer.send(frame(BINARY) * count)
        await until(lambda: server.counters["messages_received"] >= min(count, 1024))
        await asyncio.sleep(0.02)
        assert step.ws is not None
        channel = step.ws._channel
        assert channel.held <= 65536 + 256 * OVERHEAD  # a turn handles 256 at most
        assert bool(channel.paused) is (count > 1024)
        for _ in range(count):
            step.go.release()
        await until(lambda: step.taken == count)
        await until(lambda: not channel.paused)


async def test_a_queue_that_is_never_empty_holds_what_is_in_it_only() -> None:
    """A handler that is always behind: what it took leaves nothing behind, however many messages there were."""
    step = Step()
    async with serving(step.messages) as server:
        ws, message = await step.opened(server), frame(BINARY, b"x")
        ws._channel.feed(message * 10)
        tracemalloc.start()
        try:
            for _ in range(30_000):
                ws._channel.feed(message)
                assert await ws.recv() == b"x"
            assert tracemalloc.get_traced_memory()[0] < 50_000
        finally:
            tracemalloc.stop()
        assert ws._channel.held == 10 * (1 + OVERHEAD)


@pytest.mark.parametrize("limit", [1, 100, 1 << 20])
async def test_read_limit_is_an_option(limit: int) -> None:
    step = Step()
    async with serving(step.messages, read_limit=limit, max_size=None) as server:
        peer = await Peer.open(server)
        await peer.send(frame(BINARY, b"x" * (limit - 1)))
        await until(lambda: server.counters["messages_received"] == 1)
        assert step.ws is not None
        await until(lambda: step.ws and step.ws._channel.paused)
        step.go.release()
        await until(lambda: step.ws and not step.ws._channel.paused)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_a_message_that_comes_in_pieces_holds_its_bytes_only(opcode: int) -> None:
    """Its first piece came while `recv_streaming` was cancelled: it goes on in pieces, as many as the peer likes."""
    step = Step()
    async with serving(step.messages) as server:
        ws = await step.opened(server)
        pieces = ws.recv_streaming()
        receiving = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0)
        receiving.cancel()
        ws._channel.feed(frame(opcode, "é".encode(), fin=False))
        with suppress(asyncio.CancelledError):
            await receiving
        tracemalloc.start()
        try:
            for _ in range(5_000):
                ws._channel.feed(frame(CONT, "äö".encode(), fin=False))
            assert tracemalloc.get_traced_memory()[0] < 60_000
        finally:
            tracemalloc.stop()
        ws._channel.feed(frame(CONT))
        whole = "é" + 5_000 * "äö"
        assert await ws.recv() == (whole if opcode == TEXT else whole.encode())


async def test_the_end_of_streaming_does_not_resume_reading_while_much_is_held() -> None:
    step = Step()
    async with serving(step.messages) as server:
        ws = await step.opened(server)
        channel, pieces = ws._channel, ws.recv_streaming()
        channel.feed(frame(BINARY, b"x" * 1000) * 100)
        assert [len(piece) async for piece in pieces] == [1000]
        assert channel.paused
        while channel.held > 65536 // 4:
            assert channel.paused
            await ws.recv()
        assert not channel.paused


async def test_a_partial_message_never_pauses_reading() -> None:
    """Nothing would resume it: a deadlock in aiohttp."""
    async with serving(echo, read_limit=1000) as server:
        peer = await Peer.open(server)
        whole = frame(BINARY, b"x" * 500_000)
        for i in range(0, len(whole), 50_000):
            await peer.send(whole[i : i + 50_000])
            await asyncio.sleep(0.001)
        assert len((await peer.read())[1]) == 500_000
        fragments = [frame(TEXT, b"x" * 1000, fin=False), *[frame(0, b"x" * 1000, fin=False)] * 500, frame(0)]
        await peer.send(*fragments)
        assert len((await peer.read())[1]) == 501_000


async def test_readexactly_of_more_than_is_held_does_not_deadlock() -> None:
    async def handler(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        data = await reader.readexactly(1_000_000)
        await writer.write(b"%d" % len(data))
        await writer.flush()

    async with serving(handler) as server:
        peer = await Peer.open(server)
        sending = asyncio.create_task(peer.send(frame(BINARY, b"x" * 50_000) * 20))
        assert await peer.read() == (BINARY, b"1000000")
        await sending


async def test_memory_is_bounded_whatever_many_peers_send() -> None:
    step = Step()
    async with serving({None: step.messages, "listener": Echo}, buffers=16384) as server:
        tracemalloc.start()
        peers = [await Peer.open(server, buffers=4096) for _ in range(10)]
        for peer in peers:
            await blocked(peer, server, frame(BINARY, b"x" * 3000) * 8)
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert held < 10 * 400_000
        for peer in peers:
            peer.reset()


# --- Sending ------------------------------------------------------------------------------------------------


async def test_send_waits_above_high_water_and_goes_on_below_a_quarter() -> None:
    amounts: list[int] = []
    waits: list[int] = []

    async def handler(ws: wsfast.WebSocket) -> None:
        for _ in range(400):
            sending = asyncio.ensure_future(ws.send(b"x" * 3000))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if not sending.done():
                waits.append(ws.buffered_amount)
                await sending
                amounts.append(ws.buffered_amount)
            else:
                await sending
        await ws.close()

    async with serving(handler, buffers=16384) as server:
        peer = await Peer.open(server, buffers=4096)
        await until(lambda: waits)
        await asyncio.sleep(0.05)
        assert not amounts  # it waits as long as the peer does not read
        for _ in range(400):
            assert len((await peer.read())[1]) == 3000
        assert (await peer.read())[0] == CLOSE
        assert min(waits) > 65536
        assert max(waits) < 65536 * 2.5
        assert max(amounts) <= 65536 // 4 + 6000


@pytest.mark.parametrize("buffers", [4096, None])
async def test_what_the_socket_has_not_taken_is_not_touched_by_what_is_sent_next(buffers: int | None) -> None:
    """The memory of large frames serves again, but not before they have gone; and what is sent is what is read."""
    texts = [chr(0xE9 + i) * (20_000 + 7_001 * (i % 5)) for i in range(40)]

    async def handler(ws: wsfast.WebSocket) -> None:
        await asyncio.gather(*(ws.send(text) for text in texts))

    async with serving(handler, buffers=buffers and 16384) as server:
        peer = await Peer.open(server, buffers=buffers)
        await asyncio.sleep(0.05)
        for text in texts:
            assert await peer.read() == (TEXT, text.encode())
        assert (await peer.read())[0] == CLOSE


async def test_write_limit_is_an_option() -> None:
    waiting = asyncio.Event()
    held: list[int] = []

    async def handler(ws: wsfast.WebSocket) -> None:
        try:
            while True:
                sending = asyncio.ensure_future(ws.send(b"x" * 10_000))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                if not sending.done():
                    held.append(ws.buffered_amount)
                    waiting.set()
                await sending
        except ConnectionClosed:
            pass

    async with serving(handler, write_limit=1_000_000, buffers=16384) as server:
        peer = await Peer.open(server, buffers=4096)
        async with asyncio.timeout(5):
            await waiting.wait()
        assert 1_000_000 < held[0] < 1_200_000
        peer.reset()


async def test_all_that_wait_go_on_or_learn_that_it_is_over() -> None:
    results: list[object] = []

    async def handler(ws: wsfast.WebSocket) -> None:
        async def one() -> None:
            try:
                while True:
                    await ws.send(b"x" * 50_000)
            except ConnectionClosed as exc:
                results.append(exc)

        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(one())

    async with serving(handler, buffers=16384) as server:
        peer = await Peer.open(server, buffers=4096)
        for _ in range(30):
            assert len((await peer.read())[1]) == 50_000
        assert not results
        peer.reset()
        await until(lambda: len(results) == 5)


async def test_buffered_amount() -> None:
    amounts: list[int] = []
    done = asyncio.Event()

    async def handler(ws: wsfast.WebSocket) -> None:
        amounts.append(ws.buffered_amount)
        ws.send_nowait(b"x" * 100)
        amounts.append(ws.buffered_amount)
        await asyncio.sleep(0.01)
        amounts.append(ws.buffered_amount)
        for _ in range(20):
            ws.send_nowait(b"x" * 20_000)
        amounts.append(ws.buffered_amount)
        done.set()
        with suppress(ConnectionClosed):
            await ws.recv()
        amounts.append(ws.buffered_amount)

    async with serving(handler, buffers=8192) as server:
        peer = await Peer.open(server, buffers=4096)
        async with asyncio.timeout(5):
            await done.wait()
        assert amounts[:3] == [0, 102, 0]
        assert 300_000 < amounts[3] <= 400_080
        peer.reset()
        await until(lambda: len(amounts) == 5)
        assert amounts[4] == 0


async def test_on_writable_comes_when_what_is_unsent_has_gone() -> None:
    amounts: list[int] = []

    class Sender(wsfast.Listener):
        def on_open(self) -> None:
            for _ in range(10):
                self.ws.send_nowait(b"x" * 50_000)

        def on_writable(self) -> None:
            amounts.append(self.ws.buffered_amount)

    async with serving(Sender, buffers=8192) as server:
        peer = await Peer.open(server, buffers=4096)
        await asyncio.sleep(0.05)
        assert not amounts
        for _ in range(10):
            await peer.read()
        await until(lambda: amounts)
        assert amounts[0] <= 65536 // 4


# --- Backpressure and the end -------------------------------------------------------------------------------


async def test_close_works_while_reading_is_paused() -> None:
    """What nobody takes for a while is dropped, so that the peer's Close frame can be seen."""
    took: list[str] = []

    async def handler(ws: wsfast.WebSocket) -> None:
        await until(lambda: ws._channel.paused)
        async with asyncio.timeout(GRACE + 1):
            await ws.close(3000)
        took.append(str(ws.close_cause))
        # What was held before the close is still there for who wants it.
        assert await ws.recv() == b"x" * 1000

    async with serving(handler) as server:
        peer = await Peer.open(server)
        sending = asyncio.create_task(peer.send(frame(BINARY, b"x" * 1000) * 3000, close_frame(3000)))
        assert (await peer.read_close())[0] == 3000
        await sending
        await until(lambda: took)
        assert took == ["closed by us"]


@pytest.mark.parametrize("form", ["messages", "stream", "listener"])
async def test_what_came_whole_before_a_drop_is_delivered(form: str) -> None:
    """No message is lost that arrived whole, though the transport has ended."""
    got: list[int] = []
    ended: list[object] = []
    go = asyncio.Event()

    async def messages(ws: wsfast.WebSocket) -> None:
        await go.wait()
        try:
            async for message in ws:
                got.append(len(message))  # noqa: PERF401 - what came before an error counts
        except ConnectionClosed as exc:
            ended.append(exc)

    async def stream(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        await go.wait()
        try:
            while data := await reader.read():
                got.append(len(data))
        except ConnectionClosed as exc:
            ended.append(exc)

    class Taking(wsfast.Listener):
        def on_message(self, message: str | bytes) -> None:
            got.append(len(message))

        def on_close(self, code: int, reason: str) -> None:
            ended.append(code)

    async with serving({"messages": messages, "stream": stream, "listener": Taking}) as server:
        peer = await Peer.open(server, form)
        await peer.send(frame(BINARY, b"x" * 10) * 600, b"\x82\x8a\0\0\0\0half")
        await until(lambda: server.counters["bytes_received"] == 600 * 16 + 10)
        peer.close()
        await until(lambda: not server.connections)
        go.set()
        await until(lambda: ended)
        assert sum(got) == 6000 + (4 if form == "stream" else 0)


async def test_a_half_closed_peer_that_reads_nothing_is_dropped() -> None:
    """After its FIN the transport waits until all is written, which such a peer could put off for ever."""

    async def handler(ws: wsfast.WebSocket) -> None:
        with suppress(ConnectionClosed):
            while True:
                await ws.send(b"x" * 50_000)

    async with serving(handler, buffers=8192, close_timeout=0.3, ping_interval=None) as server:
        peer = await Peer.open(server, buffers=4096)
        await until(lambda: server.counters["bytes_sent"] > 100_000)
        peer.sock.shutdown(1)
        await until(lambda: not server.connections, 2)


async def test_a_listener_hears_the_close_of_a_peer_that_does_not_read() -> None:
    """Once this side has closed, what comes is dropped, so that there is nothing to hold a peer back for."""

    class Closing(wsfast.Listener):
        def on_open(self) -> None:
            for _ in range(2):
                self.ws.send_nowait(b"x" * 30_000)
            self.ws.close_nowait(3000)  # all of it goes out at the end of this turn

    async with serving(Closing, buffers=4096, write_limit=16384, close_timeout=PATIENCE) as server:
        peer = await Peer.open(server, buffers=4096)
        (ws,) = server.connections
        await until(lambda: ws._channel.write_paused)
        await peer.send(close_frame(3000))
        await until(lambda: ws.close_code == 3000)
        assert (await peer.read_close())[0] == 3000


@pytest.mark.parametrize("ping_interval", [None, 20.0])
@pytest.mark.parametrize("close_timeout", [None, 0.3])
async def test_a_half_closed_tls_peer_that_reads_nothing_is_dropped(
    ping_interval: float | None, close_timeout: float | None, tmp_path: Path
) -> None:
    """The end of TCP beneath TLS counts, though no close_notify came."""

    async def handler(ws: wsfast.WebSocket) -> None:
        with suppress(ConnectionClosed):
            while True:
                await ws.send(b"x" * 50_000)

    ours, theirs = certificate(tmp_path)
    options: dict[str, Any] = {"ping_interval": ping_interval, "close_timeout": close_timeout}
    async with serving(handler, ssl=ours, buffers=8192, **options) as server:
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=theirs, server_hostname="localhost", limit=1000
        )
        writer.write(head())
        await until(lambda: server.connections)
        (ws,) = server.connections
        await until(lambda: ws._channel.write_paused)
        with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as beneath:
            beneath.shutdown(socket.SHUT_WR)
        await until(lambda: not server.connections, 4)
        assert server.counters["causes"] == {wsfast.CloseCause.LOST: 1}
        writer.transport.abort()
        assert reader.at_eof() is False


@pytest.mark.parametrize("size", [10, 50_000])
async def test_who_sends_to_a_tls_peer_that_has_ended_while_reading_is_paused_learns_of_it(
    size: int, tmp_path: Path
) -> None:
    ends: list[ConnectionClosed] = []
    go = asyncio.Event()

    async def handler(ws: wsfast.WebSocket) -> None:
        await go.wait()
        try:
            while True:
                await ws.send(b"x" * size)
                await asyncio.sleep(0)
        except ConnectionClosed as exc:
            ends.append(exc)
        assert await ws.recv() == b"y" * 1000  # what came is there for who wants it

    ours, theirs = certificate(tmp_path)
    async with serving(handler, ssl=ours) as server:
        sock = socket.create_connection(server.sockets[0].getsockname())
        sock.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=sock, ssl=theirs, server_hostname="localhost")
        writer.write(head())
        await reader.readuntil(b"\r\n\r\n")
        (ws,) = server.connections
        writer.write(frame(BINARY, b"y" * 1000) * 70)
        await until(lambda: ws._channel.paused)
        writer.transport.abort()
        go.set()
        await until(lambda: ends)
        assert ends[0].cause is wsfast.CloseCause.LOST


@pytest.mark.parametrize("what", ["send", "fragments", "compressed"])
async def test_senders_that_wait_their_turn_learn_that_it_is_over(what: str) -> None:
    """Another sender is stuck in a message of fragments whose next piece never comes."""
    ends: list[str] = []
    sending = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield b"begin"
        sending.set()
        await asyncio.Event().wait()

    async def handler(ws: wsfast.WebSocket) -> None:
        async def send() -> None:
            await sending.wait()
            try:
                if what == "fragments":
                    await ws.send([b"a", b"b"])
                else:
                    await ws.send(b"x" * 1000, compress=what == "compressed")
            except ConnectionClosed as exc:
                ends.append(str(exc.cause))

        first = asyncio.create_task(ws.send(stuck()))
        await asyncio.gather(*(send() for _ in range(3)))
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first

    compression = wsfast.Deflate(executor_threshold=1) if what == "compressed" else None
    async with serving(handler, compression=compression) as server:
        peer = await Peer.open(server, None, *["Sec-WebSocket-Extensions: permessage-deflate"] * (what == "compressed"))
        await asyncio.wait_for(sending.wait(), 5)
        await asyncio.sleep(0)
        peer.reset()
        await until(lambda: len(ends) == 3)
        assert ends == [str(wsfast.CloseCause.LOST)] * 3
