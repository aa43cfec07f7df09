"""`python -m wsfast serve` as a program: what it prints, serves and refuses, and how it stops."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import websockets
from certificates import make_certificates
from cli_helpers import Serve, serve
from websockets.typing import Subprotocol

import wsfast
from wsfast.cli import main


def fetch(host: str, port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()
    finally:
        connection.close()


def refused(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wsfast", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def server() -> Iterator[Serve]:
    with serve() as running:
        yield running


# --- What it serves ----------------------------------------------------------------------------------------


def test_it_says_where_it_listens(server: Serve) -> None:
    assert f"wsfast {wsfast.__version__} serves" in server.printed
    assert f"ws://127.0.0.1:{server.port}/" in server.printed
    assert f"open http://127.0.0.1:{server.port}/ in a browser" in server.printed


def test_on_all_interfaces_it_says_what_a_browser_can_open() -> None:
    with serve("--host", "0.0.0.0") as running:
        assert f"ws://0.0.0.0:{running.port}/" in running.printed
        assert f"open http://localhost:{running.port}/ in a browser" in running.printed


def test_the_page_and_its_policy(server: Serve) -> None:
    status, headers, body = fetch("127.0.0.1", server.port, "/?x=1")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self' ws: wss:", "it can try any server, and load nothing"
    assert "unsafe" not in headers["Content-Security-Policy"]
    for name in ("script", "style"):
        found = re.findall(rf"<{name}>(.*?)</{name}>", body, re.DOTALL)
        assert len(found) == 1
        digest = base64.b64encode(hashlib.sha256(found[0].encode()).digest()).decode()
        assert policy[f"{name}-src"] == f"'sha256-{digest}'"


def test_the_page_needs_nothing_from_elsewhere(server: Serve) -> None:
    _, _, body = fetch("127.0.0.1", server.port, "/")
    assert not re.findall(r"(?:src|href|action)\s*=\s*[\"'](?!data:)", body)
    assert not re.findall(r"@import|url\((?!data:)|\bfetch\(|\son\w+=|\sstyle=", body)


def test_health_check(server: Serve) -> None:
    assert fetch("127.0.0.1", server.port, "/healthz")[::2] == (200, "OK\n")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("HEAD /healthz HTTP/1.1", 200),
        ("GET /healthz HTTP/1.0", 200),
        ("OPTIONS / HTTP/1.0", 204),
        ("OPTIONS * HTTP/1.1", 204),
        ("HEAD / HTTP/1.1", 200),
        ("POST / HTTP/1.1", 405),
    ],
)
def test_health_checks_of_proxies(server: Serve, request_line: str, status: int) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(f"{request_line}\r\nHost: h\r\n\r\n".encode())
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert not body or "HEAD" not in request_line


@pytest.mark.parametrize("path", ["/favicon.ico", "/index.html", "//", "/healthz/", "/%2e%2e/etc/passwd"])
def test_not_found(server: Serve, path: str) -> None:
    assert fetch("127.0.0.1", server.port, path)[0] == 404


def test_an_upgrade_to_something_else_is_ignored(server: Serve) -> None:
    """RFC 9110, 7.8: curl offers HTTP/2 this way, and must get the page."""
    headers = {"Upgrade": "h2c", "Connection": "Upgrade"}
    assert fetch("127.0.0.1", server.port, "/", headers)[0] == 200


@pytest.mark.parametrize(
    ("subprotocol", "sent", "expected"),
    [
        (None, "text", "text"),
        (None, b"\0binary\xff", b"\0binary\xff"),
        ("echo", "text", "text"),
        ("echo", "", ""),
        ("stream-echo", b"bytes", b"bytes"),
        ("stream-echo", "text", b"text"),
        ("upper", "straße", "STRASSE"),
        ("upper", b"bytes", b"bytes"),
    ],
)
def test_subprotocols(server: Serve, subprotocol: str | None, sent: str | bytes, expected: str | bytes) -> None:
    async def talk() -> None:
        offers = None if subprotocol is None else [subprotocol]
        async with websockets.connect(f"ws://127.0.0.1:{server.port}/any/path", subprotocols=cast("Any", offers)) as ws:
            assert ws.subprotocol == subprotocol
            await ws.send(sent)
            assert await ws.recv() == expected

    asyncio.run(talk())


def test_an_unknown_subprotocol_is_told_what_is_supported(server: Serve) -> None:
    async def talk() -> bytes:
        with pytest.raises(websockets.InvalidStatus) as refusal:
            await websockets.connect(f"ws://127.0.0.1:{server.port}/", subprotocols=[Subprotocol("chat")])
        assert refusal.value.response.status_code == 400
        return bytes(refusal.value.response.body)

    assert b"supported: echo, upper, stream-echo, wsfast.counters" in asyncio.run(talk())


def test_connections_are_logged() -> None:
    async def talk(port: int) -> None:
        async with websockets.connect(
            f"ws://127.0.0.1:{port}/a%1bpath?q", subprotocols=[Subprotocol("stream-echo")]
        ) as ws:
            await ws.send("a")
            await ws.recv()
            await ws.close(4000, "a \x1b[31mreason")
        async with websockets.connect(f"ws://127.0.0.1:{port}/") as ws:
            ws.transport.abort()
        async with websockets.connect(f"ws://127.0.0.1:{port}/") as ws:
            ws.transport.write(b"\x81\x81\0\0\0\0\xff")
            await ws.wait_closed()

    with serve() as running:
        asyncio.run(talk(running.port))
        while running.log().count(" closed with ") < 3:
            pass
    lines = [line.partition(" INFO ")[2] for line in running.logged.splitlines()]
    assert re.fullmatch(r"listening on 127\.0\.0\.1:\d+", lines[0])
    assert re.fullmatch(r"127\.0\.0\.1:\d+ opened /a%1bpath\?\.\.\., subprotocol stream-echo", lines[1])
    peer = lines[1].partition(" ")[0]
    assert re.fullmatch(
        re.escape(peer) + r" closed with 4000 'a .*\[31mreason' after \d\.\d s: 1 message in, 1 out", lines[2]
    )
    assert re.fullmatch(r"127\.0\.0\.1:\d+ opened /", lines[3])
    assert re.search(
        r" closed with 1006 after .*: 0 messages in, 0 out; connection lost: no close frame received", lines[4]
    )
    assert re.search(r" closed with 1006 after .*: 0 messages in, 0 out; .*not UTF-8 at byte 0", lines[6])
    assert len(lines) == 7, "the server's own lines about ends are left out"
    assert "\x1b" not in running.logged
    assert "('127" not in running.logged


def test_counters_by_a_subprotocol(server: Serve) -> None:
    async def talk() -> None:
        uri = f"ws://127.0.0.1:{server.port}/"
        async with websockets.connect(uri, subprotocols=[Subprotocol("wsfast.counters")]) as watching:
            first = json.loads(await watching.recv())
            async with websockets.connect(uri) as ws:
                await ws.send("a")
                await ws.recv()
                await watching.send("what a peer says here is dropped, and does not hurry it")
                second = json.loads(await watching.recv())
        assert second["connections"] == first["connections"] + 1
        assert second["watching"] == 1
        assert second["opened"] == first["opened"] + 1
        assert second["messages_received"] > first["messages_received"]
        assert 0.9 < second["time"] - first["time"] < 5

    asyncio.run(talk())


@pytest.mark.parametrize("path", ["/a b", "/é", "/a?b", "/a\nb"])
def test_a_prefix_that_is_no_path(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--prefix", path])
    assert "expected a path, such as /tools, got" in capsys.readouterr().err


# --- Its options -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", [[], ["--uvloop"]], ids=["asyncio", "uvloop"])
def test_options(loop: list[str]) -> None:
    async def talk(port: int) -> None:
        async with websockets.connect(f"ws://127.0.0.1:{port}/", compression="deflate", max_size=None) as ws:
            assert ws.response is not None
            assert "permessage-deflate" in ws.response.headers["Sec-WebSocket-Extensions"]
            await ws.send("x" * 1000)
            assert await ws.recv() == "x" * 1000
            await ws.send("x" * 1001)
            await ws.wait_closed()
            assert ws.close_code == 1009

    with serve("--max-size", "1000", "--compression", "deflate", "--log-level", "error", *loop) as running:
        asyncio.run(talk(running.port))
    assert running.logged == ""


def test_no_limit_and_no_compression() -> None:
    async def talk(port: int) -> None:
        async with websockets.connect(f"ws://127.0.0.1:{port}/", max_size=None) as ws:
            assert ws.response is not None
            assert "Sec-WebSocket-Extensions" not in ws.response.headers
            message = b"x" * (17 * 1048576)
            await ws.send(message)
            assert await ws.recv() == message

    with serve("--max-size", "0") as running:
        asyncio.run(talk(running.port))


def test_tls(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    # In two files, as they mostly are.
    text = made.server.read_text()
    end = text.index("-----BEGIN CERTIFICATE")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    key.write_text(text[:end])
    certificate.write_text(text[end:])

    async def talk(port: int) -> None:
        async with websockets.connect(f"wss://127.0.0.1:{port}/", ssl=made.client_context()) as ws:
            await ws.send("secret")
            assert await ws.recv() == "secret"

    with serve("--certfile", str(certificate), "--keyfile", str(key)) as running:
        assert f"wss://127.0.0.1:{running.port}/" in running.printed
        assert f"https://127.0.0.1:{running.port}/" in running.printed
        asyncio.run(talk(running.port))


def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "s")

    async def talk() -> None:
        async with websockets.unix_connect(path) as ws:
            await ws.send("local")
            assert await ws.recv() == "local"

    with serve("--unix", path, port=None) as running:
        assert f"ws on the Unix socket {path}" in running.printed
        asyncio.run(talk())
        # A socket that is in use is not taken over.
        again = refused("--unix", path)
        assert (again.returncode, again.stdout) == (1, "")
        assert again.stderr == f"wsfast: cannot listen on {path}: a program listens on it\n"
        asyncio.run(talk())
    assert not os.path.exists(path)
    # One that a program left behind is.
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    with serve("--unix", path, port=None):
        asyncio.run(talk())


def test_a_unix_socket_that_is_another_ones_by_now_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as other:
        with serve("--unix", str(path), port=None):
            path.rename(tmp_path / "old")
            other.bind(str(path))
        assert path.is_socket()
        assert (tmp_path / "old").is_socket()


# --- Clear errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", [[], ["--uvloop"]], ids=["asyncio", "uvloop"])
def test_a_port_that_is_taken(server: Serve, loop: list[str]) -> None:
    done = refused("--port", str(server.port), *loop)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"wsfast: cannot listen on 127.0.0.1:{server.port}: Address already in use\n"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--host", "no\u00e9..host"], 2, "expected the name of a host or its address, without a port (--port)"),
        (["--host", "127.0.0.1:80"], 2, "expected the name of a host or its address, without a port (--port)"),
        (["--host", "\udcff"], 2, "got '\\udcff'"),
        (["--host", "x\0"], 2, "got 'x\\x00'"),
        (["--host", ""], 2, "got ''"),
        (["--host", "nosuch.invalid"], 1, "cannot listen on nosuch.invalid:8765: "),
        (["--host", "2001:db8::1"], 1, "cannot listen on [2001:db8::1]:8765: "),
        (["--unix", ""], 2, "expected a path, got ''"),
        (["--unix", "a\0"], 2, "expected a path, got 'a\\x00'"),
        (["--unix", "/tmp"], 1, "cannot listen on /tmp: it is there already, and is not a socket"),
        (["--certfile", ""], 2, "expected a path, got ''"),
        (["--host", "203.0.113.1"], 1, "cannot listen on 203.0.113.1:8765: "),
        (["--unix", "/nonexistent/socket"], 1, "No such file or directory"),
        (["--unix", "/" + "a" * 200], 1, f"cannot listen on /{'a' * 200}: AF_UNIX path too long"),
        (["--certfile", "/nonexistent"], 1, "cannot use the certificate /nonexistent: No such file"),
        (["--certfile", __file__], 1, "cannot use the certificate"),
        (["--keyfile", __file__], 2, "--keyfile goes with --certfile"),
        (["--unix", "/tmp/x", "--port", "1"], 2, "--unix goes without --host and --port"),
        (["--port", "65536"], 2, "expected a port from 0 to 65535, got '65536'"),
        (["--port", "http"], 2, "expected a port from 0 to 65535, got 'http'"),
        (["--max-size", "-1"], 2, "expected a number of bytes of at least 0, got '-1'"),
        (["--log-level", "loud"], 2, "invalid choice"),
    ],
)
def test_errors(arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    level = logging.getLogger("wsfast").level
    try:
        ended: object = main(["serve", *arguments])
    except SystemExit as exc:
        ended = exc.code
    finally:
        logging.getLogger("wsfast").setLevel(level)
    printed = capsys.readouterr()
    assert (ended, printed.out) == (status, "")
    assert message in printed.err
    if status == 1:
        assert printed.err.count("\n") == 1
        assert printed.err.startswith("wsfast: ")


def test_uvloop_that_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    level = logging.getLogger("wsfast").level
    try:
        assert main(["serve", "--uvloop"]) == 1
    finally:
        logging.getLogger("wsfast").setLevel(level)
    assert capsys.readouterr().err == "wsfast: uvloop is not installed: pip install 'wsfast[speed]'\n"


def test_a_loop_without_signal_handlers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As those of Windows, where Ctrl-C cancels the main task."""
    printed: list[str] = []

    def add_signal_handler(*args: object) -> None:
        raise NotImplementedError

    def note(*words: str, **options: object) -> None:
        printed.extend(words)
        # Once it serves, and waits to be stopped.
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "add_signal_handler", add_signal_handler)
    monkeypatch.setattr("builtins.print", note)
    level = logging.getLogger("wsfast").level
    try:
        assert main(["serve", "--port", "0"]) == 130
    finally:
        logging.getLogger("wsfast").setLevel(level)
    assert any(word.startswith("ws://127.0.0.1:") for word in printed)
    assert capsys.readouterr().err == ""


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in [(["--version"], f"wsfast {wsfast.__version__}"), (["--help"], "serve")]:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 0
        assert expected in capsys.readouterr().out


# --- Stopping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", [[], ["--uvloop"]], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_it_stops_in_order(number: signal.Signals, loop: list[str]) -> None:
    async def talk(running: Serve) -> None:
        async with websockets.connect(f"ws://127.0.0.1:{running.port}/") as ws:
            await ws.send("a")
            assert await ws.recv() == "a"
            running.process.send_signal(number)
            await ws.wait_closed()
            assert ws.close_code == 1001

    with serve(*loop) as running:
        asyncio.run(talk(running))
        assert running.process.wait(timeout=20) == 0
    assert "Traceback" not in running.logged


def test_a_second_signal_ends_it_at_once() -> None:
    with serve() as running, socket.create_connection(("127.0.0.1", running.port)) as mute:
        mute.sendall(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += mute.recv(4096)
        running.process.send_signal(signal.SIGTERM)
        assert mute.recv(4) == bytes.fromhex("880203e9")  # 1001; it is not answered
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(timeout=5) == -signal.SIGTERM
