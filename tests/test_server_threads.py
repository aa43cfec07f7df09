"""`Server.start(..., threads=N)`: one server on several event loops, each in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from shared import until

import wsfast

pytestmark = pytest.mark.anyio

THREADS = 3
CONNECTIONS = 24
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def silent() -> logging.Logger:
    """Return a logger that is nobody else's, whose errors are expected."""
    logger = logging.Logger("silent")
    logger.addHandler(logging.NullHandler())
    return logger


async def where(ws: wsfast.WebSocket) -> None:
    """Tell each client which thread serves it, then echo."""
    await ws.send(threading.current_thread().name)
    async for message in ws:
        await ws.send(message)


@contextlib.asynccontextmanager
async def clients(server: wsfast.Server, count: int) -> AsyncIterator[list[wsfast.WebSocket]]:
    async with contextlib.AsyncExitStack() as stack:
        port = server.sockets[0].getsockname()[1]
        yield [await stack.enter_async_context(wsfast.connect(f"ws://127.0.0.1:{port}/")) for _ in range(count)]


async def test_all_threads_serve_and_are_counted() -> None:
    before = set(threading.enumerate())
    async with wsfast.serve(where, "127.0.0.1", 0, threads=THREADS) as server:
        async with clients(server, CONNECTIONS) as connected:
            names = [await ws.recv() for ws in connected]
            # By chance, one of 3 gets none of 24 once in 6,000 runs; that one gets all is out of the question.
            assert len(set(names)) > 1
            for i, ws in enumerate(connected):
                await ws.send(str(i))
            assert [await ws.recv() for ws in connected] == [str(i) for i in range(CONNECTIONS)]
            assert len(server.connections) == CONNECTIONS
            counters = server.counters
            assert counters["connections"] == counters["opened"] == CONNECTIONS
            await until(lambda: server.counters["messages_sent"] == 2 * CONNECTIONS)
        await until(lambda: server.counters["connections"] == 0)
        assert server.counters["messages_received"] == CONNECTIONS
        assert server.counters["opened"] == CONNECTIONS
        assert sum(server.counters["causes"].values()) == CONNECTIONS
    await until(lambda: before.issuperset(threading.enumerate()))


@pytest.mark.parametrize("caller", ["first", "handler"])
async def test_a_broadcast_reaches_all(caller: str) -> None:
    """Whoever calls it: the main thread, or a handler of any."""
    server = wsfast.Server()

    @server.handler(None)
    async def handler(ws: wsfast.WebSocket) -> None:
        async for _ in ws:
            wsfast.broadcast(server.connections, "to all")

    await server.start("127.0.0.1", 0, threads=THREADS)
    async with server, clients(server, CONNECTIONS) as connected:
        await until(lambda: len(server.connections) == CONNECTIONS)
        if caller == "first":
            wsfast.broadcast(server.connections, "to all")
        else:
            await connected[0].send("go on")
        assert [await ws.recv() for ws in connected] == ["to all"] * CONNECTIONS


async def stream(ws: wsfast.WebSocket) -> None:
    async for _ in ws.recv_streaming():
        pass


ELSEWHERE: dict[str, Callable[[wsfast.WebSocket], Any]] = {
    "send": lambda ws: ws.send("x"),
    "send_nowait": lambda ws: ws.send_nowait("x"),
    "recv": lambda ws: ws.recv(),
    "async for": lambda ws: anext(aiter(ws)),
    "recv_streaming": stream,
    "ping": lambda ws: ws.ping(),
    "pong": lambda ws: ws.pong(),
    "close": lambda ws: ws.close(),
    "abort": lambda ws: ws.abort(),
}


@pytest.mark.parametrize("call", ELSEWHERE)
async def test_a_connection_of_another_thread_is_refused(call: str) -> None:
    """However often it is tried, and with the connection in use meanwhile, which goes on: nothing is raced for."""
    served: dict[wsfast.WebSocket, threading.Thread] = {}

    async def echo(ws: wsfast.WebSocket) -> None:
        served[ws] = threading.current_thread()
        async for message in ws:
            await ws.send(message)

    async def use(ws: wsfast.WebSocket) -> None:
        for i in range(100):
            await ws.send(str(i))
            assert await ws.recv() == str(i)

    async with (
        wsfast.serve(echo, "127.0.0.1", 0, threads=THREADS) as server,
        clients(server, CONNECTIONS) as connected,
    ):
        await until(lambda: len(served) == CONNECTIONS)
        others = [ws for ws, thread in served.items() if thread is not threading.current_thread()]
        assert others
        async with asyncio.TaskGroup() as group:
            for ws in connected:
                group.create_task(use(ws))
            for _ in range(20):
                for ws in others:
                    with pytest.raises(RuntimeError, match="by its own event loop only"):
                        made = ELSEWHERE[call](ws)
                        if made is not None:
                            await made
                await asyncio.sleep(0)


