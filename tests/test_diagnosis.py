"""Who closed and why, what is logged and what is not, and the counters."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hostile import (
    BINARY,
    CLOSE,
    CONT,
    FORMS,
    PING,
    PONG,
    TEXT,
    Echo,
    Peer,
    certificate,
    close_frame,
    frame,
    head,
    serving,
)
from shared import echo, until

import wsfast
from wsfast import CloseCause, ConnectionClosed, ConnectionClosedError, ConnectionClosedOK

pytestmark = pytest.mark.anyio

Told = tuple[type[ConnectionClosed], CloseCause, Any, Any, bool | None]


class Witness:
    """A handler that waits for the end, and keeps what it is told of it."""

    def __init__(self, act: Callable[[wsfast.WebSocket], Awaitable[object]] | None = None) -> None:
        self.act = act
        self.error: ConnectionClosed | None = None
        self.ws: wsfast.WebSocket | None = None

    async def handler(self, ws: wsfast.WebSocket) -> None:
        self.ws = ws
        try:
            if self.act is not None:
                await self.act(ws)
            while True:
                await ws.recv()
        except ConnectionClosed as exc:
            self.error = exc

    async def told(self) -> Told:
        await until(lambda: self.error)
        error = self.error
        assert error is not None
        assert self.ws is not None
        # The same, whoever asks.
        assert error.code == (1006 if error.rcvd is None else error.rcvd.code)
        with pytest.raises(ConnectionClosed) as caught:
            await self.ws.send("x")
        assert caught.value.cause is error.cause
        with pytest.raises(ConnectionClosed):
            self.ws.send_nowait("x")
        with pytest.raises(ConnectionClosed):
            await self.ws.ping()
        await self.ws.wait_closed()
        assert self.ws.close_code == error.code
        assert self.ws.close_reason == error.reason
        assert self.ws.close_cause is error.cause
        assert str(error).startswith(str(error.cause))
        return type(error), error.cause, error.rcvd, error.sent, error.rcvd_then_sent


async def the_end(server: Any, cause: CloseCause) -> None:
    await until(lambda: not server.counters["connections"])
    assert server.counters["causes"] == {cause: 1}


@pytest.mark.parametrize(
    ("code", "kind", "echoed"),
    [(1000, ConnectionClosedOK, 1000), (1001, ConnectionClosedOK, 1001), (None, ConnectionClosedOK, 1005),
     (3000, ConnectionClosedError, 3000), (1011, ConnectionClosedError, 1011)],
)  # fmt: skip
async def test_closed_by_the_peer(code: int | None, kind: type[ConnectionClosed], echoed: int) -> None:
    witness = Witness()
    async with serving(witness.handler) as server:
        peer = await Peer.open(server)
        await peer.send(close_frame(code, "why" if code else ""))
        assert (await peer.read_close())[0] == echoed
        peer.close()  # or the server would wait for that
        reason = "why" if code else ""
        assert await witness.told() == (kind, CloseCause.PEER, (echoed, reason), (echoed, reason), True)
        await the_end(server, CloseCause.PEER)


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1009, 1010])
async def test_rejected_by_the_peer(code: int) -> None:
    """It blames us."""
    witness = Witness()
    async with serving(witness.handler) as server:
        peer = await Peer.open(server)
        await peer.send(close_frame(code, "bad"))
        assert (await peer.read_close())[0] == code
        peer.close()
        assert await witness.told() == (ConnectionClosedError, CloseCause.REJECTED, (code, "bad"), (code, "bad"), True)
        await the_end(server, CloseCause.REJECTED)


async def test_closed_by_us() -> None:
    witness = Witness(lambda ws: ws.close(4000, "enough"))
    async with serving(witness.handler) as server:
        peer = await Peer.open(server)
        assert await peer.read() == (CLOSE, (4000).to_bytes(2, "big") + b"enough")
        await peer.send(close_frame(4000))
        await peer.read_to_end()
        peer.close()
        told = await witness.told()
        assert told == (ConnectionClosedError, CloseCause.LOCAL, (4000, ""), (4000, "enough"), False)
        await the_end(server, CloseCause.LOCAL)


async def test_aborted_by_us() -> None:
    async def act(ws: wsfast.WebSocket) -> None:
        ws.abort()

    witness = Witness(act)
    async with serving(witness.handler) as server:
        await Peer.open(server)
        assert await witness.told() == (ConnectionClosedError, CloseCause.LOCAL, None, None, None)
        await the_end(server, CloseCause.LOCAL)


@pytest.mark.parametrize("how", ["close", "reset", "half a frame"])
async def test_lost(how: str) -> None:
    witness = Witness()
    async with serving(witness.handler) as server:
        peer = await Peer.open(server)
        if how == "half a frame":
            await peer.send(b"\x81\x85mask")
            await until(lambda: server.counters["bytes_received"] == 6)
        (peer.reset if how == "reset" else peer.close)()
        assert await witness.told() == (ConnectionClosedError, CloseCause.LOST, None, None, None)
        await the_end(server, CloseCause.LOST)
        lines = [line for line in server.log.of("wsfast.server", logging.INFO) if "connection lost" in line]
        assert len(lines) == 1


BROKEN = {
    "reserved bits": (b"\xf1\x80\0\0\0\0", 1002),
    "reserved opcode": (frame(3), 1002),
    "not masked": (frame(TEXT, b"x", mask=None), 1002),
    "fragmented ping": (frame(PING, fin=False), 1002),
    "long ping": (frame(PING, b"x" * 126), 1002),
    "stray continuation": (frame(CONT), 1002),
    "not UTF-8": (frame(TEXT, b"\xff"), 1007),
    "too big": (b"\x82\xff" + (1 << 40).to_bytes(8, "big"), 1009),
    "close of one byte": (frame(CLOSE, b"x"), 1002),
    "bad close code": (close_frame(1005), 1002),
    "close reason not UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_the_peer_broke_the_protocol(what: str) -> None:
    data, code = BROKEN[what]
    witness = Witness()
    async with serving(witness.handler) as server:
        peer = await Peer.open(server)
        await peer.send(data)
        close = await peer.read_close()
        peer.close()
        kind, cause, rcvd, sent, first = await witness.told()
        blamed = CloseCause.TOO_BIG if what == "too big" else CloseCause.PROTOCOL_ERROR
        assert (kind, cause, rcvd, first) == (ConnectionClosedError, blamed, None, None)
        assert sent.code == code
        error = witness.error
        assert error is not None
        assert isinstance(error.__cause__, wsfast.PeerError)
        assert error.__cause__.code == code
        assert close == (code, sent.reason)
        await the_end(server, blamed)
        lines = [line for line in server.log.of("wsfast.server", logging.INFO) if "failed: " in line]
        assert len(lines) == 1
        assert str(error.__cause__) in lines[0]


async def test_the_close_was_not_answered() -> None:
    witness = Witness(lambda ws: ws.close())
    async with serving(witness.handler, close_timeout=0.2) as server:
        await Peer.open(server)
        assert await witness.told() == (ConnectionClosedError, CloseCause.TIMEOUT, None, (1000, ""), None)
        await the_end(server, CloseCause.TIMEOUT)
        assert [line for line in server.log.of("wsfast.server", logging.INFO) if "close timeout" in line]


async def test_the_server_stopped() -> None:
    witness = Witness()
    async with serving(witness.handler) as server:
        peer = await Peer.open(server)
        await until(lambda: witness.ws)
        server.close(reason="update")
        assert await peer.read() == (CLOSE, (1001).to_bytes(2, "big") + b"update")
        await peer.send(close_frame(1001))
        assert await witness.told() == (ConnectionClosedOK, CloseCause.STOP, (1001, ""), (1001, "update"), False)
        await peer.read_to_end()
        peer.close()
        await server.wait_closed()
        await the_end(server, CloseCause.STOP)


@pytest.mark.parametrize("form", ["handler", "stream", "listener", "cancelled", "on_open", "on_close", "factory"])
async def test_a_handler_that_raises_is_logged_once_and_tells_nothing(form: str) -> None:
    """At ERROR, with its traceback; the peer learns 1011 and no more."""

    async def handler(ws: wsfast.WebSocket) -> None:
        await ws.recv()
        raise ValueError("a secret")

    async def stream(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        await reader.read()
        raise ValueError("a secret")

    class Raising(wsfast.Listener):
        def on_message(self, message: str | bytes) -> None:
            raise ValueError("a secret")

    class Cancelled(wsfast.Listener):
        def on_message(self, message: str | bytes) -> None:
            raise asyncio.CancelledError  # as a cancelled Future that is asked for its result

    class RaisingOpen(wsfast.Listener):
        def on_open(self) -> None:
            raise ValueError("a secret")

    class RaisingClose(wsfast.Listener):
        def on_close(self, code: int, reason: str) -> None:
            raise ValueError("a secret")

    class RaisingFactory(wsfast.Listener):
        def __init__(self, ws: wsfast.WebSocket) -> None:
            raise ValueError("a secret")

    forms = {"handler": handler, "stream": stream, "listener": Raising, "cancelled": Cancelled}
    forms |= {"on_open": RaisingOpen, "on_close": RaisingClose, "factory": RaisingFactory}
    async with serving(forms, noise=True) as server:
        peer = await Peer.open(server, form)
        await peer.send(frame(TEXT, b"x") * 3)
        if form == "on_close":
            await peer.send(close_frame())
            assert await peer.read_close() == (1000, "")
        else:
            assert await peer.read_close() == (1011, "")
        peer.close()
        await the_end(server, CloseCause.PEER if form == "on_close" else CloseCause.HANDLER_ERROR)
        errors = [record for record in server.log.records if record.levelno >= logging.WARNING]
        assert [record.levelname for record in errors] == ["ERROR"]
        assert errors[0].name == "wsfast.server"
        assert errors[0].exc_info is not None
        assert errors[0].exc_info[0] is (asyncio.CancelledError if form == "cancelled" else ValueError)


@pytest.mark.parametrize("how", ["ConnectionClosed", "TaskGroup", "readexactly", "readline", "IncompleteReadError"])
async def test_the_end_of_a_connection_that_escapes_from_a_handler_is_no_error(how: str) -> None:
    done = []

    async def handler(ws: wsfast.WebSocket) -> None:
        try:
            if how == "TaskGroup":
                async with asyncio.TaskGroup() as group:
                    group.create_task(_recv(ws))
            elif how == "IncompleteReadError":
                with suppress(ConnectionClosed):
                    await ws.recv()
                raise asyncio.IncompleteReadError(b"", 1)
            else:
                await ws.recv()
        finally:
            done.append(how)

    async def stream(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        try:
            await (reader.readexactly(10) if how == "readexactly" else reader.readuntil())
        finally:
            done.append(how)

    async with serving(stream if how.startswith("read") else handler) as server:
        peer = await Peer.open(server)
        await peer.send(frame(BINARY, b"abc") if how.startswith("read") else b"")
        await asyncio.sleep(0.01)
        peer.reset()
        await until(lambda: done)


async def _recv(ws: wsfast.WebSocket) -> None:
    await ws.recv()


async def test_the_end_of_another_connection_is_an_error() -> None:
    """As long as a handler's own connection is open."""

    async def handler(ws: wsfast.WebSocket) -> None:
        raise ConnectionClosedError(None, None)

    async with serving(handler, noise=True) as server:
        peer = await Peer.open(server)
        assert (await peer.read_close())[0] == 1011
        assert len(server.log.of("wsfast.server", logging.ERROR)) == 1


