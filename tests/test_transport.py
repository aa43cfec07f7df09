"""The transport of wsfast by itself: both twins, on sockets that are real, on each loop."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import importlib
import inspect
import os
import select
import socket
import sys
import termios
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from polled import FEW, crowd
from shared import until

from wsfast.transport import _socket, _socket_py

pytestmark = [pytest.mark.anyio, pytest.mark.readers("wsfast's own transport cannot be used there")]


_beside = 0
"""How many connections there are beside those of a test."""


@pytest.fixture(params=[("_socket", 0), ("_socket", FEW), ("_socket_py", 0)], ids=["cython", "polled", "python"])
def twin(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """Each twin, the one in Cython also as one of many. A missing extension is an error, never a skip."""
    global _beside
    name, _beside = request.param
    yield importlib.import_module(f"wsfast.transport.{name}")
    _beside = 0


class App(asyncio.Protocol):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.data = b""
        self.keep_open = False
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.told.append("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")
        self.lost.set_result(exc)


class BufferedApp(App, asyncio.BufferedProtocol):
    """The same, which lends memory of a few bytes."""

    def __init__(self, size: int = 10) -> None:
        super().__init__()
        self.memory = bytearray(size)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.memory

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.memory[:nbytes]


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return two ends of a TCP connection, the second of which blocks."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        theirs, _ = listening.accept()
    return ours, theirs


@asynccontextmanager
async def joined(
    twin: ModuleType, app: App, pair: Callable[[], tuple[socket.socket, socket.socket]] = tcp_pair, **options: Any
) -> AsyncIterator[tuple[Any, socket.socket]]:
    """Run a transport, and give it and the other end, which blocks; at the end the protocol was told of it once."""
    ours, theirs = pair()
    loop = asyncio.get_running_loop()
    theirs.settimeout(10)
    with crowd(loop, _beside), theirs:
        transport = twin.SocketTransport(loop, ours, app, **options)
        transport.begin()
        yield transport, theirs
        transport.abort()
        async with asyncio.timeout(10):
            await app.lost
        assert app.told.count("lost") == app.told.count("made") == 1
        await asyncio.sleep(0)
        assert repr(transport) == "<SocketTransport closed>"


async def read(sock: socket.socket, n: int) -> bytes:
    """Receive so many bytes at the other end, in a thread."""

    def receive() -> bytes:
        data = b""
        while len(data) < n and (more := sock.recv(n - len(data))):
            data += more
        return data

    return await asyncio.get_running_loop().run_in_executor(None, receive)


def members(kind: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("_") and callable(value)}


def test_names_and_signatures() -> None:
    assert _socket.__all__ == _socket_py.__all__
    ours, theirs = members(_socket_py.SocketTransport), members(_socket.SocketTransport)
    assert set(ours) == set(theirs)
    for name, method in ours.items():
        assert list(inspect.signature(method).parameters) == list(inspect.signature(theirs[name]).parameters), name
        assert (method.__doc__ or "").splitlines()[0] == (theirs[name].__doc__ or "").splitlines()[0], name
    assert len(ours) > 18


@pytest.mark.parametrize("app_type", [App, BufferedApp])
@pytest.mark.parametrize("pair", [tcp_pair, socket.socketpair], ids=["tcp", "unix"])
async def test_both_ways(twin: ModuleType, app_type: type[App], pair: Any) -> None:
    app = app_type()
    async with joined(twin, app, pair) as (transport, there):
        there.sendall(b"hello, and more than ten bytes")
        await until(lambda: app.data == b"hello, and more than ten bytes")
        transport.write(b"one")
        transport.write(bytearray(b"two"))
        transport.writelines([memoryview(b"th"), b"ree"])
        transport.write(b"")
        assert await read(there, 11) == b"onetwothree"
        with pytest.raises(TypeError, match="bytes-like, got str"):
            transport.write("text")
        assert transport.is_reading()
        assert not transport.is_closing()
        assert transport.get_protocol() is app
    assert app.told == ["made", "lost"]
    assert await app.lost is None


async def test_what_it_tells_of_the_connection(twin: ModuleType) -> None:
    app = App()
    async with joined(twin, app) as (transport, there):
        assert transport.get_extra_info("peername") == there.getsockname()
        assert transport.get_extra_info("sockname") == there.getpeername()
        sock = transport.get_extra_info("socket")
        assert sock.fileno() >= 0
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert not hasattr(sock, "close")
        assert not hasattr(sock, "detach")
        assert transport.get_extra_info("nothing", 5) == 5
        assert transport.can_write_eof() is True
        address, local = there.getsockname(), there.getpeername()
        both = transport.addresses()
    assert sock.fileno() == -1
    assert (both.remote, both.local) == (address, local)
    assert transport.addresses() is None
    assert transport.get_extra_info("peername") == address
    assert transport.get_extra_info("socket", 5) == 5
    assert transport.get_extra_info("sockname", 5) == 5


async def test_addresses_of_unix_sockets_are_not_kept(twin: ModuleType) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        transport = twin.SocketTransport(asyncio.get_running_loop(), ours, App())
        assert transport.addresses() is None
        transport.abort()
        await asyncio.sleep(0)


def _link_local() -> str:
    """Return an address of this machine that needs its interface's name behind it."""
    for line in Path("/proc/net/if_inet6").read_text().splitlines():
        number, *_, interface = line.split()
        if number.startswith("fe80"):
            return f"{socket.inet_ntop(socket.AF_INET6, bytes.fromhex(number))}%{interface}"
    pytest.skip("no interface has a link-local address")


