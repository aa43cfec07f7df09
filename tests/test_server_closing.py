"""How connections and servers end: the closing handshake from both sides, lost peers, faults, stop."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from raw import binary, close, connect_raw, open_raw, pair, ping, request, text
from shared import echo, serving, until
from vectors import BINARY, CLOSE, PING, PONG, TEXT, frame

import wsfast
from wsfast import CloseCause, ConnectionClosedError, ConnectionClosedOK, State
from wsfast.handshake import refuse
from wsfast.session import GRACE
from wsfast.testing import Pipe
from wsfast.testing import pair as memory_pair

pytestmark = pytest.mark.anyio

Handler = Callable[[wsfast.WebSocket], Awaitable[Any]]


async def idle(ws: wsfast.WebSocket) -> None:
    await ws.wait_closed()


# --- The closing handshake ------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "é"), (3000, "x" * 123), (4999, "bye")])
async def test_this_side_closes(code: int, reason: str) -> None:
    async with pair() as (ws, client):
        assert (ws.state, ws.close_code, ws.close_reason, ws.close_cause) == (State.OPEN, None, None, None)
        closing = asyncio.ensure_future(ws.close(code, reason))
        assert await client.receive_close() == (code, reason)
        assert (ws.state, ws.close_code, ws.close_reason) == (State.CLOSING, None, None)
        assert ws.close_cause is CloseCause.LOCAL
        client.send(close(1000, "answer"))
        await client.receive_eof()
        client.abort()
        await closing
        assert (ws.state, ws.close_code, ws.close_reason) == (State.CLOSED, 1000, "answer")
        assert ws.transport is None
        error = ConnectionClosedOK if code in (1000, 1001) else ConnectionClosedError
        with pytest.raises(error) as caught:
            await ws.recv()
        assert caught.value.sent == (code, reason)
        assert caught.value.rcvd == (1000, "answer")
        assert caught.value.rcvd_then_sent is False


@pytest.mark.parametrize("body", [(1000, ""), (1001, "é"), (4000, "why"), (None, "")])
async def test_the_peer_closes(body: tuple[int | None, str]) -> None:
    async with pair() as (ws, client):
        client.send(close(*body))
        assert await client.receive_close() == body
        await client.receive_eof()
        assert ws.close_code == (1005 if body[0] is None else body[0])
        assert ws.close_reason == body[1]
        assert ws.close_cause is CloseCause.PEER
        client.abort()
        await ws.wait_closed()
        assert ws.state is State.CLOSED
        with pytest.raises(wsfast.ConnectionClosed) as caught:
            await ws.send("x")
        assert caught.value.rcvd_then_sent is True
        assert caught.value.code == ws.close_code


async def test_both_close_at_once() -> None:
    async with pair() as (ws, client):
        closing = asyncio.ensure_future(ws.close(4001))
        client.send(close(4002))
        first = await client.receive_close()
        assert first in [(4001, ""), (4002, "")]
        await client.receive_eof()
        client.abort()
        await closing
        assert ws.close_code == 4002


@pytest.mark.parametrize("times", [2, 5])
async def test_close_may_be_called_again(times: int) -> None:
    async with pair() as (ws, client):
        closing = [asyncio.ensure_future(ws.close(4000 + number)) for number in range(times)]
        assert await client.receive_close() == (4000, "")
        client.send(close(4000))
        await client.receive_eof()
        client.abort()
        await asyncio.gather(*closing)
        await ws.close()
        ws.close_nowait()
        await ws.wait_closed()
        ws.abort()


@pytest.mark.parametrize("code", [999, 1004, 1005, 1006, 1015, 2999, 5000])
async def test_wrong_codes_are_refused_and_change_nothing(code: int) -> None:
    async with pair() as (ws, client):
        if code != 1005:
            with pytest.raises(ValueError, match="code must be"):
                await ws.close(code)
        with pytest.raises(ValueError, match="123 bytes"):
            await ws.close(1000, "x" * 124)
        assert ws.state is State.OPEN
        client.send(ping())
        assert (await client.receive()).opcode == PONG


async def test_the_peer_does_not_answer_our_close() -> None:
    loop = asyncio.get_running_loop()
    async with pair(close_timeout=0.2) as (ws, client):
        began = loop.time()
        await ws.close()
        assert 0.19 <= loop.time() - began < 3
        assert (ws.state, ws.close_code, ws.close_cause) == (State.CLOSED, 1006, CloseCause.TIMEOUT)
        assert await client.receive_close() == (1000, "")


async def test_the_peer_goes_on_talking_after_our_close() -> None:
    loop = asyncio.get_running_loop()
    async with pair(close_timeout=0.3) as (ws, client):

        async def chatter() -> None:
            with suppress(ConnectionError):
                while True:
                    client.send(text("still talking"), ping())
                    await client.writer.drain()
                    await asyncio.sleep(0.01)

        talking = asyncio.ensure_future(chatter())
        began = loop.time()
        await ws.close()
        assert loop.time() - began < 1
        talking.cancel()
        assert await client.receive_close() == (1000, "")
        with pytest.raises(ConnectionClosedError):
            while True:
                assert await ws.recv() == "still talking"


async def test_the_peer_keeps_the_connection_after_its_close() -> None:
    loop = asyncio.get_running_loop()
    async with pair(close_timeout=0.2) as (ws, client):
        began = loop.time()
        client.send(close())
        assert await client.receive_close() == (1000, "")
        await client.receive_eof()
        client.send(text("dropped"))
        await ws.wait_closed()
        assert loop.time() - began < 1
        assert (ws.close_code, ws.close_cause) == (1000, CloseCause.PEER)


async def test_messages_before_the_peers_close_can_still_be_received() -> None:
    """RFC 6455, 7.1.1: what was under way when this side sent its Close frame belongs to the handler."""
    async with pair() as (ws, client):
        client.send(text("1"), text("2"), ping())
        assert (await client.receive()).opcode == PONG
        ws.close_nowait()
        assert await client.receive_close() == (1000, "")
        client.send(text("3"), close())
        await client.receive_eof()
        assert [await ws.recv(), await ws.recv(), await ws.recv()] == ["1", "2", "3"]
        with pytest.raises(ConnectionClosedOK):
            await ws.recv()


async def test_a_close_behind_a_full_queue_is_seen() -> None:
    loop = asyncio.get_running_loop()
    async with pair(read_limit=1024) as (ws, client):
        message = binary(bytes(1000))
        client.send(message * 100)
        await until(lambda: ws.counters["messages_received"] > 1)
        began = loop.time()
        closing = asyncio.ensure_future(ws.close())
        assert await client.receive_close() == (1000, "")
        client.send(close(4000))
        await client.receive_eof()
        client.abort()
        await closing
        assert ws.close_code == 4000
        assert GRACE - 0.1 < loop.time() - began < GRACE + 1  # which the consumer has to take what came before
        assert await ws.recv() == bytes(1000)


async def test_closing_after_a_message_does_not_wait_for_a_handler_that_asks_no_more() -> None:
    loop = asyncio.get_running_loop()
    async with pair() as (ws, client):
        client.send(text("1"))
        assert await ws.recv() == "1"
        began = loop.time()
        closing = asyncio.ensure_future(ws.close())
        assert await client.receive_close() == (1000, "")
        client.send(close())
        await client.receive_eof()
        client.abort()
        await closing
        assert loop.time() - began < 0.5


async def test_answers_go_out_before_the_close_is_echoed() -> None:
    async with serving() as server, await connect_raw(server) as client:
        client.send(*(text(str(number)) for number in range(1000)), close(1001))
        assert [await client.receive_message() for _ in range(1000)] == [str(number) for number in range(1000)]
        assert await client.receive_close() == (1001, "")


async def test_answers_go_out_before_a_violation_is_reported() -> None:
    async with serving() as server, await connect_raw(server) as client:
        client.send(text("1"), text("2"), frame(3, b"", key=b"TEST"))
        assert [await client.receive_message() for _ in range(2)] == ["1", "2"]
        assert (await client.receive_close())[0] == 1002


async def test_a_slow_handler_does_not_keep_the_close_back_for_long() -> None:
    loop = asyncio.get_running_loop()
    async with pair() as (ws, client):
        client.send(text("1"), close(1001))
        began = loop.time()
        assert await ws.recv() == "1"
        assert await client.receive_close() == (1001, "")
        assert 0.5 < loop.time() - began < 2
        with pytest.raises(ConnectionClosedOK):
            await ws.send("too late")


async def test_what_comes_behind_a_close_that_is_kept_back_costs_no_timers() -> None:
    async with pair() as (ws, client):
        client.send(text("1"), close(1001))
        await until(lambda: ws.counters["messages_received"] == 1)
        loop: Any = asyncio.get_running_loop()
        called: list[float] = []
        kind: Any = type(ws._open_channel())
        plain = kind.settle_later
        try:
            kind.settle_later = lambda self: called.append(loop.time())
            for _ in range(20):
                before = ws.counters["bytes_received"]
                client.send(text("dropped"))
                await until(lambda: ws.counters["bytes_received"] > before)  # noqa: B023
        finally:
            kind.settle_later = plain
        assert called == []
        assert await ws.recv() == "1"
        with pytest.raises(ConnectionClosedOK):
            await ws.recv()


async def test_our_close_after_the_peers_which_is_kept_back() -> None:
    async with pair() as (ws, client):
        client.send(text("1"), close(4001, "first"))
        await until(lambda: ws.counters["messages_received"] == 1)
        closing = asyncio.ensure_future(ws.close(4002))
        assert await client.receive_close() == (4001, "first")
        await client.receive_eof()
        client.abort()
        await closing
        assert (ws.close_code, ws.close_reason, ws.close_cause) == (4001, "first", CloseCause.PEER)
        assert await ws.recv() == "1"


# --- Handlers -------------------------------------------------------------------------------------------


async def test_a_handler_that_returns() -> None:
    async def greet(ws: wsfast.WebSocket) -> None:
        await ws.send("hello")

    async with serving(greet) as server, await connect_raw(server) as client:
        assert await client.receive_message() == "hello"
        assert await client.receive_close() == (1000, "")
        client.send(text("dropped"), close())
        await client.receive_eof()


@pytest.mark.parametrize("error", [ValueError("a secret"), AssertionError(), asyncio.IncompleteReadError(b"", 1)])
async def test_a_handler_that_raises(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def faulty(ws: wsfast.WebSocket) -> None:
        if await ws.recv() == "raise":
            raise error
        await echo(ws)

    caplog.set_level(logging.WARNING)
    async with serving(faulty) as server, await connect_raw(server) as bystander:
        bystander.send(text("stay"))
        async with await connect_raw(server) as client:
            client.send(text("raise"), text("dropped"))
            assert await client.receive_close() == (1011, "")
            client.send(close(1011))
            await client.receive_eof()
        [record] = caplog.records
        assert (record.name, record.levelno) == ("wsfast.server", logging.ERROR)
        assert record.exc_info is not None
        assert record.exc_info[1] is error
        bystander.send(text("hi"))
        assert await bystander.receive_message() == "hi"
        await bystander.end()
        await until(lambda: not server.connections)
        assert server.counters["causes"] == {CloseCause.HANDLER_ERROR: 1, CloseCause.PEER: 1}
    assert len(caplog.records) == 1


async def test_a_handler_that_ends_by_the_end_of_its_connection_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def impatient(ws: wsfast.WebSocket) -> None:
        while True:
            await ws.send(await ws.recv())

    caplog.set_level(logging.WARNING)
    async with serving(impatient) as server:
        for ending in (close(), close(1011), b"\xff\xff"):
            async with await connect_raw(server) as client:
                client.send(text("x"), ending)
                assert await client.receive_message() == "x"
                assert (await client.receive()).opcode == CLOSE
                await client.receive_eof()
    assert caplog.records == []


async def test_a_handler_that_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    async def resigning(ws: wsfast.WebSocket) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await ws.recv()

    async with serving(resigning) as server, await connect_raw(server) as client:
        assert await client.receive_close() == (1011, "")
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_handler_that_outlives_its_connection() -> None:
    gate = asyncio.Event()
    ended = asyncio.Event()

    async def tidy(ws: wsfast.WebSocket) -> None:
        await ws.wait_closed()
        await gate.wait()
        ended.set()

    async with serving(tidy) as server:
        async with await connect_raw(server) as client:
            client.send(text("x"))
            await client.end()
        await until(lambda: not server.connections)
        assert server.counters["connections"] == 0
        assert server.counters["messages_received"] == 1
        server.close()
        stopping = asyncio.ensure_future(server.wait_closed())
        done, _ = await asyncio.wait([stopping], timeout=0.05)
        assert not done, "the handler is still at work"
        gate.set()
        await stopping
        assert ended.is_set()


# --- Lost connections -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["half-close", "drop", "reset"])
@pytest.mark.parametrize("state", ["open", "closing", "within a frame", "within a message"])
async def test_a_lost_connection_ends_once_with_1006(how: str, state: str) -> None:
    async with pair() as (ws, client):
        closes: list[Any] = []
        host: Any = ws._open_channel().host
        noted = host._connection_closed

        def note(protocol: Any) -> None:
            closes.append(protocol)
            noted(protocol)

        host._connection_closed = note
        waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(ws.wait_closed()) for _ in range(3)]
        failing: list[asyncio.Future[Any]] = [asyncio.ensure_future(ws.recv())]
        failing.append(asyncio.ensure_future(await ws.ping()))
        assert (await client.receive()).opcode == PING
        if state == "closing":
            waiting.append(asyncio.ensure_future(ws.close()))
            assert await client.receive_close() == (1000, "")
        elif state == "within a frame":
            client.send(binary(b"half of it")[:9])
        elif state == "within a message":
            client.send(binary(b"half of it", fin=False))
        if state.startswith("within"):
            before = ws.counters["bytes_received"]
            await until(lambda: ws.counters["bytes_received"] > before)
        if how == "half-close":
            client.writer.write_eof()
        elif how == "drop":
            client.abort()
        else:
            client.reset()
        await asyncio.gather(*waiting)
        for future in failing:
            with pytest.raises(ConnectionClosedError) as caught:
                await future
            assert (caught.value.code, caught.value.rcvd) == (1006, None)
        assert (ws.state, ws.close_code, ws.close_reason) == (State.CLOSED, 1006, "")
        assert ws.close_cause is (CloseCause.LOCAL if state == "closing" else CloseCause.LOST)
        assert len(closes) == 1
        with pytest.raises(ConnectionClosedError):
            await ws.send("x")
        with pytest.raises(ConnectionClosedError):
            await ws.ping()
        assert ws.transport is None
        assert ws.local_address is not None
        assert ws.buffered_amount == 0


@pytest.mark.parametrize("how", ["half-close", "drop"])
async def test_messages_of_a_lost_connection_are_delivered(how: str) -> None:
    async with pair() as (ws, client):
        client.send(text("1"), text("2"))
        if how == "half-close":
            client.writer.write_eof()
        else:
            await client.writer.drain()
            client.writer.close()
        await ws.wait_closed()
        assert [await ws.recv(), await ws.recv()] == ["1", "2"]
        with pytest.raises(ConnectionClosedError):
            await ws.recv()


async def test_many_messages_and_the_end_while_reading_is_paused() -> None:
    async with pair(read_limit=4096) as (ws, client):
        client.send(*(text(str(number)) for number in range(20_000)))
        client.writer.write_eof()
        received = []
        with suppress(ConnectionClosedError):
            while True:
                received.append(await ws.recv())
        assert received == [str(number) for number in range(20_000)]


async def test_the_answer_to_a_peer_that_ended_its_side_goes_out() -> None:
    async with serving() as server, await connect_raw(server) as client:
        client.send(text("1"))
        client.writer.write_eof()
        assert await client.receive_message() == "1"
        await client.receive_eof()


async def test_a_close_and_the_end_at_once_is_a_proper_close() -> None:
    async with pair() as (ws, client):
        client.send(text("1"), close(1001, "bye"))
        client.writer.write_eof()
        await ws.wait_closed()
        assert (ws.close_code, ws.close_reason) == (1001, "bye")
        assert await ws.recv() == "1"
        with pytest.raises(ConnectionClosedOK):
            await ws.recv()


async def test_senders_that_wait_are_woken_by_the_end() -> None:
    async with pair(write_limit=1024) as (ws, client):

        async def flood() -> None:
            while True:
                await ws.send(bytes(65536))

        senders = [asyncio.ensure_future(flood()) for _ in range(5)]
        await until(lambda: ws._open_channel().write_paused)
        client.reset()
        for sender in senders:
            with pytest.raises(ConnectionClosedError):
                await sender


async def test_who_waits_for_the_end_is_cancelled_as_it_comes() -> None:
    async with pair() as (ws, _):
        first, second = [asyncio.ensure_future(ws.wait_closed()) for _ in range(2)]
        await asyncio.sleep(0)
        ws.abort()
        first.cancel()
        await second
        assert ws.state is State.CLOSED
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_a_connection_is_dropped_before_all_of_a_read_was_handled() -> None:
    """What came whole can be received, though it was more than one turn handles."""
    async with pair() as (ws, _):
        ws._open_channel().feed(b"".join(text(str(number)) for number in range(600)))
        assert ws.counters["messages_received"] < 600
        ws.abort()
        await ws.wait_closed()
        assert [await ws.recv() for _ in range(600)] == [str(number) for number in range(600)]
        with pytest.raises(ConnectionClosedError):
            await ws.recv()


async def test_abort() -> None:
    async with pair() as (ws, client):
        receiving = asyncio.ensure_future(ws.recv())
        await asyncio.sleep(0)
        ws.abort()
        with pytest.raises(ConnectionClosedError):
            await receiving
        with suppress(ConnectionResetError):
            assert await client.reader.read() == b""
        assert (ws.close_code, ws.close_cause) == (1006, CloseCause.LOCAL)


async def test_drops_and_violations_are_no_errors_of_the_program(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving() as server:
        for what in (b"", text("half")[:5], b"\xff\xff", frame(TEXT, b"\xff\r\n", key=b"TEST"), text("x", fin=False)):
            async with await connect_raw(server) as client:
                client.send(what)
                await client.writer.drain()
                client.reset()
        async with await open_raw(server) as client:
            client.send(request()[:30])
            await client.writer.drain()
        async with await open_raw(server) as client:
            await client.exchange(b"\x16\x03\x01 not HTTP \r\n\r\n")
            assert client.status == 400
        await until(lambda: not server.connections and not server.counters["handshakes"])
    for record in caplog.records:
        assert record.levelno <= logging.INFO
        if record.name == "asyncio":
            continue  # in its debug mode it tells of what a peer does
        assert record.exc_info is None
        assert "\n" not in record.getMessage()


# --- Keepalive ------------------------------------------------------------------------------------------


async def test_keepalive_closes_a_peer_that_is_silent() -> None:
    async with pair(ping_interval=0.1, ping_timeout=0.1) as (ws, client):
        assert (await client.receive()).opcode == PING
        assert await client.receive_close() == (1011, "keepalive ping timeout")
        await ws.wait_closed()
        assert (ws.close_code, ws.close_cause) == (1006, CloseCause.KEEPALIVE)


async def test_keepalive_keeps_who_answers_and_measures() -> None:
    async with pair(ping_interval=0.05, ping_timeout=0.1) as (ws, client):
        for _ in range(6):
            received = await client.receive()
            assert received.opcode == PING
            client.send(frame(PONG, received.payload, key=b"TEST"))
        await until(lambda: ws.latency > 0)
        assert ws.state is State.OPEN


async def test_keepalive_measures_who_talks() -> None:
    """A ping goes out every `ping_interval`, so that the latency of a busy connection is known, too."""
    async with pair(ping_interval=0.1, ping_timeout=0.1) as (ws, client):
        while not ws.latency:
            client.send(text("x"))
            assert await ws.recv() == "x"
            with suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    client.send(frame(PONG, (await client.receive()).payload, key=b"TEST"))
        assert ws.state is State.OPEN


async def test_keepalive_spares_who_talks_and_answers_no_ping() -> None:
    async with pair(ping_interval=0.1, ping_timeout=0.1) as (ws, client):
        for _ in range(30):
            client.send(text("x"))
            assert await ws.recv() == "x"
            await asyncio.sleep(0.02)
        assert ws.counters["pings_sent"] >= 3
        assert ws.state is State.OPEN


async def test_keepalive_spares_a_peer_whose_messages_wait_for_the_handler() -> None:
    async with pair(ping_interval=0.05, ping_timeout=0.05, read_limit=1000) as (ws, client):
        client.send(binary(bytes(2000)))
        await asyncio.sleep(0.5)  # for nothing to happen
        assert ws.state is State.OPEN
        assert await ws.recv() == bytes(2000)


@pytest.mark.parametrize("form", ["messages", "listener"])
async def test_keepalive_closes_who_takes_nothing(form: str) -> None:
    ended = asyncio.Event()

    class Flood(wsfast.Listener):
        def on_open(self) -> None:
            for _ in range(200):
                self.ws.send_nowait(bytes(65536))

        def on_close(self, code: int, reason: str) -> None:
            ended.set()

    async def flood(ws: wsfast.WebSocket) -> None:
        try:
            while True:
                await ws.send(bytes(65536))
        finally:
            ended.set()

    server = wsfast.Server(ping_interval=0.1, ping_timeout=0.1, max_buffered=None, stop_timeout=1)
    if form == "messages":
        server.register_handler(None, flood)
    else:
        server.register_listener(None, Flood)
    async with server:
        await server.start("127.0.0.1", 0)
        async with await connect_raw(server) as client, asyncio.timeout(10):
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await ended.wait()
            await until(lambda: server.counters["causes"] == {CloseCause.KEEPALIVE: 1})


async def test_keepalive_spares_who_takes_slowly() -> None:
    async def flood(ws: wsfast.WebSocket) -> None:
        assert ws.transport is not None
        # Small buffers, so that the system takes small steps.
        ws.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        while True:
            await ws.send(bytes(16384))

    async with (
        serving(flood, ping_interval=0.2, ping_timeout=0.4, write_limit=1024, stop_timeout=0.2) as server,
        await connect_raw(server) as client,
        asyncio.timeout(10),
    ):
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        loop = asyncio.get_running_loop()
        end = loop.time() + 1.5
        while loop.time() < end:
            assert (await client.receive()).opcode in (BINARY, PING)
            await asyncio.sleep(0.01)
        assert len(server.connections) == 1


# --- Stop -----------------------------------------------------------------------------------------------


async def test_stop_of_a_server_that_never_started() -> None:
    server = wsfast.Server()
    await server.wait_closed()
    server.close()
    await server.wait_closed()
    with pytest.raises(RuntimeError, match="the server is closed"):
        await server.start("127.0.0.1", 0)


async def test_close_twice_and_wait_often() -> None:
    async with serving() as server:
        waiting = [asyncio.ensure_future(server.wait_closed()) for _ in range(3)]
        await asyncio.sleep(0)
        server.close()
        server.close(1000)
        await asyncio.gather(*waiting)
        await server.wait_closed()


async def test_a_stop_with_a_wrong_code_is_refused_at_once() -> None:
    async with serving() as server:
        with pytest.raises(ValueError, match="code must be"):
            server.close(1006)
        async with await connect_raw(server) as client:
            await client.end()


async def test_a_stop_with_a_code_and_a_reason() -> None:
    async with serving() as server, await connect_raw(server) as client:
        server.close(1012, "back soon")
        assert await client.receive_close() == (1012, "back soon")
        client.send(close(1012))
        await client.receive_eof()


async def test_stop_lets_handlers_end_by_themselves() -> None:
    ended: list[str] = []

    async def tidy(ws: wsfast.WebSocket) -> None:
        async for _ in ws:
            pass
        ended.append("tidy")

    async with serving(tidy) as server, await connect_raw(server) as client:
        server.close()
        assert await client.receive_close() == (1001, "")
        client.send(close(1001))
        await client.receive_eof()
        client.abort()
        await server.wait_closed()
        assert ended == ["tidy"]
        assert server.counters["causes"] == {CloseCause.STOP: 1}


async def test_stop_cancels_handlers_that_stay(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []

    async def stubborn(ws: wsfast.WebSocket) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    loop = asyncio.get_running_loop()
    async with serving(stubborn, stop_timeout=0.5) as server, await connect_raw(server) as client:
        client.send(text("not read"))
        await until(lambda: server.counters["messages_received"] == 1)
        began = loop.time()
        server.close()
        assert await client.receive_close() == (1001, "")
        client.send(close(1001))
        await server.wait_closed()
        assert 0.3 < loop.time() - began < 3
        assert ended == ["cancelled"]
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def test_stop_says_so_if_a_handler_does_not_end(caplog: pytest.LogCaptureFixture) -> None:
    gate = asyncio.Event()

    async def immortal(ws: wsfast.WebSocket) -> None:
        while not gate.is_set():
            with suppress(asyncio.CancelledError):
                await gate.wait()

    loop = asyncio.get_running_loop()
    async with serving(immortal, stop_timeout=0.3) as server:
        async with await connect_raw(server):
            began = loop.time()
            server.close()
            await server.wait_closed()
            assert 0.29 <= loop.time() - began < 3
            [record] = caplog.records
            assert record.getMessage() == (
                "0.3 s after the server was told to stop 1 connections are left, with 1 handlers that still run"
            )
            gate.set()
        await until(lambda: not server._connections)


async def test_stop_while_a_peer_takes_nothing() -> None:
    async def flood(ws: wsfast.WebSocket) -> None:
        while True:
            await ws.send(bytes(65536))

    loop = asyncio.get_running_loop()
    async with serving(flood, stop_timeout=0.4) as server, await connect_raw(server) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: any(ws._open_channel().write_paused for ws in server.connections))
        began = loop.time()
        server.close()
        await server.wait_closed()
        assert loop.time() - began < 0.6
        assert server.connections == set()


async def test_stop_while_a_hook_is_at_work() -> None:
    asked = asyncio.Event()
    ended: list[str] = []

    async def hook(ws: wsfast.WebSocket, request: wsfast.Request) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async with serving(process_request=hook) as server, await open_raw(server) as client:
        client.send(request())
        await asked.wait()
        server.close()
        await server.wait_closed()
        assert (await client.reader.read()).startswith(b"HTTP/1.1 503 ")
        assert ended == ["cancelled"]


async def test_the_end_of_async_with_stops_though_its_body_raised() -> None:
    with pytest.raises(ValueError, match="boom"):
        async with serving() as server, await connect_raw(server):
            raise ValueError("boom")
    assert server.closing
    assert server.connections == set()


# --- Without limits, and with faults beneath ------------------------------------------------------------


async def test_no_limits_of_time() -> None:
    async with pair(close_timeout=None, open_timeout=None, ping_interval=None, ping_timeout=None) as (ws, client):
        assert ws._open_channel().due == 0
        closing = asyncio.ensure_future(ws.close())
        assert await client.receive_close() == (1000, "")
        assert ws._open_channel().due == 0
        client.send(text("dropped"), close())
        await client.receive_eof()
        client.abort()
        await closing


async def test_keepalive_without_a_limit_for_the_answer() -> None:
    async with pair(ping_interval=0.05, ping_timeout=None) as (ws, client):
        for _ in range(4):
            assert (await client.receive()).opcode == PING
        assert ws.state is State.OPEN


async def test_keepalive_pings_are_bounded() -> None:
    async with pair(ping_interval=0.02, ping_timeout=None) as (ws, client):
        for _ in range(64):
            await ws.ping()
        for _ in range(68):
            assert (await client.receive()).opcode == PING
        assert len(ws._open_channel().session._pings or ()) == 64


async def test_a_transport_that_raises_ends_its_connection_only() -> None:
    async with serving() as server, await connect_raw(server) as bystander, await connect_raw(server) as client:
        address = client.writer.get_extra_info("sockname")
        [ws] = [ws for ws in server.connections if ws.remote_address == address]
        ws._open_channel().transport_failed(RuntimeError("boom"))
        with suppress(ConnectionResetError):
            assert await client.reader.read() == b""
        await ws.wait_closed()
        assert ws.close_cause is CloseCause.LOST
        bystander.send(text("hi"))
        assert await bystander.receive_message() == "hi"


async def test_a_transport_that_raises_as_a_turn_ends_ends_its_connection_only() -> None:
    def write(data: bytes) -> None:
        raise RuntimeError("boom")

    async with memory_pair() as broken, memory_pair() as fine, asyncio.timeout(20):
        broken.pipe.client.write = write  # type: ignore[method-assign,assignment]
        broken.client.send_nowait("lost")
        fine.client.send_nowait("fine")
        assert await fine.server.recv() == "fine"
        await broken.client.wait_closed()
        assert broken.client.close_cause is CloseCause.LOST


async def test_a_transport_that_breaks_as_its_sending_side_ends() -> None:
    def write_eof() -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    async with memory_pair() as ends, asyncio.timeout(20):
        ends.pipe.server.write_eof = write_eof  # type: ignore[method-assign]
        await ends.client.close(4000, "bye")
        await ends.server.wait_closed()
        assert (ends.client.close_code, ends.server.close_code) == (4000, 4000)
        assert (ends.client.close_cause, ends.server.close_cause) == (CloseCause.LOCAL, CloseCause.PEER)


async def test_an_error_in_a_later_batch_of_one_read_ends_its_connection_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read of more messages than a turn handles pauses the transport, and nothing else would resume it."""
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["exception"]))
    async with serving() as server, await connect_raw(server) as bystander, await connect_raw(server) as client:
        address = client.writer.get_extra_info("sockname")
        [ws] = [ws for ws in server.connections if ws.remote_address == address]
        boom = RuntimeError("boom")
        plain = type(ws._open_channel()).handle_event

        def handle_event(channel: Any, event: Any) -> None:
            if channel.ws is ws:
                raise boom
            plain(channel, event)

        monkeypatch.setattr(type(ws._open_channel()), "handle_event", handle_event)
        client.send(*[text("")] * 300, ping(b"late"))
        await ws.wait_closed()
        assert ws.close_cause is CloseCause.LOST
        assert told == [boom]
        bystander.send(text("hi"))
        assert await bystander.receive_message() == "hi"