async def test_a_handler_that_is_cancelled_from_outside() -> None:
    tasks: list[Any] = []

    async def handler(ws: wsfast.WebSocket) -> None:
        tasks.append(asyncio.current_task())
        await ws.recv()

    async with serving(handler, noise=True) as server:
        peer = await Peer.open(server)
        await until(lambda: tasks)
        tasks[0].cancel()
        assert (await peer.read_close())[0] == 1011
        assert len(server.log.of("wsfast.server", logging.WARNING)) == 1


# --- Refusals, probes, scans --------------------------------------------------------------------------------


EVIL = "\x1b[31mred\x07"
PROBES: dict[str, bytes] = {
    "nothing": b"",
    "a newline": b"\r\n",
    "newlines": b"\r\n\r\n",
    "HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HEAD": b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    "plain GET": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "SSH": b"SSH-2.0-OpenSSH_9.0\r\n",
    "SMB": b"\x00\x00\x00\x85\xffSMBr",
    "RTSP": b"OPTIONS / RTSP/1.0\r\n\r\n",
    "PROXY": b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n" + head(),
    "escapes": f"GET /{EVIL} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "escapes in a header": head(None, f"X: {EVIL}"),
    "escapes in a key": head().replace(b"dGhl", b"\x80\x9b31m"),
    "escapes in an origin": head(None, "Origin: http://\x80\x9b31m"),
    "bare CR": b"GET / HTTP/1.1\rHost: x\r\n\r\n",
    "NUL": head(None, "X: a\0b"),
    "two hosts": head(None, "Host: y"),
    "no host": head().replace(b"Host: localhost\r\n", b""),
    "bad host": head().replace(b"localhost", b"a b\x9b"),
    "body": head(None, "Content-Length: 10"),
    "chunked": head(None, "Transfer-Encoding: chunked"),
    "old version": head().replace(b"Version: 13", b"Version: 8"),
    "two keys": head(None, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
    "unknown subprotocol": head("unheard-of"),
    "log4j": head(None, "X-Api-Version: ${jndi:ldap://x/y}").replace(b"Key: ", b"Key: ${jndi:ldap://x}"),
    "garbage": bytes(range(256)) * 100,
}
ALLOWED = ["http://localhost"]


@pytest.mark.parametrize("what", PROBES)
async def test_a_probe_is_one_line_and_no_traceback(what: str) -> None:
    async with serving(echo, origins=ALLOWED if "origin" in what else None) as server:
        peer = await Peer.dial(server)
        await peer.send(PROBES[what])
        if what in ("nothing", "a newline"):
            peer.close()
        else:
            answer = await peer.read_to_end()
            assert re.match(rb"HTTP/1\.1 [45]\d\d ", answer), answer
            assert b"\r\nConnection: close\r\n" in answer or b"close" in answer
            assert not re.search(rb"[^\x20-\x7e\r\n]", answer)
        peer.close()
        await until(lambda: not server.counters["handshakes"])
        await until(lambda: len(server.log.of("wsfast.server")) == 2)
        listening, line = server.log.of("wsfast.server")
        assert listening.startswith("listening on ")
        assert "127.0.0.1" in line
        assert line.isascii()
        assert line.isprintable()
        assert len(line) < 400
        record = server.log.records[-1]
        assert record.levelno in (logging.DEBUG, logging.INFO)
        assert record.exc_info is None
        assert sum(server.counters["refused"].values()) == (what not in ("nothing", "a newline"))
        assert server.counters["opened"] == 0


async def test_a_port_scan_leaves_nothing_behind() -> None:
    async with serving(echo) as server:
        for i in range(100):
            peer = await Peer.dial(server)
            (peer.reset if i % 2 else peer.close)()
        await until(lambda: len(server.log.of("wsfast.server")) == 101)
        await until(lambda: not server.counters["handshakes"])
        assert {record.levelno for record in server.log.records if record.name == "wsfast.server"} <= {10, 20}


@pytest.mark.parametrize("stage", ["nothing", "half a request", "request", "open", "half a frame", "closing"])
async def test_a_reset_at_every_stage_is_at_most_one_line(stage: str) -> None:
    async with serving(FORMS) as server:
        for form in FORMS:
            before = len(server.log.records)
            peer = await Peer.dial(server)
            if stage == "half a request":
                await peer.send(head()[:50])
            elif stage != "nothing":
                await peer.send(head(form))
                if stage != "request":
                    await peer.read_response()
                if stage == "half a frame":
                    await peer.send(b"\x81\x85mask")
                if stage == "closing":
                    await peer.send(close_frame())
                    await peer.read()
            peer.reset()
            await until(lambda: not server.counters["handshakes"] and not server.counters["connections"])
            await asyncio.sleep(0.01)
            assert len(server.log.records) - before <= 1


async def test_tls_garbage_is_one_line(tmp_path: Path) -> None:
    server_side, client_side = certificate(tmp_path)
    async with serving(echo, ssl=server_side, open_timeout=5) as server:
        for data in (b"", head(), b"\x16\x03\x01\xff\xff" + b"x" * 100, bytes(range(256))):
            peer = await Peer.dial(server)
            if data:
                await peer.send(data)
                await peer.read_to_end()
            peer.close()
        # A client that does not trust us.
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection(
                *server.sockets[0].getsockname(), ssl=ssl.create_default_context(), server_hostname="localhost"
            )
        await until(lambda: len(server.log.of("wsfast.server")) >= 5)
        await asyncio.sleep(0.5)
        lines = server.log.of("wsfast.server")[1:]
        assert len(lines) <= 5
        assert all("TLS" in line or "ended before" in line for line in lines)
        # And those who do it right are served.
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client_side, server_hostname="localhost"
        )
        writer.write(head() + frame(TEXT, b"hi"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        assert await reader.readexactly(4) == b"\x81\x02hi"
        writer.write(close_frame())
        assert await reader.readexactly(4) == b"\x88\x02\x03\xe8"
        writer.close()
        with suppress(ssl.SSLError, OSError):
            await writer.wait_closed()
        await until(lambda: not server.counters["connections"])


async def test_nothing_a_peer_says_later_is_logged_raw() -> None:
    """Not by the text of the exception, either, which programs log."""

    async def handler(ws: wsfast.WebSocket) -> None:
        try:
            await ws.recv()
        except wsfast.ConnectionClosed as exc:
            ws.logger.info("the program logs %s", exc)
            raise

    async with serving(handler) as server:
        peer = await Peer.open(server)
        await peer.send(close_frame(1002, EVIL + "\n\u2028injected"))
        await peer.read_close()
        await until(lambda: not server.counters["connections"])
        lines = server.log.of("wsfast.server")
        assert [line for line in lines if line.startswith("the program logs ") and "injected" in line]
        assert all(line.isprintable() and line.isascii() for line in lines)


@pytest.mark.parametrize("stage", ["nothing", "refused", "late", "lost", "failed"])
async def test_the_name_of_a_unix_socket_is_escaped(stage: str, tmp_path: Path) -> None:
    """Of a Unix socket, the peer's name is not told as an address, and gets into no line of the log."""
    async with serving(echo, open_timeout=0.1 if stage == "late" else 10) as server:
        await server.start(path=str(tmp_path / "server"))
        before = len(server.log.records)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(tmp_path / f"{EVIL}\n"))
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, str(tmp_path / "server"))
            if stage == "refused":
                await loop.sock_sendall(sock, b"\r\n\r\n")
            elif stage in ("lost", "failed"):
                await loop.sock_sendall(sock, head())
                await until(lambda: server.connections)
                (ws,) = server.connections
                assert ws.remote_address is None
                assert repr(ws).isprintable()
                if stage == "failed":
                    await loop.sock_sendall(sock, b"rubbish")
            if stage != "nothing":
                await loop.sock_recv(sock, 1000)
        await until(lambda: len(server.log.records) > before)
        (record,) = server.log.records[before:]
        assert record.getMessage().isprintable()
        assert record.getMessage().isascii()


