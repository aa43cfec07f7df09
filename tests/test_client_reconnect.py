"""`async for ws in connect(...)`: connecting again, and how long to wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import itertools
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sync_helpers
import uvloop
from client_helpers import Peer, nothing_left, scripted, url_of
from multidict import CIMultiDict
from shared import echo, port_of, until

import wsfast
import wsfast.websockets
from wsfast.dial.reconnect import backoff, process_exception
from wsfast.handshake import Response


def delays(*values: float) -> Callable[[], Iterator[float]]:
    """Make a function for `reconnect_delays`."""
    return lambda: itertools.chain(values, itertools.repeat(values[-1]))


def test_backoff() -> None:
    series = [list(itertools.islice(backoff(), 20)) for _ in range(200)]
    firsts = [delays[0] for delays in series]
    assert 0 <= min(firsts) < 1
    assert 4 < max(firsts) <= 5
    for index, middle in [(1, 3.1), (2, 3.1 * 1.618), (5, 3.1 * 1.618**4), (10, 90), (19, 90)]:
        column = [delays[index] for delays in series]
        assert middle * 0.75 <= min(column) < middle * 0.85
        assert middle * 1.15 < max(column) <= middle * 1.25
    tuned = list(itertools.islice(backoff(0, 1, 4, 2), 5))
    assert tuned[0] == 0
    assert [round(delay / middle) for delay, middle in zip(tuned[1:], (1, 2, 4, 4), strict=True)] == [1, 1, 1, 1]


def status(code: int) -> wsfast.InvalidStatus:
    return wsfast.InvalidStatus(Response(code, None, CIMultiDict()))


def caused(exc: Exception, cause: Exception) -> Exception:
    exc.__cause__ = cause
    return exc


def proxy_status(code: int) -> Exception:
    error = wsfast.ProxyError("x")
    error.response = Response(code)
    return error


@pytest.mark.parametrize(
    ("exc", "again"),
    [
        (OSError(errno.ECONNREFUSED, "refused"), True),
        (TimeoutError(), True),
        (socket.gaierror(), True),
        (status(500), True),
        (status(502), True),
        (status(503), True),
        (status(504), True),
        (status(501), False),
        (status(404), False),
        (status(200), False),
        (caused(wsfast.InvalidMessage("x"), EOFError()), True),
        (caused(wsfast.InvalidMessage("x"), ConnectionResetError()), True),
        (wsfast.InvalidMessage("x"), False),
        (caused(wsfast.ProxyError("x"), OSError()), True),
        (proxy_status(503), True),
        (proxy_status(407), False),
        (wsfast.ProxyError("x"), False),
        (wsfast.InvalidUpgrade("Upgrade"), False),
        (wsfast.RedirectError("x"), False),
        (ImportError(), False),
        (ZeroDivisionError(), False),
    ],
)
def test_which_errors_are_worth_another_try(exc: Exception, again: bool) -> None:
    assert process_exception(exc) is (None if again else exc)


@pytest.mark.anyio
async def test_server_that_is_stopped_and_started(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="wsfast.client")
    server = await wsfast.serve(echo, "127.0.0.1", 0)
    port = port_of(server)
    rounds = 0
    restarting: asyncio.Task[wsfast.Server] | None = None

    async def start_again() -> wsfast.Server:
        await asyncio.sleep(0.1)
        return await wsfast.serve(echo, "127.0.0.1", port)

    async with nothing_left(port):
        async for ws in wsfast.connect(f"ws://127.0.0.1:{port}/", reconnect_delays=delays(0.02)):
            if restarting is not None:
                server = await restarting
            await ws.send("hello")
            assert await ws.recv() == "hello"
            rounds += 1
            if rounds == 3:
                break
            server.close()
            with pytest.raises(wsfast.ConnectionClosedOK):
                await ws.recv()
            await server.wait_closed()
            restarting = asyncio.create_task(start_again())
        await until(lambda: ws.state is wsfast.State.CLOSED)
        assert ws.close_code == 1000
    server.close()
    await server.wait_closed()
    texts = [record.getMessage() for record in caplog.records if "again" in record.getMessage()]
    assert len(texts) >= 4  # each of two stops: the end, and at least one try that is refused
    assert texts[0].startswith("connecting again in 0.0 s: the connection ended after")
    assert "ConnectionRefusedError" in texts[1] or "OSError" in texts[1]


@pytest.mark.anyio
async def test_fatal_errors_end_the_loop() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    async with scripted(script) as server, nothing_left(port_of(server)):
        with pytest.raises(wsfast.InvalidStatus):
            async for _ in wsfast.connect(url_of(server), reconnect_delays=delays(0)):
                raise AssertionError


@pytest.mark.anyio
async def test_process_exception_decides() -> None:
    answers: list[Exception | None] = [None, None, ZeroDivisionError("enough")]
    asked: list[Exception] = []

    def decide(exc: Exception) -> Exception | None:
        asked.append(exc)
        return answers[len(asked) - 1]

    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    async with scripted(script) as server:
        with pytest.raises(ZeroDivisionError, match="enough") as caught:
            async for _ in wsfast.connect(url_of(server), process_exception=decide, reconnect_delays=delays(0)):
                raise AssertionError
    assert len(asked) == 3
    assert caught.value.__cause__ is asked[-1]
    assert all(isinstance(exc, wsfast.InvalidStatus) for exc in asked)


@pytest.mark.anyio
async def test_a_round_that_ends_well_is_followed_by_the_next_at_once() -> None:
    made = 0

    def count() -> Iterator[float]:
        nonlocal made
        made += 1
        return itertools.repeat(60.0)

    async with wsfast.serve(echo, "127.0.0.1", 0) as server:
        rounds = 0
        async for ws in wsfast.connect(url_of(server), reconnect_delays=count):
            assert ws.state is wsfast.State.OPEN
            rounds += 1
            if rounds == 5:
                break
        assert not made


@pytest.mark.anyio
async def test_server_that_accepts_and_drops_is_given_pauses() -> None:
    """Such a server would otherwise be asked again as fast as it can refuse."""
    taken: list[float] = []

    def count() -> Iterator[float]:
        for number in itertools.count():
            taken.append(number)
            yield 0.01

    async def drop(ws: wsfast.WebSocket) -> None:
        ws.abort()

    async with wsfast.serve(drop, "127.0.0.1", 0) as server:
        rounds = 0
        async for ws in wsfast.connect(url_of(server), reconnect_delays=count):
            with contextlib.suppress(wsfast.ConnectionClosed):
                await ws.recv()
            rounds += 1
            if rounds == 4:
                break
    assert taken == [0, 1, 2], "the delays go on growing"


@pytest.mark.anyio
async def test_delays_that_end() -> None:
    async def drop(ws: wsfast.WebSocket) -> None:
        ws.abort()

    attempts = 0

    async def refuse(peer: Peer) -> None:
        nonlocal attempts
        attempts += 1
        await peer.read_head()
        peer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

    async with scripted(refuse) as server, nothing_left(port_of(server)):
        with pytest.raises(wsfast.InvalidStatus, match="503"):
            async for _ in wsfast.connect(url_of(server), reconnect_delays=lambda: iter([0.0, 0.0])):
                raise AssertionError
        assert attempts == 3, "a first attempt, and one after each delay"

    async with wsfast.serve(drop, "127.0.0.1", 0) as dropping:
        rounds = 0
        async for ws in wsfast.connect(url_of(dropping), reconnect_delays=lambda: iter([0.0, 0.0])):
            await ws.wait_closed()
            rounds += 1
        assert rounds == 3


@pytest.mark.anyio
async def test_other_forms() -> None:
    async with wsfast.serve(echo, "127.0.0.1", 0) as server:
        rounds = 0
        async for reader, writer in wsfast.connect_stream(url_of(server)):
            await writer.write(b"x")
            await writer.flush()
            assert await reader.read() == b"x"
            rounds += 1
            if rounds == 2:
                break
        async for listener in wsfast.connect_listener(wsfast.Listener, url_of(server)):
            assert listener.ws.state is wsfast.State.OPEN
            rounds += 1
            if rounds == 4:
                break
        await until(lambda: not server.connections)


@pytest.mark.anyio
async def test_a_socket_serves_once() -> None:
    async with wsfast.serve(echo, "127.0.0.1", 0) as server:
        sock = socket.create_connection(("127.0.0.1", port_of(server)))
        sock.setblocking(False)
        rounds = 0
        async for ws in wsfast.connect(url_of(server), sock=sock):
            await ws.send("x")
            assert await ws.recv() == "x"
            rounds += 1
        assert rounds == 1


@pytest.mark.anyio
async def test_cancelled_while_waiting() -> None:
    async def forever(port: int) -> None:
        async for _ in wsfast.connect(f"ws://127.0.0.1:{port}/", reconnect_delays=delays(3600)):
            raise AssertionError

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    async with nothing_left(port):
        task = asyncio.create_task(forever(port))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("connect", [wsfast.connect, wsfast.websockets.connect], ids=["wsfast", "websockets"])
def test_a_program_that_ends_within_the_loop_waits_for_its_connection(
    connect: Any, new_loop: Callable[[], asyncio.AbstractEventLoop], caplog: pytest.LogCaptureFixture
) -> None:
    """The task that asyncio makes for a generator that was left is in no list of tasks: nothing else waits for it."""
    held: list[object] = []

    async def receive(uri: str) -> None:
        async for ws in connect(uri):
            held.append(ws)
            async for _ in ws:
                raise AssertionError

    async def main(uri: str) -> None:
        held.append(asyncio.create_task(receive(uri)))
        await until(lambda: len(held) == 2)

    with sync_helpers.running() as peer, asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main(peer.uri))
    assert held[1].state.name == "CLOSED"  # type: ignore[attr-defined]
    held.clear()
    gc.collect()
    assert not caplog.records
