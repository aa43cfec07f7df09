"""Where a server listens: addresses, sockets, TLS, and the ways to start and to stop."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates, make_certificates
from raw import RawClient, connect_raw, open_raw, request, text
from shared import echo, port_of, serving, until
from websockets.asyncio.client import connect as websockets_connect

import wsfast
from wsfast.dial.settings import HandshakeOptions
from wsfast.limits import SendOptions
from wsfast.server import listening
from wsfast.server.options import ServerOptions
from wsfast.transport import sockets
from wsfast.transport.sockets import has_readers

pytestmark = pytest.mark.anyio


@pytest.fixture
def server() -> wsfast.Server:
    server = wsfast.Server(stop_timeout=1)
    server.register_handler(None, echo)
    return server


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


async def check(client: RawClient) -> None:
    """See that a client is served, and close it."""
    async with client:
        client.send(text("hi"))
        assert await client.receive_message() == "hi"
        await client.end()


async def test_port_0_can_be_read(server: wsfast.Server) -> None:
    assert not server.sockets
    async with server:
        assert await server.start("127.0.0.1", 0) is server
        [sock] = server.sockets
        assert sock.getsockname() == ("127.0.0.1", port_of(server))
        assert port_of(server) > 0
        await check(await connect_raw(server))


async def test_several_addresses(server: wsfast.Server, tmp_path: Path) -> None:
    unix = str(tmp_path / "socket")
    async with server:
        await server.start("127.0.0.1", 0)
        await server.start("127.0.0.1", 0)
        await server.start(path=unix)
        ports = {sock.getsockname()[1] for sock in server.sockets if sock.family == socket.AF_INET}
        assert len(ports) == 2
        assert len(server.sockets) == 3
        for port in ports:
            await check(await connect_raw(server, port=port))
        await check(await connect_raw(server, unix=unix))
        clients = [await connect_raw(server, port=port) for port in ports]
        assert len(server.connections) == 2
        for client in clients:
            client.abort()


async def test_closed_while_it_begins_to_listen(server: wsfast.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """To look a host up takes time, and `close` may be called in it."""
    loop = asyncio.get_running_loop()
    getaddrinfo = loop.getaddrinfo

    async def look_up(*args: Any, **options: Any) -> Any:
        server.close()
        await server.wait_closed()
        return await getaddrinfo(*args, **options)

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setattr(loop, "getaddrinfo", look_up)
    with pytest.raises(RuntimeError, match="the server was closed before it listened"):
        await server.start("localhost", port)
    monkeypatch.undo()
    assert server.sockets == ()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_path_goes_without_a_host(server: wsfast.Server, tmp_path: Path) -> None:
    for where in (("127.0.0.1",), (None, 0)):
        with pytest.raises(ValueError, match="path goes without host and port"):
            await server.start(*where, path=str(tmp_path / "socket"))
    assert server.sockets == ()


async def test_several_hosts_in_one_call(server: wsfast.Server) -> None:
    async with server:
        await server.start(["127.0.0.1", "::1"], 0)
        assert {sock.family for sock in server.sockets} == {socket.AF_INET, socket.AF_INET6}
        for sock in server.sockets:
            host, port, *_ = sock.getsockname()
            reader, writer = await asyncio.open_connection(host, port)
            client = RawClient(reader, writer)
            await client.handshake()
            await check(client)


async def test_ipv6(server: wsfast.Server) -> None:
    async with server:
        await server.start("::1", 0)
        async with websockets_connect(f"ws://[::1]:{port_of(server)}/") as ws:
            await ws.send("hi")
            assert await ws.recv() == "hi"
            [served] = server.connections
            assert served.remote_address[0] == "::1"
            assert served.local_address[:2] == ("::1", port_of(server))


async def test_unix_socket(server: wsfast.Server, tmp_path: Path) -> None:
    unix = str(tmp_path / "socket")
    async with server:
        await server.start(path=unix)
        assert server.sockets[0].getsockname() == unix
        await check(await connect_raw(server, unix=unix))
    again = wsfast.Server()
    again.register_handler(None, echo)
    async with again:
        await again.start(path=unix)  # a file that is left over is no hindrance
        await check(await connect_raw(again, unix=unix))


async def test_a_socket_of_ones_own(server: wsfast.Server) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    async with server:
        await server.start(sock=sock)
        assert port_of(server) == sock.getsockname()[1]
        await check(await connect_raw(server))


async def test_wss(server: wsfast.Server, certificates: Certificates) -> None:
    async with server:
        await server.start("127.0.0.1", 0, ssl=certificates.server_context())
        await check(await connect_raw(server, ssl=certificates.client_context()))
        url = f"wss://localhost:{port_of(server)}/"
        async with websockets_connect(url, ssl=certificates.client_context()) as ws:
            for message in ("hi", bytes(300_000)):
                await ws.send(message)
                assert await ws.recv() == message
            [served] = server.connections
            assert served.transport is not None
            assert served.transport.get_extra_info("ssl_object") is not None
        assert ws.close_code == 1000


async def test_wss_on_a_unix_socket(server: wsfast.Server, certificates: Certificates, tmp_path: Path) -> None:
    unix = str(tmp_path / "socket")
    async with server:
        await server.start(path=unix, ssl=certificates.server_context())
        reader, writer = await asyncio.open_unix_connection(
            unix, ssl=certificates.client_context(), server_hostname="localhost"
        )
        client = RawClient(reader, writer)
        await client.handshake()
        await check(client)


async def test_no_tls_to_a_tls_port_and_the_reverse(
    server: wsfast.Server, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with server:
        await server.start("127.0.0.1", 0, ssl=certificates.server_context())
        async with await open_raw(server) as client:
            client.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            with suppress(ConnectionResetError):
                assert b"HTTP/1.1 101" not in await client.reader.read()
        await server.start("127.0.0.1", 0)
        plain = server.sockets[1].getsockname()[1]
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await open_raw(port=plain, ssl=certificates.client_context())
        await check(await connect_raw(server, ssl=certificates.client_context()))
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def test_ssl_of_a_wrong_type(server: wsfast.Server) -> None:
    async with server:
        with pytest.raises(TypeError, match=r"ssl must be an ssl\.SSLContext, got bool"):
            await server.start("127.0.0.1", 0, ssl=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
async def test_ssl_has_the_limits_of_the_rest(server: wsfast.Server, certificates: Certificates, option: str) -> None:
    unexpected: dict[str, Any] = {option: 1.0}
    async with server:
        with pytest.raises(TypeError, match=f"{option} is no option: open_timeout and close_timeout are for TLS too"):
            await server.start("127.0.0.1", 0, ssl=certificates.server_context(), **unexpected)
        assert server.sockets == ()


@asynccontextmanager
async def accepting(make: Callable[[], asyncio.BaseProtocol], **options: Any) -> AsyncIterator[int]:
    """Accept one connection and give it a protocol; the value is the port."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)

        async def accept() -> None:
            sock, _ = await loop.sock_accept(listening)
            await loop.connect_accepted_socket(make, sock, **options)

        accepted = asyncio.ensure_future(accept())
        yield listening.getsockname()[1]
        await accepted