async def test_a_hook_that_raises_is_our_error() -> None:
    def process_request(ws: wsfast.WebSocket, request: wsfast.Request) -> None:
        raise ValueError("a secret")

    async def process_later(ws: wsfast.WebSocket, request: wsfast.Request) -> None:
        raise ValueError("a secret")

    for hook in (process_request, process_later):
        async with serving(echo, noise=True, process_request=hook) as server:
            peer = await Peer.dial(server)
            await peer.send(head())
            answer = await peer.read_to_end()
            assert answer.startswith(b"HTTP/1.1 500 ")
            assert b"secret" not in answer
            assert len(server.log.of("wsfast.server", logging.ERROR)) == 1


# --- Counters -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
async def test_counters(form: str | None) -> None:
    async with serving(FORMS) as server:
        names = [f"{what}_{way}" for what in ("messages", "bytes", "pings") for way in ("received", "sent")]
        zero = dict.fromkeys(names, 0)
        nothing = {"connections": 0, "handshakes": 0, "opened": 0, "refused": {}, "latency": 0.0, "causes": {}}
        assert server.counters == {**nothing, **zero}
        peer = await Peer.open(server, form)
        (ws,) = server.connections
        assert ws.counters == zero
        for i in range(10):
            await peer.send(frame(TEXT, b"12345"))
            assert (await peer.read())[1] == b"12345", i
        await peer.send(frame(TEXT, b"123", fin=False), frame(CONT, fin=False))
        await peer.send(frame(PING, b"p"), frame(CONT, b"45"))
        got = 0
        while got < 5:
            opcode, payload = await peer.read()
            got += len(payload) if opcode != PONG else 0
        received = 10 * 11 + 9 + 6 + 7 + 8
        expected = {"messages_received": 11, "bytes_received": received, "pings_received": 1, "pings_sent": 0}
        await until(lambda: ws.counters["bytes_sent"] >= 11 * 7 + 3)
        counters = ws.counters
        assert {name: counters[name] for name in expected} == expected
        if form != "stream":
            assert counters["messages_sent"] == 11
            assert counters["bytes_sent"] == 11 * 7 + 3
        assert {name: value for name, value in server.counters.items() if name in counters} == counters
        assert server.counters["connections"] == server.counters["opened"] == 1
        peer.reset()
        await until(lambda: not server.counters["connections"])
        after = server.counters
        assert {name: after[name] for name in counters} == counters
        assert after["causes"] == {CloseCause.LOST: 1}


