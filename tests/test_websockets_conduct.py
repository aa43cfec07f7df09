"""What `wsfast.websockets` does where native connections do it in another way, on asyncio, in threads and on trio."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pytest
import trio
from certificates import Certificates
from shared import until
from sync_helpers import in_thread
from sync_helpers import until as until_sync

from wsfast.websockets.asyncio import client, server
from wsfast.websockets.exceptions import (
    ConcurrencyError,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidMessage,
    InvalidProxy,
    ProtocolError,
)
from wsfast.websockets.protocol import State
from wsfast.websockets.proxy import Proxy, get_proxy, parse_proxy
from wsfast.websockets.sync import client as sync_client
from wsfast.websockets.sync import server as sync_server
from wsfast.websockets.translate import _no_status
from wsfast.websockets.trio import client as trio_client
from wsfast.websockets.trio import server as trio_server
from wsfast.websockets.uri import parse_uri

SENT = "sent 1011 (internal error) close during fragmented message; no close frame received"


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


@asynccontextmanager
async def serving(handler: Any = echo, **options: Any) -> AsyncIterator[tuple[server.Server, str]]:
    async with asyncio.timeout(20), server.serve(handler, "127.0.0.1", 0, **options) as one:
        yield one, f"ws://127.0.0.1:{one.sockets[0].getsockname()[1]}/"


@contextmanager
def running(handler: Any = lambda ws: [ws.send(one) for one in ws], **options: Any) -> Iterator[tuple[Any, str]]:
    with sync_server.serve(handler, "127.0.0.1", 0, **options) as one:
        thread = in_thread(one.serve_forever)
        yield one, f"ws://127.0.0.1:{one.socket.getsockname()[1]}/"
        one.shutdown()
        thread.join()


@asynccontextmanager
async def on_trio(handler: Any = echo, **options: Any) -> AsyncIterator[tuple[Any, str]]:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            one = await nursery.start(partial(trio_server.serve, handler, host="127.0.0.1", port=0, **options))
            address = one.listeners[0].socket.getsockname()
            yield one, f"ws://127.0.0.1:{address[1]}/"
            await one.aclose()


# --- To close within a message of one's own is to fail the connection --------------------------------------


@pytest.mark.anyio
async def test_close_within_a_message() -> None:
    async with serving() as (_, uri), client.connect(uri) as ws:

        async def pieces() -> AsyncIterator[str]:
            yield "a"
            await ws.close()
            yield "b"

        with pytest.raises(ConnectionClosedError) as caught:
            await ws.send(pieces())
        assert (str(caught.value), caught.value.__cause__) == (SENT, None)
        assert (ws.close_code, ws.close_reason) == (1006, "")


def test_close_within_a_message_in_threads() -> None:
    with running() as (_, uri), sync_client.connect(uri) as ws:

        def pieces() -> Iterator[str]:
            yield "a"
            in_thread(ws.close).join()
            yield "b"

        with pytest.raises(ConnectionClosedError) as caught:
            ws.send(pieces())
        assert (str(caught.value), caught.value.__cause__) == (SENT, None)


def test_close_within_a_message_on_trio() -> None:
    async def main() -> None:
        async with on_trio() as (_, uri), trio_client.connect(uri) as ws:

            async def pieces() -> AsyncIterator[str]:
                yield "a"
                await ws.aclose()
                yield "b"

            with pytest.raises(ConnectionClosedError) as caught:
                await ws.send(pieces())
            assert (str(caught.value), caught.value.__cause__) == (SENT, None)

    trio.run(main)


# --- `ws.protocol.fail`, which programs call to have a connection replaced ----------------------------------


@pytest.mark.anyio
async def test_fail() -> None:
    async with serving() as (_, uri), client.connect(uri) as ws:
        with pytest.raises(ProtocolError):
            ws.protocol.fail(999)
        ws.protocol.fail(1012, "again")
        assert ws.state is State.CLOSING
        with pytest.raises(ConnectionClosedError, match=r"^sent 1012 \(service restart\) again; "):
            await ws.recv()
        ws.protocol.fail(1012)  # without effect
    async with serving() as (_, uri), client.connect(uri) as ws:
        ws.protocol.fail(1006)
        with pytest.raises(ConnectionClosedError, match=r"^no close frame received or sent$"):
            await ws.recv()


def test_fail_in_threads() -> None:
    with running() as (_, uri), sync_client.connect(uri) as ws:
        ws.protocol.fail(1012, "again")
        with pytest.raises(ConnectionClosedError, match=r"^sent 1012 \(service restart\) again; "):
            ws.recv()


def test_fail_on_trio() -> None:
    async def main() -> None:
        async with on_trio() as (_, uri), trio_client.connect(uri) as ws:
            ws.protocol.fail(1012, "again")
            with pytest.raises(ConnectionClosedError, match=r"^sent 1012 \(service restart\) again; "):
                await ws.recv()

    trio.run(main)


# --- `recv_streaming` that is cancelled within a message ---------------------------------------------------


@pytest.mark.anyio
async def test_cancelled_within_a_message() -> None:
    async def handler(ws: Any) -> None:
        async def pieces() -> AsyncIterator[str]:
            yield "a"
            await ws.wait_closed()

        with contextlib.suppress(ConnectionClosedError, ConnectionClosedOK):
            await ws.send(pieces())

    async with serving(handler) as (_, uri), client.connect(uri) as ws:
        seen: list[str] = []

        async def take() -> None:
            async for piece in ws.recv_streaming():
                seen.extend([piece])

        task = asyncio.ensure_future(take())
        await until(lambda: seen)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for call in (ws.recv(), anext(ws.recv_streaming())):
            with pytest.raises(ConcurrencyError):
                await call


@pytest.mark.anyio
async def test_cancelled_before_a_message_or_left_within_one() -> None:
    async with serving() as (_, uri), client.connect(uri) as ws:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(ws.recv_streaming())
        await ws.send(["a", "b"])
        async for piece in ws.recv_streaming():
            assert piece[0] == "a"
            break
        await ws.send("c")
        assert await ws.recv() == "c"


def test_cancelled_within_a_message_on_trio() -> None:
    async def handler(ws: Any) -> None:
        async def pieces() -> AsyncIterator[str]:
            yield "a"
            await ws.wait_closed()

        with contextlib.suppress(ConnectionClosedError, ConnectionClosedOK):
            await ws.send(pieces())

    async def main() -> None:
        async with on_trio(handler) as (_, uri), trio_client.connect(uri) as ws:
            with trio.CancelScope() as scope:
                async for _ in ws.recv_streaming():
                    scope.cancel()
            for call in (ws.recv, ws.recv_streaming().__anext__):
                with pytest.raises(ConcurrencyError):
                    await call()

    trio.run(main)


# --- What is no request ------------------------------------------------------------------------------------

JUNK = b"HELO \x1b[2J relay.invalid\r\n"
TOLD = r"invalid HTTP request line: HELO \x1b"
NOTHING = "connection closed while reading HTTP request line"


def check_log(caplog: pytest.LogCaptureFixture, text: str) -> None:
    records = [record for record in caplog.records if record.getMessage() == "! no valid HTTP request"]
    assert [str(record.exc_info[1]) for record in records if record.exc_info] == [text]
    assert {record.name for record in records} == {"websockets.server"}


async def read_junk(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.anyio
async def test_junk_is_not_answered(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with serving() as (one, _):
            port = one.sockets[0].getsockname()[1]
            assert await read_junk(port, JUNK) == b""
            # What is HTTP, but wrong, is answered.
            assert (await read_junk(port, b"GET / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert (await read_junk(port, b"GET /%b HTTP/1.1\r\n" % (b"x" * 9000))).startswith(b"HTTP/1.1 414 ")
    check_log(caplog, TOLD)


def test_junk_is_not_answered_in_threads(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.DEBUG),
        running() as (one, _),
        socket.create_connection(one.socket.getsockname()) as sock,
    ):
        sock.sendall(JUNK)
        assert sock.recv(4096) == b""
    check_log(caplog, TOLD)


def test_junk_is_not_answered_on_trio(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with on_trio() as (one, _):
            stream = await trio.open_tcp_stream(*one.listeners[0].socket.getsockname())
            await stream.send_all(JUNK)
            assert await stream.receive_some() == b""
            await stream.aclose()

    with caplog.at_level(logging.DEBUG):
        trio.run(main)
    check_log(caplog, TOLD)


@pytest.mark.anyio
@pytest.mark.parametrize("way", ["end", "time", "stop"])
async def test_no_request_is_told(caplog: pytest.LogCaptureFixture, way: str) -> None:
    with caplog.at_level(logging.DEBUG):
        async with serving(open_timeout=0.05 if way == "time" else 10) as (one, _):
            reader, writer = await asyncio.open_connection(*one.sockets[0].getsockname())
            await until(lambda: one._handshakes)
            if way == "end":
                writer.close()
                await until(lambda: not one._handshakes)
            elif way == "time":
                assert await reader.read() == b""
        writer.close()
    check_log(caplog, NOTHING)


@pytest.mark.parametrize("way", ["end", "time"])
def test_no_request_is_told_in_threads(caplog: pytest.LogCaptureFixture, way: str) -> None:
    with caplog.at_level(logging.DEBUG), running(open_timeout=0.05 if way == "time" else 10) as (one, _):
        with socket.create_connection(one.socket.getsockname()) as sock:
            if way == "time":
                assert sock.recv(4096) == b""
        until_sync(lambda: any(record.exc_info for record in caplog.records))
    check_log(caplog, NOTHING)


@pytest.mark.parametrize("way", ["end", "time"])
def test_no_request_is_told_on_trio(caplog: pytest.LogCaptureFixture, way: str) -> None:
    async def main() -> None:
        async with on_trio(open_timeout=0.05 if way == "time" else 10) as (one, _):
            stream = await trio.open_tcp_stream(*one.listeners[0].socket.getsockname())
            if way == "time":
                assert await stream.receive_some() == b""
            await stream.aclose()
            while not any(record.exc_info for record in caplog.records):
                await trio.sleep(0.001)

    with caplog.at_level(logging.DEBUG):
        trio.run(main)
    check_log(caplog, NOTHING)


# --- What is no response -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"220 smtp.invalid ESMTP", "unsupported protocol; expected HTTP/1.1: 220 smtp.invalid ESMTP"),
        (b"HTTP/1.0 101 Upgrade", "unsupported protocol; expected HTTP/1.1: HTTP/1.0 101 Upgrade"),
        (b"junk", "invalid HTTP status line: junk"),
        (b"a \x1b\xff", r"invalid HTTP status line: a \x1b\xff"),
        (b"HTTP/1.1 2O0 OK", "invalid status code; expected integer; got 2O0"),
        (b"HTTP/1.1 600 OK", "invalid status code; expected 100\u2013599; got 600"),
    ],
)
def test_words_for_a_status_line(line: bytes, text: str) -> None:
    assert _no_status(line) == text


@pytest.mark.anyio
async def test_no_response() -> None:
    async def junk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"220 smtp.invalid ESMTP Postfix\r\n")
        writer.close()

    async with await asyncio.start_server(junk, "127.0.0.1", 0) as other:
        with pytest.raises(InvalidMessage, match=r"^did not receive a valid HTTP response$") as caught:
            await client.connect(f"ws://127.0.0.1:{other.sockets[0].getsockname()[1]}")
    cause = caught.value.__cause__
    assert isinstance(cause, ValueError)
    assert str(cause) == "unsupported protocol; expected HTTP/1.1: 220 smtp.invalid ESMTP Postfix"


# --- Times that are set later ------------------------------------------------------------------------------


class Deaf:
    """A raw client that answers the opening handshake's end, and nothing after it."""

    REQUEST = (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )

    def __init__(self, address: Any) -> None:
        self.sock = socket.create_connection(address)
        self.sock.sendall(self.REQUEST)


