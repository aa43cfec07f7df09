"""The server without an event loop, beside clients of wsfast, of websockets, and some that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from sync_helpers import PATIENCE, client_threads, in_thread, until

import wsfast
from wsfast import encode_frame
from wsfast.server import basic_auth
from wsfast.sync import Server, WebSocket, connect, serve, unix_connect, unix_serve
from wsfast.sync import server as module

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the system's errors are Linux's")


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """No test leaves a thread behind."""
    yield
    until(lambda: not client_threads())


def echo(ws: WebSocket) -> None:
    """Send each message back."""
    for message in ws:
        ws.send(message)


@contextlib.contextmanager
def serving(handler: Any = echo, *args: Any, **options: Any) -> Iterator[Server]:
    """Run a server in a thread."""
    where = args or (() if {"path", "sock"} & options.keys() else ("127.0.0.1", 0))
    with serve(handler, *where, **options) as server:
        thread = in_thread(server.serve_forever)
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(PATIENCE)
            assert not thread.is_alive()


def uri(server: Server, scheme: str = "ws") -> str:
    return f"{scheme}://localhost:{server.socket.getsockname()[1]}/"


def request(*headers: str, line: str = "GET / HTTP/1.1") -> bytes:
    usual = [
        line,
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ]
    return "\r\n".join([*usual, *headers, "", ""]).encode()


def dial(server: Server) -> socket.socket:
    sock = socket.create_connection(server.socket.getsockname()[:2], timeout=PATIENCE)
    sock.settimeout(PATIENCE)
    return sock


def read_all(sock: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            data += piece
    return data


def upgraded(server: Server) -> socket.socket:
    """Connect by hand."""
    sock = dial(server)
    sock.sendall(request())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101 ")
    return sock


# --- Peers


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_our_client(compression: Any) -> None:
    with serving(compression=compression) as server, connect(uri(server), compression=compression) as ws:
        assert ws.response is not None
        assert ("Sec-WebSocket-Extensions" in ws.response.headers) is (compression is not None)
        for message in ("x", b"y" * 300_000, "", "✓" * 1000):
            ws.send(message)
            assert ws.recv(timeout=PATIENCE) == message
        ws.send(["a", "b"])
        assert ws.recv(timeout=PATIENCE) == "ab"
        assert ws.ping().wait(PATIENCE)
    assert ws.close_code == 1000


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_the_client_of_websockets(compression: Any) -> None:
    from websockets.sync.client import connect as theirs

    with serving(compression="deflate") as server, theirs(uri(server), compression=compression, proxy=None) as ws:
        for message in ("x", b"y" * 300_000, "", "✓" * 1000):
            ws.send(message)
            assert ws.recv(timeout=PATIENCE) == message
        ws.ping().wait(PATIENCE)
        ws.close(4000, "bye")
        assert ws.close_code == 4000


def test_the_client_on_asyncio() -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE):
            async with wsfast.connect(uri(server)) as ws:
                await ws.send("x")
                assert await ws.recv() == "x"
                assert await (await ws.ping()) > 0
            assert ws.close_code == 1000

    with serving() as server:
        asyncio.run(main())


def test_many_clients_at_once() -> None:
    def use() -> None:
        with connect(uri(server)) as ws:
            for i in range(20):
                ws.send(str(i))
                assert ws.recv(timeout=PATIENCE) == str(i)
        done.append(ws)

    done: list[Any] = []
    with serving() as server:
        threads = [in_thread(use) for _ in range(20)]
        for thread in threads:
            thread.join(PATIENCE)
        until(lambda: not server.connections)
    assert len(done) == 20


def test_what_came_before_the_close_frame_is_answered() -> None:
    """The client sends, closes, and then receives: the answers come before the server's Close frame."""
    with serving() as server, upgraded(server) as sock:
        frames = b"".join(encode_frame(1, str(i), mask=b"abcd") for i in range(5))
        sock.sendall(frames + encode_frame(8, b"\x03\xe8", mask=b"abcd"))
        events = wsfast.Decoder(masked=False).feed(read_all(sock))
    assert events == ["0", "1", "2", "3", "4", wsfast.Close(1000)]


# --- Dispatch and handshake


