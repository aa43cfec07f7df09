"""Every limit of docs/limits.md: at it, just under it, just over it. test_codec_limits has the decoder alone."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hostile import BINARY, CONT, FORMS, PING, PONG, TEXT, Echo, Peer, certificate, frame, head, serving
from shared import echo, until

import wsfast
from wsfast import BufferFull, CloseCause, ConnectionClosed
from wsfast.handshake.http11 import MAX_HEAD, MAX_HEADERS, MAX_LINE

pytestmark = pytest.mark.anyio


# --- The opening handshake: bytes ---------------------------------------------------------------------------


def padded(total: int) -> bytes:
    """Make a handshake of so many bytes, in lines that are short enough."""
    start = head()[:-2]
    room = total - len(start) - 2
    lines = []
    while room:
        size = min(room, 4000)
        if room - size in range(1, 10):
            size -= 10
        lines.append(b"X-Pad: " + b"x" * (size - 9) + b"\r\n")
        room -= size
    made = start + b"".join(lines) + b"\r\n"
    assert len(made) == total
    return made


def with_line(size: int) -> bytes:
    """Make a handshake with a header line of so many bytes, without its CR LF."""
    return head(None, "X-Long: " + "x" * (size - 8))


def with_target(size: int) -> bytes:
    """Make a handshake whose request line has so many bytes, without its CR LF."""
    return head().replace(b"GET / ", b"GET /" + b"x" * (size - 14) + b" ", 1)


def with_headers(count: int) -> bytes:
    """Make a handshake with so many headers."""
    return head(None, *[f"X-{i}: x" for i in range(count - 5)])


@pytest.mark.parametrize("cut", [None, 1000], ids=["whole", "cut"])
@pytest.mark.parametrize(
    ("made", "status"),
    [
        (padded(MAX_HEAD - 1), 101),
        (padded(MAX_HEAD), 101),
        (padded(MAX_HEAD + 1), 431),
        (with_line(MAX_LINE - 1), 101),
        (with_line(MAX_LINE), 101),
        (with_line(MAX_LINE + 1), 431),
        (with_target(MAX_LINE - 1), 101),
        (with_target(MAX_LINE), 101),
        (with_target(MAX_LINE + 1), 414),
        (with_headers(MAX_HEADERS - 1), 101),
        (with_headers(MAX_HEADERS), 101),
        (with_headers(MAX_HEADERS + 1), 431),
    ],
    ids=[f"{what}{by}" for what in ("head", "line", "target", "headers") for by in ("-1", "+0", "+1")],
)
async def test_handshake_bytes(made: bytes, status: int, cut: int | None) -> None:
    assert (MAX_LINE, MAX_HEAD, MAX_HEADERS) == (8192, 16384, 128)
    async with serving(echo) as server:
        peer = await Peer.dial(server)
        for i in range(0, len(made), cut or len(made)):
            await peer.send(made[i : i + (cut or len(made))])
        response = await peer.read_response()
        assert response.split(b" ")[1] == str(status).encode()
        if status != 101:
            assert b"Connection: close" in response
            await peer.read_to_end()
        peer.close()


async def test_headers_without_end_are_cut_off_at_once() -> None:
    """`websockets` reads 64 MB of them."""
    async with serving(echo) as server:
        peer = await Peer.dial(server)
        await peer.send(b"GET / HTTP/1.1\r\n", b"X-Pad: " + b"x" * 1000 + b"\r\n")
        sent = 0
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(2):
                while True:
                    sent += 65536
                    await peer.send((b"X-Pad: " + b"x" * 1015 + b"\r\n") * 64)
                    await asyncio.sleep(0)  # the server runs in this loop, and the system's buffers may take megabytes
                    if server.counters["refused"]:
                        break
        assert server.counters["refused"] == {431: 1}
        assert sent < 1 << 20
        peer.close()
        await until(lambda: not server.counters["handshakes"])


# --- The opening handshake: time ----------------------------------------------------------------------------


async def test_five_hundred_silent_connections_are_closed() -> None:
    async with serving(echo, open_timeout=0.3) as server:

        def cut_off() -> int:
            return sum("its opening handshake took too long" in line for line in server.log.of("wsfast.server"))

        peers = [await Peer.dial(server) for _ in range(500)]
        await until(lambda: cut_off() == 500)
        await until(lambda: not server.counters["handshakes"])
        for peer in peers:
            assert await peer.read_to_end() == b""
            peer.close()


async def test_a_byte_now_and_then_does_not_put_the_deadline_off() -> None:
    async with serving(echo, open_timeout=0.3) as server:
        peer = await Peer.dial(server)
        began = time.monotonic()
        with suppress(OSError):
            for byte in head(None, "X-Pad: " + "x" * 1000):
                await peer.send(bytes([byte]))
                await asyncio.sleep(0.01)
                if server.counters["handshakes"] == 0 and time.monotonic() - began > 0.1:
                    break
        assert 0.29 < time.monotonic() - began < 3
        assert server.counters["opened"] == 0
        peer.close()


async def test_a_handshake_just_in_time() -> None:
    async with serving(echo, open_timeout=0.6) as server:
        peer = await Peer.dial(server)
        made = head()
        for i in range(0, len(made), 20):
            await peer.send(made[i : i + 20])
            await asyncio.sleep(0.02)
        assert b" 101 " in await peer.read_response()
        await asyncio.sleep(0.7)
        await peer.answered()  # no deadline is left over
        peer.close()


async def test_a_slow_hook_is_cut_off_and_cancelled() -> None:
    cancelled = asyncio.Event()

    async def process_request(ws: wsfast.WebSocket, request: wsfast.Request) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async with serving(echo, open_timeout=0.2, process_request=process_request) as server:
        peer = await Peer.dial(server)
        await peer.send(head())
        assert await peer.read_to_end() == b""
        async with asyncio.timeout(1):
            await cancelled.wait()
        peer.close()


@pytest.mark.parametrize("ending", ["accept", "answer", "raise"])
async def test_a_slow_hook_that_will_not_be_cancelled(ending: str) -> None:
    """Whatever it says after the deadline comes too late."""
    ends: list[str] = []

    async def hook(ws: wsfast.WebSocket, request: wsfast.Request) -> wsfast.Response | None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ends.append(ending)
        if ending == "raise":
            raise ValueError("late")
        return ws.respond(200, "late") if ending == "answer" else None

    async with serving(echo, process_request=hook, open_timeout=0.1, noise=ending == "raise") as server:
        peer = await Peer.dial(server)
        await peer.send(head())
        assert await peer.read_to_end() == b""
        await until(lambda: ends)
        await until(lambda: not server.counters["handshakes"])
        assert server.counters["opened"] == 0


async def test_nobody_is_let_in_once_the_server_stops() -> None:
    servers: list[wsfast.Server] = []

    def hook(ws: wsfast.WebSocket, request: wsfast.Request) -> None:
        servers[0].close()

    async with serving(echo, process_request=hook) as server:
        servers.append(server)
        peer = await Peer.dial(server)
        await peer.send(head())
        answer = await peer.read_to_end()
        assert answer.startswith(b"HTTP/1.1 503 ") or not answer  # it may be dropped with the rest
        assert server.counters["opened"] == 0
        assert server.counters["refused"] == {503: 1}


async def test_a_large_answer_to_a_slow_reader() -> None:
    body = b"0123456789" * 50_000

    def hook(ws: wsfast.WebSocket, request: wsfast.Request) -> wsfast.Response:
        return ws.respond(200, body.decode())

    async with serving(echo, process_request=hook, buffers=16384) as server:
        peer = await Peer.dial(server, buffers=16384)
        await peer.send(head())
        assert (await peer.read_to_end()).endswith(b"\r\n\r\n" + body)


async def test_a_refused_peer_that_stays_is_dropped() -> None:
    async with serving(echo) as server:
        peer = await Peer.dial(server)
        await peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"426" in await peer.read_to_end()
        began = time.monotonic()
        with suppress(OSError):
            while server.counters["handshakes"]:
                await peer.send(b"more, and more")
                await asyncio.sleep(0.02)
        assert time.monotonic() - began < 3
        await until(lambda: not server.counters["handshakes"])
        peer.close()


async def test_tls_has_the_same_deadline(tmp_path: Path) -> None:
    server_side, client_side = certificate(tmp_path)
    async with serving(echo, ssl=server_side, open_timeout=0.3) as server:
        silent = await Peer.dial(server)
        drip = await Peer.dial(server)
        host, port = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(host, port, ssl=client_side, server_hostname="localhost")
        began = time.monotonic()

        async def dribble() -> None:
            with suppress(OSError, TimeoutError):
                for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 500:
                    await drip.send(bytes([byte]))
                    await asyncio.sleep(0.01)

        dribbling = asyncio.create_task(dribble())
        # TLS is set up, but no request comes.
        assert await reader.read() == b""
        with suppress(OSError, ssl.SSLError):
            writer.close()
            await writer.wait_closed()
        assert await silent.read_to_end() == b""
        await drip.read_to_end()
        assert time.monotonic() - began < 1.5
        dribbling.cancel()
        late = "refused: its opening handshake took too long"
        await until(lambda: sum(line.endswith(late) for line in server.log.of("wsfast.server")) == 3)
        silent.close()
        drip.close()


async def test_tls_and_request_share_one_deadline(tmp_path: Path) -> None:
    """The time that TLS took is not given back to the request."""
    server_side, client_side = certificate(tmp_path)
    client_side.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(echo, ssl=server_side, open_timeout=0.8) as server:
        peer = await Peer.dial(server)
        began = time.monotonic()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_side.wrap_bio(incoming, outgoing, server_hostname="localhost")
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await asyncio.sleep(0.2)
                await peer.send(outgoing.read())
                await peer._more()
                incoming.write(peer.buffer)
                peer.buffer = b""
        await peer.send(outgoing.read())
        assert time.monotonic() - began > 0.35
        await peer.read_to_end()
        assert time.monotonic() - began < 1.15
        peer.close()


# --- The size of a message ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_message_size(form: str | None, over: int) -> None:
    limit = 100_000
    async with serving(FORMS, max_size=limit) as server:
        peer = await Peer.open(server, form)
        await peer.send(frame(BINARY, b"x" * (limit + over)))
        if over <= 0:
            got = 0
            while got < limit + over:
                got += len((await peer.read())[1])
            assert got == limit + over
        else:
            code, reason = await peer.read_close()
            assert code == 1009
            assert str(limit) in reason
        peer.close()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("over", [0, 1])
async def test_message_size_over_fragments(form: str | None, over: int) -> None:
    limit = 1000
    async with serving(FORMS, max_size=limit) as server:
        peer = await Peer.open(server, form)
        await peer.send(frame(TEXT, b"x" * 999, fin=False), frame(CONT, b"", fin=False))
        await peer.send(frame(CONT, b"x" * (1 + over)))
        if over:
            assert (await peer.read_close())[0] == 1009
        else:
            got = b""
            while len(got) < limit:
                got += (await peer.read())[1]
            assert got == b"x" * limit
        peer.close()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(1 << 20) + 1, (1 << 32) + 1, (1 << 62)])
async def test_too_much_is_refused_from_the_declared_length(form: str | None, size: int) -> None:
    async with serving(FORMS) as server:
        peer = await Peer.open(server, form)
        tracemalloc.start()
        await peer.send(b"\x82\xff" + size.to_bytes(8, "big"))  # not even the masking key
        assert (await peer.read_close())[0] == 1009
        assert tracemalloc.get_traced_memory()[1] < 500_000
        tracemalloc.stop()
        peer.close()


async def test_a_declared_length_holds_no_memory_until_it_comes() -> None:
    async with serving(echo, max_size=1 << 30) as server:
        peers = [await Peer.open(server) for _ in range(20)]
        tracemalloc.start()
        for peer in peers:
            await peer.send(b"\x82\xff" + (1 << 30).to_bytes(8, "big") + b"\0\0\0\0", b"x" * 1000)
        await until(lambda: server.counters["bytes_received"] == 20 * 1014)
        assert tracemalloc.get_traced_memory()[0] < 20 * 20_000
        tracemalloc.stop()
        for peer in peers:
            peer.reset()


@pytest.mark.parametrize(("count", "code"), [(10, None), (11, 1009)])
async def test_max_fragments(count: int, code: int | None) -> None:
    async with serving(echo, max_fragments=10) as server:
        peer = await Peer.open(server)
        frames = [frame(TEXT, b"", fin=False), *[frame(CONT, b"", fin=False)] * (count - 2), frame(CONT, b"")]
        await peer.send(*frames)
        if code:
            assert (await peer.read_close())[0] == code
        else:
            assert await peer.read() == (TEXT, b"")
        peer.close()


# --- Sending without waiting --------------------------------------------------------------------------------


def unsent(ws: wsfast.WebSocket, size: int) -> None:
    """Fill what the system takes, then until so many bytes are unsent."""
    while ws.buffered_amount == 0:
        ws.send_nowait(b"x" * 65000)
        ws._channel.flush()
    while (left := size - ws.buffered_amount) > 0:
        ws.send_nowait(b"x" * max(0, min(left - 4, 60000)))
        ws._channel.flush()


@pytest.mark.parametrize("overflow", ["error", "drop", "close"])
async def test_send_nowait_policies(overflow: str) -> None:
    limit = 500_000
    result: dict[str, object] = {}
    done = asyncio.Event()

    async def handler(ws: wsfast.WebSocket) -> None:
        unsent(ws, limit - 1000)
        room = limit - ws.buffered_amount
        assert ws.send_nowait(b"x" * (room - 4 - 1)) is True  # a frame's head has 4 bytes
        assert ws.buffered_amount == limit - 1
        try:
            assert ws.send_nowait(b"x") is True  # at the limit
            result["sent"] = ws.send_nowait(b"x")
        except (BufferFull, ConnectionClosed) as exc:
            result["error"] = exc
        result["state"] = ws.state.name
        result["after"] = ws.buffered_amount
        done.set()
        await asyncio.sleep(60)

    # Only the peer of "close" takes up reading again; on a busy machine that takes it a while.
    patience = 5 if overflow == "close" else 0.3
    async with serving(
        handler, max_buffered=limit, overflow=overflow, close_timeout=patience, stop_timeout=0.5
    ) as server:
        peer = await Peer.open(server, buffers=4096)
        async with asyncio.timeout(5):
            await done.wait()
        assert result["after"] in range(limit + 2, limit + 50)
        if overflow == "error":
            assert isinstance(result["error"], BufferFull)
            assert "500000" in str(result["error"])
            assert result["state"] == "OPEN"
        elif overflow == "drop":
            assert result["sent"] is False
            assert result["state"] == "OPEN"
        else:
            assert isinstance(result["error"], ConnectionClosed)
            assert result["error"].cause is CloseCause.OVERFLOW
            assert result["error"].sent is not None
            assert result["error"].sent.code == 1013
            assert result["state"] == "CLOSING"
            # A peer that takes up reading learns why.
            assert (await peer.read_close())[0] == 1013
            await until(lambda: server.counters["causes"].get(CloseCause.OVERFLOW) == 1)
        peer.reset()


@pytest.mark.parametrize(
    "message",
    [
        "\u20ac" * 100_000,
        b"x" * 300_000,
        memoryview(b"x" * 300_000),
        memoryview(b"x" * 300_000).cast("Q"),
        memoryview(b"x" * 300_000).cast("B", (1, 300_000)),
    ],
    ids=["text", "bytes", "memoryview", "words", "two dimensions"],
)
async def test_send_nowait_counts_bytes(message: str | bytes | memoryview) -> None:
    done = asyncio.Event()

    async def handler(ws: wsfast.WebSocket) -> None:
        try:
            unsent(ws, 60_000)  # less than `write_limit`
            with pytest.raises(BufferFull):
                ws.send_nowait(message)
        finally:
            done.set()

    async with serving(handler, max_buffered=350_000) as server:
        peer = await Peer.open(server, buffers=4096)
        async with asyncio.timeout(5):
            await done.wait()
        assert (await peer.read_close())[0] == 1000
        peer.close()


@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_write_limit(over: int) -> None:
    """What is unsent may be as much as the limit; with a byte more, `send` waits."""
    limit = 200_000
    waits: list[bool] = []

    async def handler(ws: wsfast.WebSocket) -> None:
        unsent(ws, limit - 1000)
        ws.send_nowait(b"x" * (limit + over - ws.buffered_amount - 4))  # a frame's head has 4 bytes
        ws._channel.flush()
        assert ws.buffered_amount == limit + over
        waiting = asyncio.ensure_future(ws._channel.outbox.drain())
        for _ in range(3):
            await asyncio.sleep(0)
        waits.append(not waiting.done())
        waiting.cancel()

    async with serving(handler, write_limit=limit, close_timeout=0.3, stop_timeout=0.5) as server:
        peer = await Peer.open(server, buffers=4096)
        await until(lambda: waits)
        assert waits == [over > 0]
        peer.reset()


async def test_no_limit_on_what_is_unsent() -> None:
    done = asyncio.Event()

    async def handler(ws: wsfast.WebSocket) -> None:
        for _ in range(100):
            ws.send_nowait(b"x" * 100_000)
        done.set()
        await ws.recv()

    async with serving(handler, max_buffered=None) as server:
        peer = await Peer.open(server)
        async with asyncio.timeout(5):
            await done.wait()
        for _ in range(100):
            assert len((await peer.read())[1]) == 100_000
        peer.close()


# --- Pings of ours ------------------------------------------------------------------------------------------


async def test_unanswered_pings_are_bounded() -> None:
    done = asyncio.Event()

    async def handler(ws: wsfast.WebSocket) -> None:
        for _ in range(64):
            await ws.ping()
        with pytest.raises(wsfast.InvalidState, match="64 pings are unanswered"):
            await ws.ping()
        done.set()
        await ws.recv()

    async with serving(handler) as server:
        peer = await Peer.open(server)
        async with asyncio.timeout(5):
            await done.wait()
        peer.close()


@pytest.mark.parametrize(("size", "good"), [(0, True), (124, True), (125, True), (126, False)])
async def test_ping_payload(size: int, good: bool) -> None:
    async def handler(ws: wsfast.WebSocket) -> None:
        if good:
            assert await (await ws.ping(b"x" * size)) >= 0
        else:
            with pytest.raises(ValueError, match="125"):
                await ws.ping(b"x" * size)
        await ws.send("done")

    async with serving(handler) as server:
        peer = await Peer.open(server)
        if good:
            opcode, payload = await peer.read()
            assert (opcode, len(payload)) == (9, size)
            await peer.send(frame(10, payload))
        assert await peer.read() == (TEXT, b"done")
        peer.close()


# --- Closing and stopping -----------------------------------------------------------------------------------


async def test_close_timeout() -> None:
    result: dict[str, object] = {}

    async def handler(ws: wsfast.WebSocket) -> None:
        began = time.monotonic()
        await ws.close(3000, "bye")
        result["took"] = time.monotonic() - began
        result["cause"] = ws.close_cause

    async with serving(handler, close_timeout=0.3) as server:
        peer = await Peer.open(server)
        assert await peer.read() == (8, (3000).to_bytes(2, "big") + b"bye")
        assert await peer.read_to_end() == b""  # the Close frame is never answered
        await until(lambda: "took" in result)
        assert 0.29 < float(str(result["took"])) < 3
        assert result["cause"] is CloseCause.TIMEOUT
        peer.close()
        assert server.counters["causes"] == {CloseCause.TIMEOUT: 1}


async def test_a_peer_that_goes_on_after_its_close_is_dropped() -> None:
    async with serving(echo) as server:
        peer = await Peer.open(server)
        await peer.send(frame(8))
        assert await peer.read() == (8, b"")
        began = time.monotonic()
        with suppress(OSError):
            while server.counters["connections"]:
                await peer.send(frame(TEXT, b"more"))
                await asyncio.sleep(0.02)
        assert time.monotonic() - began < 3
        await until(lambda: not server.counters["connections"])
        peer.close()


async def test_stop_timeout() -> None:
    """Handlers that do not listen are cancelled, peers that do not answer are dropped."""
    cancelled = []

    async def deaf(ws: wsfast.WebSocket) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(ws)
            raise

    async with serving({None: deaf, "echo": echo, "listener": Echo}, stop_timeout=0.5) as server:
        peers = [await Peer.open(server, name) for name in (None, "echo", "listener")]
        silent = await Peer.dial(server)
        await until(lambda: server.counters["handshakes"] == 1)
        began = time.monotonic()
        server.close()
        await server.wait_closed()
        assert 0.3 < time.monotonic() - began < 3
        assert len(cancelled) == 1
        for peer in peers:
            assert await peer.read_close() == (1001, "")
            peer.close()
        assert await silent.read_to_end() == b""
        silent.close()
        assert server.counters["causes"] == {CloseCause.STOP: 3}
        assert server.counters["connections"] == 0


async def test_stop_is_quick_with_peers_that_answer() -> None:
    async with serving({None: echo, "listener": Echo}, stop_timeout=5.0) as server:
        peers = [await Peer.open(server, name) for name in (None, "listener")]
        server.close()
        began = time.monotonic()
        for peer in peers:
            assert await peer.read() == (8, (1001).to_bytes(2, "big"))
            await peer.send(frame(8, (1001).to_bytes(2, "big")))
            peer.sock.shutdown(socket.SHUT_WR)
        await server.wait_closed()
        assert time.monotonic() - began < 0.5
        for peer in peers:
            peer.close()


# --- Options ------------------------------------------------------------------------------------------------


SIZES = ["max_size", "max_fragments", "read_limit", "write_limit", "max_buffered"]
TIMES = ["open_timeout", "ping_interval", "ping_timeout", "close_timeout", "stop_timeout"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *((option, -1) for option in [*SIZES, *TIMES]),
        *((option, 0) for option in [*SIZES, "open_timeout", "stop_timeout"]),
    ],
)
async def test_limits_must_be_positive(option: str, value: int) -> None:
    with pytest.raises(ValueError, match=option):
        wsfast.Server(**{option: value})  # type: ignore[arg-type]


async def test_no_time_at_all_for_the_answer_to_a_close() -> None:
    """As in websockets: the Close frame goes out, and the connection is dropped."""
    async with serving(FORMS, close_timeout=0) as server:
        peer = await Peer.open(server)
        (ws,) = server.connections
        await asyncio.wait_for(ws.close(4000), 1)
        assert ws.close_cause is CloseCause.TIMEOUT
        assert (await peer.read_close())[0] == 4000


async def test_no_time_at_all_for_the_answer_to_a_ping() -> None:
    async with serving(FORMS, ping_interval=0.05, ping_timeout=0) as server:
        peer = await Peer.open(server)
        assert (await peer.read())[0] == PING
        assert (await peer.read_close())[0] == 1011
        await until(lambda: not server.connections)
        assert server.counters["causes"] == {CloseCause.KEEPALIVE: 1}


async def test_no_time_between_pings() -> None:
    async with serving(FORMS, ping_interval=0, ping_timeout=5) as server:
        peer = await Peer.open(server)
        for _ in range(20):
            opcode, payload = await peer.read()
            assert opcode == PING
            await peer.send(frame(PONG, payload))


@pytest.mark.parametrize("option", TIMES)
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
async def test_times_must_be_finite(option: str, value: float) -> None:
    """None is how to have no limit; a deadline that is no number would put all others out of order."""
    with pytest.raises(ValueError, match=option):
        wsfast.Server(**{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["max_size", "max_fragments", "max_buffered"])
async def test_limits_on_sizes_may_be_none_but_no_float(option: str) -> None:
    wsfast.Server(**{option: None})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=option):
        wsfast.Server(**{option: 1.5})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=option):
        wsfast.Server(**{option: True})  # type: ignore[arg-type]


async def test_overflow_must_be_known() -> None:
    with pytest.raises(ValueError, match="overflow"):
        wsfast.Server(overflow="wait")  # type: ignore[arg-type]