@pytest.mark.anyio
async def test_close_timeout_may_be_set() -> None:
    done: list[Any] = []

    async def handler(ws: Any) -> None:
        assert (ws.close_timeout, ws.ping_interval, ws.ping_timeout) == (60, 20, 20)
        ws.close_timeout = 0.01
        ws.ping_interval = None
        with pytest.raises(ValueError, match="ping_timeout must be a number of seconds or None, got -1"):
            ws.ping_timeout = -1
        await ws.close()
        done.append((ws.close_timeout, ws.ping_interval, ws.ping_timeout))

    async with serving(handler, close_timeout=60) as (one, _):
        with Deaf(one.sockets[0].getsockname()).sock:
            await until(lambda: done)
    assert done == [(0.01, None, 20)]


def test_close_timeout_may_be_set_in_threads() -> None:
    done = threading.Event()

    def handler(ws: Any) -> None:
        ws.close_timeout = 0.01
        ws.close()
        done.set()

    with running(handler, close_timeout=60) as (one, _), Deaf(one.socket.getsockname()).sock:
        assert done.wait(10)


# --- On trio -----------------------------------------------------------------------------------------------


def test_a_ping_that_is_not_answered_on_trio() -> None:
    async def main() -> None:
        async def handler(ws: Any) -> None:
            waiters = [await ws.ping(ack_on_close=acknowledged) for acknowledged in (True, False)]
            pinged.set()
            await ws.wait_closed()
            assert [one.is_set() for one in waiters] == [True, False]
            await waiters[0].wait()
            with trio.move_on_after(0.001) as scope:
                await waiters[1].wait()
            assert scope.cancelled_caught
            done.append(True)

        done: list[bool] = []
        pinged = trio.Event()
        async with on_trio(handler) as (one, _):
            with Deaf(one.listeners[0].socket.getsockname()).sock:
                await pinged.wait()
            while not done:
                await trio.sleep(0.001)

    trio.run(main)


