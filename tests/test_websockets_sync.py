"""`wsfast.websockets` in threads, and the old implementation's names, do what `websockets` does."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sync_helpers import Running, running

import wsfast
from wsfast.websockets.exceptions import (
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidStatus,
    InvalidURI,
    SecurityError,
)
from wsfast.websockets.extensions.permessage_deflate import PerMessageDeflate
from wsfast.websockets.http11 import Request, Response
from wsfast.websockets.protocol import State
from wsfast.websockets.sync.client import ClientConnection, connect, reconnect, unix_connect


async def serve_all(ws: wsfast.WebSocket) -> None:
    assert ws.request is not None
    if ws.request.path == "/close":
        await ws.close(3456, "bye")
    async for message in ws:
        await ws.send(message)


def hook(ws: wsfast.WebSocket, request: wsfast.Request) -> wsfast.Response | None:
    if request.path == "/no":
        return ws.respond(403, "no\n")
    if request.path in ("/from", "/round"):
        response = ws.respond(302, "")
        response.headers["Location"] = "/to" if request.path == "/from" else "/round"
        return response
    return None


@pytest.fixture
def server() -> Iterator[Running]:
    with running(serve_all, compression="deflate", process_request=hook) as one:
        yield one


def test_defaults(server: Running) -> None:
    with connect(f"{server.uri}path") as ws:
        assert isinstance(ws, ClientConnection)
        assert ws.state is ws.protocol.state is State.OPEN
        assert [type(one) for one in ws.protocol.extensions] == [PerMessageDeflate]
        assert isinstance(ws.id, uuid.UUID)
        assert isinstance(ws.request, Request)
        assert isinstance(ws.response, Response)
        assert ws.request.path == "/path"
        assert ws.socket.getpeername() == ws.remote_address
        assert ws.logger.logger.name == "websockets.client"
        assert (ws.close_code, ws.close_reason, ws.subprotocol) == (None, None, None)
        ws.send("hi")
        assert ws.recv(timeout=10) == "hi"
    assert ws.state.name == "CLOSED"
    with pytest.raises(ConnectionClosedOK, match=r"^sent 1000 \(OK\); then received 1000 \(OK\)$"):
        ws.recv()


def test_texts(server: Running) -> None:
    with connect(f"{server.uri}close") as ws:
        with pytest.raises(ConnectionClosedError) as caught:
            ws.recv(timeout=10)
        assert str(caught.value) == "received 3456 (registered) bye; then sent 3456 (registered) bye"
        assert ws.close_code == 3456
        assert str(ws.protocol.close_exc) == str(caught.value)


def test_what_goes_wrong(server: Running) -> None:
    with pytest.raises(InvalidStatus, match=r"^server rejected WebSocket connection: HTTP 403$") as caught:
        connect(f"{server.uri}no")
    assert caught.value.response.body == b"no\n"
    with pytest.raises(InvalidURI, match=r"^http://a/ isn't a valid URI: scheme isn't ws or wss$"):
        connect("http://a/")
    with pytest.raises(SecurityError, match=r"^more than 10 redirects$"):
        connect(f"{server.uri}round")
    with pytest.raises(ValueError, match=r"^missing path argument$"):
        unix_connect()
    with pytest.raises(ValueError, match=r"^unsupported compression: False$"):
        connect(server.uri, compression=False)  # type: ignore[arg-type]
    with connect(f"{server.uri}from") as ws:
        assert ws.request.path == "/to"


def test_create_connection(server: Running) -> None:
    class Mine(ClientConnection):
        extra = 1

    with connect(server.uri, create_connection=Mine, max_queue=2) as ws:
        assert isinstance(ws, Mine)


def test_reconnect(server: Running) -> None:
    seen: list[Exception] = []

    def process_exception(exc: Exception) -> Exception | None:
        seen.append(exc)
        return None if len(seen) == 1 else exc

    rounds = iter(
        reconnect(
            f"{server.uri}no", process_exception=process_exception, reconnect_delays=lambda: (delay for delay in [0.01])
        )
    )
    with pytest.raises(InvalidStatus):
        next(rounds)
    assert len(seen) == 2
    for ws in connect(server.uri, legacy=False):
        ws.send("x")
        assert ws.recv(timeout=10) == "x"
        break


# --- The old implementation's names -----------------------------------------------------------------------


def legacy(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module(f"wsfast.websockets.legacy.{name}")


@pytest.mark.filterwarnings("ignore:remove second argument of ws_handler:DeprecationWarning")
def test_the_old_client_and_server() -> None:
    client, server, auth, exceptions = map(legacy, ("client", "server", "auth", "exceptions"))

    async def handler(ws: Any, path: str) -> None:
        await ws.send(f"{path} {ws.path} {ws.open} {ws.request_headers['X-A']}")

    async def main() -> None:
        async def process_request(path: str, headers: Any) -> Any:
            return (200, {"X-B": "1"}, b"OK\n") if path == "/health" else None

        async with (
            asyncio.timeout(20),
            server.serve(
                handler, "127.0.0.1", 0, process_request=process_request, extra_headers={"X-C": "2"}
            ) as listening,
        ):
            port = listening.sockets[0].getsockname()[1]
            async with client.connect(f"ws://127.0.0.1:{port}/p", extra_headers={"X-A": "a"}) as ws:
                assert await ws.recv() == "/p /p True a"
                assert ws.response_headers["X-C"] == "2"
                assert (ws.is_client, ws.origin) == (True, None)
                assert [type(one).__name__ for one in ws.extensions] == ["PerMessageDeflate"]
                with pytest.warns(DeprecationWarning, match="^(use remote_address|don.t use secure)"):
                    assert (ws.host, ws.port, ws.secure) == ("127.0.0.1", port, False)
                await ws.wait_closed()
                assert ws.closed
            with pytest.raises(exceptions.InvalidStatusCode) as caught:
                await client.connect(f"ws://127.0.0.1:{port}/health")
            assert caught.value.status_code == 200
            assert caught.value.headers["X-B"] == "1"

        async def greet(ws: Any) -> None:
            assert ws.server.websockets == {ws}
            await ws.send(ws.username)

        protected = auth.basic_auth_protocol_factory(realm="r", credentials=("a", "b"))
        async with asyncio.timeout(20), server.serve(greet, "127.0.0.1", 0, create_protocol=protected) as listening:
            port = listening.sockets[0].getsockname()[1]
            async with client.connect(f"ws://a:b@127.0.0.1:{port}/") as ws:
                assert await ws.recv() == "a"
            with pytest.raises(exceptions.InvalidStatusCode, match="HTTP 401"):
                await client.connect(f"ws://127.0.0.1:{port}/")

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:remove second argument of ws_handler:DeprecationWarning")
def test_an_old_connection_that_is_a_protocol_by_itself() -> None:
    """As uvicorn has it: what read the request hands it over with the transport, and methods are overridden."""
    server, handshake, exceptions = map(legacy, ("server", "handshake", "exceptions"))
    client = legacy("client")
    made: list[Any] = []

    class Own(server.WebSocketServerProtocol):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.transport, self.loop, self.server = None, asyncio.get_running_loop(), "of this program"
            super().__init__(self.run, None, ping_interval=None, extra_headers=[("X-A", "1"), ("X-A", "2")])
            self.server_header = None
            made.append(self)

        async def process_request(self, path: str, request_headers: Any) -> Any:
            handshake.check_request(request_headers)
            if path == "/away":
                raise exceptions.AbortHandshake(410, {"X-B": "1"}, b"away")
            return None

        def process_subprotocol(self, headers: Any, available: Any) -> Any:
            return "b"

        async def run(self, ws: Any, path: str) -> None:
            assert ws is self
            await self.send(path)
            self.echoed = await self.recv()
            self.fail_connection(1012, "reason")
            self.transport.close()

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def accept() -> asyncio.Protocol:
            protocol = Own()

            class First(asyncio.Protocol):
                def connection_made(self, transport: Any) -> None:
                    self.transport = transport

                def data_received(self, data: bytes) -> None:
                    protocol.connection_made(self.transport)
                    protocol.data_received(data[:5])
                    protocol.data_received(data[5:])
                    self.transport.set_protocol(protocol)

            return First()

        listening = await loop.create_server(accept, "127.0.0.1", 0)
        uri = f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        async with asyncio.timeout(20), client.connect(f"{uri}/p?q", subprotocols=["a", "b"]) as ws:
            assert ws.subprotocol == "b"
            assert ws.response_headers.get_all("X-A") == ["1", "2"]
            assert "Server" not in ws.response_headers
            assert await ws.recv() == "/p?q"
            await ws.send("x" * 300_000)
            await ws.wait_closed()
            assert (ws.close_code, ws.close_reason) == (1012, "reason")
            (own,) = made
            await own.wait_closed()
            assert own.echoed == "x" * 300_000
            assert own.server == "of this program"
            assert own.loop is loop
            with pytest.raises(exceptions.InvalidStatusCode, match="HTTP 410") as caught:
                await client.connect(f"{uri}/away")
            assert caught.value.headers["X-B"] == "1"
            reader, writer = await asyncio.open_connection("127.0.0.1", int(uri.rpartition(":")[2]))
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 426 ")
            writer.close()
        listening.close()

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:remove second argument of ws_handler:DeprecationWarning")
def test_the_old_choice_of_a_subprotocol() -> None:
    client, server = map(legacy, ("client", "server"))

    async def handler(ws: Any, path: str) -> None:
        await ws.wait_closed()

    async def main() -> None:
        def select(theirs: Any, ours: Any) -> Any:
            return theirs[-1] if ours == ["a", "b"] else None

        for choice, offered, chosen in (
            (None, ["c", "b", "a"], "b"),
            (None, ["c"], None),
            (None, None, None),
            (select, ["b", "a"], "a"),
        ):
            async with (
                asyncio.timeout(20),
                server.serve(handler, "127.0.0.1", 0, subprotocols=["a", "b"], select_subprotocol=choice) as listening,
                client.connect(f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}", subprotocols=offered) as ws,
            ):
                assert ws.subprotocol == chosen

    asyncio.run(main())


def test_uvicorn() -> None:
    """Its implementations that are made of websockets, in a process where that is the drop-in."""
    script = Path(__file__).parent / "programs" / "uvicorn_client.py"
    command = [sys.executable, "-m", "wsfast.websockets", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