@pytest.mark.parametrize("host", ["::1", "link-local"])
async def test_addresses_of_ipv6_are_those_of_the_socket(twin: ModuleType, host: str) -> None:
    if host == "link-local":
        host = _link_local()
    with socket.socket(socket.AF_INET6) as listening:
        listening.bind(socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0][4])
        listening.listen()
        with socket.socket(socket.AF_INET6) as there:
            there.connect(listening.getsockname())
            ours, _ = listening.accept()
            expected = ours.getpeername(), ours.getsockname()
            transport = twin.SocketTransport(asyncio.get_running_loop(), ours, App())
            assert (transport.get_extra_info("peername"), transport.get_extra_info("sockname")) == expected
            assert expected == (there.getsockname(), there.getpeername())
            both = transport.addresses()  # None where there is more to an address than bytes
            transport.abort()
            await asyncio.sleep(0)
            assert (both and (both.remote, both.local)) == (None if twin is _socket and "%" in host else expected)


async def test_it_has_the_socket_alone(twin: ModuleType) -> None:
    ours, theirs = tcp_pair()
    with theirs:
        app = App()
        transport = twin.SocketTransport(asyncio.get_running_loop(), ours, app)
        assert ours.fileno() == -1
        ours.close()
        transport.begin()
        transport.write(b"still")
        assert theirs.recv(10) == b"still"
        transport.close()
        await app.lost
        assert theirs.recv(10) == b""
    for wrong, match in ((ours, "stream|closed"), (socket.socket(type=socket.SOCK_DGRAM), "stream")):
        with wrong, pytest.raises((ValueError, OSError), match=match + "|Bad file"):
            twin.SocketTransport(asyncio.get_running_loop(), wrong, app)


async def test_an_owner_is_closed_with_it(twin: ModuleType) -> None:
    ours, theirs = tcp_pair()
    with theirs:
        app = App()
        transport = twin.SocketTransport(asyncio.get_running_loop(), ours.dup(), app, ours)
        transport.begin()
        transport.abort()
        await app.lost
        await asyncio.sleep(0)
        assert ours.fileno() == -1


