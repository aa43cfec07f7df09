"""``python -m wsfast ws://…`` in pipes, as scripts use it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from certificates import make_certificates
from cli_helpers import read_terminal
from shared import echo
from sync_helpers import PATIENCE, Peer, Running, running, scripted

import wsfast
from wsfast import encode_frame
from wsfast.cli import main
from wsfast.cli.client import _shown
from wsfast.cli.editor import Editor
from wsfast.cli.options import _uri as parse_address
from wsfast.cli.options import escape
from wsfast.cli.terminal import DumbScreen, EditingScreen, Input, _rows, choose_screen, terminal_columns


def client(*arguments: str, data: str | bytes = b"", timeout: float = 30) -> subprocess.CompletedProcess[bytes]:
    """Run the client with an input that ends."""
    return subprocess.run(
        [sys.executable, "-m", "wsfast", *arguments],
        input=data.encode() if isinstance(data, str) else data,
        capture_output=True,
        timeout=timeout,
        check=False,
    )


def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "wsfast", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


@pytest.fixture
def server() -> Iterator[Running]:
    with running() as served:
        yield served


def test_lines_are_sent_and_answers_written(server: Running) -> None:
    done = client("--linger", "0.3", server.uri, data="hi\nthere ✓\r\n\nlast without newline")
    assert done.stdout.decode() == "hi\nthere ✓\n\nlast without newline\n"
    assert done.stderr == b""
    assert done.returncode == 0


def test_many_lines(server: Running) -> None:
    lines = "".join(f"{i}\n" for i in range(20_000))
    done = client("--linger", "0.5", server.uri, data=lines)
    assert done.stdout.decode() == lines
    assert done.returncode == 0


def test_bytes_are_sent_as_they_come(server: Running, tmp_path: Path) -> None:
    data = os.urandom(500_000)
    done = client("--binary", "--linger", "0.5", server.uri, data=data)
    assert done.stdout == data


def test_an_answer_that_is_slow() -> None:
    """The linger begins when the server has all, and each message begins it anew."""

    async def slow(ws: wsfast.WebSocket) -> None:
        async for message in ws:
            for _ in range(3):
                await asyncio.sleep(0.25)
                await ws.send(message)

    with running(slow) as served:
        assert client("--linger", "0.6", served.uri, data="x\n").stdout == b"x\nx\nx\n"


def test_no_close_stays_until_the_server_closes() -> None:
    async def late(ws: wsfast.WebSocket) -> None:
        await asyncio.sleep(0.6)
        await ws.send("late")

    with running(late) as served:
        done = client("--no-close", "--linger", "0.05", served.uri)
        assert done.stdout == b"late\n"
        assert client("--linger", "0.05", served.uri).stdout == b""


@pytest.mark.parametrize(
    ("code", "status"), [(1000, 0), (1001, 0), (1002, 3), (1011, 3), (4000, 3)], ids=lambda value: str(value)
)
def test_the_exit_status_says_how_it_was_closed(code: int, status: int) -> None:
    async def leave(ws: wsfast.WebSocket) -> None:
        await ws.send("bye")
        await ws.close(code, "a \x1b[31mreason")

    with running(leave) as served:
        done = client("--verbose", "--no-close", served.uri)
    assert done.stdout == b"bye\n"
    assert done.returncode == status
    assert f"closed by the server with {code}" in done.stderr.decode()
    assert b"\x1b" not in done.stderr


def test_a_lost_connection_is_another_status() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.sendall(encode_frame(1, "x"))

    with scripted(script) as port:
        done = client("--no-close", f"ws://127.0.0.1:{port}")
    assert done.stdout == b"x\n"
    assert done.returncode == 4
    assert done.stderr == b"wsfast: connection lost: no close frame received; no close frame sent\n"


def test_a_silent_server_is_waited_for_as_long_as_was_said() -> None:
    """It is told what is waited for, and for how long."""

    waited: list[float] = []

    def script(peer: Peer) -> None:
        peer.accept()
        assert peer.sock.recv(4096)
        began = time.monotonic()  # the client runs: that a busy machine takes long to start it does not count
        peer.until_end()
        waited.append(time.monotonic() - began)

    with scripted(script) as port:
        done = client("--close-timeout", "1.2", "--linger", "0", f"ws://127.0.0.1:{port}", data="x\n")
    assert done.returncode == 4
    assert done.stderr.decode().splitlines() == [
        "wsfast: waiting for the server to answer a ping, for 1.2 s at most (--close-timeout); Ctrl-C ends this",
        "wsfast: the server was silent: no close frame received, connection dropped",
    ]
    assert waited[0] < 10, "not the ten seconds that a ping and a Close frame each have otherwise"


def test_a_server_that_breaks_the_protocol_is_told_by_what() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.sock.sendall(b"\xff\x00")
        peer.until_end()

    with scripted(script) as port:
        done = client("--no-close", f"ws://127.0.0.1:{port}")
    assert done.returncode == 4
    assert b"peer broke the protocol" in done.stderr
    assert b"reserved bits" in done.stderr


def test_tls_to_a_port_without_it() -> None:
    with running() as served:
        done = client(served.uri.replace("ws://", "wss://"))
    assert done.returncode == 1
    assert b"expected TLS, got something else" in done.stderr
    assert b"ws://" in done.stderr


def test_what_a_refusal_says_is_safe() -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.sock.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\n\x1b]0;evil\x07")
        peer.until_end()

    with scripted(script) as port:
        done = client(f"ws://127.0.0.1:{port}")
    assert done.returncode == 1
    assert b"HTTP 403" in done.stderr
    assert b"\x1b" not in done.stderr


def test_a_page_is_no_explanation() -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.sock.sendall(b"HTTP/1.1 404 No\r\nContent-Length: 21\r\n\r\n\n<!doctype html><html>")
        peer.until_end()

    with scripted(script) as port:
        done = client(f"ws://127.0.0.1:{port}")
    assert done.returncode == 1
    assert b"HTTP 404" in done.stderr
    assert b"html" not in done.stderr


def test_socks_without_python_socks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "python_socks.async_.asyncio", None)
    monkeypatch.setattr("sys.stdin", None)
    assert main(["--proxy", "socks5://127.0.0.1:1", "ws://127.0.0.1:1"]) == 1
    assert capsys.readouterr().err == (
        "wsfast: could not connect to 127.0.0.1:1: "
        "ImportError: SOCKS proxies need python-socks: pip install 'wsfast[proxy]'\n"
    )


def test_nobody_listens() -> None:
    done = client("ws://127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr == b"wsfast: could not connect to 127.0.0.1:1: Connection refused\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["ws://"],
        ["--header", "nonsense", "ws://x"],
        ["--header", "A B: c", "ws://x"],
        ["--ping", "0", "ws://x"],
        ["--max-size", "-1", "ws://x"],
        ["ws://x", "--nonsense"],
        ["connect"],
        ["client"],
        ["ftp://x"],
        ["--answers", "0", "ws://x"],
        ["--linger", "-1", "ws://x"],
        ["--linger", "nan", "ws://x"],
        ["--timeout", "soon", "ws://x"],
        ["--max-size", "1k", "ws://x"],
        ["--proxy", "ftp://x", "ws://x"],
        ["--subprotocol", "a b", "ws://x"],
        ["--subprotocol", "a", "--subprotocol", "a", "ws://x"],
        ["--origin", "a\nb", "ws://x"],
        ["--unix", "", "ws://x"],
        ["--cacert", "", "wss://x"],
        ["--cert", "", "wss://x"],
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("python -m wsfast connect: error: ")
    assert told.endswith("\npython -m wsfast connect --help lists what can be given\n")
    assert told.count("\n") == 2
    assert "invalid" not in told, "it says what was expected, not how it is parsed"


@pytest.mark.parametrize("option", ["--cacert", "--cert"])
@pytest.mark.parametrize("path", ["/nonexistent", __file__])
def test_certificates_that_cannot_be_used(option: str, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["bench"]):
        assert main([*command, option, path, "wss://127.0.0.1:1"]) == 1
        told = capsys.readouterr().err
        assert told.startswith(f"wsfast: cannot use the certificate {path}: ")
        assert told.count("\n") == 1


def test_a_proxy_of_the_environment_that_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("http_proxy", "ftp://x")
    monkeypatch.setattr("sys.stdin", None)
    assert main(["ws://127.0.0.1:1"]) == 1
    assert "could not connect to 127.0.0.1:1: 'ftp://x' is not a valid address of a proxy" in capsys.readouterr().err


def test_subprotocol_headers_origin_and_paths() -> None:
    async def tell(ws: wsfast.WebSocket) -> None:
        assert ws.request is not None
        headers = ws.request.headers
        await ws.send(f"{ws.request.path} {ws.subprotocol} {headers['X-A']} {headers['X-B']} {headers['Origin']}")

    with running({"one": tell, "two": tell}) as served:
        done = client(
            *("--subprotocol", "zero", "--subprotocol", "two", "--header", "X-A: 1", "-H", "X-B:2"),
            *("--origin", "http://here", "--verbose", "--compression", "deflate", served.uri + "p?q=r"),
        )
    assert done.stdout == b"/p?q=r two 1 2 http://here\n"
    assert b"subprotocol two" in done.stderr


def test_unix_sockets_and_tls(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with running(path=path):
        assert client("--linger", "0.3", "--unix", path, "ws://localhost/", data="x").stdout == b"x\n"
    certificates = make_certificates(tmp_path)
    with running(ssl=certificates.server_context()) as served:
        trusted = client("--linger", "0.3", "--cacert", str(certificates.authority), served.uri, data="x")
        assert trusted.stdout == b"x\n"
        assert client("--linger", "0.3", "-k", served.uri, data="x").stdout == b"x\n"
        refused = client(served.uri, data="x")
        assert refused.returncode == 1
        assert b"certificate" in refused.stderr


def test_pings_are_told(server: Running) -> None:
    done = client("--ping", "0.1", "--linger", "0.5", server.uri)
    assert done.stderr.count(b"round trip ") >= 2
    assert done.stdout == b""


def test_a_conversation_through_pipes(server: Running) -> None:
    """What is written to the pipe is sent at once, not when it is full or at its end."""
    with start(server.uri) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for i in range(3):
            process.stdin.write(b"%d\n" % i)
            process.stdin.flush()
            assert process.stdout.readline() == b"%d\n" % i
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


def test_a_reader_that_leaves(server: Running) -> None:
    with start(server.uri) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"one\n"
        process.stdout.close()
        process.stdin.write(b"two\n")
        process.stdin.flush()
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == b""


def test_a_reader_that_leaves_while_much_is_sent(server: Running) -> None:
    """The server, which does not get rid of its echoes, does not get to the Close frame: it is not waited for."""
    with start(server.uri, bufsize=0) as process:  # no buffer, which closing would write to a client that has left
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            for _ in range(100):
                process.stdin.write(b"x" * 65536 + b"\n")
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["connect", "bench"])
def test_output_that_cannot_be_written(server: Running, command: str) -> None:
    arguments = ["bench", "--duration", "0.05"] if command == "bench" else []
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "wsfast", *arguments, server.uri],
            input=b"hi\n",
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"wsfast: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("arguments", [["bench", "--duration", "0.05", "URI"], ["serve", "--port", "0"]], ids=" ".join)
def test_a_reader_that_has_left_ends_the_program_without_a_word(server: Running, arguments: list[str]) -> None:
    """As `head` does, which has seen enough."""
    command = [sys.executable, "-m", "wsfast", *(server.uri if word == "URI" else word for word in arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        told = process.stderr.read().decode()
        assert process.wait(PATIENCE) == 1
    assert "cannot write" not in told
    assert "Traceback" not in told


def test_output_that_is_closed(server: Running) -> None:
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "wsfast", "--linger", "0.3", server.uri]
    done = subprocess.run(shell, input=b"hi\n", stderr=subprocess.PIPE, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_ctrl_c(server: Running) -> None:
    with start("--verbose", server.uri) as process:
        assert process.stderr is not None
        assert b"connected" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr.read() == b"wsfast: closed\n"
    wait_until(lambda: not server.server.connections)


@pytest.mark.parametrize("command", ["connect", "bench"])
def test_ctrl_c_before_there_is_an_answer(command: str) -> None:
    asked = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_head()
        asked.set()
        peer.until_end()

    with scripted(script) as port, start(command, f"ws://127.0.0.1:{port}") as process:
        assert asked.wait(PATIENCE)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("closed", [False, True], ids=["not readable", "closed"])
def test_an_input_that_cannot_be_read_is_at_its_end(server: Running, closed: bool) -> None:
    shell = ["sh", "-c", f'exec "$@" {"<&-" if closed else "0>/dev/null"}', "sh"]
    done = subprocess.run(
        [*shell, sys.executable, "-m", "wsfast", "--linger", "0.05", "--verbose", server.uri],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.endswith(b"wsfast: closed\n")


@pytest.mark.parametrize("binary", [False, True])
def test_what_is_typed_after_the_end_is_left_to_others(binary: bool) -> None:
    """The thread that reads ends with the first input that nobody asks for any more."""
    reading, writing = os.pipe()
    before = os.dup(0)
    os.dup2(reading, 0)
    try:

        async def main() -> bytes | None:
            lines = Input(asyncio.get_running_loop(), binary=binary)
            os.write(writing, b"one\n")
            return await lines.get()

        assert asyncio.run(main()) == (b"one\n" if binary else b"one")
        [thread] = [thread for thread in threading.enumerate() if thread.name == "wsfast-stdin"]
        os.write(writing, b"two\n")
        thread.join(PATIENCE)
        assert not thread.is_alive()
        os.write(writing, b"three\n")
        assert os.read(reading, 100) == b"three\n"
    finally:
        os.dup2(before, 0)
        for descriptor in (before, reading, writing):
            os.close(descriptor)


def test_the_command_can_be_named(server: Running) -> None:
    assert client("connect", "--linger", "0.3", server.uri, data="x").stdout == b"x\n"


def test_text_that_is_no_utf_8_is_replaced(server: Running) -> None:
    assert client("--linger", "0.3", server.uri, data=b"\xff\n").stdout.decode() == "\N{REPLACEMENT CHARACTER}\n"


# --- What is shown in a terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ✓ 漢字 é", "plain ✓ 漢字 é"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("two\nlines\r\n\t", r"two\nlines\r\n\t"),
        ("\x9b31m\x7f\0", r"\x9b31m\x7f\x00"),
        ("\u202eltr\u2066\u200f\u2028", r"\u202eltr\u2066\u200f\u2028"),
        ('{"a": "\\n"}', '{"a": "\\n"}'),
    ],
)
def test_control_characters_are_shown_not_obeyed(text: str, shown: str) -> None:
    assert escape(text) == shown
    assert _shown(text) == [shown]


def test_binary_messages_are_shown_in_hexadecimal() -> None:
    assert _shown(b"\x1b\xff") == ["(2 bytes) 1b ff"]
    (line,) = _shown(b"\0" * 1000)
    assert line.endswith("00...")
    assert "(1000 bytes)" in line


def test_json_is_shown_in_lines() -> None:
    message = '{"a": ["\\u001b[2J\\u202e", 1.50, null], "b": {"c": "Grüße 🙂 and more"}}'
    assert _shown(message, columns=40) == [
        "{",
        '  "a": [',
        '    "\\u001b[2J\\u202e",',
        "    1.50,",
        "    null",
        "  ],",
        '  "b": {',
        '    "c": "Grüße 🙂 and more"',
        "  }",
        "}",
    ]
    assert _shown(message) == [message]
    assert _shown(message, columns=len(message)) == [message], "it fits into a row"
    assert _shown('{"a":1e400,"a":12345678901234567890.10, "b": {}, "c":[ ], "d":[[],{"e":"}"}]}', columns=40) == [
        "{",
        '  "a": 1e400,',
        '  "a": 12345678901234567890.10,',
        '  "b": {},',
        '  "c": [],',
        '  "d": [',
        "    [],",
        "    {",
        '      "e": "}"',
        "    }",
        "  ]",
        "}",
    ]
    for other in ("[1, 2]", "[" * 100_000, "{no json at all, but long enough to be looked at}", "[1, " * 50 + "x"):
        assert _shown(other, columns=40) == [other]


def test_an_address_without_a_scheme(server: Running) -> None:
    address = server.uri.removeprefix("ws://")
    for given in (address, address.rstrip("/")):
        done = client("--linger", "0.3", "--verbose", given, data="hi\n")
        assert (done.returncode, done.stdout) == (0, b"hi\n")


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        ("localhost:80", "ws://localhost:80"),
        ("127.0.0.1:80/a?b=ws://c", "ws://127.0.0.1:80/a?b=ws://c"),
        ("[::1]:80", "ws://[::1]:80"),
        ("example.com", "wss://example.com"),
        ("example.com:8080/a", "wss://example.com:8080/a"),
        ("8080", "ws://localhost:8080"),
        (":8080/a", "ws://localhost:8080/a"),
        ("80?a", "ws://localhost:80?a"),
        ("ws://a", "ws://a"),
        ("http://a:80/b?c", "ws://a:80/b?c"),
        ("https://a", "wss://a"),
    ],
)
def test_a_scheme_is_guessed(given: str, uri: str) -> None:
    assert parse_address(given) == uri


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (["serv", "--port", "80"], "did you mean serve?"),
        (["benchmark", "ws://a"], "did you mean bench?"),
        (["a/b.c"], "the commands are bench, client, connect, run, serve"),
        (["ws:/a"], "the commands are "),
        (["\x1b[2J"], "the commands are "),
        ([""], "the commands are "),
    ],
)
def test_what_is_neither_a_command_nor_an_address(
    given: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(given)
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("python -m wsfast: error: expected the address of a server, such as ws://localhost:8765/, ")
    assert f"got {given[0]!r}" in told
    assert hint in told
    assert "\x1b" not in told


@pytest.mark.parametrize("command", ["--help", "connect --help", "serve --help", "run --help", "bench --help"])
def test_help_fits_80_columns(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        main(command.split())
    assert caught.value.code == 0
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []


def test_no_arguments_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "serve" in capsys.readouterr().err


def test_so_many_answers(server: Running) -> None:
    began = time.monotonic()
    done = client("--answers", "2", "--linger", "60", server.uri, data="a\nb\nc\n")
    assert (done.returncode, done.stdout) == (0, b"a\nb\n")
    assert time.monotonic() - began < 30


async def echo_and_close(ws: wsfast.WebSocket) -> None:
    await ws.send(await ws.recv())


@pytest.mark.parametrize(("handler", "linger"), [(echo, "0.1"), (echo_and_close, "60")], ids=["silent", "closes"])
def test_fewer_answers(handler: Any, linger: str) -> None:
    with running(handler) as server:
        began = time.monotonic()
        done = client("--answers", "3", "--linger", linger, server.uri, data="a\n")
        assert (done.returncode, done.stdout) == (5, b"a\n")
        assert done.stderr == b"wsfast: --answers asks for 3: 1 came\n"
        assert time.monotonic() - began < 30


def test_messages_that_are_given_in_place_of_an_input(server: Running) -> None:
    """The input is not read: it may be a terminal, or the list of a loop in a script."""
    with start("-x", "one ✓", "--send", "two", "--answers", "2", server.uri) as process:
        assert process.stdout is not None
        assert process.stdout.read().decode() == "one ✓\ntwo\n"
        assert process.wait(PATIENCE) == 0
    binary = client("--send", "ab", "--binary", "--json", "--answers", "1", server.uri)
    assert json.loads(binary.stdout)["base64"] == "YWI="


def test_a_line_of_json_for_each_message(server: Running) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)  # the time is in whole ones
    done = client("--json", "--answers", "2", "--send", "two\nlines", "--send", "✓", server.uri)
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["kind"], first["text"], second["text"]) == ("received", "two\nlines", "✓")
    assert before <= datetime.fromisoformat(first["time"]) <= datetime.now(UTC)
    assert re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{3}[+-]\d\d:\d\d", first["time"]), "what time zone it is in"


def test_lines_of_json_in_a_terminal(server: Running) -> None:
    """It shows what a pipe would get."""
    master, slave = pty.openpty()
    try:
        command = [sys.executable, "-m", "wsfast", "--json", "--answers", "1", server.uri]
        os.write(master, b"hi\n")
        done = subprocess.run(command, stdin=slave, stdout=slave, stderr=slave, timeout=PATIENCE, check=False)
        os.close(slave)
        slave = -1
        shown = read_terminal(master)
    finally:
        os.close(master)
        if slave >= 0:
            os.close(slave)
    assert done.returncode == 0
    assert [json.loads(line)["text"] for line in shown.splitlines() if line[:1] == b"{"] == ["hi"]


@pytest.mark.parametrize("code", [1001, 1011, None], ids=str)
def test_a_connection_that_is_lost_is_followed_by_another(code: int | None) -> None:
    """Which begins with what was given to send, such as a subscription."""
    numbers = iter("123")

    async def leave(ws: wsfast.WebSocket) -> None:
        number = next(numbers)
        await ws.send(f"{number}: {await ws.recv(True)}")
        if number == "3":
            await ws.close()
        elif code is None:
            await (await ws.ping())  # the client has the answer
            ws.abort()
        else:
            await ws.close(code)

    with running(leave) as served:
        done = client("--reconnect", "--send", "subscribe", "--no-close", served.uri)
    assert done.stdout == b"1: subscribe\n2: subscribe\n3: subscribe\n"
    assert done.returncode == 0
    assert done.stderr.count(b"connecting again in ") == 2
    assert done.stderr.count(b"closed by the server" if code else b"connection lost") == 2


def test_a_server_that_starts_later_is_waited_for() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with start("--reconnect", f"ws://127.0.0.1:{port}/") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"early\n")
        process.stdin.flush()
        assert process.stderr.readline().startswith(b"wsfast: could not connect to 127.0.0.1:")
        assert process.stderr.readline().startswith(b"wsfast: connecting again in ")
        with running(port=port):
            assert process.stdout.readline() == b"early\n"
            process.stdin.close()
            assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("status", [403, 503])
def test_what_connecting_again_does_not_help_ends_it(status: int) -> None:
    """403 is final; after 503 it is tried again until Ctrl-C."""

    def refuse(ws: wsfast.WebSocket, request: wsfast.Request) -> wsfast.Response:
        return ws.respond(status, "no\n")

    with running(process_request=refuse) as served, start("--reconnect", served.uri) as process:
        assert process.stderr is not None
        assert b"HTTP %d" % status in process.stderr.readline()
        if status == 503:
            assert b"connecting again in " in process.stderr.readline()
            process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == (1 if status == 403 else 130)
        assert b"Traceback" not in process.stderr.read()


def test_the_end_of_the_input_is_that_of_all_connections() -> None:
    """What follows on a connection that was lost does not wait for an input that has ended."""
    numbers = iter("12")

    async def leave(ws: wsfast.WebSocket) -> None:
        if next(numbers) == "1":
            await ws.recv()
            ws.abort()
        else:
            await ws.send("again")
            await ws.wait_closed()

    with running(leave) as served:
        done = client("--reconnect", "--linger", "0.2", served.uri, data="x\n")
    assert (done.returncode, done.stdout) == (0, b"again\n")


def test_rows() -> None:
    assert _rows("", 10) == [""]
    assert _rows("123456789", 10) == ["123456789"]
    assert _rows("1234567890", 10) == ["123456789", "0"]
    assert _rows("漢字漢字漢字", 10) == ["漢字漢字", "漢字"]
    assert _rows("e\u0301" * 12, 10) == ["e\u0301" * 9, "e\u0301" * 3]


@pytest.mark.parametrize(("given", "taken"), [(60, 60), (0, 80)], ids=["known", "a serial line"])
def test_columns(given: int, taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    termios.tcsetwinsize(master, (15, given))
    with open(slave, "w") as out:
        monkeypatch.setattr("sys.stdout", out)
        assert terminal_columns() == taken
    os.close(master)


def test_columns_where_there_is_no_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "output").open("w") as out:
        monkeypatch.setattr("sys.stdout", out)
        assert terminal_columns() == 80


def test_which_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert choose_screen() is EditingScreen
    monkeypatch.setenv("TERM", "dumb")
    assert choose_screen() is DumbScreen
    monkeypatch.delenv("TERM")
    assert choose_screen() is DumbScreen
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setitem(sys.modules, "termios", None)
    assert choose_screen() is DumbScreen


# --- What is typed -----------------------------------------------------------------------------------------

UP, DOWN, RIGHT, LEFT = "\x1b[A", "\x1b[B", "\x1b[C", "\x1b[D"


@pytest.mark.parametrize(
    ("typed", "text", "cursor"),
    [
        ("hello ✓", "hello ✓", 7),
        ("ab\x7fc\x08d", "ad", 2),
        (f"ac{LEFT}b", "abc", 2),
        (f"ab{LEFT}{LEFT}{LEFT}x{RIGHT}{RIGHT}{RIGHT}y", "xaby", 4),
        ("bc\x01a\x05d", "abcd", 4),
        ("b\x1b[Ha\x1b[Fc", "abc", 3),
        ("b\x1b[1~a\x1b[4~c", "abc", 3),
        ("b\x1bOHa\x1bOFc", "abc", 3),
        ("abc\x02\x02\x1b[3~", "ac", 1),
        ("abc\x01\x04\x06\x04", "b", 1),
        ("one two  \x17", "one ", 4),
        ("one two\x1b\x7f", "one ", 4),
        ("one two\x1b[1;5D_", "one _two", 5),
        ("one two\x01\x1bf_", "one_ two", 4),
        ("one two\x01\x1b[1;5C_", "one_ two", 4),
        ("one two\x01\x1bd", " two", 0),
        ("one two\x1bb\x15", "two", 0),
        ("one two\x1bb\x0b\x01\x19 ", "two one ", 4),
        ("\x17\x0b\x15\x19\x7f\x1b[3~", "", 0),
        ("a\x1b[200~{\r\n1\r}\x1b[A\x1b[201~b", "a{\n1\n}\x1b[Ab", 10),
        ("a\x1b[5~\x1bZ\x1b[Z\x1b[?1;2c\x00\x07b", "ab", 2),
        ("a\x1b\x1b[Db", "ba", 1),
        ("a\tb", "a\tb", 3),
    ],
)
def test_editing(typed: str, text: str, cursor: int) -> None:
    for step in (1, 2, len(typed)):
        editor = Editor()
        for start in range(0, len(typed), step):
            assert editor.feed(typed[start : start + step]) == []
        assert (editor.text, editor.cursor) == (text, cursor), step


def test_finished_lines() -> None:
    editor = Editor()
    assert editor.feed("one\rtwo\nthr") == ["one", "two"]
    assert editor.feed("ee\x04") == []
    assert editor.feed("\n\n\x04") == ["three", "", None]


def test_earlier_lines() -> None:
    editor = Editor()
    editor.feed("alpha\nbeta\nbeta\nalso\n")

    def shown(keys: str) -> str:
        assert editor.feed(keys) == []
        assert editor.cursor == len(editor.text)
        return editor.text

    assert [shown(UP) for _ in range(4)] == ["also", "beta", "alpha", "alpha"]
    assert [shown(DOWN) for _ in range(4)] == ["beta", "also", "", ""]
    assert shown("al") == "al"
    assert [shown(UP) for _ in range(3)] == ["also", "alpha", "alpha"], "those that begin with what is typed"
    assert [shown(DOWN), shown(DOWN)] == ["also", "al"], "what was typed is still there"
    assert shown(UP + "!") == "also!"
    assert editor.feed("\n") == ["also!"]
    assert shown(UP) == "also!"
    for number in range(1100):
        editor.feed(f"\x15{number}\n")
    assert shown(UP * 2000) == "100"