def test_subprotocols() -> None:
    def named(name: str) -> Callable[[WebSocket], None]:
        def handler(ws: WebSocket) -> None:
            ws.send(f"{name} {ws.subprotocol}")

        return handler

    with serving({"a": named("A"), "b": named("B"), None: named("none")}) as server:
        for offers, expected in ((["b", "a"], "B b"), (["x", "a"], "A a"), (None, "none None")):
            with connect(uri(server), subprotocols=offers) as ws:
                assert ws.recv(timeout=PATIENCE) == expected
        with pytest.raises(wsfast.InvalidStatus) as caught:
            connect(uri(server), subprotocols=["x"])
    assert caught.value.response.status_code == 400
    assert b"supported: a, b" in caught.value.response.body
    with serving(named("A"), subprotocols=["a"]) as server:
        for offers, expected in ((["a"], "A a"), (None, "A None")):
            with connect(uri(server), subprotocols=offers) as ws:
                assert ws.recv(timeout=PATIENCE) == expected
    with serving({"a": named("A")}) as server, pytest.raises(wsfast.InvalidStatus, match="400"):
        connect(uri(server))


def test_the_choice_can_be_a_hook() -> None:
    def choose(ws: WebSocket, offers: Any) -> str | None:
        if "never" in offers:
            raise wsfast.NegotiationError("mine")
        return "b" if "b" in offers else None

    with serving(echo, subprotocols=["a", "b", "never"], select_subprotocol=choose) as server:
        with connect(uri(server), subprotocols=["a", "b"]) as ws:
            assert ws.subprotocol == "b"
        with connect(uri(server), subprotocols=["a"]) as ws:
            assert ws.subprotocol is None
        with pytest.raises(wsfast.InvalidStatus, match="400"):
            connect(uri(server), subprotocols=["never"])


def test_what_a_handler_knows_of_a_connection() -> None:
    seen: list[Any] = []

    def handler(ws: WebSocket) -> None:
        seen.extend([ws.request.path, ws.remote_address, ws.local_address, ws.state, ws.response, ws.close_code, ws.id])

    with serving(handler) as server, connect(uri(server) + "there?x=1") as ws:
        assert list(ws) == []
        assert seen[0] == "/there?x=1"
        assert seen[1] == ws.local_address
        assert seen[2] == ws.remote_address == server.socket.getsockname()
        assert seen[3] is wsfast.State.OPEN
        assert seen[4].status_code == 101
        assert seen[5] is None


def test_process_request() -> None:
    states: list[Any] = []

    def process(ws: WebSocket, asked: Any) -> Any:
        states.append((ws.state, ws.close_code, ws.close_reason, ws.close_cause, ws.latency, repr(ws)))
        for use in (lambda: ws.send("x"), ws.recv, ws.ping, ws.close):
            with pytest.raises(wsfast.InvalidState, match="opening handshake"):
                use()
        if asked.path == "/health":
            return ws.respond(200, "OK\n")
        return None

    with serving(process_request=process) as server:
        with connect(uri(server)) as ws:
            ws.send("x")
            assert ws.recv(timeout=PATIENCE) == "x"
        for method in ("GET", "HEAD"):
            with dial(server) as sock:
                sock.sendall(f"{method} /health HTTP/1.0\r\n\r\n".encode())
                answer = read_all(sock)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\n\r\nOK\n" if method == "GET" else b"\r\n\r\n")
        with dial(server) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert read_all(sock).startswith(b"HTTP/1.1 426 ")
    assert states[0][:5] == (wsfast.State.CONNECTING, None, None, None, 0.0)
    assert "CONNECTING" in states[0][5]


def test_process_response() -> None:
    def process(ws: WebSocket, asked: Any, response: Any) -> Any:
        response.headers["X-Mine"] = "yes"
        return wsfast.Response(403) if asked.path == "/no" else None

    with serving(process_response=process, response_headers={"X-Other": "1"}, server_header="me") as server:
        with connect(uri(server)) as ws:
            assert ws.response is not None
            assert [ws.response.headers[name] for name in ("X-Mine", "X-Other", "Server")] == ["yes", "1", "me"]
        with pytest.raises(wsfast.InvalidStatus, match="403"):
            connect(uri(server) + "no")
        with dial(server) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"\r\nX-Mine: yes\r\n" in read_all(sock)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, how) for name in ("process_request", "process_response") for how in ("raises", "wrong", "waits")),
        *(("select_subprotocol", how) for how in ("raises", "wrong")),
    ],
)
def test_hooks_that_fail(name: str, how: str, caplog: pytest.LogCaptureFixture) -> None:
    def hook(*args: Any) -> Any:
        if how == "raises":
            raise KeyError("mine")
        return asyncio.sleep(0) if how == "waits" else 5

    options: dict[str, Any] = {name: hook}
    with (
        serving(echo, subprotocols=["a"], **options) as server,
        pytest.raises(wsfast.InvalidStatus, match="500"),
    ):
        connect(uri(server), subprotocols=["a"])
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.exc_info is not None
    if how == "waits":
        assert "must not wait" in str(record.exc_info[1])


