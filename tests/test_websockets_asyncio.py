"""`wsfast.websockets` on asyncio does what `websockets` does."""

from __future__ import annotations

import asyncio
import http
import logging
import pickle
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from werkzeug.routing import Map, Rule

import wsfast
from wsfast import websockets
from wsfast.websockets.asyncio import client, router, server
from wsfast.websockets.asyncio.client import ClientConnection, connect, unix_connect
from wsfast.websockets.asyncio.connection import Connection
from wsfast.websockets.asyncio.server import Server, ServerConnection, basic_auth, broadcast, serve, unix_serve
from wsfast.websockets.datastructures import Headers
from wsfast.websockets.exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidHandshake,
    InvalidMessage,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    NegotiationError,
    SecurityError,
    WebSocketException,
)
from wsfast.websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from wsfast.websockets.frames import CloseCode
from wsfast.websockets.http11 import Request, Response
from wsfast.websockets.protocol import CLIENT, SERVER, Protocol, State
from wsfast.websockets.typing import Origin, Subprotocol

pytestmark = pytest.mark.anyio


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


def uri(running: Server, path: str = "/") -> str:
    return f"ws://127.0.0.1:{running.sockets[0].getsockname()[1]}{path}"


@asynccontextmanager
async def serving(handler: Any = echo, **options: Any) -> AsyncIterator[Server]:
    async with asyncio.timeout(20), serve(handler, "127.0.0.1", 0, **options) as running:
        yield running


# --- Connecting -------------------------------------------------------------------------------------------


async def test_defaults() -> None:
    seen: list[ServerConnection] = []

    async def handler(ws: ServerConnection) -> None:
        seen.append(ws)
        await echo(ws)

    async with serving(handler) as running, connect(uri(running, "/path?q")) as ws:
        assert isinstance(ws, ClientConnection)
        assert ws.state is ws.protocol.state is State.OPEN
        assert [type(one) for one in ws.protocol.extensions] == [PerMessageDeflate]
        assert isinstance(ws.id, uuid.UUID)
        assert isinstance(ws.request, Request)
        assert isinstance(ws.response, Response)
        assert ws.request.path == "/path?q"
        assert ws.request.headers.get_all("host") == [uri(running).split("/")[2]]
        assert ("Upgrade", "websocket") in list(ws.response.headers.raw_items())
        assert (ws.subprotocol, ws.close_code, ws.close_reason) == (None, None, None)
        await ws.send("x" * 1000)
        assert await ws.recv() == "x" * 1000
        (other,) = seen
        assert isinstance(other, ServerConnection)
        assert other.server is running
        assert running.connections == {other}
        assert isinstance(other.request, Request)
        assert isinstance(other.response, Response)
        assert other.request.path == "/path?q"
        assert other.response.status_code == 101
        assert other.logger.extra == {"websocket": other}
        assert other.logger.logger.name == "websockets.server"
        assert ws.logger.logger.name == "websockets.client"


