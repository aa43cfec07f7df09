"""The servers of `wsfast.websockets` in threads and on trio do what those of `websockets` do."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from certificates import Certificates
from sync_helpers import in_thread, until
from werkzeug.routing import Map, Rule

from wsfast.websockets.exceptions import (
    ConcurrencyError,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidStatus,
    NegotiationError,
)
from wsfast.websockets.http11 import Request, Response
from wsfast.websockets.protocol import CLIENT, SERVER, Protocol, State
from wsfast.websockets.sync import client, connection, router, server
from wsfast.websockets.trio import client as trio_client
from wsfast.websockets.trio import connection as trio_connection
from wsfast.websockets.trio import router as trio_router
from wsfast.websockets.trio import server as trio_server
from wsfast.websockets.typing import Subprotocol


def echo(ws: server.ServerConnection) -> None:
    for message in ws:
        ws.send(message)


@contextmanager
def running(make: Callable[..., server.Server] = server.serve, what: Any = echo, **options: Any) -> Iterator[Any]:
    where = () if "path" in options or "sock" in options else ("localhost", 0)
    with make(what, *where, **options) as one:
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        try:
            yield one
        finally:
            one.shutdown()
            thread.join()


def uri_of(one: server.Server, path: str = "/") -> str:
    return f"ws://127.0.0.1:{one.socket.getsockname()[1]}{path}"


# --- In threads -------------------------------------------------------------------------------------------


def test_a_server_in_threads() -> None:
    with running() as one, client.connect(uri_of(one, "/path")) as ws:
        ws.send("hi")
        assert ws.recv(timeout=10) == "hi"
        (other,) = one.connections
        assert isinstance(other, server.ServerConnection)
        assert other.server is one
        assert other.state is State.OPEN
        assert isinstance(other.request, Request)
        assert other.request.path == "/path"
        assert isinstance(other.response, Response)
        assert other.logger.logger.name == "websockets.server"
        assert ws.response.headers["Server"].startswith("Python/")
        assert [type(extension).__name__ for extension in other.protocol.extensions] == ["PerMessageDeflate"]
        stopping = in_thread(lambda: one.shutdown(code=1012, reason="bye"))
        with pytest.raises(ConnectionClosedError, match=r"^received 1012 \(service restart\) bye; then sent"):
            ws.recv(timeout=10)
        stopping.join()


def test_hooks_in_threads() -> None:
    def before(ws: server.ServerConnection, request: Request) -> Response | None:
        if request.path == "/no":
            return ws.respond(403, "no\n")
        if request.path == "/fails":
            raise RuntimeError("of the hook")
        request.path = "/other"
        return None

    def after(ws: server.ServerConnection, request: Request, response: Response) -> None:
        response.headers["X-Path"] = request.path

    def select(ws: server.ServerConnection, offers: Any) -> Any:
        if not offers:
            raise NegotiationError("none offered")
        return offers[-1]

    hooks: dict[str, Any] = {"process_request": before, "process_response": after, "select_subprotocol": select}
    with running(**hooks) as one:
        with client.connect(uri_of(one), subprotocols=[Subprotocol("a"), Subprotocol("b")]) as ws:
            assert ws.response.headers["X-Path"] == "/other"
            assert ws.subprotocol == "b"
        for path, status in (("/no", 403), ("/fails", 500), ("/", 400)):
            with pytest.raises(InvalidStatus) as caught:
                client.connect(uri_of(one, path))
            assert caught.value.response.status_code == status


def test_a_handler_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fails(ws: server.ServerConnection) -> None:
        raise RuntimeError("of the handler")

    with (
        running(what=fails) as one,
        client.connect(uri_of(one)) as ws,
        pytest.raises(ConnectionClosedError, match=r"^received 1011 \(internal error\); then sent 1011"),
    ):
        ws.recv(timeout=10)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert (record.name, record.getMessage()) == ("websockets.server", "connection handler failed")


def test_routes_and_passwords_in_threads() -> None:
    def channel(ws: server.ServerConnection, name: str) -> None:
        ws.send(f"{name} {ws.username}")

    url_map = Map([Rule("/c/<name>", endpoint=channel), Rule("/old", redirect_to="/c/new")])
    check = server.basic_auth("here", ("user", "secret"))
    with running(router.route, url_map, process_request=check) as one:
        port = one.socket.getsockname()[1]
        with client.connect(f"ws://user:secret@127.0.0.1:{port}/c/news") as ws:
            assert ws.recv(timeout=10) == "news user"
        with client.connect(f"ws://user:secret@127.0.0.1:{port}/old") as ws:
            assert ws.recv(timeout=10) == "new user"
        for user, status in (("user:secret@", 404), ("user:wrong@", 401), ("", 401)):
            with pytest.raises(InvalidStatus) as caught:
                client.connect(f"ws://{user}127.0.0.1:{port}/none")
            assert caught.value.response.status_code == status


def test_tls_and_the_socket_in_threads(certs: Certificates) -> None:
    server_context, client_context = certs.server_context(), certs.client_context()
    with running(ssl=server_context) as one:
        port = one.socket.getsockname()[1]
        with client.connect(f"wss://localhost:{port}/", ssl=client_context) as ws:
            assert ws.socket.version() == "TLSv1.3"
            assert ws.socket.server_hostname == "localhost"
            assert ws.socket.getpeername()[1] == port
    with pytest.warns(DeprecationWarning, match="ssl_context was renamed to ssl"):
        server.serve(echo, "localhost", 0, ssl_context=server_context).shutdown()
    with pytest.warns(DeprecationWarning, match="WebSocketServer was renamed to Server"):
        assert server.WebSocketServer is server.Server


def test_unix_sockets_and_given_ones_in_threads(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with running(server.unix_serve, path=path), client.unix_connect(path) as ws:
        ws.send("hi")
        assert ws.recv(timeout=10) == "hi"
    with running(sock=socket.create_server(("127.0.0.1", 0))) as one, client.connect(uri_of(one)) as ws:
        ws.send("hi")
        assert ws.recv(timeout=10) == "hi"


@pytest.mark.parametrize(
    ("make", "options", "text"),
    [
        (server.serve, {"host": "localhost", "sock": socket.socket}, "host is incompatible with sock"),
        (server.serve, {"port": 0, "sock": socket.socket}, "port is incompatible with sock"),
        (server.unix_serve, {}, "missing path argument"),
        (server.unix_serve, {"path": "here", "sock": socket.socket}, "path is incompatible with sock"),
        (server.serve, {"compression": "zip"}, "unsupported compression: zip"),
    ],
)
def test_wrong_arguments_in_threads(make: Any, options: dict[str, Any], text: str) -> None:
    with socket.socket() as sock:
        given = {name: sock if value is socket.socket else value for name, value in options.items()}
        with pytest.raises(ValueError, match=f"^{text}$"):
            make(echo, **given)


def test_broadcast_in_threads() -> None:
    with running() as one, client.connect(uri_of(one)) as a, client.connect(uri_of(one)) as b:
        for ws in (a, b):
            ws.send("in")
            assert ws.recv(timeout=10) == "in"
        server.broadcast(one.connections, "all")
        assert [a.recv(timeout=10), b.recv(timeout=10)] == ["all", "all"]
        server.broadcast(one.connections, "all", text=False, max_workers=3)
        assert [a.recv(timeout=10), b.recv(timeout=10)] == [b"all", b"all"]
        with pytest.raises(TypeError, match="data must be str or bytes"):
            server.broadcast(one.connections, ["all"])  # type: ignore[arg-type]
        busy, *_ = one.connections
        reached, go_on = threading.Event(), threading.Event()

        def pieces() -> Iterator[str]:
            yield "a"
            yield "b"
            reached.set()
            assert go_on.wait(10)

        sender = threading.Thread(target=busy.send, args=(pieces(),))
        sender.start()
        try:
            assert reached.wait(10)
            with pytest.raises(ExceptionGroup) as caught:
                server.broadcast(one.connections, "x", raise_exceptions=True)
            assert [type(exc) for exc in caught.value.exceptions] == [ConcurrencyError]
        finally:
            go_on.set()
            sender.join()
    server.broadcast([busy], "nobody is there")


def test_a_connection_on_a_socket() -> None:
    ours, theirs = socket.socketpair()
    a = connection.Connection(ours, Protocol(CLIENT))
    b = connection.Connection(theirs, Protocol(SERVER))
    a.send("hi")
    assert b.recv(timeout=10) == "hi"
    closing = in_thread(lambda: a.close(1000, "bye"))
    with pytest.raises(ConnectionClosedOK, match=r"^received 1000 \(OK\) bye; then sent 1000 \(OK\) bye$"):
        b.recv(timeout=10)
    closing.join()
    assert (b.close_code, b.close_reason) == (1000, "bye")


def test_reconnect_is_a_class() -> None:
    class Elsewhere(client.reconnect):
        def process_redirect(self, exc: Exception) -> Exception | str:
            return KeyError("not followed")

    def moved(ws: server.ServerConnection, request: Request) -> Response | None:
        response = ws.respond(302, "")
        response.headers["Location"] = "/"
        return response

    with running() as one:
        again = client.connect(uri_of(one), legacy=False)
        assert isinstance(again, client.reconnect)
        with again as ws:
            ws.send("hi")
            assert ws.recv(timeout=10) == "hi"
    with running(process_request=moved) as one, pytest.raises(KeyError, match="not followed"):
        Elsewhere(uri_of(one)).connect()


# --- On trio ----------------------------------------------------------------------------------------------


async def trio_echo(ws: trio_server.ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def start(nursery: trio.Nursery, what: Any = trio_echo, make: Any = trio_server.serve, **options: Any) -> Any:
    given = {"port": 0, "host": "127.0.0.1", **options}
    return await nursery.start(partial(make, what, **given))


def trio_uri(one: Any, path: str = "/") -> str:
    return f"ws://127.0.0.1:{one.listeners[0].socket.getsockname()[1]}{path}"


def on_trio(function: Any) -> Any:
    def run(*args: Any, **kwargs: Any) -> None:
        async def bounded() -> None:
            with trio.fail_after(20):
                await function(*args, **kwargs)

        trio.run(bounded)

    run.__name__ = function.__name__
    return run


@on_trio
async def test_a_server_on_trio() -> None:
    async with trio.open_nursery() as nursery:
        one = await start(nursery)
        async with trio_client.connect(trio_uri(one, "/path")) as ws:
            assert isinstance(ws, trio_client.ClientConnection)
            await ws.send("hi")
            assert await ws.recv() == "hi"
            (other,) = one.connections
            assert isinstance(other, trio_server.ServerConnection)
            assert other.server is one
            assert other.request.path == "/path"
            assert other.state is ws.state is State.OPEN
            await trio_server.broadcast(one.connections, "all")
            assert await ws.recv() == "all"
            nursery.start_soon(partial(one.aclose, code=1012, reason="bye"))
            with pytest.raises(ConnectionClosedError, match=r"^received 1012 \(service restart\) bye; then sent"):
                await ws.recv()
        assert one.closing


@on_trio
async def test_hooks_and_routes_on_trio() -> None:
    async def channel(ws: trio_server.ServerConnection, name: str) -> None:
        await ws.send(f"{name} {ws.username}")

    async def before(ws: trio_server.ServerConnection, request: Request) -> Response | None:
        if request.path == "/fails":
            raise RuntimeError("of the hook")
        return await trio_server.basic_auth("here", ("user", "secret"))(ws, request)

    url_map = Map([Rule("/c/<name>", endpoint=channel), Rule("/old", redirect_to="/c/new")])
    async with trio.open_nursery() as nursery:
        one = await start(nursery, url_map, trio_router.route, process_request=before)
        base = trio_uri(one, "").replace("ws://", "ws://user:secret@")
        for path, first in (("/c/news", "news user"), ("/old", "new user")):
            async with trio_client.connect(base + path) as ws:
                assert await ws.recv() == first
        for path, status in (("/none", 404), ("/fails", 500)):
            with pytest.raises(InvalidStatus) as caught:
                async with trio_client.connect(base + path):
                    pass
            assert caught.value.response.status_code == status
        await one.aclose()


@on_trio
async def test_reconnecting_on_trio() -> None:
    seen = []
    async with trio.open_nursery() as nursery:
        one = await start(nursery)
        async with aclosing(aiter(trio_client.connect(trio_uri(one)))) as rounds:
            async for ws in rounds:
                seen.append(ws)
                await ws.send("hi")
                assert await ws.recv() == "hi"
                if len(seen) == 3:
                    break
        assert [ws.state for ws in seen] == [State.CLOSED] * 3
        await one.aclose()
    with pytest.raises(OSError, match="refused"):
        async for _ in trio_client.connect("ws://127.0.0.1:1/", process_exception=lambda exc: exc):
            pass


@on_trio
async def test_a_redirect_is_not_followed_on_a_stream_that_was_given() -> None:
    def moved(ws: trio_server.ServerConnection, request: Request) -> Response | None:
        response = ws.respond(302, "")
        response.headers["Location"] = "/"
        return response

    async with trio.open_nursery() as nursery:
        one = await start(nursery, process_request=moved)
        stream = await trio.open_tcp_stream("127.0.0.1", one.listeners[0].socket.getsockname()[1])
        with pytest.raises(ValueError, match=r"^cannot follow redirect to ws://a/ with a preexisting stream$"):
            async with trio_client.connect("ws://a/b", stream=stream):
                pass
        await one.aclose()


@on_trio
async def test_a_connection_on_a_stream() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        a = trio_connection.Connection(nursery, ours, Protocol(CLIENT))
        b = trio_connection.Connection(nursery, theirs, Protocol(SERVER))
        await a.send("hi")
        assert await b.recv() == "hi"
        nursery.start_soon(a.aclose, 1000, "bye")
        with pytest.raises(ConnectionClosedOK, match=r"^received 1000 \(OK\) bye; then sent 1000 \(OK\) bye$"):
            await b.recv()


@on_trio
async def test_wrong_arguments_on_trio() -> None:
    with pytest.raises(ValueError, match=r"^port is required when listeners is not provided$"):
        await trio_server.serve(trio_echo)
    with pytest.raises(ValueError, match=r"^host is incompatible with listeners$"):
        await trio_server.serve(trio_echo, host="localhost", listeners=[])
    with pytest.raises(ValueError, match=r"^missing path argument$"):
        trio_client.unix_connect()


def test_one_thread_receives_and_one_sends() -> None:
    reached, go_on = threading.Event(), threading.Event()

    def pieces() -> Iterator[str]:
        reached.set()
        assert go_on.wait(10)
        yield "a"

    ours, theirs = socket.socketpair()
    a, b = connection.Connection(ours, Protocol(CLIENT)), connection.Connection(theirs, Protocol(SERVER))
    assert a.request is a.response is None
    receiving, sending = in_thread(b.recv), in_thread(lambda: a.send(pieces()))
    try:
        assert reached.wait(10)
        until(lambda: b._receiver is not None)
        calls: list[Callable[[], object]] = [b.recv, lambda: next(b.recv_streaming())]
        for call in calls:
            with pytest.raises(ConcurrencyError, match="while another thread is already running recv"):
                call()
        with pytest.raises(ConcurrencyError, match="cannot call send while another thread is already running send"):
            a.send("b")
    finally:
        go_on.set()
        sending.join()
        receiving.join()
    a.abort()
    b.abort()


def test_pings_that_nobody_answers() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ws = connection.Connection(ours, Protocol(CLIENT))
        acknowledged, unanswered = ws.ping("a", ack_on_close=True), ws.ping("b")
        ws.abort()
        assert acknowledged.wait(10)
        assert acknowledged.is_set()
        assert not unanswered.wait(10)
        with pytest.raises(ConnectionClosedError):
            unanswered.wait()