def test_a_hook_that_is_a_coroutine_function_and_waits_for_nothing() -> None:
    auth = basic_auth("here", credentials=("alice", "secret"))
    names: list[Any] = []
    with serving(lambda ws: names.append(ws.username), process_request=auth) as server:
        with connect(uri(server).replace("//", "//alice:secret@")) as ws:
            assert list(ws) == []
        with pytest.raises(wsfast.InvalidStatus, match="401"):
            connect(uri(server))
    assert names == ["alice"]


def test_origins() -> None:
    with serving(origins=["https://good.test", re.compile(r"https://.*\.good\.test")]) as server:
        for origin in ("https://good.test", "https://www.good.test"):
            with connect(uri(server), origin=origin):
                pass
        for refused in ("https://bad.test", None):
            with pytest.raises(wsfast.InvalidStatus, match="403"):
                connect(uri(server), origin=refused)


def test_limits_of_heads_and_messages() -> None:
    with serving(max_line=100, max_size=100) as server:
        with pytest.raises(wsfast.InvalidStatus, match="431"):
            connect(uri(server), additional_headers={"X": "y" * 200})
        with connect(uri(server)) as ws:
            ws.send("x" * 101)
            with pytest.raises(wsfast.ConnectionClosedError, match="1009"):
                ws.recv(timeout=PATIENCE)


# --- Where it listens


def test_several_addresses() -> None:
    with serving(echo, ["127.0.0.1", "127.0.0.2"], 0) as server:
        assert len(server.sockets) == 2
        assert server.fileno() == server.sockets[0].fileno() == server.socket.fileno()
        for sock in server.sockets:
            host, port = sock.getsockname()
            with connect(f"ws://{host}:{port}") as ws:
                ws.send("x")
                assert ws.recv(timeout=PATIENCE) == "x"
    assert not server.sockets
    assert server.fileno() == -1
    with pytest.raises(ValueError, match="closed"):
        server.socket  # noqa: B018


def test_a_socket_that_is_bound() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    with serving(sock=sock) as server, connect(uri(server)) as ws:
        ws.send("x")
        assert ws.recv(timeout=PATIENCE) == "x"


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
def test_unix_sockets(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    seen: list[Any] = []

    def handler(ws: WebSocket) -> None:
        seen.append(ws.remote_address)
        echo(ws)

    for _ in range(2):
        with unix_serve(handler, path) as server:
            thread = in_thread(server.serve_forever)
            with unix_connect(path) as ws:
                ws.send("x")
                assert ws.recv(timeout=PATIENCE) == "x"
                assert seen.pop() is ws.remote_address is None
            server.shutdown()
            thread.join(PATIENCE)
        assert not path.exists()
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))  # which no server removed
    with pytest.raises(ValueError, match="path or sock"):
        unix_serve(echo)


