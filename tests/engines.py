"""Engines for the tests of buses: real servers of Redis and Valkey, each started on a free port."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

REDISES = ("redis-server", "valkey-server")


def find(name: str) -> str:
    """Return a server's path, or skip the test, visibly."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/bin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Engine:
    """A server that can be killed, stopped and started again on the same port.

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
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self, *instead: str) -> None:
        """Start it, and wait until it answers; other arguments than those of an engine may be given."""
        options = ("--bind", "127.0.0.1", "--dir", str(self.directory), "--save", "", "--appendonly", "no")
        self.process = subprocess.Popen(
            [self.command, *instead, "--port", str(self.port), *(() if instead else (*options, *self.options))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError):
                if self.ask("PING") == b"+PONG\r\n":
                    return
            assert time.monotonic() < end, f"{self.command} does not answer"
            assert self.process.poll() is None, f"{self.command} has ended"
            time.sleep(0.005)

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
        if number != signal.SIGSTOP and number != signal.SIGCONT:
            self.process.wait()

    def stop(self) -> None:
        """End it, whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()


@contextlib.contextmanager
def engine(name: str, directory: Path, *options: str) -> Iterator[Engine]:
    """Run a server of a kind of Redis."""
    made = Engine(find(name), directory, *options)
    made.start()
    try:
        yield made
    finally:
        made.stop()
