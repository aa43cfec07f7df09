"""wss:// over sockets, on both twins of the TLS transport and both loops: what is on the wire, and how it ends."""
# ruff: noqa: SIM117 (a block in a block tells what ends first)

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import shutil
import socket
import ssl
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import ModuleType
from typing import Any

import hostile
import pytest
from certificates import Certificates
from client_helpers import Peer as Scripted
from client_helpers import nothing_left, scripted
from hostile import BINARY, CLOSE, PATIENCE, TEXT, Echo, close_frame, frame, head, serving
from peers import node_peer, node_process
from shared import echo, port_of, until
from tls_helpers import TWINS, VERSIONS, load_tls
from tls_helpers import Peer as InMemory

import wsfast
from wsfast import CloseCause, State

pytestmark = pytest.mark.anyio


@pytest.fixture(params=TWINS, autouse=True)
def tls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Let servers and clients use `wsfast.transport.tls` on each twin."""
    module = load_tls(request.param)
    monkeypatch.setattr("wsfast.server.server.TLSTransport", module.TLSTransport)
    monkeypatch.setattr("wsfast.server.server.buffer_of", module.buffer_of)
    monkeypatch.setattr("wsfast.dial.dialer.connect", module.connect)
    return module


@pytest.fixture(params=list(VERSIONS))
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    """Each version of TLS."""
    return VERSIONS[request.param]


class Wire(hostile.Peer):
    """A client on a bare socket whose TLS is done here, so that all of it can be seen, and broken.

    Attributes:
        tls: the TLS.
        ended: how the connection ended: "eof" or "reset".
    """

    tls: InMemory
    ended = ""

    @classmethod
    async def begin(
        cls, server: Any, context: ssl.SSLContext, version: ssl.TLSVersion | None = None, *, buffers: int | None = None
    ) -> Wire:
        """Connect, and send nothing."""
        wire = await cls.dial(server, buffers=buffers)
        assert isinstance(wire, cls)
        if version is not None:
            context.maximum_version = context.minimum_version = version
        wire.tls = InMemory(context)
        return wire

    async def shake_hands(self) -> Wire:
        """Do the TLS handshake, as far as it goes."""
        await self.raw(self.tls.begin())
        while self.tls.tls.version() is None and not self.tls.alert:
            await self._more()
        return self

    @classmethod
    async def upgraded(cls, server: Any, context: ssl.SSLContext, *arguments: Any, **options: Any) -> Wire:
        """Connect, and finish both handshakes."""
        wire = await (await cls.begin(server, context, *arguments, **options)).shake_hands()
        await wire.send(head())
        assert (await wire.read_response()).startswith(b"HTTP/1.1 101 ")
        return wire

    async def send(self, *data: bytes) -> None:
        await self.raw(self.tls.send(*data))

    async def raw(self, *data: bytes) -> None:
        """Send bytes as they are, no records."""
        await super().send(*data)

    async def _more(self) -> None:
        async with asyncio.timeout(PATIENCE):
            data = await self.loop.sock_recv(self.sock, 262144)
        if not data:
            self.ended = "eof"
            raise EOFError
        self.buffer += self.tls.receive(data)
        answer = self.tls.take()
        if answer:
            with suppress(OSError):
                await self.raw(answer)

    async def read_to_end(self) -> bytes:
        """Read all that comes until the end, and tell in `ended` how it came."""
        try:
            while True:
                await self._more()
        except EOFError:
            pass
        except ConnectionError:
            self.ended = "reset"
        return self.buffer

    def half_close(self) -> None:
        """End the sending side of TCP."""
        self.sock.shutdown(socket.SHUT_WR)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def all_closed(before: int) -> None:
    """Wait until no more descriptors are open than there were."""
    await until(lambda: descriptors() <= before)


class Noted:
    """A handler that notes what it receives, and how that ended."""

    def __init__(self) -> None:
        self.received: list[str | bytes] = []
        self.ends: list[tuple[int | None, CloseCause | None]] = []
        self.go_on = asyncio.Event()

    async def __call__(self, ws: wsfast.WebSocket) -> None:
        await self.go_on.wait()
        try:
            async for message in ws:
                self.received.append(message)
        except wsfast.ConnectionClosedError:
            pass
        self.ends.append((ws.close_code, ws.close_cause))


# --- Handshakes that fail -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\0" * 1000, b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01"],
    ids=["nothing", "HTTP", "zeros", "no ClientHello", "half a header"],
)
async def test_no_tls(certs: Certificates, sent: bytes) -> None:
    async with serving(echo, ssl=certs.server_context()) as server:
        listening = descriptors()
        wire = await Wire.begin(server, certs.client_context())
        await wire.raw(sent)
        wire.half_close()
        await wire.read_to_end()
        assert wire.ended == "eof"
        wire.close()
        await until(lambda: not server.counters["handshakes"])
        await all_closed(listening)
        lines = server.log.of("wsfast.server")[1:]
        assert len(lines) == 1, lines
        assert "ended before its opening handshake" in lines[0]


@pytest.mark.parametrize("end", ["eof", "reset"])
@pytest.mark.parametrize("at", [1, 100, 300])
async def test_end_during_the_handshake(certs: Certificates, end: str, at: int) -> None:
    async with serving(echo, ssl=certs.server_context()) as server:
        listening = descriptors()
        wire = await Wire.begin(server, certs.client_context())
        await wire.raw(wire.tls.begin()[:at])
        await until(lambda: server.counters["handshakes"])
        if end == "reset":
            wire.reset()
        else:
            wire.half_close()
            await wire.read_to_end()
            wire.close()
        await all_closed(listening)
        await until(lambda: not server.counters["handshakes"])
        assert len(server.log.of("wsfast.server")) == 2


async def test_the_deadline_is_absolute(certs: Certificates) -> None:
    loop = asyncio.get_running_loop()
    async with serving(echo, ssl=certs.server_context(), open_timeout=0.4) as server:
        wire = await Wire.begin(server, certs.client_context())
        began = loop.time()
        with suppress(ConnectionError):
            for byte in wire.tls.begin():
                await wire.raw(bytes([byte]))
                await asyncio.sleep(0.02)
        await wire.read_to_end()
        assert 0.3 <= loop.time() - began < 3
        assert len(server.log.of("wsfast.server")) == 2
        assert "took too long" in server.log.of("wsfast.server")[1]


async def test_client_without_its_certificate_gets_the_alert(certs: Certificates, version: ssl.TLSVersion) -> None:
    """In TLS 1.3 the client has sent its request by then, which must not turn the alert into a reset."""
    async with serving(echo, ssl=certs.server_context(client_required=True)) as server:
        wire = await Wire.begin(server, certs.client_context(), version)
        await wire.raw(wire.tls.begin())
        with suppress(EOFError, ConnectionError):
            while not wire.tls.alert:
                await wire._more()
                if wire.tls.tls.version() == "TLSv1.3":
                    with suppress(ssl.SSLError, OSError):
                        await wire.send(head(), b"x" * 100_000)
        assert "ALERT" in wire.tls.alert
        wire.half_close()
        await wire.read_to_end()
        assert wire.ended == "eof"
        await until(lambda: not server.counters["handshakes"])
        [line] = server.log.of("wsfast.server")[1:]
        assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in line


async def test_client_that_does_not_trust_the_server(certs: Certificates, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context()
    async with serving(echo, ssl=certs.server_context()) as server:
        wire = await (await Wire.begin(server, context, version)).shake_hands()
        assert wire.tls.alert == "CERTIFICATE_VERIFY_FAILED"
        await wire.raw(wire.tls.take())
        wire.half_close()
        await wire.read_to_end()
        await until(lambda: not server.counters["handshakes"])
        [line] = server.log.of("wsfast.server")[1:]
        assert "ALERT_UNKNOWN_CA" in line


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_hook_that_raises(certs: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """The `ssl` module tells of it by `sys.unraisablehook`; the handshake fails, and nothing else does."""
    context = certs.server_context()
    raised = []

    def hook(*arguments: Any) -> None:
        raised.append(arguments[1])
        raise RuntimeError("hook")

    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: None)
    async with serving(echo, ssl=context) as server:
        healthy = await Wire.upgraded(server, certs.client_context())
        context.sni_callback = hook
        wire = await (await Wire.begin(server, certs.client_context())).shake_hands()
        assert "ALERT_HANDSHAKE_FAILURE" in wire.tls.alert
        assert raised == ["localhost"]
        wire.close()
        await healthy.answered()
        await until(lambda: not server.counters["handshakes"])


async def test_stop_during_handshakes(certs: Certificates) -> None:
    loop = asyncio.get_running_loop()
    async with serving(echo, ssl=certs.server_context(), stop_timeout=10) as server:
        wires = [await Wire.begin(server, certs.client_context()) for _ in range(5)]
        for at, wire in enumerate(wires):
            await wire.raw(wire.tls.begin()[: at * 50])
        await until(lambda: server.counters["handshakes"] == 5)
        began = loop.time()
        server.close()
        await server.wait_closed()
        assert loop.time() - began < 2
        for wire in wires:
            await wire.read_to_end()
        assert not server.counters["handshakes"]


async def test_stop_after_a_failure_that_the_peer_sits_out(certs: Certificates) -> None:
    """The alert was sent, and the peer does not end its side: a stop does not wait for it."""
    loop = asyncio.get_running_loop()
    async with serving(echo, ssl=certs.server_context(), stop_timeout=10) as server:
        listening = descriptors()
        wire = await Wire.begin(server, certs.client_context())
        await wire.raw(b"\0" * 100)
        await wire.read_to_end()
        assert wire.ended == "eof"
        began = loop.time()
        server.close()
        await server.wait_closed()
        assert loop.time() - began < 1
        await until(lambda: not server.counters["handshakes"])
        await all_closed(listening)


async def test_options_that_are_none(certs: Certificates) -> None:
    server = wsfast.Server()
    server.register_handler(None, echo)
    with pytest.raises(ValueError, match="ssl must be a server's context"):
        await server.start("127.0.0.1", 0, ssl=certs.client_context())
    for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
        unexpected: dict[str, Any] = {name: 5}
        with pytest.raises(TypeError, match=name):
            await server.start("127.0.0.1", 0, ssl=certs.server_context(), **unexpected)
    with pytest.raises(TypeError, match="SSLContext"):
        await server.start("127.0.0.1", 0, ssl=True)  # type: ignore[arg-type]
    assert server.sockets == ()


# --- An open connection that breaks -------------------------------------------------------------------


async def test_a_corrupted_record_ends_that_connection(certs: Certificates, version: ssl.TLSVersion) -> None:
    async with serving(echo, ssl=certs.server_context()) as server:
        healthy = await Wire.upgraded(server, certs.client_context())
        wire = await Wire.upgraded(server, certs.client_context(), version)
        [ws] = [ws for ws in server.connections if ws.remote_address[1] == wire.sock.getsockname()[1]]
        bad = bytearray(wire.tls.send(frame(TEXT, b"bad")))
        bad[-1] ^= 1
        # What came before it is no error to answer, though that is no use.
        await wire.raw(wire.tls.send(frame(TEXT, b"good")), bytes(bad))
        with suppress(EOFError):
            while not wire.tls.alert:
                await wire._more()
        assert wire.tls.alert.endswith("BAD_RECORD_MAC")
        wire.close()
        await ws.wait_closed()
        assert (ws.close_code, ws.close_cause, ws.state) == (1006, CloseCause.LOST, State.CLOSED)
        await healthy.answered()


@pytest.mark.parametrize("end", ["reset", "eof", "close_notify"])
async def test_the_peer_ends_while_reading_is_paused(certs: Certificates, version: ssl.TLSVersion, end: str) -> None:
    """What it sent before comes whole and in order, and then 1006, once."""
    noted = Noted()
    messages = [b"%04d" % number + b"x" * 996 for number in range(100)]  # what the system holds
    async with serving(noted, ssl=certs.server_context(), read_limit=2000) as server:
        wire = await Wire.upgraded(server, certs.client_context(), version)
        [ws] = server.connections
        await wire.send(*[frame(BINARY, message) for message in messages])
        assert ws.transport is not None
        await until(lambda: not ws.transport.is_reading())
        if end == "reset":
            await until(lambda: not unsent(wire.sock))
            wire.reset()
        elif end == "eof":
            wire.half_close()
        else:
            await wire.raw(wire.tls.close_notify())
        noted.go_on.set()
        await until(lambda: noted.ends)
        assert noted.received == messages
        assert noted.ends == [(1006, CloseCause.LOST)]
        await ws.wait_closed()
    assert noted.ends == [(1006, CloseCause.LOST)]


def unsent(sock: socket.socket) -> int:
    """Return how many bytes the other end's system has not acknowledged."""
    return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), "little")