def test_tls(certs: Certificates) -> None:
    with serving(ssl=certs.server_context(client_required=True)) as server:
        with connect(uri(server, "wss"), ssl=certs.client_context(certificate=True)) as ws:
            for message in ("x", b"y" * 900_000):
                ws.send(message)
                assert ws.recv(timeout=PATIENCE) == message
        assert ws.close_code == 1000
        with pytest.raises((OSError, wsfast.InvalidMessage)):
            connect(uri(server, "wss"), ssl=certs.client_context())
        with pytest.raises(OSError, match=r"(?i)certificate"):
            connect(uri(server, "wss"))
        with pytest.raises((OSError, wsfast.InvalidMessage)):
            connect(uri(server))
        with connect(uri(server, "wss"), ssl=certs.client_context(certificate=True)) as ws:
            ws.send("still there")
            assert ws.recv(timeout=PATIENCE) == "still there"


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"port": 0, "path": "/nowhere"}, ValueError, "one address"),
        ({"sock": object()}, TypeError, "sock"),
        ({"port": None}, ValueError, "one address"),
        ({"max_connections": 0}, ValueError, "max_connections"),
        ({"max_connections": "1"}, TypeError, "max_connections"),
        ({"stop_timeout": 0}, ValueError, "stop_timeout"),
        ({"ssl": True}, TypeError, "ssl"),
        ({"max_size": 0}, ValueError, "max_size"),
        ({"max_sise": 1}, TypeError, "max_size"),
        ({"extra_headers": {}}, TypeError, "response_headers"),
        ({"handler": {}}, ValueError, "empty mapping"),
        ({"handler": 5}, TypeError, "callable"),
        ({"handler": {"no token": echo}}, ValueError, "token"),
        ({"handler": {None: echo}, "subprotocols": ["a"]}, TypeError, "mapping"),
        ({"subprotocols": "chat"}, TypeError, "list"),
        ({"origins": "https://x"}, TypeError, "origins"),
        ({"process_request": 5}, TypeError, "process_request"),
        ({"response_headers": {"Upgrade": "x"}}, ValueError, "handshake"),
        ({"response_headers": {"X": "a\r\nb"}}, ValueError, "X"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], kind: type[Exception], text: str) -> None:
    given = {"handler": echo, "host": None, "port": 0, **options}
    with pytest.raises(kind, match=text):
        serve(**given)


def test_an_address_that_is_taken() -> None:
    with serving() as server, pytest.raises(OSError, match="cannot listen") as caught:
        serve(echo, *server.socket.getsockname())
    assert caught.value.errno == errno.EADDRINUSE


# --- Handlers


def test_a_handler_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    def fail(ws: WebSocket) -> None:
        raise KeyError("mine")

    with serving(fail) as server, connect(uri(server)) as ws:
        with pytest.raises(wsfast.ConnectionClosedError) as caught:
            ws.recv(timeout=PATIENCE)
        assert (caught.value.code, caught.value.reason) == (1011, "")
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.name == "wsfast.server"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)


