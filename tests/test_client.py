"""`connect` and its sisters against a server of wsfast: what works when all goes well."""
# ruff: noqa: SIM117 (a block in a block tells what ends first)

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from client_helpers import nothing_left, url_of
from shared import echo, port_of, serving, until

import wsfast
from wsfast.codes import CloseCause, CloseCode

pytestmark = pytest.mark.anyio


async def test_async_with() -> None:
    async with serving() as server, nothing_left(port_of(server)):
        async with wsfast.connect(url_of(server, "/path?query=1")) as ws:
            assert ws.state is wsfast.State.OPEN
            await ws.send("text ☃")
            assert await ws.recv() == "text ☃"
            await ws.send(b"\x00\xff")
            assert await ws.recv() == b"\x00\xff"
            assert ws.request is not None
            assert ws.request.path == "/path?query=1"
            assert ws.request.headers["Host"] == f"127.0.0.1:{port_of(server)}"
            assert ws.response is not None
            assert ws.response.status_code == 101
            assert ws.response.headers["Server"] == "wsfast"
            assert ws.subprotocol is None
            assert ws.remote_address == ("127.0.0.1", port_of(server))
            assert ws.local_address[0] == "127.0.0.1"
        assert ws.state.name == "CLOSED"
        assert (ws.close_code, ws.close_reason) == (1000, "")
        assert ws.close_cause is CloseCause.LOCAL


async def test_await() -> None:
    async with serving() as server, nothing_left(port_of(server)):
        ws = await wsfast.connect(url_of(server))
        await ws.send("a")
        assert await ws.recv() == "a"
        await ws.close(4000, "done")
        with pytest.raises(wsfast.ConnectionClosedError) as caught:
            await ws.recv()
        assert caught.value.sent == wsfast.Close(4000, "done")
        assert caught.value.code == 4000
        assert caught.value.rcvd_then_sent is False


async def test_connection_as_a_context() -> None:
    async with serving() as server, nothing_left(port_of(server)):
        async with await wsfast.connect(url_of(server)) as ws:
            await ws.send("a")
            assert await ws.recv() == "a"
        assert ws.close_code == 1000
        ws = await wsfast.connect(url_of(server))
        with pytest.raises(ZeroDivisionError):
            async with ws:
                raise ZeroDivisionError
        assert ws.close_code == CloseCode.INTERNAL_ERROR


async def test_exception_in_the_block_closes_with_1011() -> None:
    closed: asyncio.Queue[int | None] = asyncio.Queue()

    async def handler(ws: wsfast.WebSocket) -> None:
        with contextlib.suppress(wsfast.ConnectionClosed):
            await ws.recv()
        closed.put_nowait(ws.close_code)

    async with serving(handler) as server, nothing_left(port_of(server)):
        with pytest.raises(ZeroDivisionError):
            async with wsfast.connect(url_of(server)):
                raise ZeroDivisionError
        assert await closed.get() == CloseCode.INTERNAL_ERROR


async def test_entering_twice_is_refused() -> None:
    async with serving() as server:
        connecting = wsfast.connect(url_of(server))
        async with connecting:
            with pytest.raises(RuntimeError, match="entered already"):
                await connecting.__aenter__()
        async with connecting as again:
            await again.send("b")
            assert await again.recv() == "b"
            await connecting.__aexit__(None, None, None)
            assert again.close_code == 1000
        with pytest.raises(ZeroDivisionError):
            async with connecting as last:
                await connecting.__aexit__(None, None, None)
                raise ZeroDivisionError
        assert last.close_code == 1000