async def test_a_refused_client_that_stays_is_dropped() -> None:
    async with serving() as server, await open_raw(server) as client:
        client.send(request().replace(b"13", b"12"))
        async with asyncio.timeout(10):
            assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 426")
            await client.reader.read()
            client.send(b"x" * 100_000)
            await until(lambda: not server.counters["handshakes"])


async def test_a_refused_client_whose_connection_breaks_as_it_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    server = wsfast.Server()
    server.register_handler(None, echo)
    async with server:
        pipe = Pipe()

        def write_eof() -> None:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

        pipe.server.write_eof = write_eof  # type: ignore[method-assign]
        reader = asyncio.StreamReader()
        pipe.start(asyncio.StreamReaderProtocol(reader), server.new_protocol())
        pipe.client.write(request().replace(b"13", b"12"))
        assert (await reader.read()).startswith(b"HTTP/1.1 426 ")
        assert pipe.server.is_closing()
        await until(lambda: not server.counters["handshakes"])
        pipe.client.abort()
    assert caplog.records == []


@pytest.mark.parametrize("answer", ["refuse", "respond"])
async def test_a_client_that_floods_while_a_hook_refuses_it_gets_the_answer(answer: str) -> None:
    """Its bytes are read and dropped: unread ones would reset the connection and destroy the response."""
    go = asyncio.Event()
    held: list[Any] = []

    async def hook(ws: wsfast.WebSocket, asked: wsfast.Request) -> wsfast.Response | None:
        await go.wait()
        if answer == "refuse":
            raise refuse(403, "Go away")
        return ws.respond(403, "Go away")

    async with serving(process_request=hook, read_limit=1024) as server, await open_raw(server) as client:
        client.send(request(), bytes(100_000))
        await until(lambda: server._handshakes)
        [opening] = server._handshakes
        held.append(opening.transport)
        await until(lambda: not held[0].is_reading())
        go.set()
        async with asyncio.timeout(10):
            assert b"Go away" in await client.reader.read()
        assert held[0].is_reading()
        client.send(bytes(100_000))
        client.writer.write_eof()
        await until(lambda: not server.counters["handshakes"])