async def test_what_waits_is_counted_and_sent_in_order(twin: ModuleType) -> None:
    app = App()
    async with joined(twin, app) as (transport, there):
        transport.set_write_buffer_limits(1000)
        assert transport.get_write_buffer_limits() == (250, 1000)
        sent = b""
        pieces = [os.urandom(size) for size in (9_000_000, 1, 70_000, 5, 16_384, 16_383, 200_000, *range(1, 300))]
        for k, piece in enumerate(pieces):
            before = transport.get_write_buffer_size()
            transport.write(piece if k % 2 else bytearray(piece))
            sent += piece
            if k:
                assert transport.get_write_buffer_size() == before + len(piece)
        assert app.told == ["made", "pause"]
        assert await read(there, len(sent)) == sent
        await until(lambda: transport.get_write_buffer_size() == 0)
        assert app.told == ["made", "pause", "resume"]


async def test_a_frame_costs_the_same_however_much_waits(twin: ModuleType) -> None:
    """asyncio sums up what waits at each call: 516 µs at 17,000 frames."""
    app = App()
    async with joined(twin, app) as (transport, there):
        transport.write(bytes(8_000_000))
        before = transport.get_write_buffer_size()
        assert before > 0
        gc.collect()
        for _ in range(60_000):
            transport.write(b"x" * 64)
        assert transport.get_write_buffer_size() == before + 60_000 * 64
        assert len(getattr(transport, "_pieces", ())) < 100 or twin is _socket
        data = await read(there, 8_000_000 + 60_000 * 64)
        assert data == bytes(8_000_000) + b"x" * 64 * 60_000


async def test_more_may_wait_than_memory_holds() -> None:
    """The same object several times: counted right, and no call is given more than it takes, on 32 bits too."""
    app, piece = App(), bytes(1 << 26)
    async with joined(_socket, app) as (transport, theirs):
        for _ in range(40):
            transport.write(piece)
        assert (40 << 26) - (1 << 25) < transport.get_write_buffer_size() < 40 << 26
        assert app.told == ["made", "pause"]
        await read(theirs, 1 << 25)
        assert not transport.is_closing()
        assert (39 << 26) < transport.get_write_buffer_size() < (40 << 26) - (1 << 25)


async def test_a_call_is_given_no_more_than_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `_socket.h` does in C."""
    monkeypatch.setattr(_socket_py, "MOST_SENT", 100_000)
    data = [bytes([n]) * 70_000 for n in range(1, 100)]
    async with joined(_socket_py, App()) as (transport, theirs):
        for piece in data:
            transport.write(piece)
        assert await read(theirs, 70_000 * len(data)) == b"".join(data)


async def test_the_end_comes_after_what_waits(twin: ModuleType) -> None:
    for end in ("close", "write_eof"):
        app = App()
        async with joined(twin, app) as (transport, there):
            transport.write(bytes(4_000_000))
            getattr(transport, end)()
            if end == "close":
                assert transport.is_closing()
                transport.write(b"ignored")
            else:
                with pytest.raises(RuntimeError, match="after write_eof"):
                    transport.write(b"late")
            data = await read(there, 5_000_000)
            assert data == bytes(4_000_000)


async def test_abort_forgets_what_waits(twin: ModuleType) -> None:
    app = App()
    async with joined(twin, app) as (transport, _):
        transport.write(bytes(4_000_000))
        transport.abort()
        assert transport.get_write_buffer_size() == 0
        assert transport.is_closing()
        transport.abort()
        transport.close()
        transport.write(b"x")


@pytest.mark.parametrize("keep_open", [False, True])
async def test_the_peer_ends_its_side(twin: ModuleType, keep_open: bool) -> None:
    app = App()
    app.keep_open = keep_open
    async with joined(twin, app) as (transport, there):
        there.sendall(b"last")
        there.shutdown(socket.SHUT_WR)
        await until(lambda: "eof" in app.told)
        assert app.data == b"last"
        assert transport.is_closing() is not keep_open
        if keep_open:
            transport.write(b"still here")
            assert await read(there, 10) == b"still here"


async def test_pausing(twin: ModuleType) -> None:
    app = App()
    async with joined(twin, app) as (transport, there):
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        there.sendall(b"held")
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert app.data == b""
        transport.resume_reading()
        transport.resume_reading()
        await until(lambda: app.data == b"held")


def reset(sock: socket.socket) -> None:
    """End a connection by a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