@pytest.mark.parametrize("end", ["close_notify", "eof"])
async def test_answers_to_the_last_messages_come(certs: Certificates, end: str) -> None:
    """A listener has answered what came in the same read as the end."""
    async with serving({None: Echo}, ssl=certs.server_context()) as server:
        wire = await Wire.upgraded(server, certs.client_context())
        last = wire.tls.send(frame(TEXT, b"last"))
        await wire.raw(last + (wire.tls.close_notify() if end == "close_notify" else b""))
        if end == "eof":
            wire.half_close()
        await wire.read_to_end()
        if end == "eof":
            assert wire.buffer.endswith(b"last")
        assert wire.ended == "eof"
        assert wire.tls.ended, "RFC 8446, 6.1: each party must send close_notify"


# --- Closing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["server", "peer"])
async def test_close_frame_then_close_notify_then_the_end(
    certs: Certificates, version: ssl.TLSVersion, first: str
) -> None:
    """Unread bytes do not turn it into a reset."""
    async with serving(echo, ssl=certs.server_context()) as server:
        wire = await Wire.upgraded(server, certs.client_context(), version)
        [ws] = server.connections
        if first == "server":
            ws.close_nowait(1000, "bye")
            assert await wire.read() == (CLOSE, b"\x03\xe8bye")
        # It may be read by the server only when that has closed.
        await wire.send(close_frame(), *[b"\xff" * 16_000 for _ in range(20)])
        if first == "peer":
            assert await wire.read() == (CLOSE, b"\x03\xe8")
        await wire.read_to_end()
        assert wire.tls.ended
        assert not wire.tls.alert
        assert wire.ended == "eof"
        wire.close()
        async with asyncio.timeout(PATIENCE):
            await ws.wait_closed()
        assert ws.close_code == 1000


