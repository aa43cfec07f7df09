"""What servers in threads and on trio share with those on asyncio: proxies in front, TLS in hooks, counters."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import pickle
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import sync_helpers
import tls_helpers
from certificates import Certificates
from sync_helpers import PATIENCE, in_thread, until
from test_proxied import LINE, SIGNATURE, V4, V6

import wsfast
import wsfast.metrics
import wsfast.sync
from wsfast.handshake import Response, accept_key

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%b\r\n"
)
CLIENT = ("192.0.2.7", 8080), ("198.51.100.1", 443)


def told(ws: Any) -> str:
    return repr((ws.remote_address, ws.local_address))


def in_threads(hook: Callable[..., Any] | None, options: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    def handler(ws: wsfast.sync.WebSocket) -> None:
        ws.send(told(ws))
        for message in ws:
            ws.send(message)

    with wsfast.sync.serve(handler, "127.0.0.1", 0, process_request=hook, **options) as server:
        thread = in_thread(server.serve_forever)
        try:
            yield server, server.socket.getsockname()
        finally:
            server.shutdown()
            thread.join(PATIENCE)


def on_asyncio(hook: Callable[..., Any] | None, options: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    async def handler(ws: wsfast.WebSocket) -> None:
        await ws.send(told(ws))
        async for message in ws:
            await ws.send(message)

    with sync_helpers.running(handler, process_request=hook, **options) as running:
        yield running.server, running.server.sockets[0].getsockname()


def on_trio(hook: Callable[..., Any] | None, options: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    trio = pytest.importorskip("trio", reason="needs trio")
    import wsfast.trio

    started: list[Any] = []
    ready = threading.Event()

    async def handler(ws: wsfast.trio.WebSocket) -> None:
        await ws.send(told(ws))
        async for message in ws:
            await ws.send(message)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            serve = partial(wsfast.trio.serve, handler, "127.0.0.1", 0, process_request=hook, **options)
            started[:] = [await nursery.start(serve), trio.lowlevel.current_trio_token()]
            ready.set()

    thread = in_thread(partial(trio.run, main))
    assert ready.wait(PATIENCE)
    server, token = started
    try:
        yield server, server.sockets[0].getsockname()
    finally:
        trio.from_thread.run(server.shutdown, trio_token=token)
        thread.join(PATIENCE)


@pytest.fixture(params=[in_threads, on_trio], ids=["threads", "trio"])
def serving(request: pytest.FixtureRequest) -> Callable[..., contextlib.AbstractContextManager[tuple[Any, Any]]]:
    """Run a server; its handler tells addresses first, and echoes then."""
    run = request.param

    @contextlib.contextmanager
    def make(hook: Callable[..., Any] | None = None, **options: Any) -> Iterator[tuple[Any, Any]]:
        yield from run(hook, options)

    return make


@pytest.fixture(params=[on_asyncio, in_threads, on_trio], ids=["asyncio", "threads", "trio"])
def serving_all(request: pytest.FixtureRequest) -> Callable[..., contextlib.AbstractContextManager[tuple[Any, Any]]]:
    """The same, on asyncio too."""
    return contextlib.contextmanager(request.param)


def dial(address: Any, *pieces: bytes) -> socket.socket:
    sock = socket.create_connection(address, timeout=PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in pieces:
        sock.sendall(piece)
    return sock


def read_to(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        more = sock.recv(4096)
        if not more:
            raise AssertionError(f"the end came after {data!r}")
        data += more
    return data


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("header", [LINE, V4], ids=["v1", "v2"])
def test_the_client_is_whom_the_proxy_names(serving: Any, header: bytes, secure: bool, certs: Certificates) -> None:
    seen: list[Any] = []

    def hook(ws: Any, request: wsfast.Request) -> None:
        tls = ws.ssl_object
        seen.append((ws.remote_address, ws.local_address, tls and tls.getpeercert()["subject"]))

    ours = certs.server_context(client_required=True) if secure else None
    theirs = certs.client_context(certificate=True) if secure else None
    with serving(hook, proxy_protocol=True, ssl=ours) as (_, address):
        uri = f"{'wss' if secure else 'ws'}://localhost:{address[1]}/"
        with wsfast.sync.connect(uri, sock=dial(address, header), ssl=theirs) as ws:
            assert ws.recv(PATIENCE) == repr(CLIENT)
            ws.send("x" * 100_000)
            assert ws.recv(PATIENCE) == "x" * 100_000
            assert (ws.ssl_object is not None) is secure
    assert seen[0][:2] == CLIENT
    assert bool(seen[0][2]) is secure


@pytest.mark.parametrize("header", [LINE, V4, V6, SIGNATURE + b"\x20\x00\x00\x00", b"PROXY UNKNOWN\r\n"], ids=ascii)
def test_the_header_comes_in_pieces_with_the_request(serving: Any, header: bytes) -> None:
    with serving(proxy_protocol=["127.0.0.1"], forwarded=["192.0.2.7"]) as (_, address):
        data = header + REQUEST % b"X-Forwarded-For: 203.0.113.5\r\n"
        with dial(address, *(data[at : at + 1] for at in range(len(data)))) as sock:
            here = sock.getsockname()
            # Only the one that the header names may tell of another.
            expected = {LINE: "203.0.113.5", V4: "203.0.113.5", V6: "::1"}.get(header, repr(here)).encode()
            assert expected in read_to(sock, b"))")


def test_forwarded(serving: Any) -> None:
    told = REQUEST % b"Forwarded: for=203.0.113.5, for=127.0.0.2\r\n"
    with serving(forwarded=["127.0.0.0/8"]) as (_, address), dial(address, told) as sock:
        assert b"203.0.113.5" in read_to(sock, b"))")
    with serving() as (_, address), dial(address, REQUEST % b"X-Forwarded-For: 203.0.113.5\r\n") as sock:
        assert b"203.0.113.5" not in read_to(sock, b"))")


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        # What the client sent itself, in whatever form, does not count: only what the proxies have added.
        (["X-Forwarded-For: 6.6.6.6", "x-forwarded-for: 203.0.113.5"], ("203.0.113.5", 0)),
        (["X-Forwarded-For: 203.0.113.5:4711, 10.0.0.2", "X-Forwarded-For: fd00::2"], ("203.0.113.5", 4711)),
        (["Forwarded: for=6.6.6.6", 'FORWARDED: For="[2001:DB8::1]:47"'], ("2001:db8::1", 47, 0, 0)),
        (['Forwarded: for="[2001:db8::1]:_x", for="[fd00::2]"'], ("2001:db8::1", 0, 0, 0)),
        (["Forwarded: for=127.0.0.1", "Forwarded: for=203.0.113.5;by=_me"], ("203.0.113.5", 0)),
        (['Forwarded: for="6.6.6.6', "Forwarded: for=203.0.113.5"], ("203.0.113.5", 0)),
        (["Forwarded: for=_hidden", "Forwarded: for=10.0.0.2"], ("10.0.0.2", 0)),
        (["Forwarded: for=203.0.113.5, for=unknown"], None),
        (["Forwarded: for=6.6.6.6", "X-Forwarded-For: 203.0.113.5"], None),
        (["Forwarded: for=203.0.113.5:1", "X-Forwarded-For: 203.0.113.5:2"], ("203.0.113.5", 1)),
        (["X-Forwarded-For: 203.0.113.5, "], None),
    ],
    ids=ascii,
)
def test_who_is_told_to_be_the_client(serving_all: Any, lines: list[str], client: tuple[Any, ...] | None) -> None:
    """On every kind of server, over sockets; None stands for the proxy itself."""
    request = REQUEST % b"".join(f"{line}\r\n".encode() for line in lines)
    with (
        serving_all(None, {"forwarded": ["127.0.0.0/8", "10.0.0.0/8", "fd00::/8"]}) as (_, address),
        dial(address, request) as sock,
    ):
        expected = sock.getsockname() if client is None else client
        assert repr((expected, address)).encode() in read_to(sock, b"))")


def test_a_trusted_proxy_must_send_it(serving: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving(proxy_protocol=True) as (server, address):
        with dial(address, REQUEST % b"") as sock, contextlib.suppress(ConnectionResetError):
            assert sock.recv(100) == b""
        assert "expected a header of the PROXY protocol, got b'GET'" in caplog.text
        until(lambda: server.counters["handshakes"] == 0)


def test_attributes_of_the_program(serving: Any) -> None:
    """What a hook puts on a connection, the handler reads; requests can be copied and pickled."""

    def hook(ws: Any, request: wsfast.Request) -> None:
        ws.user = "ada"
        for again in (copy.copy(request), copy.deepcopy(request), pickle.loads(pickle.dumps(request))):
            assert (again.path, again.headers) == (request.path, request.headers)

    with serving(hook) as (server, address), wsfast.sync.connect(f"ws://127.0.0.1:{address[1]}/") as ws:
        ws.recv(PATIENCE)
        assert [one.user for one in server.connections] == ["ada"]
        assert not hasattr(ws, "user")


def test_what_is_counted(serving: Any) -> None:
    def hook(ws: Any, request: wsfast.Request) -> wsfast.Response | None:
        return ws.respond(403, "No\n") if request.path == "/no" else None

    with serving(hook, origins=["https://good.example"]) as (server, address):
        for request in (b"GET /no HTTP/1.1\r\nHost: h\r\n\r\n", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"no\r\n\r\n"):
            with dial(address, request) as sock:
                assert sock.recv(100)
        with dial(address, REQUEST % b"Origin: https://evil.example\r\n") as sock:
            assert sock.recv(100).startswith(b"HTTP/1.1 403 ")
        with wsfast.sync.connect(f"ws://127.0.0.1:{address[1]}/", origin="https://good.example") as ws:
            ws.recv(PATIENCE)
            counters = server.counters
            assert (counters["connections"], counters["opened"], counters["messages_sent"]) == (1, 1, 1)
            for call in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match="cannot copy or pickle"):
                    call(next(iter(server.connections)))
        until(lambda: server.counters["connections"] == server.counters["handshakes"] == 0)
        counters = server.counters
        assert counters["refused"] == {403: 2, 426: 1, 400: 1}
        assert counters["causes"] == {wsfast.CloseCause.PEER: 1}
        assert (counters["opened"], counters["messages_sent"]) == (1, 1)
        assert 'wsfast_refused_total{status="403"} 2' in wsfast.metrics.render(server)
    assert set(counters) == set(wsfast.Server().counters)


# --- TLS tells why it fails ------------------------------------------------------------------------------------------


def by_asyncio(uri: str, context: ssl.SSLContext) -> None:
    async def enter() -> None:
        async with wsfast.connect(uri, ssl=context) as ws:
            await ws.send("opened")
            raise AssertionError(f"received {await ws.recv()!r}")

    asyncio.run(enter())


def by_threads(uri: str, context: ssl.SSLContext) -> None:
    with wsfast.sync.connect(uri, ssl=context) as ws:
        ws.send("opened")
        raise AssertionError(f"received {ws.recv()!r}")


def by_trio(uri: str, context: ssl.SSLContext) -> None:
    trio = pytest.importorskip("trio", reason="needs trio")
    import wsfast.trio

    async def enter() -> None:
        async with wsfast.trio.connect(uri, ssl=context) as ws:
            await ws.send("opened")
            raise AssertionError(f"received {await ws.recv()!r}")

    trio.run(enter)


clients = pytest.mark.parametrize("client", [by_asyncio, by_threads, by_trio])


@clients
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_without_its_certificate_is_told(
    serving_all: Any, client: Callable[..., None], version: ssl.TLSVersion, certs: Certificates
) -> None:
    context = certs.client_context()
    context.minimum_version = context.maximum_version = version
    with (
        serving_all(None, {"ssl": certs.server_context(client_required=True)}) as (_, address),
        pytest.raises((OSError, wsfast.InvalidMessage)) as info,
    ):
        client(f"wss://localhost:{address[1]}/", context)
    told = f"{info.value} {info.value.__cause__}".upper().replace(" ", "_")
    # RFC 5246 has no alert of its own for this.
    assert ("CERTIFICATE_REQUIRED" if version is ssl.TLSVersion.TLSv1_3 else "HANDSHAKE_FAILURE") in told


@clients
def test_a_server_that_is_not_trusted_is_told(
    serving_all: Any, client: Callable[..., None], certs: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with serving_all(None, {"ssl": certs.server_context()}) as (_, address):
        with pytest.raises(ssl.SSLCertVerificationError):
            client(f"wss://localhost:{address[1]}/", ssl.create_default_context())
        until(lambda: "UNKNOWN_CA" in caplog.text.upper().replace(" ", "_"))


def carry(tls: tls_helpers.Peer, sock: socket.socket, enough: Callable[[], object]) -> None:
    """Move the records of a peer in memory over a socket, both ways, until it has received enough."""
    tls.receive(b"")
    while not enough():
        sock.sendall(tls.take())
        data = sock.recv(65536)
        assert data, "the end came"
        tls.receive(data)


def corrupted(record: bytes) -> bytes:
    return record[:-1] + bytes([record[-1] ^ 1])


@pytest.mark.parametrize("when", ["with the TLS handshake", "opening handshake", "messages"])
def test_a_client_whose_record_is_corrupted_is_told(serving_all: Any, when: str, certs: Certificates) -> None:
    with serving_all(None, {"ssl": certs.server_context()}) as (_, address), dial(address) as sock:
        tls = tls_helpers.Peer(certs.client_context())
        carry(tls, sock, tls.tls.version)
        if when == "opening handshake":
            sock.sendall(tls.take())
        elif when == "messages":
            sock.sendall(tls.send(REQUEST % b""))
            carry(tls, sock, lambda: b"))" in tls.got)
        sock.sendall(corrupted(tls.send(REQUEST % b"")))
        carry(tls, sock, lambda: tls.alert)
        assert tls.alert.endswith("BAD_RECORD_MAC")


@clients
@pytest.mark.parametrize("when", ["opening handshake", "messages"])
def test_a_server_whose_record_is_corrupted_is_told(
    client: Callable[..., None], when: str, certs: Certificates
) -> None:
    tls = tls_helpers.Peer(certs.server_context(), server_side=True)

    def script(peer: sync_helpers.Peer) -> None:
        carry(tls, peer.sock, lambda: b"\r\n\r\n" in tls.got)
        peer.head = tls.got
        accepted = f"Sec-WebSocket-Accept: {accept_key(str(peer.header('Sec-WebSocket-Key')))}\r\n\r\n".encode()
        response = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + accepted
        if when == "messages":
            peer.sock.sendall(tls.send(response))
            carry(tls, peer.sock, lambda: len(tls.got) > len(peer.head))  # its first message: it is open
        peer.sock.sendall(corrupted(tls.send(response)))
        carry(tls, peer.sock, lambda: tls.alert)

    with sync_helpers.scripted(script) as port:
        with pytest.raises((wsfast.InvalidMessage, wsfast.ConnectionClosedError)):
            client(f"wss://localhost:{port}/", certs.client_context())
        until(lambda: tls.alert)
        assert tls.alert.endswith("BAD_RECORD_MAC")


# --- What the program brings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", [on_asyncio, in_threads, on_trio])
@pytest.mark.parametrize("what", ["class", "OSError", "status", "no status"])
def test_what_fails_before_the_answer_is_answered(shell: Any, what: str, caplog: pytest.LogCaptureFixture) -> None:
    """By 500, and told to the log: a class of connections of the program's own, and a response that a hook spoilt."""
    options: dict[str, Any] = {}
    if what in ("class", "OSError"):
        package = {on_asyncio: "asyncio", in_threads: "sync", on_trio: "trio"}[shell]
        base = pytest.importorskip(f"wsfast.{package}.websocket", reason="needs trio").WebSocket

        def fail(self: Any, *args: Any, **kwargs: Any) -> None:
            raise LookupError("no such thing") if what == "class" else FileNotFoundError("no such thing")

        options["create_connection"] = type("Failing", (base,), {"__init__": fail})
    else:

        def spoil(ws: Any, request: wsfast.Request, response: wsfast.Response) -> None:
            response.status_code = 101.5 if what == "status" else True  # type: ignore[assignment]

        options["process_response"] = spoil
    with contextlib.contextmanager(shell)(None, options) as (server, address):
        for _ in range(2):
            with socket.create_connection(address, timeout=PATIENCE) as sock:
                sock.sendall(REQUEST % b"")
                came = b""
                while data := sock.recv(65536):
                    came += data
            assert came.startswith(b"HTTP/1.1 500 ")
            assert b"no such thing" not in came
        until(lambda: server.counters["refused"] == {500: 2})
    failed = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in failed] == ["opening handshake failed: a hook raised"] * 2
    assert all(record.exc_info for record in failed)