async def test_entering_twice_at_the_same_time_is_refused() -> None:
    """Else the first connection would be nobody's, and stay open."""
    async with serving() as server, nothing_left(port_of(server)):
        connecting = wsfast.connect(url_of(server))
        entered = await asyncio.gather(*(connecting.__aenter__() for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in entered] == [wsfast.WebSocket, RuntimeError, RuntimeError]
        await connecting.__aexit__(None, None, None)
    async with serving() as server:
        failing = wsfast.connect("ws://127.0.0.1:1/")
        for _ in range(2):  # what has failed can be entered again
            with pytest.raises(ConnectionRefusedError):
                await failing.__aenter__()


async def test_headers() -> None:
    seen: list[wsfast.Request] = []

    async def handler(ws: wsfast.WebSocket) -> None:
        assert ws.request is not None
        seen.append(ws.request)

    async with serving(handler, subprotocols=["chat"]) as server:
        uri = url_of(server, host="user:p%40ss@127.0.0.1")
        async with wsfast.connect(
            uri,
            origin="https://example.com",
            subprotocols=["unknown", "chat"],
            user_agent_header="agent/1",
            additional_headers={"Cookie": "a=1; b=2", "X-More": "yes"},
        ) as ws:
            assert ws.subprotocol == "chat"
            await ws.wait_closed()
        async with wsfast.connect(
            url_of(server), bearer_token="abc.def", additional_headers=[("X-More", "1"), ("X-More", "2")]
        ) as ws:
            await ws.wait_closed()
        async with wsfast.connect(
            url_of(server), user_agent_header=None, additional_headers={"Host": "other.example"}
        ) as ws:
            await ws.wait_closed()
    first, second, third = (request.headers for request in seen)
    assert first["Authorization"] == "Basic dXNlcjpwQHNz"
    assert first["Origin"] == "https://example.com"
    assert first["User-Agent"] == "agent/1"
    assert first["Cookie"] == "a=1; b=2"
    assert first["X-More"] == "yes"
    assert second["Authorization"] == "Bearer abc.def"
    assert second.getall("X-More") == ["1", "2"]
    assert second["User-Agent"].endswith(f"wsfast/{wsfast.__version__}")
    assert "User-Agent" not in third
    assert third["Host"] == "other.example"


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"additional_headers": {"X": "a\r\nY: b"}}, ValueError, "control characters"),
        ({"additional_headers": {"Upgrade": "h2c"}}, ValueError, "part of the handshake"),
        ({"subprotocols": "chat"}, TypeError, "list of strings"),
        ({"subprotocols": ["a b"]}, ValueError, "token"),
        ({"subprotocols": ["a", "a"]}, ValueError, "once"),
        ({"additional_headers": "X: y"}, TypeError, "pairs"),
        ({"additional_headers": ["X: y"]}, TypeError, "pairs"),
        ({"additional_headers": [("X", "y", "z")]}, TypeError, "pairs"),
        ({"additional_headers": {"X": None}}, TypeError, "X as str, got NoneType"),
        ({"bearer_token": b"abc"}, TypeError, "bearer_token must be a str or None, got bytes"),
        ({"origin": "a\nb"}, ValueError, "control characters"),
        ({"bearer_token": "a b"}, ValueError, "bearer token"),
        ({"compression": "gzip"}, ValueError, "compression"),
        ({"max_size": 0}, ValueError, "max_size"),
        ({"open_timeout": -1}, ValueError, "open_timeout"),
        ({"max_redirects": -1}, ValueError, "max_redirects"),
        ({"ssl": True}, ValueError, "ws://"),
        ({"path": "/socket"}, ValueError, "path goes with unix=True"),
        ({"unix": True}, ValueError, "either path or sock"),
        (
            {"unix": True, "path": "/socket", "sock": SimpleNamespace(getsockname=tuple)},
            ValueError,
            "either path or sock",
        ),
        ({"proxy": "ftp://x"}, wsfast.InvalidProxy, "scheme"),
        ({"proxy": "http://"}, wsfast.InvalidProxy, "host"),
        ({"proxy": "http://x:0"}, wsfast.InvalidProxy, "port"),
        ({"proxy": "http://x:123456"}, wsfast.InvalidProxy, "port"),
        ({"proxy": "http://x/path"}, wsfast.InvalidProxy, "nothing after"),
        ({"proxy": 5}, TypeError, "proxy"),
    ],
)
def test_wrong_arguments_are_refused_at_once(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        wsfast.connect("ws://example.com/", **options)


@pytest.mark.parametrize(("offer", "agreed"), [(list, None), (lambda: iter(["chat"]), "chat"), (lambda: None, None)])
async def test_subprotocols(offer: Callable[[], Any], agreed: str | None) -> None:
    async with wsfast.serve(echo, "127.0.0.1", 0, subprotocols=["chat"]) as server:
        connector = wsfast.connect(url_of(server), subprotocols=offer())
        for _ in range(2):  # also when it connects again
            ws = await connector
            assert ws.subprotocol == agreed
            assert ws.request is not None
            assert ("Sec-WebSocket-Protocol" in ws.request.headers) is (agreed is not None)
            await ws.close()


@pytest.mark.parametrize("uri", ["http://example.com/", "ws://", "ws://a b/", "ws://example.com/#part", "ws://h:0/"])
def test_wrong_uris_are_refused_at_once(uri: str) -> None:
    with pytest.raises(wsfast.InvalidURI):
        wsfast.connect(uri)


def test_wss_without_tls_is_refused() -> None:
    with pytest.raises(ValueError, match="ssl=False"):
        wsfast.connect("wss://example.com/", ssl=False)
    with pytest.raises(TypeError, match="SSLContext"):
        wsfast.connect("wss://example.com/", ssl="no")  # type: ignore[arg-type]


async def test_ipv6_and_names() -> None:
    async with wsfast.serve(echo, "::1", 0) as server:
        async with wsfast.connect(url_of(server, host="[::1]")) as ws:
            assert ws.request is not None
            assert ws.request.headers["Host"] == f"[::1]:{port_of(server)}"
            await ws.send("six")
            assert await ws.recv() == "six"
    async with serving() as server:
        async with wsfast.connect(url_of(server, host="localhost")) as ws:
            await ws.send("name")
            assert await ws.recv() == "name"


async def test_international_names() -> None:
    async with serving() as server:
        # `host` stands for a resolver that knows the name.
        async with wsfast.connect(url_of(server, host="bücher.example"), host="127.0.0.1", port=port_of(server)) as ws:
            assert ws.request is not None
            assert ws.request.headers["Host"] == f"xn--bcher-kva.example:{port_of(server)}"


async def test_sock_and_local_address() -> None:
    async with serving() as server:
        sock = socket.create_connection(("127.0.0.1", port_of(server)))
        sock.setblocking(False)
        name = sock.getsockname()
        async with wsfast.connect(url_of(server), sock=sock) as ws:
            assert ws.local_address == name
            await ws.send("x")
            assert await ws.recv() == "x"
        async with wsfast.connect(url_of(server), local_addr=("127.0.0.2", 0), family=socket.AF_INET) as ws:
            assert ws.local_address[0] == "127.0.0.2"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
async def test_a_socket_that_is_not_of_unix(kind: socket.SocketKind) -> None:
    family = socket.AF_UNIX if kind == socket.SOCK_DGRAM else socket.AF_INET
    with socket.socket(family, kind) as sock, pytest.raises(ValueError, match="expected a stream socket of Unix, got"):
        await wsfast.unix_connect(sock=sock)


async def test_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    server = wsfast.Server()
    server.register_handler(None, echo)
    await server.start(path=path)
    async with server:
        async with wsfast.unix_connect(path) as ws:
            assert ws.request is not None
            assert ws.request.headers["Host"] == "localhost"
            await ws.send("unix")
            assert await ws.recv() == "unix"
        async with wsfast.connect("ws://other/", unix=True, path=path) as ws:
            assert ws.request is not None
            assert ws.request.headers["Host"] == "other"
        async with wsfast.unix_connect(path, "ws://other/path") as ws:
            assert ws.request is not None
            assert (ws.request.headers["Host"], ws.request.path) == ("other", "/path")


async def test_proxies_of_the_environment_are_not_for_unix_and_sock(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with serving() as server:
        sock = socket.create_connection(("127.0.0.1", port_of(server)))
        sock.setblocking(False)
        async with wsfast.connect(url_of(server), sock=sock):
            pass
        with pytest.raises(wsfast.ProxyError):
            await wsfast.connect(url_of(server))
        for none in (None, False):
            async with wsfast.connect(url_of(server), proxy=none) as ws:
                await ws.send("direct")
                assert await ws.recv() == "direct"


async def test_nobody_listens(free_port: int) -> None:
    async with nothing_left(free_port):
        with pytest.raises(OSError, match=r"[Cc]onnect"):
            await wsfast.connect(f"ws://127.0.0.1:{free_port}/")
        with pytest.raises(OSError):  # noqa: PT011 (the text is the resolver's)
            await wsfast.connect("ws://name.invalid/")


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example"])
async def test_a_host_that_cannot_be_looked_up(host: str) -> None:
    with pytest.raises(wsfast.InvalidURI, match="expected a host name: ") as caught:
        await wsfast.connect("ws://example.com/", host=host)
    assert caught.value.uri == host


@pytest.fixture
def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # uvloop has no happy eyeballs
async def test_an_address_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    tried: list[str] = []
    connect = loop.sock_connect

    async def look_up(host: str, port: int, **options: Any) -> list[Any]:
        assert host == "two.test"
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
            for address in ("127.0.0.2", "127.0.0.1")
        ]

    async def connect_or_hang(sock: socket.socket, address: Any) -> None:
        tried.append(address[0])
        if address[0] == "127.0.0.2":
            await loop.create_future()
        await connect(sock, address)

    monkeypatch.setattr(loop, "getaddrinfo", look_up)
    monkeypatch.setattr(loop, "sock_connect", connect_or_hang)
    async with serving() as server, nothing_left(port_of(server)):
        async with wsfast.connect(url_of(server, host="two.test")) as ws:
            assert ws.remote_address == ("127.0.0.1", port_of(server))
    assert tried == ["127.0.0.2", "127.0.0.1"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_address_that_is_slow_is_waited_for_though_the_others_refuse(
    monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    loop = asyncio.get_running_loop()
    connect, refused = loop.sock_connect, asyncio.Event()

    async def look_up(host: str, port: int, **options: Any) -> list[Any]:
        kind = socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, ""
        return [(*kind, ("127.0.0.1", port)), (*kind, ("127.0.0.1", free_port))]

    async def connect_slowly(sock: socket.socket, address: Any) -> None:
        if address[1] == free_port:
            try:
                await connect(sock, address)
            finally:
                refused.set()
        await refused.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        await connect(sock, address)

    async with serving() as server, nothing_left(port_of(server)):
        with monkeypatch.context() as patch:
            patch.setattr(loop, "getaddrinfo", look_up)
            patch.setattr(loop, "sock_connect", connect_slowly)
            ws = await wsfast.connect(url_of(server, host="two.test"), happy_eyeballs_delay=0.01)
        assert ws.remote_address == ("127.0.0.1", port_of(server))
        await ws.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("delay", [{}, {"happy_eyeballs_delay": None}, {"happy_eyeballs_delay": 0.01}])
async def test_no_address_of_a_name_answers(
    monkeypatch: pytest.MonkeyPatch, free_port: int, delay: dict[str, Any]
) -> None:
    found: list[str] = []

    async def look_up(host: str, port: int, **options: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port)) for address in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
    uri = f"ws://two.test:{free_port}/"
    with pytest.raises(OSError, match=r"no address of two[.]test answers"):
        await wsfast.connect(uri, **delay)
    found += ["127.0.0.1"]
    with pytest.raises(ConnectionRefusedError, match=r"'127\.0\.0\.1'"):
        await wsfast.connect(uri, **delay)
    found += ["127.0.0.2"]
    with pytest.raises(ConnectionRefusedError, match=r"'127\.0\.0\.1'.*; .*'127\.0\.0\.2'"):
        await wsfast.connect(uri, **delay)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("turns", range(7))
async def test_cancelled_when_an_address_has_just_answered(monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    loop = asyncio.get_running_loop()
    connect, go = loop.sock_connect, asyncio.Event()
    made: list[socket.socket] = []

    async def connect_and_hold(sock: socket.socket, address: Any) -> None:
        made.append(sock)
        await connect(sock, address)
        await go.wait()

    async def look_up(host: str, port: int, **options: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))] * 2

    async with serving() as server, nothing_left(port_of(server)):
        with monkeypatch.context() as patch:
            patch.setattr(loop, "getaddrinfo", look_up)
            patch.setattr(loop, "sock_connect", connect_and_hold)
            task = asyncio.create_task(_connect(url_of(server, host="two.test")))
            await until(lambda: len(made) == 2)
            await until(lambda: server.counters["handshakes"] == 2)
            go.set()
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: all(sock.fileno() == -1 for sock in made))