async def test_pings_and_latency_are_counted() -> None:
    async with serving(echo, ping_interval=0.1) as server:
        assert server.counters["latency"] == 0.0
        first, second, silent = [await Peer.open(server) for _ in range(3)]
        for peer in (first, second):
            opcode, payload = await peer.read()
            assert opcode == PING
            await peer.send(frame(PONG, payload), frame(PING, b"1"), frame(PING, b"2"))
            assert [await peer.read(), await peer.read()] == [(PONG, b"1"), (PONG, b"2")]
        counters = server.counters
        unknown, *latencies = sorted(ws.latency for ws in server.connections)
        assert unknown == 0 < latencies[0]
        assert counters["latency"] == pytest.approx(sum(latencies) / 2)
        assert counters["pings_received"] == 4
        assert counters["pings_sent"] == sum(ws.counters["pings_sent"] for ws in server.connections) >= 2
        for peer in (first, second, silent):
            peer.reset()
        await until(lambda: not server.counters["connections"])
        assert server.counters["pings_received"] == 4
        assert server.counters["pings_sent"] >= counters["pings_sent"]
        assert server.counters["latency"] == 0.0


async def test_pings_of_ones_own_are_counted_once_they_are_sent() -> None:
    async def handler(ws: wsfast.WebSocket) -> None:
        for _ in range(3):
            await ws.ping()
        with pytest.raises(ValueError, match="125"):
            await ws.ping(b"x" * 126)
        assert ws.counters["pings_sent"] == 3

    async with serving(handler) as server:
        peer = await Peer.open(server)
        assert [(await peer.read())[0] for _ in range(4)] == [PING, PING, PING, CLOSE]
        assert server.counters["pings_sent"] == 3