@pytest.mark.parametrize("size", [0, 5, 65536, 700_000])
async def test_a_reset_does_not_take_what_came_before_it(twin: ModuleType, size: int) -> None:
    """libuv tells of a socket that failed once, and then never again, whatever is left in it."""
    app = App()
    async with joined(twin, app) as (transport, there):
        there.setblocking(False)
        transport.pause_reading()
        if size:
            there.send(bytes(size))
        reset(there)
        # What was not on this side by now is nowhere.
        descriptor = transport.get_extra_info("socket").fileno()
        arrived = int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)
        assert arrived >= min(size, 65536)
        transport.resume_reading()
        async with asyncio.timeout(10):
            exc = await app.lost
        assert isinstance(exc, ConnectionResetError)
        assert len(app.data) == arrived


async def test_a_reset_right_behind_what_was_sent(twin: ModuleType) -> None:
    app = App()
    async with joined(twin, app) as (_, there):
        there.sendall(b"x" * 1000)
        reset(there)
        async with asyncio.timeout(10):
            assert isinstance(await app.lost, ConnectionResetError)
        assert app.data == b"x" * 1000


async def test_writing_to_a_peer_that_has_gone(twin: ModuleType) -> None:
    """What it sent before is delivered, and the protocol is told why in the end."""
    app = App()
    async with joined(twin, app) as (transport, there):
        transport.pause_reading()
        there.sendall(b"before")
        reset(there)
        transport.resume_reading()
        transport.write(b"a")
        transport.write(b"b")
        assert transport.is_closing()
        async with asyncio.timeout(10):
            exc = await app.lost
        assert isinstance(exc, (ConnectionResetError, BrokenPipeError))
        assert app.data == b"before"


@pytest.mark.parametrize("where", ["data_received", "connection_made", "eof_received", "get_buffer", "buffer_updated"])
async def test_a_protocol_that_raises(twin: ModuleType, where: str) -> None:
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    app = BufferedApp() if "buffer" in where else App()

    def fail(*args: Any) -> None:
        if where == "connection_made":
            app.told.append("made")
        raise asyncio.CancelledError if where == "data_received" else LookupError("mine")

    setattr(app, where, fail)
    async with joined(twin, app) as (_, there):
        if where == "eof_received":
            there.shutdown(socket.SHUT_WR)
        elif where != "connection_made":
            there.sendall(b"x")
        async with asyncio.timeout(10):
            await app.lost
    asyncio.get_running_loop().set_exception_handler(None)
    assert [type(context["exception"]) for context in unhandled] == [
        asyncio.CancelledError if where == "data_received" else LookupError
    ]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_ends_the_program_ends_the_loop(twin: ModuleType, anyio_backend: Any, kind: type[BaseException]) -> None:
    import uvloop

    loop = uvloop.new_event_loop() if anyio_backend[1]["use_uvloop"] else asyncio.new_event_loop()
    apps: list[Any] = []

    async def main() -> None:
        class Ending(App):
            def data_received(self, data: bytes) -> None:
                raise kind(5)

        ours, theirs = tcp_pair()
        app = Ending()
        transport = twin.SocketTransport(loop, ours, app)
        apps.extend([transport, theirs])
        transport.begin()
        theirs.sendall(b"x")
        await asyncio.sleep(10)

    with pytest.raises(kind):
        loop.run_until_complete(main())
    transport, theirs = apps
    theirs.close()
    transport.abort()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()