async def test_cancelled_while_connecting() -> None:
    async with serving(process_request=_never) as server, nothing_left(port_of(server)):
        task = asyncio.create_task(_connect(url_of(server)))
        await until(lambda: server.counters["handshakes"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not server.counters["handshakes"])


async def _never(ws: wsfast.WebSocket, request: wsfast.Request) -> None:
    await asyncio.sleep(3600)


async def _connect(uri: str) -> wsfast.WebSocket:
    return await wsfast.connect(uri)


# --- The forms --------------------------------------------------------------------------------------------------


class Recorder(wsfast.Listener):
    def __init__(self, ws: wsfast.WebSocket) -> None:
        super().__init__(ws)
        self.seen: asyncio.Queue[Any] = asyncio.Queue()

    def on_open(self) -> None:
        self.seen.put_nowait("open")

    def on_message(self, message: str | bytes) -> None:
        self.seen.put_nowait(message)

    def on_close(self, code: int, reason: str) -> None:
        self.seen.put_nowait((code, reason))


async def test_listener() -> None:
    async with serving() as server, nothing_left(port_of(server)):
        async with wsfast.connect_listener(Recorder, url_of(server)) as recorder:
            assert await recorder.seen.get() == "open"
            recorder.ws.send_nowait("a")
            recorder.ws.send_nowait(b"b")
            assert await recorder.seen.get() == "a"
            assert await recorder.seen.get() == b"b"
        assert await recorder.seen.get() == (1000, "")
        recorder = await wsfast.connect_listener(Recorder, url_of(server))
        assert await recorder.seen.get() == "open"
        await recorder.ws.close()


async def test_listener_misses_nothing_that_comes_with_the_response() -> None:
    async def greet(ws: wsfast.WebSocket) -> None:
        for number in range(100):
            await ws.send(str(number))

    async with serving(greet) as server:
        async with wsfast.connect_listener(Recorder, url_of(server)) as recorder:
            assert await recorder.seen.get() == "open"
            for number in range(100):
                assert await recorder.seen.get() == str(number)
            assert await recorder.seen.get() == (1000, "")


async def test_listener_that_raises() -> None:
    class Broken(wsfast.Listener):
        def __init__(self, ws: wsfast.WebSocket) -> None:
            raise ZeroDivisionError

    class BrokenOpen(wsfast.Listener):
        def on_open(self) -> None:
            raise ZeroDivisionError

    async with serving() as server, nothing_left(port_of(server)):
        for factory in (Broken, BrokenOpen):
            with pytest.raises(ZeroDivisionError):
                await wsfast.connect_listener(factory, url_of(server))
    with pytest.raises(TypeError, match="callable"):
        wsfast.connect_listener(None, "ws://example.com/")  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["factory", "on_open"])