@pytest.mark.parametrize("tls", [False, True])
async def test_a_connection_that_was_accepted_elsewhere(
    server: wsfast.Server, certificates: Certificates, tls: bool
) -> None:
    """Its TLS is the event loop's, whose transports cannot be half-closed."""
    ours, theirs = (certificates.server_context(), certificates.client_context()) if tls else (None, None)
    async with server:
        async with accepting(server.new_protocol, ssl=ours) as port:
            await check(await connect_raw(None, port=port, ssl=theirs))
        async with accepting(server.new_protocol, ssl=ours) as port, await open_raw(port=port, ssl=theirs) as client:
            await client.exchange(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.status == 426
            assert client.body
            client.abort()
        await until(lambda: not server.counters["handshakes"])
        assert (server.counters["opened"], server.counters["refused"]) == (1, {426: 1})


async def test_a_connection_that_comes_as_the_server_closes(server: wsfast.Server) -> None:
    def make() -> asyncio.BaseProtocol:
        protocol = server.new_protocol()
        server.close()
        return protocol

    async with server:
        async with accepting(make) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request())
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
        await server.wait_closed()
        assert server.counters["handshakes"] == server.counters["opened"] == 0


async def test_a_connection_whose_time_is_over_before_it_is_there() -> None:
    """The event loop was busy for so long, or whoever accepted it."""
    server = wsfast.Server(open_timeout=0.05)
    server.register_handler(None, echo)
    async with server:
        protocol: Any = server.new_protocol()
        await until(lambda: protocol.opening._expired)
        async with accepting(lambda: protocol) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request())
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
        assert server.counters["handshakes"] == server.counters["opened"] == 0