# --- What the log is told of a peer's Close frame ---------------------------------------------------------------------


@pytest.mark.parametrize("shell", [on_asyncio, in_threads, on_trio], ids=["asyncio", "threads", "trio"])
def test_the_log_says_with_what_a_peer_closed(shell: Any, caplog: pytest.LogCaptureFixture) -> None:
    """One line at INFO, escaped, for what the handler sees as `ConnectionClosedError`; none where it ended well."""
    caplog.set_level(logging.DEBUG, "wsfast.server")
    closes = [
        (1002, "bad\r\nmask \x1b[31m\u2028", "peer rejected our data: the peer sent 1002 (PROTOCOL_ERROR) '"),
        (1007, "", "peer rejected our data: the peer sent 1007 (INVALID_DATA)"),
        (1008, "x" * 123, "closed by peer: the peer sent 1008 (POLICY_VIOLATION) '" + "x" * 123 + "'"),
        (1011, "", "closed by peer: the peer sent 1011 (INTERNAL_ERROR)"),
        (4000, "", "closed by peer: the peer sent 4000"),
        (1000, "", None),
        (1001, "", None),
    ]
    expected = [text for *_, text in closes if text is not None]
    with contextlib.contextmanager(shell)(None, {}) as (server, address):
        for code, reason, _ in closes:
            with wsfast.sync.connect(f"ws://127.0.0.1:{address[1]}/") as ws:
                ws.recv(PATIENCE)
                ws.close(code, reason)
        until(lambda: sum(server.counters["causes"].values()) == len(closes))
    told = [record for record in caplog.records if "connection from" in record.getMessage()]
    assert [record.levelname for record in told] == ["INFO"] * len(expected)
    for record, text in zip(told, expected, strict=True):
        line = record.getMessage()
        assert text in line
        assert line.isascii()
        assert line.isprintable()
        assert record.exc_info is None