async def test_listener_that_cancels_who_connects(where: str) -> None:
    class Cancelling(wsfast.Listener):
        def __init__(self, ws: wsfast.WebSocket) -> None:
            super().__init__(ws)
            if where == "factory":
                task.cancel("enough")

        def on_open(self) -> None:
            if where == "on_open":
                task.cancel("enough")

    async with serving() as server, nothing_left(port_of(server)):
        task = asyncio.ensure_future(wsfast.connect_listener(Cancelling, url_of(server))._await())
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        await until(lambda: not server.connections)
        assert server.counters["causes"] == {CloseCause.LOST: 1}


async def test_listener_whose_method_raises(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Recorder):
        def on_message(self, message: str | bytes) -> None:
            raise ZeroDivisionError("later")

    async with serving() as server, nothing_left(port_of(server)):
        async with wsfast.connect_listener(Broken, url_of(server)) as broken:
            broken.ws.send_nowait("a")
            await broken.ws.wait_closed()
            assert broken.ws.close_cause is CloseCause.HANDLER_ERROR
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "wsfast.client"


async def test_stream() -> None:
    server = wsfast.Server()

    @server.stream_handler("tunnel")
    async def tunnel(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        while data := await reader.read():
            await writer.write(data.upper())
            await writer.flush()

    await server.start("127.0.0.1", 0)
    async with server, nothing_left(port_of(server)):
        async with wsfast.connect_stream(url_of(server), subprotocols=["tunnel"]) as (reader, writer):
            assert writer.ws.subprotocol == "tunnel"
            assert (writer.ws.reader, writer.ws.writer) == (reader, writer)
            await writer.write(b"one\n")
            await writer.flush()
            assert await reader.readline() == b"ONE\n"
            big = b"x" * 300_000
            await writer.write(big)
            await writer.flush()
            assert await reader.readexactly(len(big)) == big.upper()
            await writer.write(b"unflushed")
        assert await reader.read() == b"UNFLUSHED" or reader.at_eof()


async def test_stream_text() -> None:
    async with serving() as server:
        reader, writer = await wsfast.connect_stream(url_of(server), text=True)
        await writer.write("gr\u00fc\u00df dich")
        await writer.flush()
        assert await reader.read() == "gr\u00fc\u00df dich".encode()
        await writer.close()
        assert await reader.read() == b""


# --- What a WebSocket does, from this side ----------------------------------------------------------------------


async def test_recv_decode() -> None:
    async with serving() as server, wsfast.connect(url_of(server)) as ws:
        cases: list[tuple[str | bytes, bool | None, str | bytes]] = [
            ("ä", False, "ä".encode()),
            ("ä".encode(), True, "ä"),
            (b"b", None, b"b"),
        ]
        for sent, decode, expected in cases:
            await ws.send(sent)
            assert await ws.recv(decode=decode) == expected


async def test_send_iterables() -> None:
    async def pieces() -> AsyncIterator[str]:
        for piece in ("a", "b", "c"):
            await asyncio.sleep(0)
            yield piece

    async with serving() as server, wsfast.connect(url_of(server)) as ws:
        await ws.send(pieces())
        assert await ws.recv() == "abc"
        await ws.send([b"1", b"2"])
        assert await ws.recv() == b"12"
        await ws.send(b"text", text=True)
        assert await ws.recv() == "text"
        with pytest.raises(TypeError):
            await ws.send({"a": 1})


async def test_recv_streaming() -> None:
    size = 500_000

    async def handler(ws: wsfast.WebSocket) -> None:
        await ws.send([b"x" * 100_000] * 5)
        await ws.send("whole")
        await ws.wait_closed()

    async with serving(handler) as server, wsfast.connect(url_of(server)) as ws:
        held = [len(piece) async for piece in ws.recv_streaming()]
        assert sum(held) == size
        assert len(held) > 1
        assert await ws.recv() == "whole"


async def test_recv_streaming_shows_what_has_come_already() -> None:
    """Its sender may wait for a reaction to that."""
    seen = asyncio.Event()

    async def pieces() -> AsyncIterator[str]:
        yield "first"
        await seen.wait()
        yield "second"

    async def handler(ws: wsfast.WebSocket) -> None:
        await ws.send(pieces())

    async with serving(handler) as server, wsfast.connect(url_of(server)) as ws:
        await until(lambda: ws._channel.connection.decoder.held)
        got = []
        async with asyncio.timeout(10):
            async for piece in ws.recv_streaming():
                got.append(piece)
                seen.set()
        assert got[0] == "first"
        assert "".join(map(str, got)) == "firstsecond"


async def test_ping() -> None:
    async with serving() as server, wsfast.connect(url_of(server)) as ws:
        assert ws.latency == 0
        round_trip = await (await ws.ping())
        assert 0 < round_trip < 5
        assert ws.latency == round_trip
        waiter = await ws.ping("data")
        with pytest.raises(wsfast.ConcurrencyError):
            await ws.ping("data")
        await waiter
        unanswered = await ws.ping()
        ws.abort()
        await ws.wait_closed()
        with pytest.raises(wsfast.ConnectionClosed):
            await unanswered


@pytest.mark.parametrize("compression", ["deflate", wsfast.Deflate(client_no_context_takeover=True, threshold=0)])
async def test_compression(compression: Any) -> None:
    async with serving(compression="deflate") as server:
        async with wsfast.connect(url_of(server), compression=compression) as ws:
            assert ws.response is not None
            assert ws.response.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
            for message in ("a" * 10_000, b"b" * 10_000, "c", ""):
                await ws.send(message)
                assert await ws.recv() == message
            assert ws.counters["bytes_sent"] < 1000
    async with serving() as server, wsfast.connect(url_of(server), compression=compression) as ws:
        assert ws.response is not None
        assert "Sec-WebSocket-Extensions" not in ws.response.headers
        await ws.send("declined")
        assert await ws.recv() == "declined"


async def test_frames_are_masked_with_fresh_keys() -> None:
    keys: list[bytes] = []
    done = asyncio.Event()

    class Spy(asyncio.Protocol):
        data = b""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.data += data
            head, separator, frames = self.data.partition(b"\r\n\r\n")
            if separator and not keys:
                from wsfast.handshake import RequestParser, accept_response, check_request

                if not hasattr(self, "answered"):
                    request = RequestParser().feed(head + separator)
                    assert request is not None
                    self.answered = True
                    self.transport.write(accept_response(check_request(request).key))  # type: ignore[attr-defined]
                if len(frames) >= 50 * 7:
                    keys.extend(frames[start + 2 : start + 6] for start in range(0, 50 * 7, 7))
                    done.set()

    loop = asyncio.get_running_loop()
    server = await loop.create_server(Spy, "127.0.0.1", 0)
    ws = await wsfast.connect(url_of(server))
    for _ in range(50):
        await ws.send("a")
    await asyncio.wait_for(done.wait(), 10)
    ws.abort()
    await ws.wait_closed()
    server.close()
    await server.wait_closed()
    assert len(set(keys)) == 50


async def test_closing_while_much_is_unread() -> None:
    async def flood(ws: wsfast.WebSocket) -> None:
        with contextlib.suppress(wsfast.ConnectionClosed):
            while True:
                await ws.send(b"x" * 10_000)

    async with serving(flood) as server, nothing_left(port_of(server)):
        loop = asyncio.get_running_loop()
        async with wsfast.connect(url_of(server), close_timeout=5) as ws:
            await ws.recv()
            await asyncio.sleep(0.1)  # until reading is paused
            began = loop.time()
        assert loop.time() - began < 3
        assert ws.close_code == 1000


async def test_keepalive() -> None:
    async with serving() as server:
        async with wsfast.connect(url_of(server), ping_interval=0.05) as ws:
            await until(lambda: ws.latency)
            assert ws.state is wsfast.State.OPEN
        async with wsfast.connect(url_of(server), ping_interval=None) as ws:
            await asyncio.sleep(0.1)
            assert ws.latency == 0


async def test_limits_reach_the_connection() -> None:
    async def handler(ws: wsfast.WebSocket) -> None:
        await ws.send("x" * 101)
        with contextlib.suppress(wsfast.ConnectionClosed):
            await ws.recv()

    async with serving(handler) as server, wsfast.connect(url_of(server), max_size=100) as ws:
        with pytest.raises(wsfast.ConnectionClosedError) as caught:
            await ws.recv()
        assert caught.value.sent is not None
        assert caught.value.sent.code == CloseCode.MESSAGE_TOO_BIG
        assert isinstance(caught.value.__cause__, wsfast.PayloadTooBig)


async def test_many_connections_share_one_timer() -> None:
    from wsfast.client.connector import _timer_of

    async with serving() as server:
        opened = await asyncio.gather(*(wsfast.connect(url_of(server))._await() for _ in range(50)))
        timer = _timer_of(asyncio.get_running_loop())
        assert sum(len(bucket) for bucket in timer.buckets.values()) == 50
        await asyncio.gather(*(ws.close() for ws in opened))
        assert not sum(len(bucket) for bucket in timer.buckets.values())


class Listening(wsfast.Listener):
    def on_message(self, message: str | bytes) -> None:
        self.ws.send_nowait(message)


@pytest.mark.skipif(sys.implementation.name == "pypy", reason="frees nothing without its collector")
@pytest.mark.parametrize("ending", ["close", "abort", "the peer", "too big"])
@pytest.mark.parametrize("form", ["handler", "listener"])
async def test_what_has_ended_is_freed_without_the_garbage_collector(form: str, ending: str) -> None:
    """Neither end leaves a cycle, whatever was used of it: programs that switch the collector off may stay up."""

    def alive() -> list[str]:
        kinds = ("WebSocket", "ConnectionProtocol", "SocketTransport", "Decoder", "PerMessageDeflate", "Session")
        return [name for one in gc.get_objects() if (name := type(one).__name__) in kinds]

    async def use(ws: wsfast.WebSocket) -> None:
        await ws.send(["in ", "fragments"])
        assert await ws.recv() == "in fragments"
        await (await ws.ping())
        if ending == "abort":
            ws.abort()
        elif ending == "too big":
            await ws.send(bytes(5000))
        elif ending == "the peer":
            for served in server.connections:
                served.close_nowait()
        if ending != "close":
            await ws.wait_closed()

    handler = Listening if form == "listener" else echo
    async with serving({None: handler}, compression="deflate", max_size=4096) as server:
        gc.collect()
        before = alive()
        gc.disable()
        try:
            async with wsfast.connect(url_of(server), compression="deflate") as ws:
                await use(ws)
            del ws
            await until(lambda: not server.connections)
            for _ in range(3):
                await asyncio.sleep(0)
            assert sorted(alive()) == sorted(before)
        finally:
            gc.enable()