async def test_a_handler_closes_the_server_from_its_thread() -> None:
    server = wsfast.Server()

    @server.handler(None)
    async def handler(ws: wsfast.WebSocket) -> None:
        async for _ in ws:
            server.close(reason="enough")

    await server.start("127.0.0.1", 0, threads=THREADS)
    async with clients(server, CONNECTIONS) as connected:
        await until(lambda: len(server.connections) == CONNECTIONS)
        for ws in connected[:4]:
            await ws.send("stop")
        for ws in connected:
            await ws.wait_closed()
            assert ws.close_code == 1001
            assert ws.close_reason == "enough"
        async with asyncio.timeout(10):
            await server.wait_closed()


async def test_the_most_connections_are_those_of_all_threads() -> None:
    server = wsfast.Server(max_connections=5)
    server.register_handler(None, where)
    await server.start("127.0.0.1", 0, threads=THREADS)
    async with server, clients(server, 5) as connected:
        for ws in connected:
            await ws.recv()
        for _ in range(6):
            with pytest.raises(wsfast.InvalidStatus) as refused:
                async with clients(server, 1):
                    raise AssertionError("there was room")
            assert refused.value.response.status_code == 503


@pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")
async def test_a_handshake_that_becomes_a_connection_stays_counted(tmp_path: Path) -> None:
    """Another thread that looks just then sees no room that is none."""
    path = os.fspath(tmp_path / "socket")
    answers = []

    class Slow(wsfast.Server):
        def _open_connection(self, *arguments: Any) -> None:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(10)
                sock.connect(path)  # accepted by the other thread, as this one is here
                sock.sendall(REQUEST)
                answers.append(sock.recv(65536).split(b"\r\n")[0])
            super()._open_connection(*arguments)

    server = Slow(max_connections=1)
    server.register_handler(None, where)
    async with await server.start(path=path, threads=2):
        for _ in range(3):  # the place is given back
            async with wsfast.unix_connect(path) as ws:
                await ws.recv()
            # When its handler has returned, in another thread.
            await until(lambda: not any(part._places for part in server._parts()))
    assert answers == [b"HTTP/1.1 503 Service Unavailable"] * 3


async def test_a_handler_that_cannot_be_opened_gives_its_place_back() -> None:
    class Broken(wsfast.Server):
        def _open_connection(self, *arguments: Any) -> None:
            raise OSError("broken")

    server = Broken(max_connections=1, logger=silent())
    server.register_handler(None, where)
    async with await server.start("127.0.0.1", 0):
        for _ in range(3):
            with pytest.raises(wsfast.InvalidHandshake) as refused:
                async with clients(server, 1):
                    raise AssertionError("it was opened")
            assert not isinstance(refused.value, wsfast.InvalidStatus)


@pytest.mark.parametrize("waits", ["serve_forever", "wait_closed"])
async def test_a_thread_that_fails_closes_the_server(waits: str) -> None:
    """It is logged once, accepts no more, and whoever waits for the server is told."""
    before = set(threading.enumerate())
    logger = silent()
    records: list[logging.LogRecord] = []

    def note(record: logging.LogRecord) -> bool:
        records.append(record)
        return True

    logger.addFilter(note)
    server = wsfast.Server(logger=logger)
    main = threading.current_thread()

    @server.handler(None)
    async def handler(ws: wsfast.WebSocket) -> None:
        await ws.send("main" if threading.current_thread() is main else "another")
        async for _ in ws:
            asyncio.get_running_loop().stop()

    await server.start("127.0.0.1", 0, threads=THREADS)
    waiting = asyncio.create_task(getattr(server, waits)())
    async with clients(server, CONNECTIONS) as connected:
        said = [await ws.recv() for ws in connected]
        await connected[said.index("another")].send("stop")
        async with asyncio.timeout(10):
            with pytest.raises(RuntimeError, match="one of its threads has failed") as told:
                await waiting
            for ws in connected:
                await ws.wait_closed()
    assert isinstance(told.value.__cause__, RuntimeError)
    assert "loop stopped" in str(told.value.__cause__)
    assert [record.getMessage() for record in records if record.levelno >= logging.ERROR] == [
        "the server is closed because one of its threads has failed"
    ]
    assert not server.connections
    counters = server.counters
    assert counters["opened"] == counters["messages_sent"] == CONNECTIONS
    await until(lambda: before.issuperset(threading.enumerate()))