async def test_close_is_bounded_where_the_peer_never_reads(certs: Certificates) -> None:
    async def talk(ws: wsfast.WebSocket) -> None:
        with suppress(wsfast.ConnectionClosed):
            while True:
                await ws.send(b"x" * 50_000)

    loop = asyncio.get_running_loop()
    async with serving(talk, ssl=certs.server_context(), close_timeout=0.3, buffers=8192) as server:
        await Wire.upgraded(server, certs.client_context(), buffers=8192)
        [ws] = server.connections
        await until(lambda: ws.buffered_amount > 65536)
        began = loop.time()
        await ws.close()
        assert loop.time() - began < PATIENCE
        assert (ws.close_code, ws.close_cause) == (1006, CloseCause.TIMEOUT)


# --- Backpressure -------------------------------------------------------------------------------------


async def test_send_waits_for_a_peer_that_does_not_read(certs: Certificates, version: ssl.TLSVersion) -> None:
    sent = 0
    total = 200

    async def talk(ws: wsfast.WebSocket) -> None:
        nonlocal sent
        for _ in range(total):
            await ws.send(b"x" * 10_000)
            sent += 1

    async with serving(talk, ssl=certs.server_context(), buffers=8192) as server:
        wire = await Wire.upgraded(server, certs.client_context(), version, buffers=8192)
        [ws] = server.connections
        await until(lambda: ws.buffered_amount > 65536)
        before = -1
        while before != sent:
            before = sent
            for _ in range(20):
                await asyncio.sleep(0)
        assert 0 < sent < total // 2
        # Up to the limit, and what was gathered to be written at once.
        assert 65536 < ws.buffered_amount < 2 * 65536 + 10_200
        for _ in range(total):
            assert await wire.read() == (BINARY, b"x" * 10_000)
        assert sent == total
        assert (await wire.read())[0] == CLOSE
        assert ws.buffered_amount == 0


