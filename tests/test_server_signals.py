"""A server that is told to stop by a signal, and connections that are told apart in time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile import FORMS, Peer, serving
from shared import until

import wsfast
from wsfast import State
from wsfast.server.listening import listen
from wsfast.server.signals import stopping_on_signals

pytestmark = pytest.mark.anyio

PROGRAM = """
import asyncio, sys, wsfast

async def handler(ws):
    await ws.send("hello")
    await ws.send(await ws.recv())  # raises at the end, which is no error
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

async def main():
    server = wsfast.Server(stop_timeout=5)
    server.register_handler(None, handler)
    await server.start("127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever(signals=True)
    print("done", flush=True)

if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


async def started(loop: str) -> tuple[asyncio.subprocess.Process, int]:
    path = os.pathsep.join([str(Path(wsfast.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        loop,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout is not None
    return process, int(await asyncio.wait_for(process.stdout.readline(), 20))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_in_order(number: signal.Signals, loop: str) -> None:
    process, port = await started(loop)
    async with wsfast.connect(f"ws://127.0.0.1:{port}/") as ws:
        assert await ws.recv() == "hello"
        process.send_signal(number)
        await asyncio.wait_for(ws.wait_closed(), 10)
        assert ws.close_code == 1001
    out, err = await asyncio.wait_for(process.communicate(), 10)
    assert (process.returncode, out, err) == (0, b"done\n", b"")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)], ids=repr)
async def test_a_second_signal_ends_the_program_at_once(numbers: tuple[signal.Signals, signal.Signals]) -> None:
    """Whatever the program does: this one's handler does not end, and does not let itself be cancelled."""
    process, port = await started("asyncio")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    writer.write(b"\x81\x88mask" + bytes(a ^ b for a, b in zip(b"stubborn", b"maskmask", strict=True)))
    await reader.readuntil(b"stubborn")
    process.send_signal(numbers[0])
    await reader.readuntil(b"\x88")  # its Close frame, which this peer does not answer
    began = time.monotonic()
    process.send_signal(numbers[1])
    out, err = await asyncio.wait_for(process.communicate(), 10)
    assert (process.returncode, out, err) == (-numbers[1], b"", b"")
    assert time.monotonic() - began < 4
    writer.close()


@pytest.fixture
def handlers() -> Iterator[list[Any]]:
    """The signals' handlers; they are set again afterwards."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield before
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, None])
async def test_signals_are_handled_as_before_afterwards(number: signal.Signals | None, handlers: list[Any]) -> None:
    """By `asyncio.run`, which cancels the main task on Ctrl-C, or by the program."""

    def mine(*args: object) -> None:
        raise AssertionError

    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, mine)
    server = wsfast.Server()
    server.register_handler(None, lambda ws: ws.wait_closed())
    serving = asyncio.create_task(server.serve_forever("127.0.0.1", 0, signals=True))
    await until(server.is_serving)
    if number is None:
        serving.cancel()
    else:
        os.kill(os.getpid(), number)
    await asyncio.wait([serving], timeout=10)
    assert serving.cancelled() if number is None else serving.exception() is None
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == [mine, mine]


async def test_a_signal_is_for_all_servers_of_a_loop(handlers: list[Any]) -> None:
    """An event loop has one handler for a signal: the second server must not take it from the first."""

    def mine(*args: object) -> None:
        raise AssertionError

    signal.signal(signal.SIGTERM, mine)
    servers, serving = [], []
    for _ in range(4):
        server = wsfast.Server()
        server.register_handler(None, lambda ws: ws.wait_closed())
        servers.append(server)
        serving.append(asyncio.create_task(server.serve_forever("127.0.0.1", 0, signals=True)))
        await until(server.is_serving)
    for ends_early in (serving[0], serving[3]):
        ends_early.cancel()
        await asyncio.wait([ends_early], timeout=10)
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: servers[1].closing)
    late = wsfast.Server()
    late.register_handler(None, lambda ws: ws.wait_closed())
    serving.append(asyncio.create_task(late.serve_forever("127.0.0.1", 0, signals=True)))
    await until(late.is_serving)
    assert signal.getsignal(signal.SIGTERM) not in (mine, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    done, _ = await asyncio.wait(serving, timeout=10)
    assert len(done) == len(serving)
    assert signal.getsignal(signal.SIGTERM) == mine


async def test_the_loops_own_handler_is_not_put_back_without_the_loop(handlers: list[Any]) -> None:
    """It would do nothing: the signal would be without any effect."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, print)
    with stopping_on_signals(print):
        pass
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


async def test_a_signal_before_it_listens(handlers: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the address may take its time."""
    server = wsfast.Server()
    server.register_handler(None, lambda ws: ws.wait_closed())
    asking = asyncio.Event()
    answer = asyncio.Event()

    async def slow(*args: Any, **options: Any) -> Any:
        asking.set()
        await answer.wait()
        return await listen(*args, **options)

    monkeypatch.setattr("wsfast.server.server.begin_listening", slow)
    serving = asyncio.create_task(server.serve_forever("127.0.0.1", 0, signals=True))
    await asking.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: server.closing)
    answer.set()
    await asyncio.wait_for(serving, 10)


async def test_connections_are_told_apart_in_time() -> None:
    async with serving(FORMS, stop_timeout=5) as server:
        peers = [await Peer.open(server) for _ in range(10)]
        began = time.monotonic()
        told: list[float] = []

        async def wait(peer: Peer) -> None:
            assert (await peer.read_close())[0] == 1001
            told.append(time.monotonic() - began)
            peer.close()

        waiting = asyncio.gather(*(wait(peer) for peer in peers))
        server.close(drain=1.0)
        assert not server.is_serving()
        await waiting
        await server.wait_closed()
        assert told[-1] <= 1.5
        # Each has a tenth of a second of its own.
        assert sum(0.3 < when < 0.7 for when in told) >= 2
        assert told[0] < 0.4


async def test_a_later_call_ends_the_drain() -> None:
    async with serving(FORMS, stop_timeout=5) as server:
        peers = [await Peer.open(server) for _ in range(3)]
        await until(lambda: len(server.connections) == 3)
        server.close(drain=60)
        await asyncio.sleep(0)
        assert any(ws.state is State.OPEN for ws in server.connections)
        began = time.monotonic()
        server.close()
        for peer in peers:
            assert (await peer.read_close())[0] == 1001
            peer.close()
        await server.wait_closed()
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(("drain", "error"), [(-1, ValueError), (float("inf"), ValueError), ("1", TypeError)])
async def test_a_wrong_drain_is_refused_at_once(drain: object, error: type[Exception]) -> None:
    async with serving(FORMS) as server:
        with pytest.raises(error, match="drain must be"):
            server.close(drain=drain)
        assert server.is_serving()
