"""`connect` against servers that misbehave: a clear exception, in time, and nothing left behind."""
# ruff: noqa: SIM117 (a block in a block tells what ends first)

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest
from certificates import Certificates
from client_helpers import Peer, Script, nothing_left, scripted, url_of
from shared import port_of

import wsfast
from wsfast.codes import CloseCause, CloseCode

pytestmark = pytest.mark.anyio


def answering(data: bytes, *, then_end: bool = True) -> Script:
    """Make a script that answers every request with some bytes."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.write(data)
        if then_end:
            peer.writer.write_eof()
        await peer.until_end()

    return script


def accepting(*headers: str, **changes: Any) -> Script:
    """Make a script that accepts a WebSocket, but for what is asked to be wrong."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.accept(*headers, **changes)
        await peer.until_end()

    return script


HANDSHAKES: dict[str, tuple[Script, type[Exception], str]] = {
    "bad accept key": (
        accepting(key="AAAAAAAAAAAAAAAAAAAAAA=="),
        wsfast.InvalidHeader,
        "Sec-WebSocket-Accept",
    ),
    "no accept key": (
        accepting(leave_out="Sec-WebSocket-Accept"),
        wsfast.InvalidHeader,
        "missing Sec-WebSocket-Accept",
    ),
    "two accept keys": (
        accepting("Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        wsfast.InvalidHeader,
        "expected it once",
    ),
    "no Upgrade": (accepting(leave_out="Upgrade"), wsfast.InvalidUpgrade, "missing Upgrade"),
    "another Upgrade": (accepting("Upgrade: h2c", leave_out="Upgrade: w"), wsfast.InvalidUpgrade, "expected websocket"),
    "no Connection": (accepting(leave_out="Connection"), wsfast.InvalidUpgrade, "missing Connection"),
    "another Connection": (
        accepting("Connection: close", leave_out="Connection: U"),
        wsfast.InvalidUpgrade,
        "expected Upgrade",
    ),
    "a subprotocol not offered": (
        accepting("Sec-WebSocket-Protocol: chat"),
        wsfast.NegotiationError,
        "subprotocol that was offered",
    ),
    "an extension not offered": (
        accepting("Sec-WebSocket-Extensions: permessage-deflate"),
        wsfast.NegotiationError,
        "extension that was offered",
    ),
    "malformed extensions": (
        accepting("Sec-WebSocket-Extensions: ;;"),
        wsfast.InvalidHeaderFormat,
        "Sec-WebSocket-Extensions",
    ),
    "200": (
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", then_end=False),
        wsfast.InvalidStatus,
        "answered HTTP 200",
    ),
    "404 in chunks": (
        answering(
            b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", then_end=False
        ),
        wsfast.InvalidStatus,
        "answered HTTP 404",
    ),
    "426 until the end": (
        answering(b"HTTP/1.1 426 Upgrade Required\r\n\r\nhello"),
        wsfast.InvalidStatus,
        "answered HTTP 426",
    ),
    "nothing": (answering(b""), wsfast.InvalidMessage, "got nothing"),
    "half a head": (answering(b"HTTP/1.1 101 Swi"), wsfast.InvalidMessage, "the end of the connection"),
    "no HTTP": (answering(b"SSH-2.0-OpenSSH_9.2\r\n", then_end=False), wsfast.InvalidMessage, "status line"),
    "HTTP/2": (answering(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", then_end=False), wsfast.InvalidMessage, "CR LF"),
    "HTTP/1.0 101": (answering(b"HTTP/1.0 101 OK\r\n\r\n", then_end=False), wsfast.InvalidMessage, "status line"),
    "bare LF": (answering(b"HTTP/1.1 101 OK\nUpgrade: websocket\n\n", then_end=False), wsfast.InvalidMessage, "CR LF"),
    "a folded line": (
        answering(b"HTTP/1.1 101 OK\r\nA: b\r\n c\r\n\r\n", then_end=False),
        wsfast.InvalidMessage,
        "header",
    ),
    "a NUL": (answering(b"HTTP/1.1 101 OK\r\nA: \x00\r\n\r\n", then_end=False), wsfast.InvalidMessage, "CR LF"),
    "too many headers": (
        answering(b"HTTP/1.1 101 OK\r\n" + b"A: b\r\n" * 129, then_end=False),
        wsfast.InvalidMessage,
        "at most 128 headers",
    ),
    "a header too long": (
        answering(b"HTTP/1.1 101 OK\r\nA: " + b"b" * 9000, then_end=False),
        wsfast.InvalidMessage,
        "at most 8192 bytes",
    ),
    "too many interim responses": (
        answering(b"HTTP/1.1 100 Continue\r\n\r\n" * 9, then_end=False),
        wsfast.InvalidMessage,
        "interim",
    ),
}


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_wrong_response(name: str) -> None:
    """RFC 6455, 4.1: what the response must have, else the client fails the connection."""
    script, error, text = HANDSHAKES[name]
    async with scripted(script) as server, nothing_left(port_of(server)):
        with pytest.raises(error, match=text) as caught:
            await wsfast.connect(url_of(server), open_timeout=5)
        assert type(caught.value) is error
        response = getattr(caught.value, "response", None)
        if error is wsfast.InvalidMessage:
            assert response is None
        else:
            assert response is not None
            if response.status_code != 101:
                assert response.body == b"hello"


async def test_interim_responses_are_skipped() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        peer.accept()
        peer.write(b"\x81\x02hi\x88\x02\x03\xe8")
        await peer.reader.readexactly(8)

    async with scripted(script) as server, nothing_left(port_of(server)):
        async with wsfast.connect(url_of(server)) as ws:
            assert await ws.recv() == "hi"


async def test_response_byte_by_byte() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        writes: list[bytes] = []
        peer.write = writes.append  # type: ignore[assignment, method-assign]
        peer.accept()
        for byte in b"".join(writes) + b"\x81\x02hi":
            peer.writer.write(bytes([byte]))
            await peer.writer.drain()
            await asyncio.sleep(0)
        await peer.until_end()

    async with scripted(script) as server, nothing_left(port_of(server)):
        ws = await wsfast.connect(url_of(server))
        assert await ws.recv() == "hi"
        ws.abort()
        await ws.wait_closed()


async def endless(peer: Peer, head: bytes, piece: bytes, delay: float = 0.0) -> None:
    await peer.read_head()
    peer.write(head)
    with contextlib.suppress(OSError):
        while not peer.writer.is_closing():
            peer.write(piece)
            await peer.writer.drain()
            await asyncio.sleep(delay)


async def test_endless_headers() -> None:
    async def script(peer: Peer) -> None:
        await endless(peer, b"HTTP/1.1 101 Switching Protocols\r\n", b"A: b\r\n")

    async with scripted(script) as server, nothing_left(port_of(server)):
        with pytest.raises(wsfast.InvalidMessage, match="128 headers"):
            await wsfast.connect(url_of(server), open_timeout=5)


async def test_headers_that_drip() -> None:
    """The deadline is absolute: a byte now and then does not renew it."""

    async def script(peer: Peer) -> None:
        await endless(peer, b"HTTP/1.1 101 Switching Protocols\r\n", b"A", delay=0.01)

    async with scripted(script) as server, nothing_left(port_of(server)):
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(TimeoutError, match="opening handshake"):
            await wsfast.connect(url_of(server), open_timeout=0.3)
        assert 0.25 < loop.time() - began < 2


@pytest.mark.parametrize("head", [b"", b"Content-Length: 1000000000\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_body_that_never_ends(head: bytes) -> None:
    piece = b"5\r\nhello\r\n" if b"chunked" in head else b"hello"

    async def script(peer: Peer) -> None:
        await endless(peer, b"HTTP/1.1 403 Forbidden\r\n" + head + b"\r\n", piece * 1000)

    async with scripted(script) as server, nothing_left(port_of(server)):
        with pytest.raises(wsfast.InvalidStatus) as caught:
            await wsfast.connect(url_of(server), open_timeout=5)
        assert caught.value.response.status_code == 403
        sent = (piece * 65536)[:65536]
        assert caught.value.response.body == sent.replace(b"5\r\n", b"").replace(b"\r\n", b"")


@pytest.mark.parametrize("open_timeout", [0.3, 10])
async def test_body_that_stalls(open_timeout: float) -> None:
    """The status is told, not that the rest of its body did not come."""
    script = answering(b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\nnot now", then_end=False)
    async with scripted(script) as server, nothing_left(port_of(server)):
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(wsfast.InvalidStatus) as caught:
            await wsfast.connect(url_of(server), open_timeout=open_timeout)
        assert caught.value.response.body == b"not now"
        assert loop.time() - began < min(open_timeout, 2) + 1


async def test_silence() -> None:
    async with scripted(lambda peer: peer.until_end()) as server, nothing_left(port_of(server)):
        with pytest.raises(TimeoutError, match=r"opening handshake: it took more than 0\.2 s"):
            await wsfast.connect(url_of(server), open_timeout=0.2)


async def test_name_that_is_not_resolved_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.BaseEventLoop):
        pytest.skip("uvloop asks the resolver in C")

    async def getaddrinfo(*args: object, **kwargs: object) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    with pytest.raises(TimeoutError, match="opening handshake"):
        await wsfast.connect("ws://name.example/", open_timeout=0.2)


async def test_reset_instead_of_a_response() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        sock = peer.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        peer.writer.transport.abort()

    async with scripted(script) as server, nothing_left(port_of(server)):
        with pytest.raises(wsfast.InvalidMessage) as caught:
            await wsfast.connect(url_of(server))
        assert isinstance(caught.value.__cause__, (ConnectionResetError, EOFError))


# --- TLS ----------------------------------------------------------------------------------------------------------


async def test_tls_that_stops_half_way(certs: Certificates) -> None:
    async def script(peer: Peer) -> None:
        peer.write(b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76")  # the begin of a ServerHello
        await peer.until_end()

    async with scripted(script) as server, nothing_left(port_of(server)):
        with pytest.raises(TimeoutError, match="opening handshake"):
            await wsfast.connect(
                url_of(server, scheme="wss", host="localhost"), ssl=certs.client_context(), open_timeout=0.3
            )


async def test_tls_that_is_none(certs: Certificates) -> None:
    for data in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b""):

        async def script(peer: Peer, data: bytes = data) -> None:
            await peer.reader.read(1000)
            peer.write(data)
            await peer.writer.drain()

        async with scripted(script) as server, nothing_left(port_of(server)):
            with pytest.raises(OSError):  # noqa: PT011 (the text is OpenSSL's)
                await wsfast.connect(
                    url_of(server, scheme="wss", host="localhost"), ssl=certs.client_context(), open_timeout=5
                )


async def test_tls_that_stops_after_the_handshake(certs: Certificates) -> None:
    async with (
        scripted(lambda peer: peer.until_end(), tls=certs.server_context()) as server,
        nothing_left(port_of(server)),
    ):
        with pytest.raises(TimeoutError, match="opening handshake"):
            await wsfast.connect(
                url_of(server, scheme="wss", host="localhost"), ssl=certs.client_context(), open_timeout=0.3
            )


# --- After the opening handshake ----------------------------------------------------------------------------------


def sending(data: bytes, *, then: str = "wait") -> Script:
    """Make a script that opens a connection, sends some bytes, and waits, ends or resets the connection."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.accept()
        peer.write(data)
        await peer.writer.drain()
        if then == "wait":
            await peer.until_end()
        elif then == "reset":
            peer.writer.transport.abort()

    return script


@pytest.mark.parametrize(
    ("frames", "code", "text"),
    [
        (b"\x81\x82\x00\x00\x00\x00hi", CloseCode.PROTOCOL_ERROR, "mask"),
        (b"\xc1\x02hi", CloseCode.PROTOCOL_ERROR, "(?i)rsv1|reserved"),
        (b"\x83\x00", CloseCode.PROTOCOL_ERROR, "opcode"),
        (b"\x80\x00", CloseCode.PROTOCOL_ERROR, "(?i)continu"),
        (b"\x89\x7e\x00\x7e" + b"x" * 126, CloseCode.PROTOCOL_ERROR, "125"),
        (b"\x88\x02\x03\xed", CloseCode.PROTOCOL_ERROR, "code"),
        (b"\x81\x01\xff", CloseCode.INVALID_DATA, "UTF-8"),
        (b"\x82\x7f\x00\x00\x00\xff\xff\xff\xff\xff", CloseCode.MESSAGE_TOO_BIG, "bytes"),
        (b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", CloseCode.PROTOCOL_ERROR, "length"),
    ],
    ids=["masked", "rsv1", "opcode", "continuation", "long ping", "close 1005", "utf-8", "too big", "negative length"],
)
async def test_frames_that_are_wrong(frames: bytes, code: CloseCode, text: str) -> None:
    async with scripted(sending(b"\x81\x02ok" + frames)) as server, nothing_left(port_of(server)):
        async with wsfast.connect(url_of(server), close_timeout=0.5) as ws:
            assert await ws.recv() == "ok"
            with pytest.raises(wsfast.ConnectionClosedError) as caught:
                await ws.recv()
            assert caught.value.sent is not None
            assert caught.value.sent.code == code
            assert caught.value.rcvd is None
            too_big = code == CloseCode.MESSAGE_TOO_BIG
            assert caught.value.cause is (CloseCause.TOO_BIG if too_big else CloseCause.PROTOCOL_ERROR)
            with pytest.raises(wsfast.PeerError, match=text):
                raise caught.value.__cause__ or AssertionError


@pytest.mark.parametrize("then", ["end", "reset"])
@pytest.mark.parametrize("data", [b"", b"\x81", b"\x81\x7e\x01\x00abc", b"\x01\x02ab"])
async def test_drop_in_mid_frame(data: bytes, then: str) -> None:
    async with scripted(sending(data, then=then)) as server, nothing_left(port_of(server)):
        async with wsfast.connect(url_of(server)) as ws:
            with pytest.raises(wsfast.ConnectionClosedError) as caught:
                await ws.recv()
            assert caught.value.code == CloseCode.ABNORMAL_CLOSURE
            assert caught.value.cause is CloseCause.LOST
            with pytest.raises(wsfast.ConnectionClosedError):
                await ws.send("late")


async def test_close_that_is_never_answered() -> None:
    async with scripted(sending(b"")) as server, nothing_left(port_of(server)):
        loop = asyncio.get_running_loop()
        ws = await wsfast.connect(url_of(server), close_timeout=0.3)
        began = loop.time()
        await ws.close()
        assert 0.25 < loop.time() - began < 2
        assert ws.close_code == CloseCode.ABNORMAL_CLOSURE
        assert ws.close_cause is CloseCause.TIMEOUT


@pytest.mark.parametrize("delay", [0, 0.9])
async def test_server_that_answers_the_close_but_keeps_the_connection(delay: float) -> None:
    """RFC 6455, 7.1.1: the client waits for the server to end the connection, but for `close_timeout` in all."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.accept()
        await peer.reader.readexactly(8)
        await asyncio.sleep(delay)
        peer.write(b"\x88\x02\x03\xe8")
        await peer.until_end()

    async with scripted(script) as server, nothing_left(port_of(server)):
        loop = asyncio.get_running_loop()
        ws = await wsfast.connect(url_of(server), close_timeout=1)
        began = loop.time()
        await ws.close()
        assert 0.95 < loop.time() - began < 1.8
        assert ws.close_code == 1000
        assert ws.state is wsfast.State.CLOSED


async def test_client_does_not_end_the_connection_first() -> None:
    ended: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.accept()
        await peer.reader.readexactly(8)
        peer.write(b"\x88\x02\x03\xe8")
        try:
            async with asyncio.timeout(0.2):
                ended.append(await peer.reader.read(1))
        except TimeoutError:
            ended.append(b"still open")

    async with scripted(script) as server, nothing_left(port_of(server)):
        ws = await wsfast.connect(url_of(server), close_timeout=5)
        await ws.close()
        assert ended == [b"still open"]


async def test_server_that_sends_for_ever_while_it_closes() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        peer.accept()
        while True:
            peer.write(b"\x82\x7e\x27\x10" + b"x" * 10_000)
            await peer.writer.drain()

    async with scripted(script) as server, nothing_left(port_of(server)):
        loop = asyncio.get_running_loop()
        ws = await wsfast.connect(url_of(server), close_timeout=0.3)
        await ws.recv()
        began = loop.time()
        await ws.close()
        assert loop.time() - began < 2


async def test_keepalive_finds_a_dead_server() -> None:
    async with scripted(sending(b"")) as server, nothing_left(port_of(server)):
        ws = await wsfast.connect(url_of(server), ping_interval=0.1, ping_timeout=0.1, close_timeout=0.3)
        with pytest.raises(wsfast.ConnectionClosedError) as caught:
            await ws.recv()
        assert caught.value.cause is CloseCause.KEEPALIVE
        assert caught.value.sent is not None
        assert caught.value.sent.code == CloseCode.INTERNAL_ERROR
        await ws.wait_closed()