async def test_a_handler_that_does_not_read_pauses_the_socket(certs: Certificates, version: ssl.TLSVersion) -> None:
    noted = Noted()
    async with serving(noted, ssl=certs.server_context(), buffers=8192) as server:
        wire = await Wire.upgraded(server, certs.client_context(), version, buffers=8192)
        [ws] = server.connections
        assert ws.transport is not None
        data = b"".join(wire.tls.send(frame(BINARY, b"%04d" % number + b"x" * 996)) for number in range(1000))
        sending = asyncio.ensure_future(wire.raw(data))
        await until(lambda: not ws.transport.is_reading())
        stuck = ws.counters["bytes_received"]
        for _ in range(100):
            await asyncio.sleep(0)
        assert ws.counters["bytes_received"] == stuck < 300_000
        assert not sending.done()
        noted.go_on.set()
        await sending
        await wire.send(close_frame())
        assert (await wire.read())[0] == CLOSE
        assert noted.received == [b"%04d" % number + b"x" * 996 for number in range(1000)]


# --- The client ---------------------------------------------------------------------------------------


async def test_round_trips(certs: Certificates, version: ssl.TLSVersion) -> None:
    context = certs.client_context()
    context.maximum_version = context.minimum_version = version
    async with serving(echo, ssl=certs.server_context(), max_size=None) as server, nothing_left(port_of(server)):
        async with wsfast.connect(f"wss://localhost:{port_of(server)}", ssl=context, max_size=None) as ws:
            messages = ["", "text", b"x" * 65536, b"y" * 65537, "é" * 300_000, b"z" * 3_000_000]
            # All at once: both sides send more than either takes at a time.
            _, answers = await asyncio.gather(_send_all(ws, messages), _receive(ws, len(messages)))
            assert answers == messages
            assert ws.transport is not None
            info = ws.transport.get_extra_info
            assert info("ssl_object").version() == version.name.replace("_", ".")
            assert info("socket").fileno() >= 0
            assert info("peername")[1] == port_of(server) == ws.remote_address[1]
            assert info("sockname") == ws.local_address
            [served] = server.connections
            assert served.transport is not None
            assert served.transport.get_extra_info("peername") == info("sockname")
            assert served.transport.get_extra_info("peercert") is None