def test_a_certificate_that_is_not_trusted_on_trio(certs: Certificates) -> None:
    async def main() -> None:
        async with on_trio(ssl=certs.server_context()) as (_, uri):
            with pytest.raises(trio.BrokenResourceError) as caught:
                async with trio_client.connect(uri.replace("ws:", "wss:")):
                    pass
            assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)

    trio.run(main)


def test_the_server_knows_by_the_time_that_the_client_does_on_trio() -> None:
    async def main() -> None:
        async with on_trio() as (one, uri), trio_client.connect(uri) as ws:
            assert len(one.connections) == 1
            await one.aclose(code=1012, reason="restarting")
            with pytest.raises(ConnectionClosedError, match=r"^received 1012 \(service restart\) restarting; "):
                await ws.recv()

    trio.run(main)


# --- In threads --------------------------------------------------------------------------------------------


def test_a_server_that_stops_accepts_no_more() -> None:
    with running() as (one, uri), sync_client.connect(uri):
        stop = in_thread(partial(one.shutdown, close_connections=False))
        until_sync(lambda: one.closing)
        with pytest.raises(ConnectionRefusedError):
            sync_client.connect(uri)
    stop.join()


# --- Proxies -----------------------------------------------------------------------------------------------


def test_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = parse_proxy("https://hello:you@PROXY:3128")
    assert proxy == Proxy("https", "proxy", 3128, "hello", "you")
    assert proxy.user_info == ("hello", "you")
    assert parse_proxy("http://proxy").user_info is None
    with pytest.raises(InvalidProxy, match="scheme ftp isn't supported"):
        parse_proxy("ftp://proxy")
    with pytest.raises(
        InvalidProxy, match=r"^http://proxy:80 isn't a valid proxy: username provided without password$"
    ):
        parse_proxy("http://user@proxy")
    assert parse_proxy("http://user:@proxy").user_info == ("user", "")
    monkeypatch.setenv("https_proxy", "http://proxy:8080")
    assert get_proxy(parse_uri("wss://example.com/")) == "http://proxy:8080"
    monkeypatch.setenv("no_proxy", ".com")
    assert get_proxy(parse_uri("wss://example.com/")) is None