async def test_compression_can_be_turned_off_and_set() -> None:
    async with serving(compression=None) as running, connect(uri(running)) as ws:
        assert ws.protocol.extensions == []
    settings = ServerPerMessageDeflateFactory(server_max_window_bits=11, client_no_context_takeover=True)
    async with serving(compression=None, extensions=[settings]) as running:
        mine = ClientPerMessageDeflateFactory(compress_settings={"level": 1})
        async with connect(uri(running), extensions=[mine]) as ws:
            agreed: Any
            (agreed,) = ws.protocol.extensions
            assert agreed.remote_max_window_bits == 11
            assert agreed.local_no_context_takeover
    for option in ({"compression": "gzip"}, {"compression": False}):
        with pytest.raises(ValueError, match="unsupported compression: "):
            connect("ws://127.0.0.1/", **option)
        with pytest.raises(ValueError, match="unsupported compression: "):
            serve(echo, "127.0.0.1", 0, **option)


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (
            lambda: connect("http://localhost/"),
            InvalidURI,
            "http://localhost/ isn't a valid URI: scheme isn't ws or wss",
        ),
        (lambda: connect("ws:///x"), InvalidURI, "ws:///x isn't a valid URI: hostname isn't provided"),
        (lambda: connect("ws://a/#b"), InvalidURI, "ws://a/#... isn't a valid URI: fragment identifier is meaningless"),
        (lambda: connect("ws://a/", ssl=True), ValueError, "ssl argument is incompatible with a ws:// URI"),
        (lambda: connect("wss://a/", ssl=None), ValueError, "ssl=None is incompatible with a wss:// URI"),
        (
            lambda: connect("ws://a/", proxy="other://b:1"),
            InvalidProxy,
            "other://b:1 isn't a valid proxy: scheme other isn't supported",
        ),
        (
            lambda: connect("ws://a/", proxy="http://b:1", proxy_ssl=True),
            ValueError,
            "proxy_ssl argument is incompatible with an http:// proxy",
        ),
        (
            lambda: connect("ws://a/", subprotocols=cast("Any", "b")),
            TypeError,
            "subprotocols must be a list, not a str",
        ),
        (
            lambda: connect("ws://a/", subprotocols=[Subprotocol("b c")]),
            ValueError,
            "invalid subprotocol: expected a token, got ' ' at index 1",  # which may be a secret, so it is not shown
        ),
        (lambda: unix_connect(), ValueError, "no path and sock were specified"),
        (lambda: unix_serve(echo), ValueError, "path was not specified, and no sock specified"),
    ],
)
async def test_wrong_arguments(call: Callable[[], Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == text


async def test_a_status() -> None:
    def process_request(ws: ServerConnection, request: Request) -> Response:
        response = ws.respond(http.HTTPStatus.FORBIDDEN, "no\n")
        response.headers["X-Why"] = "because"
        return response

    async with serving(process_request=process_request) as running:
        with pytest.raises(InvalidStatus) as caught:
            await connect(uri(running))
    exc = caught.value
    assert str(exc) == "server rejected WebSocket connection: HTTP 403"
    assert isinstance(exc, wsfast.InvalidStatus)
    assert isinstance(exc, WebSocketException)
    assert exc.response.status_code == 403
    assert exc.response.body == b"no\n"
    assert exc.response.headers["x-why"] == "because"


async def test_a_server_that_says_nothing() -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.close()

    async def junk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"220 mail\r\n")
        await reader.read()
        writer.close()

    for behaviour, cause in ((leave, EOFError), (junk, ValueError)):
        peer = await asyncio.start_server(behaviour, "127.0.0.1", 0)
        async with peer:
            port = peer.sockets[0].getsockname()[1]
            with pytest.raises(InvalidMessage, match=r"^did not receive a valid HTTP response$") as caught:
                await connect(f"ws://127.0.0.1:{port}/")
            assert isinstance(caught.value.__cause__, cause)


async def test_a_handshake_that_takes_too_long() -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(wait, "127.0.0.1", 0) as peer:
        port = peer.sockets[0].getsockname()[1]
        with pytest.raises(TimeoutError, match=r"^timed out during opening handshake$"):
            await connect(f"ws://127.0.0.1:{port}/", open_timeout=0.1)


async def test_create_connection() -> None:
    class Mine(ClientConnection):
        extra = 1

    class Theirs(ServerConnection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.name = "theirs"

    async def handler(ws: Theirs) -> None:
        await ws.send(ws.name)

    async with (
        serving(handler, create_connection=Theirs) as running,
        connect(uri(running), create_connection=Mine) as ws,
    ):
        assert isinstance(ws, Mine)
        assert await ws.recv() == "theirs"


async def test_connect_is_not_reentrant() -> None:
    async with serving() as running:
        connecting = connect(uri(running))
        async with connecting:
            with pytest.raises(RuntimeError, match=r"^connect\(\) isn't reentrant$"):
                await connecting.__aenter__()
        async with connecting as ws:
            await ws.send("again")


async def test_headers_that_programs_give() -> None:
    headers = Headers({"X-A": "1"})
    headers["X-A"] = "2"
    headers["Connection"] = "Upgrade"
    async with serving() as running, connect(uri(running), additional_headers=headers, user_agent_header=None) as ws:
        assert ws.request.headers.get_all("X-A") == ["1", "2"]
        assert ws.request.headers["Connection"] == "Upgrade"
        assert "User-Agent" not in ws.request.headers


# --- Redirects --------------------------------------------------------------------------------------------


def redirect_to(location: Callable[[], str]) -> Any:
    def process_request(ws: ServerConnection, request: Request) -> Response | None:
        if request.path != "/from":
            return None
        response = ws.respond(302, "")
        response.headers["Location"] = location()
        return response

    return process_request


async def test_a_redirect() -> None:
    async with (
        serving(process_request=redirect_to(lambda: "/to")) as running,
        connect(uri(running, "/from"), additional_headers={"Cookie": "a=b"}) as ws,
    ):
        assert ws.request.path == "/to"
        assert ws.protocol.uri.path == "/to"
        assert ws.request.headers["Cookie"] == "a=b"


async def test_a_redirect_to_another_origin_drops_credentials() -> None:
    async with (
        serving() as other,
        serving(process_request=redirect_to(lambda: uri(other))) as running,
        connect(uri(running, "/from"), additional_headers={"Cookie": "a=b", "X-Kept": "1"}) as ws,
    ):
        assert "Cookie" not in ws.request.headers
        assert ws.request.headers["X-Kept"] == "1"


async def test_process_redirect_may_be_overridden() -> None:
    asked: list[Exception] = []

    class Careful(connect):
        def process_redirect(self, exc: Exception) -> Exception | str:
            asked.append(exc)
            return LookupError("no redirects here")

    async with serving(process_request=redirect_to(lambda: "/to")) as running:
        with pytest.raises(LookupError, match="no redirects here"):
            await Careful(uri(running, "/from"))
    (exc,) = asked
    assert isinstance(exc, InvalidStatus)
    assert exc.response.headers["Location"] == "/to"


async def test_too_many_redirects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_REDIRECTS", 2)
    async with serving(process_request=redirect_to(lambda: "/from")) as running:
        with pytest.raises(SecurityError, match=r"^more than 2 redirects$"):
            await connect(uri(running, "/from"))


# --- Connecting again -------------------------------------------------------------------------------------


async def test_connecting_again(caplog: pytest.LogCaptureFixture) -> None:
    answers = iter([503, None, 418])

    def process_request(ws: ServerConnection, request: Request) -> Response | None:
        status = next(answers)
        return None if status is None else ws.respond(status, "")

    rounds = 0
    caplog.set_level(logging.INFO, "websockets.client")
    async with serving(process_request=process_request) as running:
        with pytest.raises(InvalidStatus, match="HTTP 418"):
            async for ws in connect(uri(running), reconnect_delays=lambda: (delay for delay in [0.01])):
                rounds += 1
                await ws.send("x")
    assert rounds == 1
    (message,) = caplog.messages
    assert message.startswith("connect failed; reconnecting in 0.0 seconds: ")
    assert message.endswith("InvalidStatus: server rejected WebSocket connection: HTTP 503")


async def test_process_exception_may_raise() -> None:
    def process_exception(exc: Exception) -> Exception | None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        async for _ in connect("ws://127.0.0.1:1/", process_exception=process_exception):
            raise AssertionError("connected")


# --- Messages ---------------------------------------------------------------------------------------------


async def test_aclosing() -> None:
    async with serving() as running, connect(uri(running)) as ws:
        async with aclosing(aiter(ws)) as messages:
            await ws.send("a")
            assert await anext(messages) == "a"
        await ws.send("b")
        assert await ws.recv() == "b"


async def test_two_receivers() -> None:
    async with serving() as running, connect(uri(running)) as ws:
        first = asyncio.ensure_future(ws.recv())
        await asyncio.sleep(0)
        with pytest.raises(ConcurrencyError) as caught:
            await ws.recv()
        assert isinstance(caught.value, RuntimeError)
        assert str(caught.value) == "cannot call recv while another coroutine is already running recv or recv_streaming"
        await ws.send("a")
        assert await first == "a"


async def test_max_queue_counts_messages() -> None:
    async def handler(ws: ServerConnection) -> None:
        for number in range(3):
            await ws.send(str(number))
            await (await ws.ping())  # so that each comes by itself
        await ws.send("3")
        await ws.wait_closed()

    async with (
        serving(handler, compression=None) as running,
        connect(uri(running), compression=None, max_queue=2) as ws,
    ):
        while ws.transport.is_reading():  # type: ignore[union-attr]
            await asyncio.sleep(0.001)
        assert [await ws.recv() for _ in range(4)] == ["0", "1", "2", "3"]


async def test_max_queue_from_its_default_on_is_for_bytes() -> None:
    async def handler(ws: ServerConnection) -> None:
        for number in range(100):
            await ws.send(str(number))
        await ws.wait_closed()

    async with serving(handler) as running, connect(uri(running), max_queue=(16, 4)) as ws:
        assert [await ws.recv() for _ in range(100)] == [str(number) for number in range(100)]
        channel: Any = ws._channel
        assert (channel.high_water, channel.low_water) == (65536, 16384)
    async with serving() as running, connect(uri(running), max_queue=None) as ws:
        assert ws._channel.high_water == 2**62


async def test_write_limit_of_two_marks() -> None:
    async with serving() as running, connect(uri(running), write_limit=(4096, 1024)) as ws:
        assert ws.transport is not None
        assert ws.transport.get_write_buffer_limits() == (1024, 4096)


# --- The end ----------------------------------------------------------------------------------------------


async def test_texts_of_the_end() -> None:
    async def handler(ws: ServerConnection) -> None:
        path = ws.request.path
        if path == "/code":
            await ws.close(3456, "bye")
        elif path == "/crash":
            raise LookupError
        elif path == "/lost":
            ws.abort()

    async with serving(handler) as running:
        for path, text, kind in (
            ("/", "received 1000 (OK); then sent 1000 (OK)", ConnectionClosedOK),
            ("/code", "received 3456 (registered) bye; then sent 3456 (registered) bye", ConnectionClosedError),
            ("/crash", "received 1011 (internal error); then sent 1011 (internal error)", ConnectionClosedError),
            ("/lost", "no close frame received or sent", ConnectionClosedError),
        ):
            async with connect(uri(running, path)) as ws:
                with pytest.raises(ConnectionClosed) as caught:
                    await ws.recv()
                assert type(caught.value) is kind
                assert str(caught.value) == text
                assert isinstance(caught.value, wsfast.ConnectionClosed)
                assert str(ws.protocol.close_exc) == str(ws.close_exc) == text
                assert ws.state is State.CLOSED
                rcvd = ws.protocol.close_rcvd
                assert (ws.close_code, ws.close_reason) == ((1006, "") if rcvd is None else (rcvd.code, rcvd.reason))


async def test_a_peer_that_does_not_answer_our_close() -> None:
    async def handler(ws: ServerConnection) -> None:
        ws.transport.pause_reading()  # type: ignore[union-attr]
        await asyncio.sleep(1)
        ws.abort()

    async with serving(handler) as running:
        ws = await connect(uri(running), close_timeout=0.1)
        await ws.close()
        with pytest.raises(ConnectionClosedError) as caught:
            await ws.recv()
        assert str(caught.value) == "sent 1000 (OK); no close frame received"
        assert isinstance(caught.value.__cause__, TimeoutError)
        assert str(caught.value.__cause__) == "timed out while closing connection"


async def test_deprecated_attributes_of_the_exception() -> None:
    async with serving() as running, connect(uri(running)) as ws:
        await ws.close()
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
        with pytest.warns(DeprecationWarning, match=r"^ConnectionClosed.code is deprecated; use Protocol"):
            assert caught.value.code == 1000
        with pytest.warns(DeprecationWarning, match=r"^ConnectionClosed.reason is deprecated; use Protocol"):
            assert caught.value.reason == ""


async def test_close_in_the_middle_of_a_message() -> None:
    async def handler(ws: ServerConnection) -> None:
        await ws.wait_closed()

    async with serving(handler) as running, connect(uri(running)) as ws:

        async def pieces() -> AsyncIterator[str]:
            yield "a"
            await ws.close()
            yield "b"

        with pytest.raises(ConnectionClosedError, match="close during fragmented message"):
            await ws.send(pieces())
        assert ws.protocol.close_sent is not None
        assert ws.protocol.close_sent.code == 1011


# --- Servers ----------------------------------------------------------------------------------------------


async def test_subprotocols() -> None:
    async with serving(subprotocols=["a", "b"]) as running:
        async with connect(uri(running), subprotocols=[Subprotocol("b"), Subprotocol("a")]) as ws:
            assert ws.subprotocol == "a"  # the server's preference
        for offers in (None, ["c"]):
            with pytest.raises(InvalidStatus, match="HTTP 400"):
                await connect(uri(running), subprotocols=cast("Any", offers))
    async with serving() as running, connect(uri(running), subprotocols=[Subprotocol("a")]) as ws:
        assert ws.subprotocol is None  # 101 though nothing is registered


async def test_select_subprotocol() -> None:
    def select(ws: ServerConnection, offers: Any) -> Any:
        if "bad" in offers:
            raise NegotiationError("not that")
        if "worse" in offers:
            raise LookupError
        return offers[-1] if offers else None

    async with serving(select_subprotocol=select) as running:
        async with connect(uri(running), subprotocols=[Subprotocol("x"), Subprotocol("y")]) as ws:
            assert ws.subprotocol == "y"
        async with connect(uri(running)) as ws:
            assert ws.subprotocol is None
        for offer, status in (("bad", 400), ("worse", 500)):
            with pytest.raises(InvalidStatus, match=f"HTTP {status}"):
                await connect(uri(running), subprotocols=[Subprotocol(offer)])


async def test_a_request_may_be_changed_by_its_hook() -> None:
    def process_request(ws: ServerConnection, request: Request) -> None:
        if request.path == "/drop":
            del request.headers["Sec-WebSocket-Key"]
        else:
            request.path = "/changed"
            del request.headers["Origin"]

    paths: list[str] = []

    async def handler(ws: ServerConnection) -> None:
        paths.append(ws.request.path)

    async with serving(handler, process_request=process_request, origins=[None]) as running:
        with pytest.raises(InvalidStatus, match="HTTP 400"):
            await connect(uri(running, "/drop"))
        async with connect(uri(running), origin=Origin("http://evil")) as ws:
            await ws.wait_closed()
    assert paths == ["/changed"]


async def test_process_response(caplog: pytest.LogCaptureFixture) -> None:
    async def process_response(ws: ServerConnection, request: Request, response: Response) -> Response | None:
        if request.path == "/fail":
            raise LookupError("boom")
        response.headers["X-Seen"] = request.path
        return response if request.path == "/same" else None

    async with serving(process_response=process_response, server_header=None) as running:
        for path in ("/", "/same"):
            async with connect(uri(running, path)) as ws:
                assert ws.response.headers["X-Seen"] == path
                assert "Server" not in ws.response.headers
        with pytest.raises(InvalidStatus, match="HTTP 500"):
            await connect(uri(running, "/fail"))
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage() == "process_response failed"
    assert isinstance(record.exc_info and record.exc_info[1], LookupError)


async def test_a_handler_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(ws: ServerConnection) -> None:
        raise LookupError("boom")

    async with serving(handler) as running, connect(uri(running)) as ws:
        with pytest.raises(ConnectionClosedError):
            await ws.recv()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        "connection handler failed"
    ]


async def test_the_end_of_a_server_waits_for_handlers() -> None:
    told, ended = asyncio.Event(), asyncio.Event()

    async def handler(ws: ServerConnection) -> None:
        await ws.wait_closed()
        told.set()
        await ended.wait()

    async with serving(handler) as running, connect(uri(running)) as ws:
        running.close(code=1012, reason="restart")
        with pytest.raises(ConnectionClosedError, match=r"^received 1012 \(service restart\) restart; then sent"):
            await ws.recv()
        await told.wait()
        waiting = asyncio.ensure_future(running.wait_closed())
        await asyncio.sleep(0.01)
        assert not waiting.done()  # it is not cancelled
        ended.set()
        await waiting


async def test_what_a_server_tells() -> None:
    running = await serve(echo, "127.0.0.1", 0, start_serving=False)
    assert not running.is_serving()
    assert running.get_loop() is asyncio.get_running_loop()
    serving = asyncio.ensure_future(running.serve_forever())
    while not running.is_serving():
        await asyncio.sleep(0)
    async with connect(uri(running)) as ws:
        await ws.send("x")
    running.close()
    running.close(False)
    await serving
    assert not running.is_serving()
    assert running.sockets == ()


async def test_unix(tmp_path: Path) -> None:
    async with unix_serve(echo, tmp_path / "s"), unix_connect(tmp_path / "s") as ws:
        await ws.send("a")
        assert await ws.recv() == "a"
        assert ws.request.headers["Host"] == "localhost"


async def test_basic_auth() -> None:
    async def handler(ws: ServerConnection) -> None:
        await ws.send(ws.username or "")

    async with serving(handler, process_request=basic_auth("r", credentials=("alice", "s3cret"))) as running:
        place = uri(running).removeprefix("ws://")
        async with connect(f"ws://alice:s3cret@{place}") as ws:
            assert await ws.recv() == "alice"
        for user in ("", "alice:wrong@", "bob:s3cret@"):
            with pytest.raises(InvalidStatus, match="HTTP 401") as caught:
                await connect(f"ws://{user}{place}")
            assert caught.value.response.headers["WWW-Authenticate"] == 'Basic realm="r", charset="UTF-8"'


async def test_route() -> None:
    async def channel(ws: ServerConnection, number: int) -> None:
        await ws.send(f"channel {number}")

    paths = Map([Rule("/channel/<int:number>", endpoint=channel), Rule("/old", redirect_to="/channel/7")])
    async with asyncio.timeout(20), router.route(paths, "127.0.0.1", 0) as running:
        for path, answer in (("/channel/3", "channel 3"), ("/old", "channel 7")):
            async with connect(uri(running, path)) as ws:
                assert await ws.recv() == answer
        with pytest.raises(InvalidStatus, match="HTTP 404"):
            await connect(uri(running, "/none"))


async def test_broadcast(caplog: pytest.LogCaptureFixture) -> None:
    gate = asyncio.Event()

    async def pieces() -> AsyncIterator[str]:
        yield "a"
        await gate.wait()

    async with serving() as running, connect(uri(running)) as one, connect(uri(running)) as other:
        while len(running.connections) < 2:
            await asyncio.sleep(0)
        broadcast(running.connections, "hi")
        assert await one.recv() == await other.recv() == "hi"
        busy = next(iter(running.connections))
        sending = asyncio.ensure_future(busy.send(pieces()))
        await asyncio.sleep(0.01)
        broadcast([busy], "no")
        assert caplog.messages[-1] == "skipped broadcast: sending a fragmented message"
        with pytest.raises(ExceptionGroup, match=r"^skipped broadcast") as caught:
            broadcast([busy], "no", raise_exceptions=True)
        assert isinstance(caught.value.exceptions[0], ConcurrencyError)
        gate.set()
        await sending


async def test_a_connection_as_an_asyncio_protocol() -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    _, one = await loop.create_connection(lambda: Connection(Protocol(CLIENT)), sock=ours)  # type: ignore[type-var]
    _, other = await loop.create_connection(lambda: Connection(Protocol(SERVER)), sock=theirs)  # type: ignore[type-var]
    async with asyncio.timeout(10):
        await one.send("hi")
        assert await other.recv() == "hi"
        await one.close()
        await other.wait_closed()
    assert one.close_code == other.close_code == CloseCode.NORMAL_CLOSURE


def test_names() -> None:
    assert websockets.connect is client.connect
    assert websockets.serve is server.serve
    assert issubclass(websockets.InvalidHandshake, WebSocketException)
    assert issubclass(InvalidStatus, InvalidHandshake)


async def test_headers_are_those_of_the_moment() -> None:
    """As a token that is renewed: pysignalr changes the dict that it gave."""

    async def handler(ws: ServerConnection) -> None:
        assert ws.request is not None
        await ws.send(ws.request.headers.get("Authorization", "none"))

    async with serve(handler, "127.0.0.1", 0) as server:
        headers: dict[str, str] = {}
        made = connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", additional_headers=headers)
        seen = []
        async for ws in made:
            seen.append(await ws.recv())
            if len(seen) == 1:
                headers["Authorization"] = "first"
            elif len(seen) == 2:
                made.additional_headers = {"Authorization": "second"}
            elif len(seen) == 3:
                made.additional_headers = None
            else:
                break
        assert seen == ["none", "first", "second", "none"]
        other = connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", additional_headers=headers)
        headers["Authorization"] = "before the first"
        async with other as ws:
            assert await ws.recv() == "before the first"


async def test_what_a_peer_that_has_gone_is_told_as() -> None:
    async def handler(ws: ServerConnection) -> None:
        assert ws.transport is not None
        ws.transport.close()

    async with serve(handler, "127.0.0.1", 0) as server:
        async with connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}") as ws:
            with pytest.raises(ConnectionClosedError) as caught:
                await ws.recv()
        assert repr(caught.value.__cause__) == "EOFError('unexpected end of stream')"
        assert repr(caught.value) == "ConnectionClosedError(None, None, None)"
        assert pickle.loads(pickle.dumps(caught.value)).cause is caught.value.cause


async def test_a_block_that_raises_closes_with_1011() -> None:
    codes: list[int | None] = []

    async def handler(ws: ServerConnection) -> None:
        await ws.wait_closed()
        codes.append(ws.close_code)

    async with serve(handler, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(KeyError):
            async with connect(uri):
                raise KeyError
        async with connect(uri):
            pass
        async for _ in connect(uri):
            break
    assert codes == [1011, 1000, 1011]
