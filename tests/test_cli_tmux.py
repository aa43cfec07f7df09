"""The interactive client in a real terminal, driven by tmux."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sync_helpers import Running, running

import wsfast

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

PATIENCE = 20.0


DOCS = Path(__file__).parent.parent / "docs"


class Terminal:
    """A program in a terminal of 60 by 15 characters."""

    def __init__(self, path: Path) -> None:
        self._tmux = ["tmux", "-S", str(path), "-f", "/dev/null"]
        self.options: tuple[str, ...] = ("-x", "60", "-y", "15")

    def _run(self, *arguments: str) -> str:
        done = subprocess.run([*self._tmux, *arguments], capture_output=True, text=True, check=True, timeout=PATIENCE)
        return done.stdout

    def start(self, *arguments: str, time: bool = False) -> None:
        """Run the client; then show its exit status."""
        environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "PYTHONIOENCODING": "utf-8"}
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
        shown = [] if time else ["--no-time"]
        command = shlex.join([sys.executable, "-m", "wsfast", "connect", *shown, *arguments])
        # `cat` keeps the terminal, and shows what the program left in it.
        self._run("new-session", "-d", *self.options, f"env {variables} {command}; echo status $?; cat")

    def type(self, text: str) -> None:
        """Type text."""
        self._run("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        """Press keys by their names."""
        self._run("send-keys", *keys)

    def screen(self) -> list[str]:
        """Return the lines that are shown."""
        return [line.rstrip() for line in self._run("capture-pane", "-p").rstrip().split("\n")]

    def wait(self, condition: Callable[[list[str]], bool]) -> list[str]:
        """Wait until the screen is as it should be."""
        end = time.monotonic() + PATIENCE
        while True:
            shown = self.screen()
            if condition(shown):
                return shown
            assert time.monotonic() < end, "\n".join(shown)
            time.sleep(0.05)

    def stop(self) -> None:
        """End tmux and all in it."""
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, check=False, timeout=PATIENCE)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    # Not tmp_path: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="wsfast-") as directory:
        made = Terminal(Path(directory) / "tmux")
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture
def server() -> Iterator[Running]:
    with running() as served:
        yield served


def say(running_server: Running, text: str | bytes) -> None:
    """Let the server send to its only connection."""

    async def send() -> None:
        (ws,) = running_server.server.connections
        await ws.send(text)

    running_server.call(send)


def like(lines: list[str]) -> list[str]:
    """Return lines without their numbers, which are others in each run."""
    return [re.sub(r"\d[\d.,:]*", "0", line) for line in lines]


def test_the_session_in_the_docs_is_a_real_one(terminal: Terminal, tmp_path: Path) -> None:
    page = (DOCS / "reference" / "command-line.md").read_text()
    found = re.search(r"<!-- recorded: tests/test_cli_tmux.*\n```text\n\$ .*\n((?:.*\n)*?)```", page)
    assert found is not None
    recorded = found[1].splitlines()
    terminal.options = ("-x", "80", "-y", "40", "-c", str(tmp_path))
    with running() as served:
        terminal.start(served.uri.replace("localhost", "127.0.0.1"), time=True)
        for number, line in enumerate(recorded):
            if not line.startswith("> "):
                continue
            before = like(recorded[:number])
            terminal.wait(lambda shown, before=before: like(shown) == [*before, ">"])  # type: ignore[misc]
            terminal.type(line[2:])
            terminal.press("Enter")
        shown = terminal.wait(lambda shown: "status 0" in shown)
    assert like(shown[: len(recorded)]) == like(recorded)
    assert len((tmp_path / "session.jsonl").read_text().splitlines()) == 6


def test_a_conversation(terminal: Terminal, server: Running) -> None:
    terminal.start(server.uri)
    terminal.wait(lambda shown: shown[-1] == ">" and "Ctrl-D closes" in shown[0])
    terminal.type("hello ✓")
    terminal.press("Enter")
    shown = terminal.wait(lambda shown: "< hello ✓" in shown)
    assert shown[-3:] == ["> hello ✓", "< hello ✓", ">"]
    terminal.press("C-d")
    shown = terminal.wait(lambda shown: any(line.startswith("status") for line in shown))
    assert "* closed" in shown
    assert "status 0" in shown


def test_messages_do_not_tear_what_is_typed(terminal: Terminal, server: Running) -> None:
    terminal.start(server.uri)
    terminal.wait(lambda shown: shown[-1] == ">")
    terminal.type("half of a li")
    terminal.wait(lambda shown: shown[-1] == "> half of a li")
    for i in range(20):  # more than the screen has lines
        say(server, f"message {i}")
        expected = [f"< message {i}", "> half of a li"]
        shown = terminal.wait(lambda shown, expected=expected: shown[-2:] == expected)  # type: ignore[misc]
    assert shown[-4:-1] == ["< message 17", "< message 18", "< message 19"]
    say(server, "long " * 30)
    shown = terminal.wait(lambda shown: "> half of a li" in shown[-1] and sum("long" in line for line in shown) == 3)
    terminal.type("ne")
    terminal.press("Enter")
    terminal.wait(lambda shown: "> half of a line" in shown and "< half of a line" in shown)


def test_control_sequences_do_nothing(terminal: Terminal, server: Running) -> None:
    terminal.start(server.uri)
    terminal.wait(lambda shown: shown[-1] == ">")
    say(server, "first")
    say(server, "\x1b[2J\x1b[H\x9b2J\x1b]0;title\x07\rnew\nline")
    say(server, b"\x1b[2J")
    shown = terminal.wait(lambda shown: "< (4 bytes) 1b 5b 32 4a" in shown)
    assert "< first" in shown
    assert r"< \x1b[2J\x1b[H\x9b2J\x1b]0;title\x07\rnew\nline" in shown
    assert shown[-1] == ">"


@pytest.mark.parametrize("key", ["C-c", "C-d"])
def test_keys_that_close(terminal: Terminal, server: Running, key: str) -> None:
    terminal.start(server.uri)
    terminal.wait(lambda shown: shown[-1] == ">")
    terminal.press(key)
    shown = terminal.wait(lambda shown: any(line.startswith("status") for line in shown))
    assert "status 0" in shown
    assert "* closed" in shown
    # The terminal is as it was: what is typed is echoed, and lines are lines.
    terminal.type("after")
    terminal.press("Enter")
    assert terminal.wait(lambda shown: shown.count("after") == 2)


def test_the_server_closes(terminal: Terminal) -> None:

    async def leave(ws: wsfast.WebSocket) -> None:
        await ws.send("bye")
        await asyncio.sleep(0.5)
        await ws.close(4000, "enough")

    with running(leave) as served:
        terminal.start(served.uri)
        shown = terminal.wait(lambda shown: any(line.startswith("status") for line in shown))
    assert "< bye" in shown
    assert "* closed by the server with 4000 'enough'" in shown
    assert "status 3" in shown


def test_binary_and_pings(terminal: Terminal, server: Running) -> None:
    terminal.start("--binary", "--ping", "0.2", server.uri)
    terminal.wait(lambda shown: shown[-1] == ">" and any("* round trip" in line for line in shown))
    terminal.type("ab")
    terminal.press("Enter")
    terminal.wait(lambda shown: "< (2 bytes) 61 62" in shown)
    terminal.press("C-d")
    terminal.wait(lambda shown: "status 0" in shown)


def test_history(terminal: Terminal, server: Running) -> None:
    terminal.start(server.uri)
    terminal.wait(lambda shown: shown[-1] == ">")
    terminal.type("one")
    terminal.press("Enter")
    terminal.wait(lambda shown: "< one" in shown)
    terminal.press("Up")
    terminal.wait(lambda shown: shown[-1] == "> one")
    terminal.press("Home")
    terminal.type("twenty-")
    terminal.press("Enter")
    terminal.wait(lambda shown: "< twenty-one" in shown)


def test_a_long_line(terminal: Terminal, server: Running) -> None:
    """It is edited over several rows; what is pasted is one message, with its line breaks."""
    terminal.start(server.uri)
    terminal.wait(lambda shown: shown[-1] == ">")
    terminal.type("x" * 100)
    terminal.wait(lambda shown: shown[-2:] == ["> " + "x" * 57, "x" * 43])
    terminal.press("Home")
    terminal.type("y")
    say(server, "between")
    terminal.wait(lambda shown: shown[-3:] == ["< between", "> y" + "x" * 56, "x" * 44])
    terminal.press("C-k", "C-u")
    terminal.wait(lambda shown: shown[-1] == ">")
    terminal._run("set-buffer", "{\n1}")
    terminal._run("paste-buffer", "-p", "-r")
    terminal.wait(lambda shown: shown[-1] == r"> {\n1}")
    terminal.press("Enter")
    terminal.wait(lambda shown: r"< {\n1}" in shown)


def test_commands(terminal: Terminal, server: Running, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"\0\1")
    saved = tmp_path / "saved"
    terminal.start(server.uri)
    terminal.wait(lambda shown: shown[-1] == ">")

    def enter(text: str, expected: str) -> None:
        terminal.type(text)
        terminal.press("Enter")
        terminal.wait(lambda shown: any(line.startswith(expected) for line in shown) and shown[-1] == ">")

    enter("/ping", "* round trip ")
    enter("/binary 48 69", "< (2 bytes) 48 69")
    enter("/stats", "* sent: 1 message, ")
    enter("/binary x", "! expected pairs of hexadecimal digits")
    enter(f"/file {file}", "< (2 bytes) 00 01")
    enter("/file /nonexistent", "! cannot read '/nonexistent': No such file")
    enter("/nonsense", "! there is no /nonsense")
    enter("//slash", "< /slash")
    enter(f"/save {saved}", "* 6 messages are in ")
    enter(f"/save {saved}", "! cannot write ")
    enter("/close 12", "! ")
    enter("/help", "* /ping ")
    lines = [json.loads(line) for line in saved.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["sent", "received"] * 3
    assert lines[-1]["text"] == "/slash"
    assert lines[0]["base64"] == "SGk="
    terminal.type("/close 4000 enough")
    terminal.press("Enter")
    shown = terminal.wait(lambda shown: any(line.startswith("status") for line in shown))
    assert "* closed" in shown


def test_the_time_and_json(terminal: Terminal, server: Running) -> None:
    terminal.start(server.uri, time=True)
    terminal.wait(lambda shown: shown[-1] == ">")
    say(server, '{"a long name of a key": {"and its": "value, in lines"}}')
    shown = terminal.wait(lambda shown: shown[-2:-1] == [" " * 15 + "}"])
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d\d\d < \{", shown[-6])
    assert shown[-5] == " " * 17 + '"a long name of a key": {'


def test_the_terminal_stays_while_it_connects_again(terminal: Terminal) -> None:
    """What was typed stays in the line, and what is typed in between is sent when there is a connection."""

    async def leave(ws: wsfast.WebSocket) -> None:
        async for message in ws:
            await ws.send(message)
            if message == "go":
                await (await ws.ping())  # the client has the answer
                ws.abort()

    with running(leave) as served:
        terminal.start("--reconnect", served.uri)
        terminal.wait(lambda shown: shown[-1] == ">" and "* connected" in shown[0])
        terminal.type("go")
        terminal.press("Enter")
        terminal.type("half")
        terminal.wait(lambda shown: sum("* connected" in line for line in shown) == 2 and shown[-1] == "> half")
        terminal.press("Enter")
        terminal.wait(lambda shown: "< half" in shown)
        terminal.press("C-d")
        shown = terminal.wait(lambda shown: "status 0" in shown)
    assert any("connection lost" in line for line in shown)
    assert any("connecting again in" in line for line in shown)