async def _send_all(ws: wsfast.WebSocket, messages: list[Any]) -> None:
    for message in messages:
        await ws.send(message)


async def _receive(ws: wsfast.WebSocket, count: int) -> list[str | bytes]:
    return [await ws.recv() for _ in range(count)]


async def test_handshake_timeout_of_the_client(certs: Certificates) -> None:
    async def script(peer: Scripted) -> None:
        await peer.until_end()

    async with scripted(script) as server, nothing_left(port_of(server)):
        with pytest.raises(ConnectionAbortedError, match=r"the TLS handshake took longer than 0\.1 seconds"):
            await wsfast.connect(
                f"wss://localhost:{port_of(server)}", ssl=certs.client_context(), ssl_handshake_timeout=0.1
            )
        with pytest.raises(TimeoutError, match="opening handshake"):
            await wsfast.connect(f"wss://localhost:{port_of(server)}", ssl=certs.client_context(), open_timeout=0.1)


async def test_a_client_that_is_cancelled(certs: Certificates) -> None:
    came = asyncio.Event()

    async def script(peer: Scripted) -> None:
        await peer.reader.readexactly(1)
        came.set()
        await peer.until_end()

    async with scripted(script) as server, nothing_left(port_of(server)):
        connecting = asyncio.ensure_future(
            wsfast.connect(f"wss://localhost:{port_of(server)}", ssl=certs.client_context())._connect()
        )
        await came.wait()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x28"])
