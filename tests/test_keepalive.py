"""Keepalive: who is gone is noticed in time, who is slow but alive is left alone."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from contextlib import suppress
from typing import Any

import pytest
from certificates import Certificates
from hostile import BINARY, CLOSE, CONT, FORMS, PATIENCE, PING, PONG, TEXT, Echo, Peer, close_frame, frame, serving
from shared import echo, until

import wsfast
from wsfast import CloseCause, ConnectionClosedError

pytestmark = pytest.mark.anyio

INTERVAL: dict[str, Any] = {"ping_interval": 0.15, "ping_timeout": 0.15}
LONG = 1.0  # seconds after which a connection that is not alive would be closed for sure


def cause(server: wsfast.Server) -> Any:
    """Return why the one connection ended."""
    (only,) = server.counters["causes"]
    return only


@pytest.mark.parametrize("form", FORMS)
async def test_a_ping_after_silence_and_then_the_end(form: str | None) -> None:
    async with serving(FORMS, **INTERVAL) as server:
        began = time.monotonic()
        peer = await Peer.open(server, form)
        opcode, payload = await peer.read()
        assert opcode == PING
        assert len(payload) == 4
        assert time.monotonic() - began > 0.14
        assert await peer.read() == (CLOSE, (1011).to_bytes(2, "big") + b"keepalive ping timeout")
        assert 0.29 < time.monotonic() - began < 3
        await peer.read_to_end()
        await until(lambda: not server.counters["connections"])
        assert cause(server) is CloseCause.KEEPALIVE
        assert any("keepalive timeout" in line for line in server.log.of("wsfast.server"))


async def test_the_handler_is_told() -> None:
    caught: list[ConnectionClosedError] = []

    async def handler(ws: wsfast.WebSocket) -> None:
        try:
            await ws.recv()
        except ConnectionClosedError as exc:
            caught.append(exc)

    async with serving(handler, **INTERVAL) as server:
        peer = await Peer.open(server)
        await peer.read_close()
        await until(lambda: caught)
        assert caught[0].cause is CloseCause.KEEPALIVE
        assert caught[0].sent == (1011, "keepalive ping timeout")
        assert caught[0].rcvd is None
        assert caught[0].code == 1006
        assert "keepalive" in str(caught[0])


async def test_a_peer_that_answers_stays() -> None:
    async with serving(echo, **INTERVAL) as server:
        peer = await Peer.open(server)
        ws = next(iter(server.connections))
        end = time.monotonic() + LONG
        pings = 0
        while time.monotonic() < end:
            opcode, payload = await peer.read()
            assert opcode == PING
            await peer.send(frame(PONG, payload))
            pings += 1
        assert 2 <= pings <= 7
        await peer.answered()
        assert 0 < ws.latency < 0.15


@pytest.mark.parametrize(
    "what", [frame(TEXT, b"x"), frame(PONG, b"unasked"), frame(PING), b"\x82", frame(CONT, fin=False)],
    ids=["message", "pong", "ping", "byte", "fragment"],
)  # fmt: skip
async def test_anything_that_comes_is_a_sign_of_life(what: bytes) -> None:
    async with serving(FORMS, **INTERVAL) as server:
        peer = await Peer.open(server)
        if what[0] & 15 == CONT:
            await peer.send(frame(TEXT, fin=False))
        # One byte at a time, of a long frame that never ends.
        drip = b"\x82\xff" + (1000).to_bytes(2, "big") if what == b"\x82" else b""
        if drip:
            await peer.send(b"\x82\xfe" + (1000).to_bytes(2, "big") + b"mask")
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            await peer.send(b"x" if drip else what)
            await asyncio.sleep(0.03)
        assert server.counters["connections"] == 1


async def test_a_wrong_pong_is_a_sign_of_life_but_no_answer() -> None:
    """RFC 6455, 5.5.3: a Pong may come unasked."""
    async with serving(echo, **INTERVAL) as server:
        peer = await Peer.open(server)
        ws = next(iter(server.connections))
        for _ in range(3):
            assert (await peer.read())[0] == PING
            await peer.send(frame(PONG, b"no"))
        assert ws.latency == 0
        assert ws.state.name == "OPEN"


async def test_not_while_the_handler_does_not_read() -> None:
    """Nothing can be heard then: that is this program's doing."""
    go = asyncio.Event()
    got = []

    async def handler(ws: wsfast.WebSocket) -> None:
        await go.wait()
        async for message in ws:
            got.append(len(message))  # noqa: PERF401 - they are counted as they come

    async with serving(handler, buffers=65536, **INTERVAL) as server:
        peer = await Peer.open(server, buffers=4096)
        sending = asyncio.create_task(peer.send(frame(BINARY, b"x" * 10_000) * 100))
        await asyncio.sleep(LONG)
        assert not sending.done()
        assert server.counters["connections"] == 1
        go.set()
        await sending
        await until(lambda: sum(got) == 1_000_000)
        assert server.counters["connections"] == 1


