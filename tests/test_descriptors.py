"""Descriptors are numbers: who has one next gets nothing. There are only so many: running out of them is told once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import trio
import uvloop
from certificates import Certificates
from shared import echo, port_of, serving
from sync_helpers import PATIENCE, in_thread

import wsfast
import wsfast.sync
import wsfast.trio
from wsfast.trio import server as trio_server

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}


@contextlib.contextmanager
def others() -> Iterator[set[int]]:
    """Open sockets at which nothing may arrive, and give their numbers; one that was closed before is among them."""
    pairs = [socket.socketpair() for _ in range(8)]
    ends = [end for pair in pairs for end in pair]
    try:
        for end in ends:
            end.setblocking(False)
        yield {end.fileno() for end in ends}
        for end in ends:
            with pytest.raises(BlockingIOError):
                end.recv(1)
    finally:
        for end in ends:
            end.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_that_is_closed_with_connections_open(loop: str, tls: bool, certs: Certificates) -> None:
    """What is sent on them goes nowhere, in another run of a loop either."""
    held: list[wsfast.WebSocket] = []
    inner, outer = (certs.server_context(), certs.client_context()) if tls else (None, None)

    async def handler(ws: wsfast.WebSocket) -> None:
        held.append(ws)
        await ws.wait_closed()

    async def open_both() -> None:
        server = await wsfast.serve(handler, "127.0.0.1", 0, ssl=inner)
        held.append(await wsfast.connect(f"ws{'s' if tls else ''}://localhost:{port_of(server)}/", ssl=outer))
        while len(held) < 2:
            await asyncio.sleep(0.001)

    async def send_all() -> None:
        async with serving(echo) as server, wsfast.connect(f"ws://127.0.0.1:{port_of(server)}/") as other:
            send_on_those_of_before()
            await other.send("mine")
            assert await other.recv() == "mine"

    def send_on_those_of_before() -> None:
        for ws in held:
            for send in (
                partial(wsfast.broadcast, [ws], "secret"),
                partial(ws.send_nowait, "secret"),
                partial(ws.send_nowait, b"secret" * 20_000),
            ):
                with contextlib.suppress(RuntimeError, wsfast.ConnectionClosed):
                    send()

    first = LOOPS[loop]()
    first.run_until_complete(open_both())
    first.close()
    with others():
        second = LOOPS[loop]()
        second.run_until_complete(send_all())
        second.close()
    held.clear()
    del first, second
    gc.collect()


@pytest.mark.anyio
@pytest.mark.readers("a loop's own transport has the socket that was given")
@pytest.mark.parametrize("how", ["close", "detach"])
async def test_a_socket_that_its_program_closes(how: str) -> None:
    """One that was given to `connect` is the connection's: it goes on, and nobody else gets anything."""
    async with serving(echo) as server:
        sock = socket.create_connection(("127.0.0.1", port_of(server)))
        number = sock.fileno()
        async with wsfast.connect(f"ws://127.0.0.1:{port_of(server)}/", sock=sock) as ws:
            if how == "close":
                sock.close()
            else:
                os.close(sock.detach())
            with others() as numbers:
                assert number in numbers
                await ws.send("secret")
                assert await ws.recv() == "secret"


def give_away(how: str) -> tuple[socket.socket, Any, Callable[[], None]]:
    """Return a socket that listens, its address, and what takes its number away from it."""
    sock = socket.create_server(("127.0.0.1", 0))
    return sock, sock.getsockname(), sock.close if how == "close" else lambda: os.close(sock.detach())


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["close", "detach"])
async def test_a_listening_socket_that_its_program_closes(how: str) -> None:
    """It is the server's: that goes on, accepts nobody else's connections, and closes it at the end."""
    sock, address, lose = give_away(how)
    number = sock.fileno()
    async with wsfast.serve(echo, sock=sock) as server:
        assert server.sockets[0].getsockname() == address
        lose()
        with socket.create_server(("127.0.0.1", 0)) as other, socket.create_connection(other.getsockname()) as caller:
            assert number in (other.fileno(), caller.fileno())
            for _ in range(3):
                async with wsfast.connect(f"ws://127.0.0.1:{address[1]}/") as ws:
                    await ws.send("x")
                    assert await ws.recv() == "x"
            other.settimeout(0)
            other.accept()[0].close()
    assert sock.fileno() == -1