async def test_a_connection_is_counted_once_while_its_handler_outlives_it() -> None:
    go = asyncio.Event()

    async def handler(ws: wsfast.WebSocket) -> None:
        await ws.recv()
        await go.wait()

    async with serving(handler) as server:
        peer = await Peer.open(server)
        await peer.send(frame(TEXT, b"x"))
        await until(lambda: server.counters["messages_received"])
        peer.reset()
        await until(lambda: not server.counters["connections"])
        assert server.counters["messages_received"] == 1
        assert server.connections == set()
        go.set()


async def test_counters_of_large_sends_and_closes() -> None:
    async def handler(ws: wsfast.WebSocket) -> None:
        await ws.send(b"x" * 100_000)
        await ws.send("\u20ac")
        await ws.send([b"a", b"b"])
        await ws.close()

    async with serving(handler, close_timeout=0.1) as server:
        peer = await Peer.open(server)
        data = await peer.read_to_end()
        peer.close()
        await until(lambda: not server.counters["connections"])
        assert server.counters["bytes_sent"] == len(data)
        assert server.counters["messages_sent"] == 3


async def test_no_noise_in_debug_mode() -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    try:
        async with serving({None: echo, "listener": Echo}) as server:
            for form in (None, "listener"):
                peer = await Peer.open(server, form)
                await peer.answered()
                peer.reset()
            await until(lambda: not server.counters["connections"])
            for record in server.log.records:
                record.exc_info = None  # asyncio tells of the resets, at DEBUG
    finally:
        loop.set_debug(False)
