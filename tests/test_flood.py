"""Peers that flood: linear time, bounded memory, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import flooder
import pytest
from hostile import BINARY, CONT, FORMS, PING, PONG, TEXT, Echo, Peer, flood, frame, head, serving
from shared import SLOWNESS, echo, until

import wsfast

pytestmark = pytest.mark.anyio


# --- Linear time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "opcode"), [(None, TEXT), ("listener", BINARY), ("stream", TEXT)])
async def test_200_000_fragments_of_one_byte(form: str | None, opcode: int) -> None:
    count = 200_000
    async with serving(FORMS) as server:
        peer = await Peer.open(server, form)
        began = time.monotonic()
        await peer.send(frame(opcode, b"x", fin=False), frame(CONT, b"x", fin=False) * (count - 2), frame(CONT, b"x"))
        got = 0
        while got < count:
            got += len((await peer.read())[1])
        assert got == count
        assert time.monotonic() - began < 5 * SLOWNESS  # 200 KB in quadratic time are minutes


async def test_fragments_of_one_byte_take_time_in_proportion() -> None:
    async with serving(echo) as server:
        peer = await Peer.open(server)
        took = []
        for count in (50_000, 50_000, 200_000):
            data = frame(TEXT, b"x", fin=False) + frame(CONT, b"x", fin=False) * (count - 2) + frame(CONT, b"x")
            began = time.perf_counter()
            await peer.send(data)
            assert len((await peer.read())[1]) == count
            took.append(time.perf_counter() - began)
        assert took[2] < 12 * took[1] + 0.1


async def test_a_long_message_byte_by_byte_takes_time_in_proportion() -> None:
    """A partial frame is kept in one buffer that grows: repeated joins would be quadratic."""
    async with serving(echo, max_size=8 << 20) as server:
        peer = await Peer.open(server)
        took = []
        for size in (1 << 20, 1 << 20, 4 << 20):
            data = frame(BINARY, b"x" * size)
            began = time.perf_counter()
            for i in range(0, len(data), 4096):
                await peer.send(data[i : i + 4096])
            assert len((await peer.read())[1]) == size
            took.append(time.perf_counter() - began)
        assert took[2] < 12 * took[1] + 0.1


# --- Peers that never read ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
async def test_pings_from_a_peer_that_never_reads(form: str | None) -> None:
    """Their answers are coalesced (RFC 6455, 5.5.3), so that it may go on for ever."""
    total = 3 << 20
    async with serving(FORMS, buffers=65536) as server:
        peer = await Peer.open(server, form, buffers=4096)
        pings = b"".join(frame(PING, b"%0100d" % i) for i in range(1000))
        await flood(peer, server, pings, 1 << 20)
        tracemalloc.start()
        sent = await flood(peer, server, pings, total)
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        ws = next(iter(server.connections))
        assert held < 1 << 20
        assert ws.buffered_amount < 400_000
        # On the listener form reading pauses by itself, so that TCP holds the peer back.
        assert sent < total if form == "listener" else sent >= total
        # It takes up reading: the latest ping is answered at last.
        sending = asyncio.create_task(peer.send(peer.unsent, frame(PING, b"last")))
        while (await peer.read()) != (PONG, b"last"):
            pass
        await sending


async def test_only_the_latest_ping_is_answered_where_answers_pile_up() -> None:
    async with serving(echo, buffers=65536) as server:
        peer = await Peer.open(server, buffers=4096)
        count = 20_000
        data = b"".join(frame(PING, b"%0100d" % i) for i in range(count))
        await peer.send(data)  # all of it goes out, though no answer is read
        answers: list[Any] = []
        while not answers or int(answers[-1]) != count - 1:
            opcode, payload = await peer.read()
            assert opcode == PONG
            answers.append(payload)
        assert answers == sorted(answers)
        assert len(answers) == len(set(answers)) < count


@pytest.mark.parametrize("size", [10, 60_000])
async def test_a_listeners_echo_to_a_peer_that_never_reads(size: int) -> None:
    writable = []

    class Echoing(Echo):
        def on_writable(self) -> None:
            writable.append(self.ws.buffered_amount)

    one = frame(BINARY, b"x" * size)
    async with serving(Echoing, buffers=65536) as server:
        peer = await Peer.open(server, buffers=4096)
        data = one * (1 if size > 10 else 4000)
        sent = await flood(peer, server, data, 4 << 20)
        assert sent < 2 << 20, "TCP was to hold the peer back"
        ws = next(iter(server.connections))
        assert 65536 < ws.buffered_amount < 65536 * 4
        assert not writable
        # It reads at last: everything that arrived whole is answered.
        for _ in range(sent // len(one)):
            assert len((await peer.read())[1]) == size
        await until(lambda: writable)
        assert max(writable) <= 65536


async def test_a_message_handlers_echo_to_a_peer_that_never_reads() -> None:
    async with serving(FORMS, buffers=65536) as server:
        for form in (None, "stream"):
            peer = await Peer.open(server, form, buffers=4096)
            one = frame(BINARY, b"x" * 1000)
            sent = await flood(peer, server, one * 64, 4 << 20)
            assert sent < 2 << 20, "TCP was to hold the peer back"
            (ws,) = [ws for ws in server.connections if ws.subprotocol == form]
            assert 65536 < ws.buffered_amount < 65536 * 4
            whole = sent // len(one)
            got = 0
            while got < whole * 1000:
                got += len((await peer.read())[1])
            peer.reset()
            await until(lambda: not server.connections)


# --- Others do not wait -------------------------------------------------------------------------------------


@contextmanager
def flooding(server: wsfast.Server, subprotocol: str | None, data: bytes) -> Iterator[None]:
    """Have another process flood a server."""
    port = server.sockets[0].getsockname()[1]
    with subprocess.Popen([sys.executable, flooder.__file__, str(port)], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(head(subprotocol) + data)
        process.stdin.close()
        try:
            yield
        finally:
            process.kill()


async def round_trips(peer: Peer, seconds: float) -> list[float]:
    """Measure how long an echo takes, for so long: in time of this process, so that a busy machine does not count."""
    took = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.process_time()
        await peer.answered()
        took.append(time.process_time() - began)
        await asyncio.sleep(0.002)
    return took


async def swallow(ws: wsfast.WebSocket) -> None:
    """Take messages, and never wait for anything else."""
    while True:
        await ws.recv()


FLOODS = {
    "tiny": frame(BINARY, b"x"),
    "empty": frame(TEXT),
    "pings": frame(PING, b"x"),
    "pongs": frame(PONG),
    "empty fragments": frame(TEXT, fin=False) + frame(CONT, fin=False) * 40_000 + frame(CONT),
    "64 KiB": frame(BINARY, b"x" * 65536),
    "1 MiB": frame(BINARY, b"x" * 1048576),
}


@pytest.mark.parametrize(
    ("what", "form"),
    [
        *[("tiny", form) for form in ("echo", "swallow", "listener", "stream")],
        *[(what, form) for what in FLOODS if what != "tiny" for form in ("swallow", "listener")],
        ("pings", "stream"),
        ("64 KiB", "echo"),
    ],
)
async def test_others_do_not_wait_while_one_floods(what: str, form: str) -> None:
    forms = {None: echo, "echo": echo, "swallow": swallow, "listener": Echo, "stream": FORMS["stream"]}
    async with serving(forms) as server:
        peer = await Peer.open(server)
        with flooding(server, form, FLOODS[what]):
            await until(lambda: server.counters["bytes_received"] > 100_000)
            took = await round_trips(peer, 0.25 * SLOWNESS)
        assert statistics.median(took) < 0.05 * SLOWNESS
        assert max(took) < 0.5 * SLOWNESS


@asynccontextmanager
async def reading(server: wsfast.Server, subprotocol: str) -> AsyncIterator[None]:
    """Have another process read all that a server sends."""
    with flooding(server, subprotocol, frame(PONG)):
        await until(lambda: server.counters["bytes_sent"] > 100_000)
        yield


@pytest.mark.parametrize("form", ["tiny", "text", "large", "bytearray", "stream", "nowait", "pong"])
async def test_others_do_not_wait_while_a_handler_sends_without_end(form: str) -> None:
    """`send` gives the loop a turn, though nothing of it need ever wait for the peer."""

    async def tiny(ws: wsfast.WebSocket) -> None:
        while True:
            await ws.send(b"x")

    async def text(ws: wsfast.WebSocket) -> None:
        while True:
            await ws.send("\u20ac" * 100)

    async def large(ws: wsfast.WebSocket) -> None:
        while True:
            await ws.send(b"x" * 100_000)

    async def odd(ws: wsfast.WebSocket) -> None:
        while True:
            await ws.send(bytearray(100))

    async def stream(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        while True:
            await writer.write(b"x" * 100)
            await writer.flush()

    async def nowait(ws: wsfast.WebSocket) -> None:
        while True:
            ws.send_nowait(b"x")
            await ws.send(b"")

    async def pong(ws: wsfast.WebSocket) -> None:
        while True:
            await ws.pong()

    forms: dict[Any, Any] = {
        None: echo, "tiny": tiny, "text": text, "large": large, "bytearray": odd, "stream": stream, "nowait": nowait,
        "pong": pong,
    }  # fmt: skip
    async with serving(forms, stop_timeout=0.5) as server:
        peer = await Peer.open(server)
        async with reading(server, form):
            took = await round_trips(peer, 0.25 * SLOWNESS)
        assert statistics.median(took) < 0.05 * SLOWNESS
        assert max(took) < 0.5 * SLOWNESS


async def test_a_turn_is_full_at_128_kib() -> None:
    """One message of 64 KiB is sent without a turn of the loop, not one after the other."""
    turns: list[int] = []

    async def send(ws: wsfast.WebSocket) -> None:
        for _ in range(2):
            await ws.recv()
            gone: list[None] = []
            asyncio.get_running_loop().call_soon(gone.append, None)
            for _ in range(2):
                await ws.send(b"x" * 65536)
                turns.append(len(gone))

    async with serving(send, write_limit=1 << 20) as server:
        peer = await Peer.open(server)
        for _ in range(2):
            await peer.send(frame(BINARY, b"go"))
            for _ in range(2):
                await peer.read()
    assert turns == [0, 1, 0, 1]


async def test_others_do_not_wait_while_a_handler_compresses_without_end() -> None:
    async def zeros(ws: wsfast.WebSocket) -> None:
        while True:
            await ws.send(b"\0" * 1_000_000)

    async with serving({None: echo, "zeros": zeros}, compression="deflate", stop_timeout=0.5) as server:
        peer = await Peer.open(server)
        await Peer.open(server, "zeros", "Sec-WebSocket-Extensions: permessage-deflate")
        took = await round_trips(peer, 0.25 * SLOWNESS)
        assert statistics.median(took) < 0.05 * SLOWNESS


async def test_order_is_kept_over_many_turns() -> None:
    """One read holds more messages than one turn handles."""
    count = 20_000
    async with serving(FORMS) as server:
        for form in (None, "listener", "stream"):
            peer = await Peer.open(server, form)
            data = b"".join(frame(BINARY, b"%06d" % i) for i in range(count))
            sending = asyncio.create_task(peer.send(data))
            got = b""
            while len(got) < 6 * count:
                got += b"".join([(await peer.read())[1] for _ in range(1)])
            await sending
            assert got == b"".join(b"%06d" % i for i in range(count))
            peer.reset()
            await until(lambda: not server.connections)


async def test_a_turn_handles_no_more_than_256_messages() -> None:
    turns: list[int] = []

    class Counting(wsfast.Listener):
        def on_open(self) -> None:
            self.count = 0
            self.loop = asyncio.get_running_loop()

        def on_message(self, message: str | bytes) -> None:
            if not self.count:
                self.loop.call_soon(self.turn)
            self.count += 1

        def turn(self) -> None:
            turns.append(self.count)
            self.count = 0

    async with serving(Counting) as server:
        peer = await Peer.open(server)
        await peer.send(frame(BINARY, b"x") * 5000)
        await until(lambda: server.counters["messages_received"] == 5000)
        await until(lambda: sum(turns) == 5000)
        assert max(turns) <= 512  # a turn of the loop has at most one batch, and one read