@pytest.mark.parametrize("how", ["close", "detach"])
def test_a_listening_socket_that_its_program_closes_in_threads(how: str) -> None:
    sock, address, lose = give_away(how)
    with wsfast.sync.serve(lambda ws: ws.send(ws.recv()), sock=sock) as server:
        thread = in_thread(server.serve_forever)
        lose()
        with socket.create_server(("127.0.0.1", 0)) as other, socket.create_connection(other.getsockname()):
            with wsfast.sync.connect(f"ws://127.0.0.1:{address[1]}/") as ws:
                ws.send("x")
                assert ws.recv(PATIENCE) == "x"
            other.settimeout(0)
            other.accept()[0].close()
    thread.join(PATIENCE)
    assert sock.fileno() == -1


@pytest.mark.parametrize("how", ["close", "detach"])
def test_a_listening_socket_that_its_program_closes_on_trio(how: str) -> None:
    async def handler(ws: wsfast.trio.WebSocket) -> None:
        await ws.send(await ws.recv())

    async def main() -> None:
        sock, address, lose = give_away(how)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                server = await nursery.start(partial(wsfast.trio.serve, handler, sock=sock))
                lose()
                with socket.create_server(("127.0.0.1", 0)) as other, socket.create_connection(other.getsockname()):
                    async with wsfast.trio.connect(f"ws://127.0.0.1:{address[1]}/") as ws:
                        await ws.send("x")
                        assert await ws.recv() == "x"
                    other.settimeout(0)
                    other.accept()[0].close()
                await server.shutdown()
        assert sock.fileno() == -1

    trio.run(main)


class _Exhausted(trio.abc.Listener[trio.SocketStream]):
    """A listener of a process that is out of descriptors for a while."""

    def __init__(self, inner: Any, failures: int, number: int) -> None:
        self._inner, self._failures, self._number = inner, failures, number

    async def accept(self) -> trio.SocketStream:
        if self._failures:
            self._failures -= 1
            raise OSError(self._number, os.strerror(self._number))
        stream: trio.SocketStream = await self._inner.accept()
        return stream

    async def aclose(self) -> None:
        await self._inner.aclose()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_out_of_descriptors_on_trio(
    number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line when it begins, and one when it ends, as on asyncio and in threads; trio would log each try."""
    listeners = trio_server.Server._listeners
    monkeypatch.setattr(
        trio_server.Server, "_listeners", lambda self: [_Exhausted(one, 5, number) for one in listeners(self)]
    )
    monkeypatch.setattr(trio_server, "PAUSE", 0.001)

    async def handler(ws: wsfast.trio.WebSocket) -> None:
        await ws.send(await ws.recv())

    async def main() -> None:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                server = await nursery.start(partial(wsfast.trio.serve, handler, "127.0.0.1", 0))
                async with wsfast.trio.connect(f"ws://127.0.0.1:{port_of(server)}/") as ws:
                    await ws.send("x")
                    assert await ws.recv() == "x"
                await server.shutdown()

    trio.run(main)
    told = [(record.levelname, record.getMessage()) for record in caplog.records if record.levelno >= logging.WARNING]
    assert [level for level, _ in told] == ["ERROR", "WARNING"]
    assert told[0][1] == f"no connections are accepted for now: [Errno {number}] {os.strerror(number)}"
    assert told[1][1] == "connections are accepted again, after 0 s"
    assert not any(record.exc_info for record in caplog.records)