async def test_a_thread_that_has_ended_is_asked_nothing() -> None:
    """Nobody waits for its answer for ever."""
    server = wsfast.Server(logger=silent())
    server.register_handler(None, where)
    await server.start("127.0.0.1", 0, threads=2, start_serving=False)
    assert server._crew is not None
    (part,) = server._crew.others
    assert part._loop is not None
    part._loop.call_soon_threadsafe(part._loop.stop)
    async with asyncio.timeout(10):
        with pytest.raises(RuntimeError, match=r"has ended|closed"):
            while True:
                await server._crew.ask(part, part.start_serving())
        with pytest.raises(RuntimeError, match="failed"):
            await server.wait_closed()


class SlowToStart(wsfast.Server):
    """Its threads begin to serve when they are told."""

    begun = threading.Semaphore(0)
    go_on = threading.Event()

    async def _serve_part(self, ready: Any) -> None:
        self.begun.release()
        self.go_on.wait(10)
        await super()._serve_part(ready)


@pytest.fixture
def slow() -> SlowToStart:
    SlowToStart.begun = threading.Semaphore(0)
    SlowToStart.go_on = threading.Event()
    server = SlowToStart()
    server.register_handler(None, where)
    return server


async def test_a_server_that_is_closed_while_threads_start_leaves_none(slow: SlowToStart) -> None:
    before = set(threading.enumerate())
    starting = asyncio.create_task(slow.start("127.0.0.1", 0, threads=THREADS))
    await until(lambda: slow.begun.acquire(blocking=False))
    slow.close()
    slow.go_on.set()
    with pytest.raises(RuntimeError, match="closed before it listened"):
        await starting
    async with asyncio.timeout(10):
        await slow.wait_closed()
    await until(lambda: before.issuperset(threading.enumerate()))


async def test_a_start_that_is_cancelled_leaves_no_thread_behind(slow: SlowToStart) -> None:
    before = set(threading.enumerate())
    starting = asyncio.create_task(slow.start("127.0.0.1", 0, threads=THREADS))
    await until(lambda: slow.begun.acquire(blocking=False))
    starting.cancel()
    await asyncio.wait([starting])
    slow.close()
    slow.go_on.set()
    async with asyncio.timeout(10):
        await slow.wait_closed()
    await until(lambda: before.issuperset(threading.enumerate()))


async def test_two_starts_at_once_share_the_threads(slow: SlowToStart) -> None:
    before = set(threading.enumerate())
    slow.go_on.set()
    async with slow:
        await asyncio.gather(*(slow.start("127.0.0.1", 0, threads=THREADS) for _ in range(2)))
        assert len(set(threading.enumerate()) - before) == THREADS - 1
    await until(lambda: before.issuperset(threading.enumerate()))


async def test_a_thread_without_a_loop_may_not_close_the_server() -> None:
    """It would wake nobody: `call_soon_threadsafe` is the way, with threads as without."""
    async with wsfast.serve(where, "127.0.0.1", 0, threads=2) as server:
        with pytest.raises(RuntimeError, match="thread"):
            await asyncio.to_thread(server.close)
        assert server.is_serving()
        async with clients(server, 1) as (ws,):
            await ws.recv()


@pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")
async def test_a_unix_socket_is_shared(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "socket")
    async with wsfast.serve(where, path=path, threads=2), wsfast.unix_connect(path) as ws:
        await ws.recv()
        await ws.send("there")
        assert await ws.recv() == "there"


async def test_what_threads_may_be() -> None:
    server = wsfast.Server()
    wrongs: list[tuple[Any, type[Exception]]] = [
        (0, ValueError),
        (1025, ValueError),
        ("2", TypeError),
        (True, TypeError),
    ]
    for wrong, error in wrongs:
        with pytest.raises(error, match="threads must be"):
            await server.start("127.0.0.1", 0, threads=wrong)
    server.close()


async def test_an_exit_in_another_thread_ends_the_program() -> None:
    """As it does in a handler of the only thread: it comes out of the program's own loop."""
    program = """
import asyncio, sys, threading, wsfast

async def leave(ws):
    if threading.current_thread() is not threading.main_thread():
        sys.exit(7)

async def main():
    async with wsfast.serve(leave, "127.0.0.1", 0, threads=3) as server:
        port = server.sockets[0].getsockname()[1]
        while True:
            try:
                async with wsfast.connect(f"ws://127.0.0.1:{port}/") as ws:
                    await ws.wait_closed()
            except (OSError, wsfast.WebSocketError):
                pass

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stderr=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(30):
        assert await process.wait() == 7
