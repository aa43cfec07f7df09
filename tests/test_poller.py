"""Connections that share one epoll: nobody can tell them from those which the loop watches itself."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any
from weakref import ReferenceType

import pytest
import uvloop
from polled import FEW, crowd
from shared import until

pytest.importorskip("wsfast.transport._socket", reason="the pure-Python twin has the loop watch each connection")
from wsfast.transport import _socket

if sys.platform != "linux":
    pytest.skip("elsewhere the loop watches each connection", allow_module_level=True)

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
mark: ContextVar[str] = ContextVar("mark", default="none")


class App(asyncio.Protocol):
    """Notes what it is told, and does with it what the test wants."""

    def __init__(self, react: Callable[[App, bytes], None] | None = None) -> None:
        self.data = b""
        self.lost = False
        self.react = react
        self.transport: Any = None
        self.there: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        if self.react is not None:
            self.react(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


def connect(loop: asyncio.AbstractEventLoop, react: Callable[[App, bytes], None] | None = None) -> App:
    """Return a protocol whose transport reads from `there`, the other end."""
    app = App(react)
    ours, app.there = socket.socketpair()
    app.there.settimeout(10)
    _socket.SocketTransport(loop, ours, app).begin()
    return app


def pollers(loop: asyncio.AbstractEventLoop) -> list[str]:
    """Tell how many connections each poller of a loop has, as its text does."""
    gc.collect()
    found = [thing for thing in gc.get_objects() if type(thing).__name__ == "Poller"]
    return [repr(poller) for poller in found if "of 0" not in repr(poller) and loop in _loops_of(poller)]


def _loops_of(poller: object) -> list[Any]:
    watchers = [thing for thing in gc.get_referents(poller) if type(thing).__name__ == "Watcher"]
    weak = [thing for watcher in watchers for thing in gc.get_referents(watcher) if isinstance(thing, ReferenceType)]
    return [refers() for refers in weak]


def descriptors(kind: str) -> int:
    """Return how many are open, after those that the first loop of a kind opens for the process."""
    loop = LOOPS[kind]()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    """Each loop that has pollers; at its end nothing is left of them, and no descriptor."""
    before = descriptors(request.param)
    made = LOOPS[request.param]()
    yield made
    made.run_until_complete(asyncio.sleep(0.01))
    assert pollers(made) == []
    made.close()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def end(*apps: App) -> None:
    for app in apps:
        app.transport.abort()
        app.there.close()


def test_those_beyond_a_few_are_polled(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        with crowd(loop, FEW - 1):
            first = connect(loop)
            assert pollers(loop) == []
            more = [connect(loop, lambda app, data: app.transport.write(data + b"!")) for _ in range(3)]
            assert pollers(loop) == ["<poller of 3 connections>"]
            first.there.sendall(b"x")
            for k, app in enumerate(more):
                app.there.sendall(b"%d" % k)
            await until(lambda: all(app.data for app in (first, *more)))
            assert [app.there.recv(9) for app in more] == [b"0!", b"1!", b"2!"]
            end(more[1])
            await asyncio.sleep(0)
            assert pollers(loop) == ["<poller of 2 connections>"]
            more[2].there.close()
            await until(lambda: more[2].lost)
            assert pollers(loop) == ["<poller of 1 connections>"]
            end(first, more[0])

    loop.run_until_complete(main())


def test_all_are_read_however_many_are_ready(loop: asyncio.AbstractEventLoop) -> None:
    """More than one call of the system tells of."""

    async def main() -> None:
        apps = [connect(loop) for _ in range(300)]
        for _ in range(3):
            for app in apps:
                app.there.sendall(b"x")
            await until(lambda: all(app.data.endswith(b"x") for app in apps))
            for app in apps:
                app.data = b""
        end(*apps)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(2048, hard)), hard))
    loop.run_until_complete(main())


@pytest.mark.parametrize("n", [0, FEW], ids=["few", "polled"])
def test_each_has_its_own_context(loop: asyncio.AbstractEventLoop, n: int) -> None:
    """It is a copy of that in which reading began, and keeps what is set in it until reading is paused."""
    seen: list[tuple[str, bytes]] = []

    def react(app: App, data: bytes) -> None:
        seen.append((mark.get(), data))
        mark.set(data.decode())

    async def say(app: App, data: bytes) -> None:
        app.there.sendall(data)
        await until(lambda: seen and seen[-1][1] == data)

    async def main() -> None:
        with crowd(loop, n):
            mark.set("begin a")
            a = connect(loop, react)
            mark.set("begin b")
            b = connect(loop, react)
            mark.set("main")
            await say(a, b"a1")
            await say(b, b"b1")
            await say(a, b"a2")
            a.transport.pause_reading()
            a.there.sendall(b"a3")
            await asyncio.sleep(0.01)
            a.transport.resume_reading()
            await until(lambda: seen[-1][1] == b"a3")
            assert mark.get() == "main"
            end(a, b)

    loop.run_until_complete(main())
    assert seen == [("begin a", b"a1"), ("begin b", b"b1"), ("a1", b"a2"), ("main", b"a3")]
    assert mark.get() == "none"


@pytest.mark.parametrize("n", [0, FEW], ids=["few", "polled"])
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_ends_the_program_loses_nothing(
    loop: asyncio.AbstractEventLoop, n: int, kind: type[BaseException]
) -> None:
    """It comes out of the loop; those behind it are read when the loop runs again, in the same contexts."""
    came_out = 0

    def react(app: App, data: bytes) -> None:
        if mark.get() == "none":
            mark.set("told")
            raise kind(5)

    def run() -> None:
        nonlocal came_out
        stop = loop.call_later(0.01, loop.stop)
        try:
            loop.run_forever()
        except kind:
            came_out += 1
        stop.cancel()

    with crowd(loop, n):
        apps = [connect(loop, react) for _ in range(10)]
        for app in apps:
            app.there.sendall(b"x")
        deadline = time.monotonic() + 10
        while not all(app.data for app in apps) and time.monotonic() < deadline:
            run()
        assert 1 <= came_out <= 10  # uvloop tells of one for each turn
        for app in apps:
            app.there.sendall(b"y")
        while not all(app.data == b"xy" for app in apps) and time.monotonic() < deadline:
            run()
        assert [app.data for app in apps] == [b"xy"] * 10
        end(*apps)
    assert mark.get() == "none"


@pytest.mark.parametrize("n", [0, FEW], ids=["few", "polled"])
def test_a_callback_that_ends_those_behind_it(loop: asyncio.AbstractEventLoop, n: int) -> None:
    """They are not called, and whoever has their numbers next is read as if nothing had been."""
    apps: list[App] = []
    late: list[App] = []

    def react(app: App, data: bytes) -> None:
        for other in apps:
            if other is not app:
                other.transport.abort()
        loop.call_soon(open_others)

    def open_others() -> None:
        late.extend(connect(loop) for _ in range(5))
        for k, app in enumerate(late):
            app.there.sendall(b"%d" % k)

    async def main() -> None:
        with crowd(loop, n):
            apps.extend(connect(loop, react) for _ in range(5))
            for app in apps:
                app.there.sendall(b"x")
            await until(lambda: len(late) == 5 and all(app.data for app in late))
            assert sorted(app.data for app in apps) == [b"", b"", b"", b"", b"x"]
            assert [app.data for app in late] == [b"0", b"1", b"2", b"3", b"4"]
            end(*apps, *late)

    loop.run_until_complete(main())


def test_a_number_that_is_anothers_within_the_batch(loop: asyncio.AbstractEventLoop) -> None:
    """A closed descriptor of which the system has told already, opened anew by somebody else."""
    apps: list[App] = []
    others: list[App] = []

    def react(app: App, data: bytes) -> None:
        if others:
            return
        for other in apps:
            if other is not app:
                other.transport.abort()
                other.transport._lost(None)  # as if the loop had had a turn
        others.extend(connect(loop) for _ in range(4))

    async def main() -> None:
        with crowd(loop):
            apps.extend(connect(loop, react) for _ in range(5))
            for app in apps:
                app.there.sendall(b"x")
            await until(lambda: others)
            for app in others:
                app.there.sendall(b"mine")
            await until(lambda: all(app.data for app in others))
            assert {app.data for app in others} == {b"mine"}
            assert not any(app.lost for app in others)
            end(*apps, *others)

    loop.run_until_complete(main())


def test_pausing_one_of_many(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        with crowd(loop):
            a, b = connect(loop), connect(loop)
            a.transport.pause_reading()
            for app in (a, b):
                app.there.sendall(b"one")
            await until(lambda: b.data == b"one")
            await asyncio.sleep(0.01)
            assert a.data == b""
            assert pollers(loop) == ["<poller of 1 connections>"]
            a.transport.resume_reading()
            await until(lambda: a.data == b"one")
            assert pollers(loop) == ["<poller of 2 connections>"]
            end(a, b)

    loop.run_until_complete(main())


def test_debug_mode_names_the_connection(loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture) -> None:
    """The loop watches it itself, from the next turn on where debug mode came later; contexts stay."""
    seen: list[str] = []

    def react(app: App, data: bytes) -> None:
        seen.append(mark.get())
        mark.set("kept")

    async def main() -> None:
        with crowd(loop):
            app = connect(loop, react)
            app.there.sendall(b"1")
            await until(lambda: app.data == b"1")
            loop.set_debug(True)
            app.there.sendall(b"2")
            await until(lambda: app.data == b"12")
            assert pollers(loop) == []
            caplog.clear()
            loop.slow_callback_duration = 0
            app.there.sendall(b"3")
            await until(lambda: app.data == b"123")
            loop.slow_callback_duration = 10
            other = connect(loop)
            assert pollers(loop) == []
            end(app, other)
        loop.set_debug(False)

    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_until_complete(main())
    assert seen == ["none", "kept", "kept"]
    assert "<poller of" not in caplog.text
    if isinstance(loop, asyncio.SelectorEventLoop):  # uvloop times no readers
        assert "<reader of <SocketTransport fd=" in caplog.text


def test_out_of_descriptors_the_loop_watches(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        with crowd(loop):
            app = App()
            ours, app.there = socket.socketpair()
            transport = _socket.SocketTransport(loop, ours, app)
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            try:
                transport.begin()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert pollers(loop) == []
            app.there.sendall(b"x")
            await until(lambda: app.data == b"x")
            end(app)

    loop.run_until_complete(main())


# From Python 3.15 on, whatever is loaded: the child does nothing that a lock of another thread could hold up.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_takes_nothing_away(loop: asyncio.AbstractEventLoop) -> None:
    """A process that was forked off has the same epoll, and drops what it has of the connections."""

    async def main() -> None:
        with crowd(loop):
            apps = [connect(loop), connect(loop)]
            child = os.fork()
            if child == 0:
                for app in apps:
                    app.transport = app.there = None
                apps.clear()
                gc.collect()
                os._exit(0)
            _, status = await loop.run_in_executor(None, os.waitpid, child, 0)
            assert status == 0
            for app in apps:
                app.there.sendall(b"x")
            await until(lambda: all(app.data for app in apps))
            end(*apps)

    loop.run_until_complete(main())


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", LOOPS)
def test_a_loop_that_is_closed_first(kind: str) -> None:
    """The sockets are closed with the transports, which are forgotten then; what is left of one can still be ended."""
    before = descriptors(kind)
    loop = LOOPS[kind]()
    apps = [connect(loop) for _ in range(FEW + 3)]
    loop.run_until_complete(asyncio.sleep(0))
    ends = [app.there for app in apps]
    loop.close()
    held = apps.pop().transport
    held.pause_reading()
    apps.clear()
    del loop
    gc.collect()
    for there in ends[:-1]:
        assert select.select([there], [], [], 10)[0]
        assert there.recv(1) == b""
    with contextlib.suppress(RuntimeError):  # the loop is closed
        held.abort()
    del held
    gc.collect()
    assert ends[-1].recv(1) == b""
    for there in ends:
        there.close()
    assert len(os.listdir("/proc/self/fd")) == before