async def test_a_refused_client_that_goes_at_once_makes_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server:
        for _ in range(20):
            async with await open_raw(server) as client:
                client.send(request().replace(b"13", b"12"))
                client.reset()
        await until(lambda: not server.counters["handshakes"])
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def test_a_client_that_is_late_with_its_handshake() -> None:
    loop = asyncio.get_running_loop()
    async with serving(open_timeout=0.2) as server, await open_raw(server) as client:
        began = loop.time()
        with suppress(ConnectionError, RuntimeError):  # the latter from uvloop, which closed the client's end already
            for octet in request():  # a slow drip
                client.send(bytes([octet]))
                await client.writer.drain()
                if client.reader.at_eof():
                    break
                await asyncio.sleep(0.01)
        with suppress(ConnectionError):
            assert await client.reader.read() == b""
        assert 0.15 < loop.time() - began < 2
        await until(lambda: not server.counters["handshakes"])


async def test_counters_of_a_server() -> None:
    async with serving() as server:
        assert server.counters["opened"] == server.counters["connections"] == 0
        async with await connect_raw(server) as first, await connect_raw(server) as second:
            first.send(text("a"))
            second.send(text("b"))
            assert await first.receive_message() == "a"
            assert await second.receive_message() == "b"
            await first.end()
            first.abort()
            await until(lambda: server.counters["connections"] == 1)
            counters = server.counters
            assert (counters["opened"], counters["refused"], counters["handshakes"]) == (2, {}, 0)
            assert (counters["messages_received"], counters["messages_sent"]) == (2, 2)
            assert counters["causes"] == {CloseCause.PEER: 1}
            await second.end()
        await until(lambda: server.counters["connections"] == 0)
        assert server.counters["messages_received"] == 2