@pytest.mark.parametrize("how", ["reset", "drop", "close"])
def test_a_client_that_leaves_is_no_error(how: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ended = threading.Event()

    def handler(ws: WebSocket) -> None:
        try:
            while True:
                ws.recv()
        finally:
            ended.set()

    with serving(handler) as server:
        sock = upgraded(server)
        if how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        elif how == "close":
            sock.sendall(encode_frame(8, b"\x03\xe8", mask=b"abcd"))
        sock.close()
        assert ended.wait(PATIENCE)
    assert not [record for record in caplog.records if record.levelno > logging.INFO or record.exc_info]


def test_messages_that_a_handler_leaves_do_not_delay_the_end() -> None:
    with serving(lambda ws: ws.recv(), read_limit=1000) as server, connect(uri(server)) as ws:
        began = time.monotonic()
        with contextlib.suppress(wsfast.ConnectionClosed):
            for _ in range(100):
                ws.send("x" * 1000)
        with pytest.raises(wsfast.ConnectionClosedOK):
            ws.recv(timeout=PATIENCE)
        assert ws.wait_closed(PATIENCE)
        assert time.monotonic() - began < 1


def test_keepalive_finds_a_client_that_is_gone() -> None:
    causes: list[Any] = []

    def handler(ws: WebSocket) -> None:
        with contextlib.suppress(wsfast.ConnectionClosed):
            ws.recv()
        causes.append(ws.close_cause)

    with serving(handler, ping_interval=0.05, ping_timeout=0.05) as server, upgraded(server):
        until(lambda: causes)
    assert causes == [wsfast.CloseCause.KEEPALIVE]


# --- The end


def test_shutdown_closes_with_1001() -> None:
    with serving() as server:
        clients = [connect(uri(server)) for _ in range(3)]
        for ws in clients:
            ws.send("x")
            assert ws.recv(timeout=PATIENCE) == "x"
        assert len(server.connections) == 3
        server.shutdown()
        assert server.connections == set()
        for ws in clients:
            with pytest.raises(wsfast.ConnectionClosedOK, match="1001"):
                ws.recv(timeout=PATIENCE)
        server.shutdown()  # without effect
        server.serve_forever()  # returns


def test_shutdown_with_a_code() -> None:
    with serving() as server, connect(uri(server)) as ws:
        with pytest.raises(ValueError, match="code"):
            server.shutdown(code=1)
        ws.send("x")
        assert ws.recv(timeout=PATIENCE) == "x"
        server.shutdown(code=1012, reason="again soon")
        with pytest.raises(wsfast.ConnectionClosedError, match="again soon"):
            ws.recv(timeout=PATIENCE)


def test_shutdown_can_leave_connections_alone() -> None:
    with serving() as server:
        ws = connect(uri(server))
        stopping = in_thread(lambda: server.shutdown(close_connections=False))
        until(lambda: server.closing)
        ws.send("x")
        assert ws.recv(timeout=PATIENCE) == "x"
        assert stopping.is_alive()
        ws.close()
        assert ws.close_code == 1000
        stopping.join(PATIENCE)
        assert not stopping.is_alive()


def test_a_client_that_does_not_answer_the_close_frame() -> None:
    with serving(stop_timeout=1.0, close_timeout=PATIENCE) as server, upgraded(server):
        began = time.monotonic()
        server.shutdown()
        assert time.monotonic() - began < 1.5


def test_a_handler_that_does_not_return(caplog: pytest.LogCaptureFixture) -> None:
    go = threading.Event()
    with serving(lambda ws: go.wait(PATIENCE), stop_timeout=0.5) as server, connect(uri(server)) as ws:
        began = time.monotonic()
        server.shutdown()
        assert 0.3 < time.monotonic() - began < 1.5
        assert "1 handlers are still running 0.5 s after" in caplog.text
        with pytest.raises(wsfast.ConnectionClosed):
            ws.recv(timeout=PATIENCE)
        go.set()


def test_a_handler_may_shut_the_server_down() -> None:
    def handler(ws: WebSocket) -> None:
        ws.recv()
        servers[0].shutdown()
        with pytest.raises(wsfast.ConnectionClosedOK, match="1001"):
            ws.send("x")
        done.append(ws)

    done: list[WebSocket] = []
    servers: list[Server] = []
    with serving(handler) as server:
        servers.append(server)
        with connect(uri(server)) as ws:
            ws.send("x")
            with pytest.raises(wsfast.ConnectionClosedOK, match="1001"):
                ws.recv(timeout=PATIENCE)
            until(lambda: done)


def test_requests_under_way_at_the_end() -> None:
    go, asked = threading.Event(), threading.Event()

    def process(ws: WebSocket, request: Any) -> None:
        asked.set()
        assert go.wait(PATIENCE)

    with serving(process_request=process) as server, dial(server) as waiting, dial(server) as silent:
        waiting.sendall(request())
        assert asked.wait(PATIENCE)
        until(lambda: server.counters["handshakes"] == 2)
        stopping = in_thread(server.shutdown)
        assert read_all(silent) == b""
        go.set()
        assert read_all(waiting).startswith(b"HTTP/1.1 503 ")
        stopping.join(PATIENCE)
        assert not stopping.is_alive()


@linux_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle(number: int, tmp_path: Path) -> None:
    """Ctrl-C leaves the block; a handler of SIGTERM may call `shutdown` in the thread that serves."""
    program = tmp_path / "program.py"
    program.write_text(
        "import signal, wsfast.sync\n"
        "def echo(ws):\n"
        "    for message in ws: ws.send(message)\n"
        "with wsfast.sync.serve(echo, '127.0.0.1', 0) as server:\n"
        "    signal.signal(signal.SIGTERM, lambda *args: server.shutdown())\n"
        "    print(server.socket.getsockname()[1], flush=True)\n"
        "    try:\n"
        "        server.serve_forever()\n"
        "    except KeyboardInterrupt:\n"
        "        pass\n"
        "print('ended')\n"
    )
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with connect(f"ws://127.0.0.1:{int(process.stdout.readline())}") as ws:
            ws.send("x")
            assert ws.recv(timeout=PATIENCE) == "x"
            process.send_signal(number)
            with pytest.raises(wsfast.ConnectionClosedOK, match="1001"):
                ws.recv(timeout=PATIENCE)
        assert process.stdout.read() == "ended\n"
        assert process.wait(PATIENCE) == 0


# --- Hostile peers


@pytest.mark.parametrize("secure", [False, True])
def test_a_handshake_that_trickles(certs: Certificates, secure: bool) -> None:
    """The deadline is absolute: each byte does not renew it."""
    options = {"ssl": certs.server_context()} if secure else {}
    with serving(open_timeout=0.3, **options) as server, dial(server) as sock:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in b"\x16\x03\x01\x00\xff" if secure else request() * 2:
                sock.sendall(bytes([byte]))
                if select.select([sock], [], [], 0.02)[0]:
                    break
        assert read_all(sock) == b""
        assert 0.2 < time.monotonic() - began < 3
        until(lambda: not server._served)


@pytest.mark.parametrize("data", [b"", b"\r\n" * 10, b"\xff" * 10, b"GET / HTTP/1.1\r\nHost", b"\x16\x03\x01\x02\x00"])
@pytest.mark.parametrize("end", ["half", "reset", "close"])
def test_what_is_no_request(data: bytes, end: str, caplog: pytest.LogCaptureFixture) -> None:
    with serving() as server:
        sock = dial(server)
        sock.sendall(data)
        if end == "half":
            sock.shutdown(socket.SHUT_WR)
            answer = read_all(sock)
            assert not answer or answer.startswith(b"HTTP/1.1 400 ")
        elif end == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        with connect(uri(server)) as ws:
            ws.send("x")
            assert ws.recv(timeout=PATIENCE) == "x"
        until(lambda: not server._served)
    assert not [record for record in caplog.records if record.levelno > logging.INFO or record.exc_info]


def test_too_many_connections(caplog: pytest.LogCaptureFixture) -> None:
    with serving(max_connections=2) as server:
        clients = [connect(uri(server)) for _ in range(2)]
        for _ in range(3):
            with pytest.raises(wsfast.InvalidStatus, match="503") as caught:
                connect(uri(server))
            assert caught.value.response.headers["Retry-After"] == "5"
        assert caplog.text.count("connections are refused") == 1
        clients[0].close()
        until(lambda: len(server._served) < 2)
        with connect(uri(server)) as ws:
            ws.send("x")
            assert ws.recv(timeout=PATIENCE) == "x"
        clients[1].close()


def test_more_refusals_than_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are refused are bounded too, and dropped after a while."""
    monkeypatch.setattr(module, "_MOST_SURPLUS", 3)
    monkeypatch.setattr(module, "LINGER", 0.3)
    with serving(max_connections=1) as server, connect(uri(server)), contextlib.ExitStack() as stack:
        socks = [stack.enter_context(dial(server)) for _ in range(6)]
        answers = [read_all(sock) for sock in socks]
        assert sum(answer.startswith(b"HTTP/1.1 503 ") for answer in answers) == 3
        assert answers.count(b"") == 3
        for sock in socks:
            sock.settimeout(PATIENCE)
            with contextlib.suppress(OSError):
                while sock.send(b"x"):
                    time.sleep(0.01)


@linux_only
def test_out_of_descriptors(tmp_path: Path) -> None:
    """One line when it begins, and one when it ends; meanwhile the processor is idle."""
    program = tmp_path / "program.py"
    program.write_text(
        "import logging, resource, sys, threading, time, wsfast.sync\n"
        "logging.basicConfig(level=logging.WARNING)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
        "def echo(ws):\n"
        "    for message in ws: ws.send(message)\n"
        "server = wsfast.sync.serve(echo, '127.0.0.1', 0)\n"
        "thread = threading.Thread(target=server.serve_forever)\n"
        "thread.start()\n"
        "print(server.socket.getsockname()[1], flush=True)\n"
        "sys.stdin.readline()\n"
        "print(time.process_time(), flush=True)\n"
        "sys.stdin.readline()\n"
        "server.shutdown()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, program], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        port = int(process.stdout.readline())
        with contextlib.ExitStack() as stack:
            for _ in range(60):
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
                sock.sendall(request())
            lines = [process.stderr.readline()]
            time.sleep(1.5)
            process.stdin.write("\n")
            process.stdin.flush()
            assert float(process.stdout.readline()) < 5
        lines.append(process.stderr.readline())  # though nobody connects
        with connect(f"ws://127.0.0.1:{port}") as ws:
            ws.send("x")
            assert ws.recv(timeout=PATIENCE) == "x"
        process.stdin.write("\n")
        process.stdin.flush()
        lines += process.stderr.readlines()
    assert re.fullmatch(r"ERROR:wsfast.server:no connections are accepted for now: .*\n", lines[0])
    assert re.fullmatch(r"WARNING:wsfast.server:connections are accepted again, after \d+ s\n", lines[1])
    assert len(lines) == 2


def test_a_system_without_room_for_threads(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def start(thread: threading.Thread) -> None:
        if thread.name == "wsfast-serve" and not go.is_set():
            raise RuntimeError("can't start new thread")
        started(thread)

    started = threading.Thread.start
    go = threading.Event()
    with serving() as server:
        monkeypatch.setattr(threading.Thread, "start", start)
        monkeypatch.setattr(module, "PAUSE", 0.05)
        with dial(server) as sock:
            assert read_all(sock) == b""
        go.set()
        with connect(uri(server)) as ws:
            ws.send("x")
            assert ws.recv(timeout=PATIENCE) == "x"
    assert caplog.text.count("no connections are accepted for now") == 1


def test_a_flood_of_pings_and_messages() -> None:
    """A client that reads nothing: what is held for it stays bounded."""
    with serving(lambda ws: ws.wait_closed(), read_limit=10_000, write_limit=10_000) as server:
        with upgraded(server) as sock:
            until(lambda: server.connections)
            (ws,) = server.connections
            sock.settimeout(1.0)
            with contextlib.suppress(TimeoutError):
                for _ in range(200):
                    sock.sendall(encode_frame(9, b"x" * 125, mask=b"abcd") * 500)
            assert ws.buffered_amount < 1 << 20
        until(lambda: not server.connections)
        with upgraded(server) as sock:
            until(lambda: server.connections)
            (ws,) = server.connections
            sock.settimeout(1.0)
            with contextlib.suppress(TimeoutError):
                for _ in range(200):
                    sock.sendall(encode_frame(1, b"x" * 1000, mask=b"abcd") * 100)
            assert 0 < ws._put_size - ws._taken_size < 10_000 + 256 * 1100


def test_a_thread_of_its_own_for_each_connection() -> None:
    """Two threads and a handful of descriptors; all are given back."""
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    with serving() as server:
        clients = [connect(uri(server)) for _ in range(10)]
        until(lambda: len(server.connections) == 10)
        for ws in clients:
            ws.close()
        until(lambda: not server._served)
    if before:
        until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_a_class_of_ones_own() -> None:
    class Own(WebSocket):
        def who(self) -> str:
            assert self.request is not None
            return self.request.path

    def handler(ws: WebSocket) -> None:
        assert isinstance(ws, Own)
        ws.send(ws.who())

    with serving(handler, create_connection=Own) as server, connect(f"{uri(server)}a") as ws:
        assert ws.recv(PATIENCE) == "/a"


def test_a_reset_while_reading_is_paused_is_no_error_of_the_handler(caplog: pytest.LogCaptureFixture) -> None:
    """Its `send` learns of it before the thread that reads does."""
    with serving(read_limit=1000, write_limit=1000) as server:
        with dial(server) as sock:
            sock.sendall(request())
            sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                while True:  # until neither side takes more
                    sock.sendall(encode_frame(2, bytes(10_000), mask=b"abcd"))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        until(lambda: not server._served)
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def test_handlers_that_cannot_serve() -> None:
    def old(ws: WebSocket, path: str) -> None: ...

    async def coroutine(ws: WebSocket) -> None: ...

    handler: Any
    given: Any
    for handler, text in (
        (None, "a handler must be callable, got NoneType"),
        (lambda: None, r"must take 1 argument \(ws\), got .*<lambda>\(\)"),
        (old, r"missing a required argument: 'path'; the path is ws.request.path$"),
        (coroutine, "must be a plain function here, got the coroutine function .*coroutine$"),
        (partial(coroutine), "must be a plain function here"),
    ):
        for given in (handler, {None: print, "a": handler}):
            with pytest.raises(TypeError, match=text):
                serve(given, "127.0.0.1", 0)