@pytest.mark.parametrize("form", ["handler", "listener"])
async def test_not_while_a_slow_peer_takes_what_is_sent(form: str) -> None:
    """It cannot answer a ping that stands in the line behind what it reads."""

    async def handler(ws: wsfast.WebSocket) -> None:
        while True:
            await ws.send(b"x" * 50_000)

    class Sender(wsfast.Listener):
        def on_open(self) -> None:
            self.on_writable()

        def on_writable(self) -> None:
            while self.ws.buffered_amount < 200_000:
                self.ws.send_nowait(b"x" * 50_000)
                self.ws._channel.flush()

    async with serving(
        {"handler": handler, "listener": Sender}, buffers=16384, ping_interval=0.3, ping_timeout=0.3, stop_timeout=0.3
    ) as server:
        peer = await Peer.open(server, form, buffers=4096)
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            with suppress(BlockingIOError):
                assert peer.sock.recv(20_000)
            await asyncio.sleep(0.02)
        assert server.counters["connections"] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what the peer has not acknowledged")
async def test_not_while_a_slow_peer_takes_what_the_kernel_holds() -> None:
    """The transport has nothing left to write then; found by the soak test's slow readers."""

    async def handler(ws: wsfast.WebSocket) -> None:
        await ws.send(b"x" * 300_000)
        await ws.recv()

    async with serving({None: handler}, ping_interval=0.3, ping_timeout=0.3, stop_timeout=0.3) as server:
        peer = await Peer.open(server, buffers=4096)
        (ws,) = server.connections
        await until(lambda: ws.counters["bytes_sent"] > 300_000)
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            with suppress(BlockingIOError):
                assert peer.sock.recv(2000)
            await asyncio.sleep(0.02)
        assert server.counters["connections"] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a socket holds")
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_what_the_kernel_holds_is_known(secure: bool, certs: Certificates) -> None:
    """Above TLS and on the loop's own transports too: it is how a slow peer is told from one that is gone."""
    served: list[wsfast.WebSocket] = []

    async def handler(ws: wsfast.WebSocket) -> None:
        served.append(ws)
        await ws.send(b"x" * 300_000)
        await ws.wait_closed()

    def count() -> int:
        channel = served[0]._open_channel()
        channel._count_unsent()
        return channel.session.unsent

    context = certs.server_context() if secure else None
    async with serving(handler, ssl=context) as server:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(server.sockets[0].getsockname())
        with sock:
            uri = "wss://localhost/" if secure else "ws://localhost/"
            tls: Any = {"ssl": certs.client_context()} if secure else {}
            client = await wsfast.connect(uri, sock=sock, max_size=None, **tls)
            assert client.transport is not None
            client.transport.pause_reading()
            await until(lambda: served and served[0].counters["bytes_sent"] > 300_000)
            assert count() - served[0].transport.get_write_buffer_size() > 10_000  # type: ignore[union-attr]
            client.transport.resume_reading()
            assert len(await client.recv()) == 300_000
            await until(lambda: not count())
            await client.close()


@pytest.mark.parametrize("form", ["handler", "listener", "both"])
async def test_a_peer_that_takes_nothing_is_lost(form: str) -> None:
    """Though no ping of ours can reach it: what is unsent would be held for ever."""

    async def handler(ws: wsfast.WebSocket) -> None:
        while True:
            await ws.send(b"x" * 50_000)

    async with serving({"handler": handler, "listener": Echo, "both": echo}, buffers=16384, **INTERVAL) as server:
        peer = await Peer.open(server, form, buffers=4096)
        sending = None
        if form != "handler":
            sending = asyncio.create_task(peer.send(frame(BINARY, b"x" * 50_000) * 40))
        await until(lambda: server.counters["bytes_sent"] > 100_000)
        began = time.monotonic()
        await until(lambda: not server.counters["connections"])
        assert time.monotonic() - began < 1.5
        assert cause(server) is CloseCause.KEEPALIVE
        if sending is not None:
            with pytest.raises(OSError):  # noqa: PT011
                await sending