# --- What is under way when this side closes (RFC 6455, 5.5.1 and 7.1.1) ----------------------------------


@pytest.mark.parametrize("form", ["messages", "stream", "listener"])
async def test_a_stop_loses_nothing_that_the_peer_sent_before_its_close(form: str) -> None:
    got: list[str] = []
    server = wsfast.Server(stop_timeout=10)

    async def handler(ws: wsfast.WebSocket) -> None:
        got.extend([str(message) async for message in ws])

    async def stream(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        got.extend([line.decode().strip() async for line in reader])

    class Listener(wsfast.Listener):
        def on_message(self, message: str | bytes) -> None:
            got.append(str(message).strip())

    if form == "messages":
        server.register_handler(None, handler)
    elif form == "stream":
        server.register_stream_handler(None, stream)
    else:
        server.register_listener(None, Listener)
    async with server:
        await server.start("127.0.0.1", 0)
        async with await connect_raw(server) as client:
            server.close()
            assert await client.receive_close() == (1001, "")
            for number in range(500):
                client.send(text(f"{number}\n"))
                if number % 100 == 0:
                    await client.writer.drain()
                    await asyncio.sleep(0)
            client.send(close(1001))
            await client.receive_eof()
            client.abort()
            await server.wait_closed()
    assert [line.strip() for line in got] == [str(number) for number in range(500)]


async def test_a_handler_that_is_behind_gets_what_is_under_way_too() -> None:
    """More than is held for it: reading waits for the handler, within `close_timeout`."""
    got: list[int] = []

    async def slow(ws: wsfast.WebSocket) -> None:
        async for message in ws:
            got.append(len(message))
            await asyncio.sleep(0.002)

    async with serving(slow, read_limit=4096, stop_timeout=10) as server, await connect_raw(server) as client:
        server.close()
        assert await client.receive_close() == (1001, "")
        client.send(*(binary(bytes(1000)) for _ in range(200)), close(1001))
        await client.receive_eof()
        client.abort()
        await server.wait_closed()
    assert got == [1000] * 200


async def test_a_client_that_closes_can_still_receive_the_answers() -> None:
    async with serving(echo) as server:
        ws = await wsfast.connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        for number in range(5):
            await ws.send(str(number))
        await ws.close()
        assert [message async for message in ws] == ["0", "1", "2", "3", "4"]


async def test_abort_is_seen_at_once() -> None:
    async with pair() as (ws, _):
        ws.abort()
        assert (ws.state, ws.close_code, ws.close_reason) == (State.CLOSED, 1006, "")
        assert ws.close_cause is CloseCause.LOCAL
        with pytest.raises(ConnectionClosedError):
            ws.send_nowait("x")


async def test_a_message_past_our_limit_is_told_as_that() -> None:
    async with pair(max_size=10) as (ws, client):
        client.send(text("x" * 11))
        assert (await client.receive_close())[0] == 1009
        client.abort()
        await ws.wait_closed()
        assert ws.close_cause is CloseCause.TOO_BIG
        with pytest.raises(ConnectionClosedError, match="message too big"):
            await ws.recv()
