"""Connections on transports that are not ours: a loop without ``add_reader``, and transports that are handed over."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from conftest import WITHOUT_READERS
from shared import echo, until

import wsfast
from wsfast.transport.loops import write_parts
from wsfast.transport.sockets import SocketTransport, has_readers

pytestmark = pytest.mark.anyio


class Echo(wsfast.Listener):
    def on_message(self, message: str | bytes) -> None:
        self.ws.send_nowait(message)


async def exchange(ws: wsfast.WebSocket) -> None:
    """Send messages of all sizes, some at a time, and see them come back."""
    sent = [os.urandom(size) for size in (0, 1, 125, 126, 65535, 65536, 500_000)] + ["x" * 100_000, "é" * 70_000]

    async def send() -> None:
        for message in sent:
            await ws.send(message)

    sending = asyncio.create_task(send())
    assert [await ws.recv() for _ in sent] == sent
    await sending


@pytest.fixture
def handlers() -> dict[str | None, Any]:
    return {"echo": echo, "listener": Echo}


class TestWithoutReaders:
    @pytest.fixture
    def anyio_backend(self) -> Any:
        return WITHOUT_READERS

    @pytest.mark.parametrize("subprotocol", ["echo", "listener"])
    @pytest.mark.parametrize("secure", [False, True])
    async def test_echo(self, handlers: Any, certs: Certificates, subprotocol: str, secure: bool) -> None:
        assert not has_readers(asyncio.get_running_loop())
        inner, outer = (certs.server_context(), certs.client_context()) if secure else (None, None)
        async with wsfast.serve(handlers, "127.0.0.1", 0, ssl=inner, max_size=None) as server:
            port = server.sockets[0].getsockname()[1]
            url = f"ws{'s' if secure else ''}://localhost:{port}/"
            async with wsfast.connect(url, ssl=outer, subprotocols=[subprotocol]) as ws:
                assert not isinstance(ws.transport, SocketTransport)
                assert ws.remote_address == ("127.0.0.1", port)
                await exchange(ws)
            assert ws.close_code == 1000

    async def test_unix(self, handlers: Any, tmp_path: Path) -> None:
        server = wsfast.Server()
        server.register_handler(None, echo)
        async with server:
            await server.start(path=str(tmp_path / "socket"))
            async with wsfast.unix_connect(str(tmp_path / "socket")) as ws:
                await exchange(ws)

    async def test_a_socket_that_is_connected(self, handlers: Any) -> None:
        async with wsfast.serve(handlers, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            sock = socket.create_connection(("127.0.0.1", port))
            async with wsfast.connect(f"ws://127.0.0.1:{port}/", sock=sock, subprotocols=["echo"]) as ws:
                await exchange(ws)

    async def test_too_many(self, handlers: Any) -> None:
        async with wsfast.serve(handlers, "127.0.0.1", 0, max_connections=1) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            async with wsfast.connect(url, subprotocols=["echo"]):
                with pytest.raises(wsfast.InvalidStatus, match="503"):
                    await wsfast.connect(url, subprotocols=["echo"])


async def test_a_transport_that_is_handed_over() -> None:
    """As by a framework: the loop's own transport takes the server's protocol."""
    loop = asyncio.get_running_loop()
    server = wsfast.Server()
    server.register_handler(None, echo)
    async with server:
        await server.start("127.0.0.1", 0)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            port = listening.getsockname()[1]
            connecting = asyncio.ensure_future(wsfast.connect(f"ws://127.0.0.1:{port}/")._await())
            sock, _ = await loop.sock_accept(listening)
            await loop.connect_accepted_socket(server.new_protocol, sock)
            ws = await connecting
            [served] = server.connections
            assert not isinstance(served.transport, SocketTransport)
            await exchange(ws)
            await ws.close()
            await until(lambda: not server.connections)


class _Forgetful(asyncio.Transport):
    """What asyncio's transport of CPython 3.12.1 does: `writelines` sends, and does not look at the limits."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def write(self, data: Any) -> None:
        self.calls.append(f"write {bytes(data)!r}")

    def writelines(self, list_of_data: Any) -> None:
        self.calls.append(f"writelines {b''.join(list_of_data)!r}")


_Forgetful.writelines.__module__ = "asyncio.selector_events"


def test_a_writelines_that_forgets_to_pause_is_not_used() -> None:
    """A peer that does not read would make memory grow without an end."""
    forgetful = _Forgetful()
    write_parts(forgetful, b"head ", b"payload")
    assert forgetful.calls == ["write b'head payload'"]
    other = type(
        "Other", (_Forgetful,), {"writelines": lambda self, parts: self.calls.append(f"parts {list(parts)}")}
    )()
    write_parts(other, b"head ", b"payload")
    assert other.calls == ["parts [b'head ', b'payload']"]
