"""The callback view: which method is called when, and what becomes of what they raise."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest
from certificates import Certificates
from raw import RawClient, binary, close, connect_raw, open_raw, ping, request, text
from shared import serving, until
from vectors import CLOSE, CONT, PONG, frame

import wsfast
from wsfast.testing import pair

pytestmark = pytest.mark.anyio


class Recorder(wsfast.Listener):
    """A listener that notes what it is called with."""

    latest: ClassVar[Recorder]

    def __init__(self, ws: wsfast.WebSocket) -> None:
        super().__init__(ws)
        self.calls: list[Any] = []
        self.closed = asyncio.Event()
        Recorder.latest = self

    def on_open(self) -> None:
        self.calls.append("open")

    def on_message(self, message: str | bytes) -> None:
        self.calls.append(message)

    def on_close(self, code: int, reason: str) -> None:
        self.calls.append((code, reason))
        self.closed.set()

    def on_writable(self) -> None:
        self.calls.append("writable")


@asynccontextmanager
async def listening(factory: Any = Recorder, **options: Any) -> AsyncIterator[tuple[Any, RawClient]]:
    async with serving(factory, **options) as server, await connect_raw(server) as client:
        yield Recorder.latest, client


@pytest.mark.parametrize("name", ["on_open", "on_message", "on_close", "on_writable"])
def test_methods_are_not_coroutine_functions(name: str) -> None:
    async def method(*arguments: object) -> None:
        raise AssertionError

    with pytest.raises(TypeError, match=rf"Wrong\.{name} must not be `async def`"):
        type("Wrong", (wsfast.Listener,), {name: method})


async def test_the_life_of_a_listener() -> None:
    async with listening() as (listener, client):
        client.send(text("é"), binary(b"x"), ping(), text("a", fin=False), frame(CONT, b"b", key=b"TEST"))
        client.send(close(1001, "bye"))
        assert (await client.receive()).opcode == PONG
        assert await client.receive_close() == (1001, "bye")
        await client.receive_eof()
        client.abort()
        await listener.closed.wait()
        assert listener.calls == ["open", "é", b"x", "ab", (1001, "bye")]
        assert listener.ws.close_code == 1001


@pytest.mark.parametrize(
    ("ending", "expected"),
    [(close(None), (1005, "")), (close(4000, "x"), (4000, "x")), (b"\xff\xff", (1006, "")), (b"", (1006, ""))],
)
async def test_on_close_is_called_once(ending: bytes, expected: tuple[int, str]) -> None:
    async with listening() as (listener, client):
        client.send(ending)
        client.writer.write_eof()
        await listener.closed.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        assert listener.calls == ["open", expected]


async def test_on_close_after_a_reset() -> None:
    async with listening() as (listener, client):
        client.reset()
        await listener.closed.wait()
        assert listener.calls == ["open", (1006, "")]


async def test_on_close_after_ours() -> None:
    async with listening() as (listener, client):
        listener.ws.close_nowait(3000, "enough")
        assert await client.receive_close() == (3000, "enough")
        client.send(text("under way"), close(3001, "so be it"))
        await client.receive_eof()
        client.abort()
        await listener.closed.wait()
        assert listener.calls == ["open", "under way", (3001, "so be it")]


async def test_on_close_when_the_server_stops() -> None:
    async with serving(Recorder) as server, await connect_raw(server) as client:
        listener = Recorder.latest
        server.close()
        assert await client.receive_close() == (1001, "")
        client.send(close(1001))
        await client.receive_eof()
        client.abort()
        await server.wait_closed()
        assert listener.calls == ["open", (1001, "")]


async def test_a_message_in_the_packet_of_the_handshake() -> None:
    async with serving(Recorder) as server, await open_raw(server) as client:
        await client.exchange(request() + text("early"))
        await until(lambda: "early" in Recorder.latest.calls)
        assert Recorder.latest.calls == ["open", "early"]


async def test_answers_to_the_packet_of_the_handshake_come_after_its_response() -> None:
    class Talker(Recorder):
        def on_open(self) -> None:
            self.ws.send_nowait("open")

        def on_message(self, message: str | bytes) -> None:
            self.ws.send_nowait(message)

    async with serving(Talker) as server:
        for size in (1, 100_000):
            async with await open_raw(server) as client:
                await client.exchange(request() + text("x" * size) + ping() + close())
                assert client.status == 101
                assert [await client.receive_message() for _ in range(2)] == ["open", "x" * size]
                assert (await client.receive()).opcode == PONG
                assert await client.receive_close() == (1000, "")


async def test_sending_in_every_method() -> None:
    class Talker(Recorder):
        def on_open(self) -> None:
            assert self.ws.send_nowait("open")

        def on_message(self, message: str | bytes) -> None:
            assert self.ws.send_nowait(message)
            if message == "close":
                self.ws.close_nowait(4000)
                with pytest.raises(wsfast.ConnectionClosed):
                    self.ws.send_nowait("too late")

        def on_close(self, code: int, reason: str) -> None:
            with pytest.raises(wsfast.ConnectionClosed):
                self.ws.send_nowait("too late")
            super().on_close(code, reason)

    async with listening(Talker) as (listener, client):
        client.send(text("1"), text("close"), text("dropped"))
        assert [await client.receive_message() for _ in range(3)] == ["open", "1", "close"]
        assert await client.receive_close() == (4000, "")
        client.send(close(4000))
        await client.receive_eof()
        client.abort()
        await listener.closed.wait()


# A listener that asks a cancelled Future for its result raises CancelledError: nobody cancelled anything of ours.
@pytest.mark.parametrize("error", [ValueError("a secret"), asyncio.CancelledError("a secret")], ids=repr)
@pytest.mark.parametrize("where", ["on_open", "on_message", "on_writable"])
async def test_a_method_that_raises(where: str, error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(Recorder):
        def on_open(self) -> None:
            super().on_open()
            if where == "on_open":
                raise error
            if where == "on_writable":
                while self.ws.buffered_amount < 4_000_000 and not self.ws._open_channel().write_paused:
                    self.ws.send_nowait(bytes(65536))

        def on_message(self, message: str | bytes) -> None:
            super().on_message(message)
            raise error

        def on_writable(self) -> None:
            raise error

    async with listening(Faulty) as (listener, client):
        if where == "on_message":
            client.send(text("1"), text("2"))
        received = await client.receive()
        while received.opcode != CLOSE:
            received = await client.receive()
        assert received.payload == b"\x03\xf3"
        client.send(close(1011))
        await client.receive_eof()
        client.abort()
        await listener.closed.wait()
        assert listener.calls == ["open", *["1"] * (where == "on_message"), (1011, "")]
    [record] = [record for record in caplog.records if record.levelno > logging.INFO]
    assert (record.name, record.levelname) == ("wsfast.server", "ERROR")
    assert record.exc_info is not None


@pytest.mark.parametrize("error", [ValueError("boom"), asyncio.CancelledError()], ids=repr)
async def test_an_on_close_that_raises_is_logged_and_no_more(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty(Recorder):
        def on_close(self, code: int, reason: str) -> None:
            super().on_close(code, reason)
            raise error

    async with listening(Faulty) as (listener, client):
        waiting = asyncio.ensure_future(listener.ws.wait_closed())
        await client.end()
        client.abort()
        await waiting
        assert listener.closed.is_set()
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_no_task_for_a_connection() -> None:
    async with serving(Recorder) as server:
        before = asyncio.all_tasks()
        clients = [await connect_raw(server) for _ in range(5)]
        assert asyncio.all_tasks() == before
        for client in clients:
            client.abort()


async def test_on_writable_after_too_much() -> None:
    async with listening(write_limit=65536) as (listener, client):
        client.pause_reading()
        while not listener.ws._open_channel().write_paused:
            listener.ws.send_nowait(bytes(65536))
            await asyncio.sleep(0)
        assert "writable" not in listener.calls
        client.resume_reading()

        async def read() -> None:
            while True:
                await client.receive()

        reading = asyncio.ensure_future(read())
        await until(lambda: "writable" in listener.calls)
        assert listener.ws.buffered_amount <= 16384
        reading.cancel()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_who_sends_all_that_there_is_room_for_reads_all_the_same(secure: bool, certs: Certificates) -> None:
    """A feed that fills up in each `on_writable` still sees pings, messages and the Close frame."""
    received: list[str | bytes] = []

    class Feed(wsfast.Listener):
        def on_open(self) -> None:
            self.on_writable()

        def on_message(self, message: str | bytes) -> None:
            received.append(message)

        def on_writable(self) -> None:
            while self.ws.state is wsfast.State.OPEN and self.ws.send_nowait(bytes(20_000)):
                pass

    server = wsfast.Server(overflow="drop", stop_timeout=0.5)
    server.register_listener(None, Feed)
    async with asyncio.timeout(20), server:
        await server.start("127.0.0.1", 0, ssl=certs.server_context() if secure else None)
        uri = f"{'wss' if secure else 'ws'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with wsfast.connect(uri, ssl=certs.client_context() if secure else None, proxy=None) as client:

            async def take() -> None:
                async for _ in client:
                    pass

            taking = asyncio.create_task(take())
            for n in range(3):
                await client.send(str(n))
                assert await (await client.ping()) < 5
            client.close_nowait()
            await taking
            assert client.close_code == 1000
        assert received == ["0", "1", "2"]


async def test_nothing_is_read_from_who_reads_nothing() -> None:
    class Echo(Recorder):
        def on_message(self, message: str | bytes) -> None:
            self.ws.send_nowait(message)

    async with listening(Echo) as (listener, client):
        client.pause_reading()
        message = binary(bytes(60_000))

        async def flood() -> None:
            while True:
                client.send(message)
                await client.writer.drain()

        flooding = asyncio.ensure_future(flood())
        channel = listener.ws._open_channel()
        await until(lambda: channel.paused)
        received = listener.ws.counters["messages_received"]
        for _ in range(200):
            await asyncio.sleep(0)
        assert listener.ws.counters["messages_received"] <= received + 2
        assert listener.ws.buffered_amount < 65536 * 4
        flooding.cancel()
        client.resume_reading()

        async def read() -> None:
            while True:
                assert (await client.receive()).payload == bytes(60_000)

        reading = asyncio.ensure_future(read())
        await until(lambda: not channel.paused)
        reading.cancel()


async def test_many_messages_in_one_packet_give_others_a_turn() -> None:
    turns: list[int] = []

    class Busy(Recorder):
        def on_message(self, message: str | bytes) -> None:
            super().on_message(message)
            if len(self.calls) == 2:
                asyncio.get_running_loop().call_soon(lambda: turns.append(len(self.calls)))

    async with listening(Busy) as (listener, client):
        client.send(*(text(str(number)) for number in range(5000)), close())
        await client.receive_close()
        assert listener.calls[1:5001] == [str(number) for number in range(5000)]
        assert turns[0] < 1000


async def test_what_ends_the_program_is_not_kept_from_it(caplog: pytest.LogCaptureFixture) -> None:
    """As Ctrl-C raises it, wherever the program is; the connection is closed all the same."""

    class Stop(KeyboardInterrupt):
        pass

    class Stopping(Recorder):
        def on_message(self, message: str | bytes) -> None:
            raise Stop

    async with listening(Stopping) as (listener, client):
        with pytest.raises(Stop):
            listener.ws._channel.feed(text("x"))
        assert await client.receive_close() == (1011, "")
    assert not caplog.records  # it is no error of the listener


async def test_a_batch_that_waits_while_the_peer_reads_nothing() -> None:
    """Of one read, more messages than a turn handles: the rest waits until what is unsent has gone."""

    class Counting(wsfast.Listener):
        received = 0

        def on_message(self, message: str | bytes) -> None:
            self.received += 1

    made: list[Counting] = []

    def factory(ws: wsfast.WebSocket) -> Counting:
        made.append(Counting(ws))
        return made[0]

    server = wsfast.Server(write_limit=1024)
    server.register_listener(None, factory)
    async with server, pair(server) as ends, asyncio.timeout(20):
        [listener] = made
        channel: Any = listener.ws._channel
        ends.pipe.pause("server")
        channel.feed(b"".join(text("x") for _ in range(600)))
        assert 0 < listener.received < 600
        before = listener.received
        listener.ws.send_nowait(bytes(200_000))
        assert channel.write_paused
        for _ in range(20):
            await asyncio.sleep(0)
        assert listener.received == before
        ends.pipe.resume()
        assert await ends.client.recv() == bytes(200_000)
        await until(lambda: listener.received == 600)
        assert not channel.paused


async def test_a_read_of_many_fragments_ends_its_turn() -> None:
    """Other connections have one between two reads, and reading goes on by itself."""
    async with listening() as (listener, client):
        channel = listener.ws._channel
        channel.feed(text("a", fin=False) + frame(CONT, b"b", fin=False, key=b"TEST") * 1500)
        assert channel.paused
        assert listener.calls == ["open"]
        client.send(frame(CONT, b"c", key=b"TEST"))
        await until(lambda: len(listener.calls) == 2)
        assert listener.calls[1] == "a" + "b" * 1500 + "c"
        assert not channel.paused


@pytest.mark.parametrize("overflow", ["drop", "error"])
async def test_on_writable_comes_after_a_message_that_was_refused(overflow: Any) -> None:
    """The mark is the program's own, below `write_limit`: it is waited for, though the transport never paused."""
    done = asyncio.Event()

    class Latest(wsfast.Listener):
        tries = 0

        def on_open(self) -> None:
            self.on_writable()

        def on_writable(self) -> None:
            self.tries += 1
            sent = True
            for _ in range(200):
                try:
                    sent = self.ws.send_nowait(bytes(1000))
                except wsfast.BufferFull:
                    sent = False
                if not sent:
                    break
            if self.tries >= 50:
                done.set()

    server = wsfast.Server(max_buffered=4000, overflow=overflow, stop_timeout=0.5)
    server.register_listener(None, Latest)
    async with asyncio.timeout(20), server:
        await server.start("127.0.0.1", 0)
        async with await connect_raw(server) as client:
            taking = asyncio.create_task(client.reader.read(-1))
            await done.wait()
            taking.cancel()


async def test_on_writable_waits_for_a_peer_that_stops_reading() -> None:
    """It is not called again and again while the peer takes nothing."""
    calls: list[int] = []

    class Latest(wsfast.Listener):
        def on_open(self) -> None:
            assert self.ws.transport is not None
            # What the system holds comes on top of `max_buffered`.
            self.ws.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            self.on_writable()

        def on_writable(self) -> None:
            calls.append(0)
            while self.ws.send_nowait(bytes(1000)):
                calls[-1] += 1

    server = wsfast.Server(max_buffered=10_000, overflow="drop", stop_timeout=0.5)
    server.register_listener(None, Latest)
    async with asyncio.timeout(20), server:
        await server.start("127.0.0.1", 0)
        async with await connect_raw(server) as client:
            before = -1
            while len(calls) != before:  # until it stands still
                before = len(calls)
                await asyncio.sleep(0.2)
            assert len(calls) < 2000
            received = 0
            while len(calls) == before:
                received += len(await client.reader.read(65536))
            assert received