async def test_what_ends_the_program_as_there_is_room_leaves_nothing_to_do(twin: ModuleType) -> None:
    """Where the loop runs again, it is not called for what was sent already, and the end comes."""

    class Ending(App):
        def resume_writing(self) -> None:
            super().resume_writing()
            raise SystemExit(5)

    app = Ending()
    async with joined(twin, app) as (transport, theirs):
        transport.write(bytes(4_000_000))
        assert app.told[-1] == "pause"
        transport.close()
        theirs.setblocking(False)
        ended = 0
        while not app.lost.done():
            with suppress(BlockingIOError):
                while theirs.recv(1 << 20):
                    pass
            try:
                transport._write_ready()  # as the loop does, from where SystemExit would end this test
            except SystemExit:
                ended += 1
            await asyncio.sleep(0)
        assert ended == app.told.count("resume") == 1


@pytest.mark.parametrize("value", [2**31, 2**63, 2**100])
async def test_limits_that_c_does_not_hold(twin: ModuleType, value: int) -> None:
    app = App()
    async with joined(twin, app) as (transport, _):
        transport.set_write_buffer_limits(value, 7)
        low, high = transport.get_write_buffer_limits()
        assert low == 7
        assert 2**31 - 1 <= high <= value
        for wrong in ((5, 6), (-1, None), (5, -1)):
            with pytest.raises(ValueError, match="high >= low >= 0"):
                transport.set_write_buffer_limits(*wrong)


async def test_a_protocol_takes_over(twin: ModuleType) -> None:
    first, second = App(), BufferedApp(100)
    async with joined(twin, first) as (transport, there):
        there.sendall(b"one")
        await until(lambda: first.data == b"one")
        transport.set_protocol(second)
        there.sendall(b"two")
        await until(lambda: second.data == b"two")
        transport.set_protocol(first)


async def test_a_nested_loop_reads_on(twin: ModuleType) -> None:
    """What runs the loop within itself calls the reader while its own call is on the stack."""
    app = App()
    async with joined(twin, app) as (transport, there):
        depth = 0

        def receive(data: bytes) -> None:
            nonlocal depth
            depth += 1
            app.data += data
            if depth < 5:
                there.sendall(b"%d" % depth)
                for _ in range(1000):
                    transport._read_ready()  # what a nested loop would do
                    if len(app.data) > depth:
                        break

        app.data_received = receive  # type: ignore[method-assign]
        there.sendall(b"0")
        await until(lambda: len(app.data) == 5)
        assert app.data == b"01234"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
async def test_what_the_peer_has_not_taken(twin: ModuleType) -> None:
    app = App()
    async with joined(twin, app) as (transport, there):
        transport.write(bytes(100))
        await until(lambda: transport.unacknowledged() == 0)
        transport.write(bytes(8_000_000))
        assert transport.unacknowledged() > 0
        assert len(await read(there, 8_000_100)) == 8_000_100
        assert transport.nothing_unread()
        there.sendall(b"x")
        await until(lambda: app.data == b"x")


def test_whether_somebody_elses_socket_has_something_to_read(twin: ModuleType) -> None:
    ours, theirs = tcp_pair()
    with ours:
        ours.setblocking(False)
        with theirs:
            assert twin.nothing_unread_at(ours.fileno())
            assert not os.get_blocking(ours.fileno())
            theirs.sendall(b"x")
            assert select.select([ours], [], [], 10)[0]
            assert not twin.nothing_unread_at(ours.fileno())
            assert ours.recv(9) == b"x"  # which is still there
            assert twin.nothing_unread_at(ours.fileno())
        assert select.select([ours], [], [], 10)[0]
        assert not twin.nothing_unread_at(ours.fileno())
    assert not twin.nothing_unread_at(-1)


async def test_nothing_is_left_open(twin: ModuleType) -> None:
    """One that is forgotten closes its socket, with the warning of asyncio's."""
    ours, theirs = tcp_pair()
    transport: Any = twin.SocketTransport(asyncio.get_running_loop(), ours, App())
    with theirs:
        with pytest.warns(ResourceWarning, match="unclosed transport <SocketTransport fd="):
            del transport
        assert theirs.recv(1) == b""