async def test_a_port_that_is_taken(server: wsfast.Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with server:
            with pytest.raises(OSError, match=str(port)):
                await server.start("127.0.0.1", port)
            assert server.sockets == ()
            await server.start("127.0.0.1", 0)  # the server is none the worse
            await check(await connect_raw(server))


async def test_no_address(server: wsfast.Server) -> None:
    async with server:
        with pytest.raises(ValueError, match="expected an address: host and port, path or sock"):
            await server.start()


async def test_a_server_starts_again_on_the_same_port() -> None:
    port = 0
    for _ in range(3):
        server = wsfast.Server()
        server.register_handler(None, echo)
        async with server:
            await server.start("127.0.0.1", port)
            port = port_of(server)
            client = await connect_raw(server)
            server.close()
            assert await client.receive_close() == (1001, "")
            client.abort()


async def test_after_the_stop_nothing_listens(server: wsfast.Server) -> None:
    async with server:
        await server.start("127.0.0.1", 0)
        port = port_of(server)
    assert server.sockets == ()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    with pytest.raises(RuntimeError, match="the server is closed"):
        await server.start("127.0.0.1", 0)


def test_one_event_loop_only(server: wsfast.Server) -> None:
    async def first() -> None:
        await server.start("127.0.0.1", 0)

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(first())
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(first())

        async def stop() -> None:
            server.close()
            await server.wait_closed()

        loop.run_until_complete(stop())
    finally:
        loop.close()


def test_close_after_the_end_of_the_event_loop(server: wsfast.Server) -> None:
    async def begin() -> tuple[str, int]:
        await server.start("127.0.0.1", 0)
        address: tuple[str, int] = server.sockets[0].getsockname()
        return address

    address = asyncio.run(begin())
    server.close()
    asyncio.run(server.wait_closed())
    assert server.sockets == ()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


# --- serve_forever --------------------------------------------------------------------------------------


async def started(server: wsfast.Server) -> None:
    async with asyncio.timeout(5):
        while not server.sockets:
            await asyncio.sleep(0)


async def test_serve_forever_until_cancelled(server: wsfast.Server) -> None:
    task = asyncio.ensure_future(server.serve_forever("127.0.0.1", 0))
    await started(server)
    client = await connect_raw(server)
    task.cancel()
    assert await client.receive_close() == (1001, "")
    client.abort()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.closing
    assert server.connections == set()


async def test_serve_forever_ends_when_the_server_is_closed(server: wsfast.Server) -> None:
    task = asyncio.ensure_future(server.serve_forever("127.0.0.1", 0))
    await started(server)
    server.close()
    async with asyncio.timeout(2):
        await task


async def test_serve_forever_on_what_was_started(server: wsfast.Server, tmp_path: Path) -> None:
    await server.start("127.0.0.1", 0)
    task = asyncio.ensure_future(server.serve_forever())
    await asyncio.sleep(0)
    assert len(server.sockets) == 1
    await check(await connect_raw(server))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_serve_forever_passes_options_on(server: wsfast.Server, tmp_path: Path) -> None:
    unix = str(tmp_path / "socket")
    task = asyncio.ensure_future(server.serve_forever(path=unix, backlog=5))
    await started(server)
    await check(await connect_raw(server, unix=unix))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# --- The short form -------------------------------------------------------------------------------------


async def test_serve_as_a_context_manager() -> None:
    async with wsfast.serve(echo, "127.0.0.1", 0, max_size=10, backlog=7) as server:
        assert server.limits.max_size == 10
        await check(await connect_raw(server))
    assert server.closing


async def test_serve_awaited() -> None:
    server = await wsfast.serve(echo, "127.0.0.1", 0)
    await check(await connect_raw(server))
    server.close()
    await server.wait_closed()


async def test_serve_over_tls(certificates: Certificates) -> None:
    async with wsfast.serve(echo, "127.0.0.1", 0, ssl=certificates.server_context()) as server:
        await check(await connect_raw(server, ssl=certificates.client_context()))


async def test_serve_and_serve_forever() -> None:
    async def run(ready: asyncio.Future[wsfast.Server]) -> None:
        async with wsfast.serve(echo, "127.0.0.1", 0) as server:
            ready.set_result(server)
            await server.serve_forever()

    ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(run(ready))
    await check(await connect_raw(await ready))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_serve_with_an_option_nobody_has() -> None:
    with pytest.raises(TypeError, match="max_sise"):
        await wsfast.serve(echo, "127.0.0.1", 0, max_sise=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "kind", "match"),
    [
        ({"max_size": 0}, ValueError, "max_size must be positive, got 0"),
        ({"open_timeout": "5"}, TypeError, "open_timeout must be a number of seconds or None, got str"),
        ({"ping_interval": True}, TypeError, "ping_interval must be a number of seconds or None, got bool"),
        ({"max_size": "1"}, TypeError, "max_size must be int or None, got str"),
        ({"read_limit": None}, TypeError, "read_limit must be int, got NoneType"),
        ({"write_limit": True}, TypeError, "write_limit must be int, got bool"),
        ({"max_buffered": -1}, ValueError, "max_buffered must be positive, got -1"),
        ({"max_fragments": 0}, ValueError, "max_fragments must be positive, got 0"),
        ({"open_timeout": 0}, ValueError, "open_timeout must be a positive number of seconds or None, got 0"),
        ({"close_timeout": -1}, ValueError, "close_timeout"),
        ({"ping_interval": float("nan")}, ValueError, "ping_interval"),
        ({"ping_timeout": -1.0}, ValueError, "ping_timeout"),
        ({"stop_timeout": 0}, ValueError, "stop_timeout must be a positive number of seconds or None, got 0"),
        ({"process_request": 5}, TypeError, "process_request must be callable, got int"),
        ({"select_subprotocol": "chat"}, TypeError, "select_subprotocol must be callable, got str"),
        ({"response_headers": {"X": "a\nb"}}, ValueError, "header X without control characters"),
        ({"response_headers": {"upgrade": "h2c"}}, ValueError, "must not have upgrade: it is part of the handshake"),
        ({"response_headers": {"Sec-WebSocket-Protocol": "a"}}, ValueError, "must not have Sec-WebSocket-Protocol"),
        ({"overflow": "explode"}, ValueError, "overflow must be 'error', 'drop' or 'close', got 'explode'"),
        ({"compression": "gzip"}, ValueError, "gzip"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        wsfast.Server(**options)


# --- How many ---------------------------------------------------------------------------------------------


async def test_too_many_connections() -> None:
    """Who comes beyond the limit is told when to come again; who is in is not touched."""
    server = wsfast.Server(max_connections=2, stop_timeout=1)
    server.register_handler(None, echo)
    async with server:
        await server.start("127.0.0.1", 0)
        first, silent = await connect_raw(server), await open_raw(server)
        await until(lambda: server.counters["handshakes"] == 1)
        for _ in range(3):
            async with await open_raw(server) as surplus:
                await surplus.handshake()
                assert surplus.status == 503
                assert surplus.headers["retry-after"] == "5"
                assert b"as many connections as it may have" in surplus.body
        assert server.counters["refused"] == {503: 3}
        silent.abort()
        await until(lambda: server.counters["handshakes"] == 0)
        await check(first)
        await until(lambda: not server.connections)
        for client in [await connect_raw(server) for _ in range(2)]:
            await check(client)


async def test_those_beyond_wait_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even refusing takes descriptors: those that may be refused at a time are few, and the others wait."""
    if not has_readers(asyncio.get_running_loop()):
        pytest.skip("a loop that accepts by itself does not wait")
    monkeypatch.setattr("wsfast.server.server._MOST_SURPLUS", 3)
    server = wsfast.Server(max_connections=1, stop_timeout=1)
    server.register_handler(None, echo)
    async with server:
        await server.start("127.0.0.1", 0)
        first = await connect_raw(server)
        silent = [await open_raw(server) for _ in range(10)]
        await until(lambda: server.counters["handshakes"] == 3)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert server.counters["handshakes"] == 3
        for client in silent[:9]:
            client.abort()
        await silent[9].handshake()
        assert silent[9].status == 503
        await until(lambda: server.counters["handshakes"] == 0)
        silent[9].abort()
        await check(first)


@pytest.mark.parametrize(
    ("value", "kind", "match"),
    [(0, ValueError, "positive, got 0"), (1.5, TypeError, "float"), (True, TypeError, "bool")],
)
def test_a_limit_of_connections_that_is_wrong(value: Any, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=f"max_connections.*{match}"):
        wsfast.Server(max_connections=value)


async def test_several_servers_on_one_port() -> None:
    """As several processes do: SO_REUSEPORT."""
    servers = [wsfast.Server(stop_timeout=1) for _ in range(2)]
    port = 0
    for server in servers:
        server.register_handler(None, echo)
        await server.start("127.0.0.1", port, reuse_port=True)
        port = port_of(server)
    for _ in range(40):
        await check(await connect_raw(servers[0], port=port))
    assert sum(server.counters["opened"] for server in servers) == 40
    assert all(server.counters["opened"] for server in servers)
    for server in servers:
        server.close()
        await server.wait_closed()


async def test_a_socket_that_listens_already(server: wsfast.Server) -> None:
    """As systemd hands one in; who connected before is served."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        inherited = socket.socket(fileno=os.dup(listening.fileno()))
        async with server:
            await server.start(sock=inherited)
            client = RawClient(reader, writer)
            await client.handshake()
            await check(client)
        assert inherited.fileno() == -1


async def test_options_that_do_not_go_together(server: wsfast.Server, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        wrongs: list[tuple[dict[str, Any], type[Exception]]] = [
            ({"sock": sock, "host": "127.0.0.1"}, ValueError),
            ({"sock": sock, "reuse_port": True}, TypeError),
            ({"path": tmp_path / "a", "sock": sock}, ValueError),
            ({"path": tmp_path / "a", "reuse_port": True}, TypeError),
            ({"host": "127.0.0.1", "port": 0, "nonsense": 1}, TypeError),
        ]
        for wrong, kind in wrongs:
            with pytest.raises(kind):
                await server.start(**wrong)
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(ValueError, match="stream socket"):
        await server.start(sock=sock)
    assert server.sockets == ()


async def test_the_file_of_a_unix_socket_goes_with_the_server(server: wsfast.Server, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with server:
        await server.start(path=path)
        assert path.exists()
    assert not path.exists()
    first, second = wsfast.Server(), wsfast.Server()
    await first.start(path=path)
    await second.start(path=path)  # took the name over
    first.close()
    await first.wait_closed()
    assert path.exists()
    second.close()
    await second.wait_closed()
    assert not path.exists()


async def test_what_raises_when_a_connection_is_opened_ends_it(
    server: wsfast.Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it is, and though the handshake may be answered: nobody would look after the connection."""
    from wsfast.asyncio.protocol import ConnectionProtocol

    for name in ("attach", "write_head", "use_listener"):

        def fail(*args: Any, **options: Any) -> None:
            raise OverflowError("mine")

        with monkeypatch.context() as patch:
            patch.setattr(ConnectionProtocol, name, fail)
            one = wsfast.Server(
                close_timeout=0.1, stop_timeout=1, read_limit=2**100, write_limit=2**70, max_buffered=2**80
            )
            one.register_listener(None, wsfast.Listener)
            async with one:
                await one.start("127.0.0.1", 0)
                async with await open_raw(one) as client:
                    client.send(request())
                    with suppress(OSError):
                        await client.reader.read()
                await until(lambda: not one.connections and not one.counters["handshakes"])  # noqa: B023
    assert "mine" in caplog.text


def integers(call: Callable[..., object], names: Iterable[str]) -> dict[str, Any]:
    """Give each option that takes integers, of any size, a different one that no C integer holds."""
    taken: dict[str, Any] = {}
    for name in sorted(names):
        value = 2 ** (63 + len(taken))
        with suppress(TypeError, ValueError):
            call(**{name: value})
            taken[name] = value
    return taken


async def test_limits_that_c_does_not_hold() -> None:
    """Whichever option it is; each is tried that there is."""
    options = integers(wsfast.Server, ServerOptions.__annotations__.keys() - {"logger"})
    known = {*HandshakeOptions.__annotations__, *SendOptions.__annotations__} - {"logger"}
    ours = integers(partial(wsfast.connect, "ws://127.0.0.1:1/"), known)
    assert {"max_size", "max_headers", "write_limit", "stop_timeout", "max_connections"} <= options.keys()
    assert {"max_size", "max_headers", "write_limit", "ping_timeout"} <= ours.keys()
    async with (
        serving(echo, **options) as server,
        wsfast.connect(f"ws://127.0.0.1:{port_of(server)}/", **ours) as ws,
    ):
        await ws.send("x")
        assert await ws.recv() == "x"


async def test_the_log_is_told_when_connections_are_accepted_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As soon as that is so, though nobody connects any more."""

    def exhausted(loop: Any, sock: Any, factory: Any) -> bool:
        if accepted and failures:
            raise failures.pop()
        done = accept(loop, sock, factory)
        accepted.append(done)
        return done

    accepted: list[bool] = []
    failures = [OSError(errno.EMFILE, "Too many open files") for _ in range(3)]
    accept = sockets.accept
    monkeypatch.setattr(listening, "accept", exhausted)
    monkeypatch.setattr(listening, "PAUSE", 0.01)
    async with serving() as server, wsfast.connect(f"ws://127.0.0.1:{port_of(server)}/"):
        await until(lambda: "accepted again" in caplog.text)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [message[:30] for message in told] == ["no connections are accepted fo", "connections are accepted again"]
    assert accepted[:2] == [True, False]