@pytest.mark.parametrize("form", [None, "listener"])
async def test_a_peer_that_is_always_behind_is_answered(form: str | None) -> None:
    """It reads steadily, but less than it is sent: what is unsent never falls below a quarter of `write_limit`."""
    feeding: list[asyncio.Task[None]] = []

    async def feed(ws: wsfast.WebSocket) -> None:
        while ws.state is wsfast.State.OPEN:
            while ws.buffered_amount < 300_000:
                ws.send_nowait(b"x" * 10_000)
            await asyncio.sleep(0.002)

    class Feeder(wsfast.Listener):
        def on_open(self) -> None:
            feeding.append(asyncio.create_task(feed(self.ws)))

    options: dict[str, Any] = {"buffers": 16384, "write_limit": 32768, "ping_interval": 0.5, "ping_timeout": 1}
    async with asyncio.timeout(2 * PATIENCE), serving(feed if form is None else Feeder, **options) as server:
        peer = await Peer.open(server, buffers=8192)
        answered = sent = 0
        while answered < 3:
            if sent <= answered:
                sent += 1
                await peer.send(frame(PING, b"%d" % sent))
            for _ in range(5):
                opcode, payload = await peer.read()
                if opcode == PONG:
                    assert payload == b"%d" % sent
                    answered += 1
            await asyncio.sleep(0.005)
        await peer.send(close_frame())
        assert (await peer.read_close())[0] == 1000
        await asyncio.gather(*feeding)


async def test_without_ping_timeout_nobody_is_closed_and_nothing_piles_up() -> None:
    async with serving(echo, ping_interval=0.03, ping_timeout=None) as server:
        peer = await Peer.open(server)
        ws = next(iter(server.connections))
        for _ in range(20):
            assert (await peer.read())[0] == PING
        assert server.counters["connections"] == 1
        ws._channel.session._pings = {b"%d" % i: (None, 0.0) for i in range(64)}
        for _ in range(5):
            assert (await peer.read())[0] == PING
        assert len(ws._channel.session._pings) <= 64


async def test_without_ping_interval_there_is_no_ping() -> None:
    async with serving(echo, ping_interval=None) as server:
        peer = await Peer.open(server)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await peer.read()
        ws = next(iter(server.connections))
        assert ws._channel.due == 0


async def test_no_timer_and_no_task_for_an_idle_connection() -> None:
    """One coarse timer for all of a server, and no task at all on the listener form."""
    loop = asyncio.get_running_loop()
    async with serving({"listener": Echo}) as server:
        for _ in range(3):
            await Peer.open(server, "listener")
        await asyncio.sleep(0.05)
        tasks = asyncio.all_tasks()

        def timers() -> int:  # uvloop does not tell
            return sum(not handle.cancelled() for handle in getattr(loop, "_scheduled", ()))

        before = timers()
        for _ in range(50):
            await Peer.open(server, "listener")
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == tasks
        assert timers() <= before + 2


async def test_user_pings_and_their_latency() -> None:
    result: list[Any] = []

    async def handler(ws: wsfast.WebSocket) -> None:
        first, second = await ws.ping(b"1"), await ws.ping("2")
        with pytest.raises(wsfast.ConcurrencyError):
            await ws.ping(b"1")
        result.append((await first, await second, ws.latency))
        left_alone = await ws.ping()
        del left_alone
        waiting = await ws.ping(b"lost")
        with pytest.raises(ConnectionClosedError):
            await waiting
        result.append(None)

    async with serving(handler) as server:
        peer = await Peer.open(server)
        assert await peer.read() == (PING, b"1")
        assert await peer.read() == (PING, b"2")
        await peer.send(frame(PONG, b"2"))  # RFC 6455, 5.5.3: it answers both
        await until(lambda: result)
        first, second, latency = result[0]
        assert first >= second == latency > 0
        peer.reset()
        await until(lambda: len(result) == 2)