@pytest.mark.parametrize(("code", "line"), [(4000, None), (1000, None), (1011, "closed by us: the peer sent 1011")])
def test_the_log_says_with_what_a_peer_answered(code: int, line: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """A Close frame that answers this side's is told only where it says something else, and is no good end."""
    caplog.set_level(logging.DEBUG, "wsfast.server")

    async def handler(ws: wsfast.WebSocket) -> None:
        await ws.close(1000 if code == 1011 else code)

    with sync_helpers.running(handler) as running, dial(running.server.sockets[0].getsockname(), REQUEST % b"") as sock:
        assert sock.makefile("rb").read(4)
        sock.sendall(b"\x88\x82\0\0\0\0" + code.to_bytes(2, "big"))
        until(lambda: bool(running.server.counters["causes"]))
    told = [record.getMessage() for record in caplog.records if "connection from" in record.getMessage()]
    assert (len(told) == 1 and line in told[0]) if line else not told


class _Broken(logging.Filter):
    """A part of the program's own log that fails at each line."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        self.told.append(f"{record.module}: {record.msg}")
        raise RuntimeError("the log is broken")


@pytest.mark.parametrize("shell", [on_asyncio, in_threads, on_trio], ids=["asyncio", "threads", "trio"])
def test_a_log_that_fails_takes_nothing_with_it(shell: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """A peer causes most lines: none of them may end a server, or keep it from counting and letting go of anything."""
    broken = _Broken()
    logger = logging.Logger("broken", logging.DEBUG)
    logger.addFilter(broken)

    def hook(ws: Any, request: Any) -> None:
        if request.path == "/fail":
            raise KeyError("a hook")

    with contextlib.contextmanager(shell)(hook, {"logger": logger, "open_timeout": 0.5}) as (server, address):
        lost, violating, rejecting = (dial(address, REQUEST % b"") for _ in range(3))
        for sock, data in ((lost, b""), (violating, b"\xff\xff"), (rejecting, b"\x88\x82\0\0\0\0\x03\xea")):
            with sock:
                assert sock.recv(12) == b"HTTP/1.1 101"
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):
                    pass
        refusals = (b"rubbish\r\n\r\n", b"400"), (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"426")
        for request, status in (*refusals, (REQUEST.replace(b"GET /", b"GET /fail") % b"", b"500")):
            with dial(address, request) as sock:
                assert sock.recv(12) == b"HTTP/1.1 " + status
        with dial(address, b"GET / HT"):
            pass
        with dial(address, b"GET / HT") as sock:
            assert sock.recv(12) in (b"", b"HTTP/1.1 408")  # too late
        with wsfast.sync.connect(f"ws://127.0.0.1:{address[1]}/") as ws:
            ws.send("still there")
            assert [ws.recv(PATIENCE), ws.recv(PATIENCE)][1] == "still there"
        until(lambda: sum(server.counters["causes"].values()) == 4 and not server.counters["handshakes"])
        assert server.counters["refused"].items() >= {400: 1, 426: 1, 500: 1}.items()
        assert not server.counters["connections"]
    assert len(broken.told) >= 7
    assert not [line for line in broken.told if line.startswith("telling: ")]  # each names where it was told
    assert capfd.readouterr().err.count("RuntimeError: the log is broken") == len(broken.told)


@pytest.fixture
def short_linger(monkeypatch: pytest.MonkeyPatch) -> float:
    """Have servers wait 1 s for a peer that takes nothing of a response."""
    for module in ("wsfast.server.accepting", "wsfast.sync.server", "wsfast.trio.server"):
        monkeypatch.setattr(f"{module}.LINGER", 1.0)
    return 1.0


def small() -> socket.socket:
    """Make a socket that holds little of what comes."""
    sock = socket.socket()
    sock.settimeout(PATIENCE)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    return sock


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_long_response_comes_whole_however_slowly_it_is_read(
    serving_all: Callable[..., Any], short_linger: float, certs: Certificates, tls: bool
) -> None:
    size, steps = 8_000_000, 20
    options = {"ssl": certs.server_context()} if tls else {}
    with serving_all(lambda ws, request: Response(400, body=bytes(size)), options) as (_, address):
        sock = small()
        sock.connect(address)
        with certs.client_context().wrap_socket(sock, server_hostname="localhost") if tls else sock as sock:
            sock.sendall(REQUEST % b"")
            taken = len(read_to(sock, b"\r\n\r\n").partition(b"\r\n\r\n")[2])
            for step in range(1, steps + 1):
                while taken < size * step // steps:
                    taken += len(sock.recv(4096)) or pytest.fail(f"the end came after {taken} bytes")
                time.sleep(3 * short_linger / steps)  # in all longer than a peer may take that takes nothing
            assert taken == size
            assert sock.recv(1) == b""


@pytest.mark.usefixtures("short_linger")
def test_a_peer_that_takes_nothing_of_a_long_response_is_dropped(serving_all: Callable[..., Any]) -> None:
    def answered(sock: socket.socket) -> bytes:
        sock.sendall(REQUEST % b"")
        return read_to(sock, b"\r\n").split()[1]

    def is_free(address: Any) -> bool:
        with dial(address) as sock:
            return answered(sock) == b"400"

    long = Response(400, body=bytes(50_000_000))
    with serving_all(lambda ws, request: long, {"max_connections": 1}) as (_, address), small() as sock:
        sock.connect(address)
        assert answered(sock) == b"400"
        assert not is_free(address)
        until(lambda: is_free(address))