async def test_a_server_that_is_none(certs: Certificates, answer: bytes) -> None:
    async def script(peer: Scripted) -> None:
        await peer.reader.readexactly(1)
        peer.write(answer)
        peer.writer.write_eof()
        await peer.until_end()

    async with scripted(script) as server, nothing_left(port_of(server)):
        with pytest.raises((ssl.SSLError, ConnectionResetError)) as caught:
            await wsfast.connect(f"wss://localhost:{port_of(server)}", ssl=certs.client_context())
        assert isinstance(caught.value, ssl.SSLError) is bool(answer)
        assert str(caught.value)


async def test_the_name_is_verified_or_it_is_said_not_to_be(certs: Certificates) -> None:
    """The `ssl` module takes any certificate of a known authority if it is given no name."""
    async with serving(echo, ssl=certs.server_context()) as server, nothing_left(port_of(server)):
        url = f"wss://localhost:{port_of(server)}"
        with pytest.raises(ValueError, match="server_hostname"):
            await wsfast.connect(url, ssl=certs.client_context(), server_hostname="")
        context = certs.client_context()
        context.check_hostname = False
        async with wsfast.connect(url, ssl=context, server_hostname="") as ws:
            assert ws.transport is not None
            assert ws.transport.get_extra_info("ssl_object").server_hostname is None


# --- Others' TLS --------------------------------------------------------------------------------------


async def test_client_of_asyncio(certs: Certificates, version: ssl.TLSVersion) -> None:
    context = certs.client_context()
    context.maximum_version = context.minimum_version = version
    async with serving(echo, ssl=certs.server_context()) as server:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port_of(server), ssl=context, server_hostname="localhost"
        )
        writer.write(head())
        await reader.readuntil(b"\r\n\r\n")
        for size in (1, 60_000, 500_000):
            writer.write(frame(BINARY, b"x" * size))
            assert (await reader.readexactly(size + (2 if size < 126 else 4 if size < 65536 else 10)))[
                -size:
            ] == b"x" * size
        writer.write(close_frame())
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b"\x88\x02\x03\xe8"
            writer.close()
            await writer.wait_closed()


async def test_server_of_asyncio(certs: Certificates, version: ssl.TLSVersion) -> None:
    context = certs.server_context()
    context.maximum_version = context.minimum_version = version

    async def script(peer: Scripted) -> None:
        await peer.read_head()
        peer.accept()
        size = 100_000
        await peer.reader.readexactly(14 + size)
        peer.write(frame(BINARY, b"y" * size, mask=None) + frame(CLOSE, b"\x03\xe8", mask=None))
        await peer.reader.readexactly(8)  # the client's Close frame; it leaves the end of TCP to the server

    async with scripted(script, tls=context) as server, nothing_left(port_of(server)):
        async with wsfast.connect(f"wss://localhost:{port_of(server)}", ssl=certs.client_context()) as ws:
            await ws.send(b"x" * 100_000)
            assert await ws.recv() == b"y" * 100_000
            with pytest.raises(wsfast.ConnectionClosedOK):
                await ws.recv()


NODE = """
const WebSocket = require('ws');
const ws = new WebSocket(`wss://localhost:${process.argv[1]}`, {ca: require('fs').readFileSync(process.argv[2])});
const sizes = [0, 1, 65535, 65536, 300000];
const got = [];
ws.on('open', () => sizes.forEach(size => ws.send(Buffer.alloc(size, 'x'))));
ws.on('message', data => { got.push(data.length); if (got.length === sizes.length) ws.close(4000, 'done'); });
ws.on('error', error => console.log(JSON.stringify({error: error.message})));
ws.on('close', code => console.log(JSON.stringify({got, code})));
"""


@pytest.mark.node
@node_peer
async def test_client_of_node(certs: Certificates) -> None:
    async with (
        serving(echo, ssl=certs.server_context()) as server,
        node_process(NODE, str(port_of(server)), str(certs.authority)) as line,
    ):
        assert json.loads(line) == {"got": [0, 1, 65535, 65536, 300000], "code": 4000}


openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


@asynccontextmanager
async def s_client(server: Any, certs: Certificates, *options: str) -> AsyncIterator[Any]:
    """Run OpenSSL's own client, connected to the server, for `PATIENCE` at most."""
    process = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-connect", f"127.0.0.1:{port_of(server)}", "-CAfile", str(certs.authority), *options,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE):
        yield process


@openssl
async def test_client_of_openssl(certs: Certificates, version: ssl.TLSVersion) -> None:
    named = "-" + version.name.lower().replace("v", "")
    async with (
        serving(echo, ssl=certs.server_context()) as server,
        s_client(server, certs, "-quiet", "-verify_return_error", named) as process,
    ):
        process.stdin.write(head())
        await process.stdout.readuntil(b"\r\n\r\n")
        process.stdin.write(frame(TEXT, b"hello") + close_frame())
        assert await process.stdout.readexactly(11) == b"\x81\x05hello\x88\x02\x03\xe8"
        process.stdin.close()
        assert await process.stdout.read() == b""
        await process.wait()


@openssl
async def test_a_client_that_changes_its_keys(certs: Certificates) -> None:
    """RFC 8446, 4.6.3: it asks for the server's to be changed too, which OpenSSL does before it sends something."""
    async with (
        serving(echo, ssl=certs.server_context()) as server,
        s_client(server, certs, "-tls1_3", "-msg") as process,
    ):
        process.stdin.write(head())
        await process.stdout.readuntil(b"101 Switching Protocols")
        for number in range(3):
            process.stdin.write(b"K\n")
            await process.stdout.readuntil(b">>> TLS 1.3, Handshake [length 0005], KeyUpdate")
            process.stdin.write(frame(TEXT, b"hello %d" % number))
            await process.stdout.readuntil(b"<<< TLS 1.3, Handshake [length 0005], KeyUpdate")
            await process.stdout.readuntil(b"\x81\x07hello %d" % number)
        process.stdin.write(close_frame())
        await process.stdout.readuntil(b"\x88\x02\x03\xe8")
        process.stdin.close()
        await process.stdout.read()
        await process.wait()


@openssl
async def test_a_server_that_negotiates_anew(
    certs: Certificates, tls: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 5246, 7.4.1.1: in TLS 1.2 a server may ask for another handshake, and what is sent has to wait for it."""
    told: list[bool] = []
    stalled = tls.TLSTransport.stalled

    def note(self: Any, waits: bool) -> None:
        told.append(waits)
        stalled(self, waits)

    monkeypatch.setattr(tls.TLSTransport, "stalled", note)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        "openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", str(certs.server), "-tls1_2",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        await until(lambda: _accepts(port))
        async with asyncio.timeout(PATIENCE):
            connecting = asyncio.ensure_future(
                wsfast.connect(f"wss://localhost:{port}", ssl=certs.client_context(), proxy=None)._connect()
            )
            server = Scripted(process.stdout, process.stdin)
            await server.read_head()  # and what it tells of the connection
            server.accept()
            ws, _ = await connecting
            process.stdin.write(b"r\n")
            sent = 0
            while False not in told:
                await ws.send(b"%06d" % sent)
                sent += 1
                await asyncio.sleep(0)
            await ws.send(b"atlast")
            assert told[0] is True
            output = b""
            while not (payloads := _payloads(output)) or payloads[-1] != b"atlast":
                output += await process.stdout.read(65536)
            assert payloads[:-1] == [b"%06d" % number for number in range(sent)]
            ws.abort()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def _payloads(output: bytes) -> list[bytes]:
    """Find short binary messages in what the server prints, which is more than them."""
    return [
        bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        for mask, payload in re.findall(rb"(?s)\x82\x86(.{4})(.{6})", output)
    ]


def _accepts(port: int) -> bool:
    listening = f"0100007F:{port:04X}"
    with open("/proc/net/tcp") as table:
        return any(line.split()[1] == listening and line.split()[3] == "0A" for line in table.readlines()[1:])
