"""The byte-stream view: what a reader reads of messages, and what messages a writer makes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from raw import RawClient, binary, close, connect_raw, ping, text
from shared import until
from vectors import BINARY, CLOSE, CONT, PONG, TEXT, frame

import wsfast
from wsfast import ConnectionClosed, ConnectionClosedError, InvalidState

pytestmark = pytest.mark.anyio


class Streams:
    """The server's side of a connection."""

    def __init__(self, reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        self.reader = reader
        self.writer = writer
        self.ws = writer._ws
        self.finish = asyncio.Event()


@asynccontextmanager
async def streams(*, text: bool = False, **options: Any) -> AsyncIterator[tuple[Streams, RawClient]]:
    """Open a connection; the server's side is for the test to use, until `finish` is set."""
    opened: asyncio.Future[Streams] = asyncio.get_running_loop().create_future()

    async def handler(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        made = Streams(reader, writer)
        opened.set_result(made)
        await made.finish.wait()

    server = wsfast.Server(**{"stop_timeout": 2.0, **options})
    server.register_stream_handler(None, handler, text=text)
    async with server:
        await server.start("127.0.0.1", 0)
        async with await connect_raw(server) as client, asyncio.timeout(20):
            try:
                yield await opened, client
            finally:
                (await opened).finish.set()


async def arrived(side: Streams, client: RawClient) -> None:
    """Wait until the server has taken in what was sent before."""
    client.send(ping(b"arrived?"))
    assert await client.receive() == (True, 0, PONG, b"arrived?")


# --- Reading --------------------------------------------------------------------------------------------


async def test_read_returns_what_there_is_without_boundaries() -> None:
    async with streams() as (side, client):
        client.send(binary(b"ab"), text("cé"), binary(b""), binary(b"d", fin=False), frame(CONT, b"e", key=b"TEST"))
        await arrived(side, client)
        assert await side.reader.read() == "abcéde".encode()


async def test_read_returns_at_most_n() -> None:
    async with streams() as (side, client):
        client.send(binary(b"abcdef"))
        await arrived(side, client)
        assert await side.reader.read(0) == b""
        assert await side.reader.read(2) == b"ab"
        assert await side.reader.read(100) == b"cdef"


async def test_read_waits_for_a_byte() -> None:
    async with streams() as (side, client):
        reading = asyncio.ensure_future(side.reader.read())
        client.send(binary(b""), text(""), ping())
        assert (await client.receive()).opcode == PONG
        assert not reading.done(), "an empty message is neither data nor the end"
        client.send(binary(b"x"))
        assert await reading == b"x"


async def test_read_of_an_unfinished_frame_and_message() -> None:
    async with streams() as (side, client):
        client.send(binary(b"abcdef", fin=False)[:9])
        assert await side.reader.read() == b"abc"
        client.send(binary(b"abcdef", fin=False)[9:])
        assert await side.reader.read() == b"def"


async def test_readexactly() -> None:
    async with streams() as (side, client):
        client.send(binary(b"abc"), text("def"))
        assert await side.reader.readexactly(5) == b"abcde"
        assert await side.reader.readexactly(0) == b""
        client.send(binary(b"g"), close())
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await side.reader.readexactly(3)
        assert caught.value.partial == b"fg"
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await side.reader.readexactly(1)
        assert caught.value.partial == b""


async def test_readexactly_of_more_than_is_held() -> None:
    async with streams(read_limit=1000) as (side, client):
        data = bytes(range(256)) * 2000
        sending = [frame(BINARY, data[at : at + 3000], key=b"TEST") for at in range(0, len(data), 3000)]
        client.send(*sending)
        assert await side.reader.readexactly(len(data)) == data


async def test_lines() -> None:
    async with streams() as (side, client):
        client.send(text("one\ntw"), text("o\n\nthree"), close())
        assert await side.reader.readline() == b"one\n"
        assert [line async for line in side.reader] == [b"two\n", b"\n", b"three"]
        assert await side.reader.readline() == b""


async def test_readuntil() -> None:
    async with streams(read_limit=100) as (side, client):
        client.send(binary(b"a;"), binary(b";b"), binary(b";;"))
        assert await side.reader.readuntil(b";;") == b"a;;"
        assert await side.reader.readuntil(b";;") == b"b;;"
        client.send(binary(bytes(200)))
        with pytest.raises(asyncio.LimitOverrunError):
            await side.reader.readuntil(b";;")
        assert await side.reader.read() == bytes(200)
        client.send(binary(b"rest"), close())
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await side.reader.readuntil(b";;")
        assert caught.value.partial == b"rest"


async def test_at_eof() -> None:
    async with streams() as (side, client):
        assert not side.reader.at_eof()
        client.send(binary(b"x"))
        await arrived(side, client)
        assert not side.reader.at_eof()
        assert await side.reader.read() == b"x"
        client.send(close())
        assert await side.reader.read() == b""
        assert side.reader.at_eof()
        assert await side.reader.read() == b""


@pytest.mark.parametrize("ending", [close(1000), close(1001), close(None)])
async def test_a_proper_end(ending: bytes) -> None:
    async with streams() as (side, client):
        client.send(binary(b"last"), ending)
        assert await side.reader.read() == b"last"
        assert await side.reader.read() == b""
        assert [line async for line in side.reader] == []


READS: list[Callable[[wsfast.Reader], Awaitable[object]]] = [
    lambda reader: reader.read(),
    lambda reader: reader.read(10),
    lambda reader: reader.readexactly(1),
    lambda reader: reader.readuntil(b"\n"),
    lambda reader: reader.readline(),
    lambda reader: anext(reader),
]


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("ending", [close(1008), close(1011), b"\xff\xff", None], ids=["1008", "1011", "bad", "lost"])
async def test_an_abnormal_end_raises_after_the_last_byte(
    ending: bytes | None, read: Callable[[wsfast.Reader], Awaitable[object]]
) -> None:
    async with streams() as (side, client):
        client.send(binary(b"last"))
        if ending is None:
            client.writer.write_eof()
        else:
            client.send(ending)
        assert await side.reader.read() == b"last"
        for _ in range(2):
            with pytest.raises(ConnectionClosedError):
                await read(side.reader)
        assert side.reader.at_eof()


async def test_an_abnormal_end_within_what_was_asked_for() -> None:
    async with streams() as (side, client):
        client.send(binary(b"las"), close(1011))
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await side.reader.readexactly(4)
        assert caught.value.partial == b"las"
        assert isinstance(caught.value.__cause__, ConnectionClosedError)


async def test_the_end_is_read_though_the_peer_keeps_its_connection() -> None:
    loop = asyncio.get_running_loop()
    async with streams() as (side, client):
        began = loop.time()
        client.send(close())
        assert await side.reader.read() == b""
        assert loop.time() - began < 1


async def test_a_peer_is_not_read_faster_than_the_handler_reads() -> None:
    async with streams(read_limit=4096) as (side, client):
        client.send(binary(bytes(1000)) * 5000)
        await until(lambda: side.ws._open_channel().paused)
        held = len(side.reader._buffer)
        # One read of 64 KiB, decoded in turns of 256 messages, may come on top.
        assert 4096 < held < 4096 + 65536
        total = 0
        while total < 5_000_000:
            data = await side.reader.read()
            assert len(data) < 4096 + 65536
            total += len(data)
        assert total == 5_000_000


async def test_reading_goes_on_at_a_quarter() -> None:
    async with streams(read_limit=4000) as (side, client):
        client.send(binary(bytes(5000)))
        await until(lambda: side.ws._open_channel().paused)
        await side.reader.readexactly(3900)
        assert side.ws._open_channel().paused
        await side.reader.readexactly(200)
        assert not side.ws._open_channel().paused


async def test_two_readers_at_once_are_refused() -> None:
    async with streams() as (side, client):
        reading = asyncio.ensure_future(side.reader.read())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="already waiting"):
            await side.reader.read()
        client.send(binary(b"x"))
        assert await reading == b"x"


async def test_a_read_that_is_cancelled_loses_nothing() -> None:
    async with streams() as (side, client):
        reading = asyncio.ensure_future(side.reader.readexactly(4))
        client.send(binary(b"ab"))
        await arrived(side, client)
        reading.cancel()
        client.send(binary(b"cd"))
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await side.reader.readexactly(4) == b"abcd"


# --- Writing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_text", [False, True])
async def test_what_is_written_between_flushes_is_a_message(as_text: bool) -> None:
    opcode = TEXT if as_text else BINARY
    async with streams(text=as_text) as (side, client):
        await side.writer.write(b"a")
        await side.writer.write("é")
        await side.writer.write(bytearray(b"b"))
        await side.writer.write(memoryview(b"cxd")[::2])
        await side.writer.flush()
        await side.writer.flush()  # nothing to send
        await side.writer.write(b"")
        await side.writer.flush()
        await side.writer.write(b"z")
        await side.writer.flush()
        assert await client.receive() == (True, 0, opcode, "aébcd".encode())
        assert await client.receive() == (True, 0, opcode, b"z")


@pytest.mark.parametrize("size", [65535, 65536, 65537, 200_000, 3_000_000])
@pytest.mark.parametrize("step", [1000, 65536, 10_000_000])
async def test_a_large_message_is_one_message(size: int, step: int) -> None:
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    async with streams() as (side, client):

        async def write() -> None:
            for at in range(0, size, step):
                await side.writer.write(data[at : at + step])
            await side.writer.flush()
            await side.writer.write(b"next")
            await side.writer.flush()

        writing = asyncio.ensure_future(write())
        assert await client.receive_message() == data
        assert await client.receive() == (True, 0, BINARY, b"next")
        await writing


async def test_fragments_begin_at_64_kib() -> None:
    async with streams() as (side, client):
        await side.writer.write(bytes(65535))
        await side.writer.write(b"x")
        received = await client.receive()
        assert (received.fin, received.opcode, len(received.payload)) == (False, BINARY, 65536)
        await side.writer.write(b"y")
        client.send(ping(b"between"))
        assert await client.receive() == (True, 0, PONG, b"between")
        await side.writer.flush()
        assert await client.receive() == (True, 0, CONT, b"y")


async def test_a_text_stream_takes_text_only() -> None:
    async with streams(text=True) as (side, client):
        await side.writer.write("fine ")
        with pytest.raises(UnicodeDecodeError):
            await side.writer.write(b"\xff")
        with pytest.raises(TypeError):
            await side.writer.write(1)  # type: ignore[arg-type]
        await side.writer.write("é".encode())
        await side.writer.flush()
        assert await client.receive_message() == "fine é"


async def test_writing_waits_for_a_peer_that_does_not_read() -> None:
    async with streams() as (side, client):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]

        async def flood() -> None:
            while True:
                await side.writer.write(bytes(65536))

        flooding = asyncio.ensure_future(flood())
        await until(lambda: side.ws._open_channel().write_paused)
        sent = side.ws.counters["bytes_sent"]
        for _ in range(100):
            await asyncio.sleep(0)
        assert side.ws.counters["bytes_sent"] == sent
        client.abort()
        with pytest.raises(ConnectionClosed):
            await flooding


async def test_writing_after_the_end() -> None:
    async with streams() as (side, client):
        client.send(close())
        assert await side.reader.read() == b""
        await side.writer.write(b"held")
        with pytest.raises(ConnectionClosed):
            await side.writer.flush()
        with pytest.raises(ConnectionClosed):
            await side.writer.write(bytes(65536))


async def test_what_is_left_is_flushed_when_the_handler_returns() -> None:
    for data, frames in [(b"rest", [(True, BINARY, 4)]), (bytes(70_000), [(False, BINARY, 70_000), (True, CONT, 0)])]:
        async with streams() as (side, client):
            await side.writer.write(data)
            side.finish.set()
            for expected in frames:
                received = await client.receive()
                assert (received.fin, received.opcode, len(received.payload)) == expected
            assert await client.receive_close() == (1000, "")


async def test_close_flushes() -> None:
    async with streams() as (side, client):
        await side.writer.write(b"rest")
        closing = asyncio.ensure_future(side.writer.close(1001, "bye"))
        assert await client.receive_message() == b"rest"
        assert await client.receive_close() == (1001, "bye")
        client.send(close(1001))
        await client.receive_eof()
        client.abort()
        await closing


async def test_an_unfinished_message_does_not_keep_the_close_back() -> None:
    async with streams() as (side, client):
        await side.writer.write(bytes(65536))
        assert (await client.receive()).fin is False
        side.ws.close_nowait(1001)
        assert await client.receive_close() == (1001, "")


async def each(go: asyncio.Event, *pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await go.wait()


async def test_another_message_cannot_come_into_one_that_is_written() -> None:
    go = asyncio.Event()
    go.set()
    async with streams() as (side, client):
        await side.writer.write(bytes(65536))
        for other in ("x", [b"a", b"b"], each(go, b"a", b"b")):
            with pytest.raises(InvalidState, match="unfinished"):
                await side.ws.send(other)
        await side.writer.write(b"end")
        await side.writer.flush()
        assert await client.receive_message() == bytes(65536) + b"end"
        await side.ws.send([b"a", b"b"])
        assert await client.receive_message() == b"ab"


@pytest.mark.parametrize("size", [4, 65536])
async def test_what_is_written_waits_for_a_message_that_is_sent_in_fragments(size: int) -> None:
    go = asyncio.Event()
    async with streams() as (side, client):

        async def write() -> None:
            await side.writer.write(bytes(size))
            await side.writer.flush()

        sending = asyncio.ensure_future(side.ws.send(each(go, b"a", b"b")))
        await asyncio.sleep(0)
        cut_off, *writing = [asyncio.ensure_future(write()) for _ in range(3)]
        for _ in range(5):
            await asyncio.sleep(0)
        cut_off.cancel()
        await asyncio.wait([cut_off])
        assert (await client.receive()).payload == b"a"
        go.set()
        assert (await client.receive()).payload == b"b"
        assert (await client.receive()) == (True, 0, CONT, b"")
        await asyncio.gather(sending, *writing)
        assert await client.receive_message() == bytes(3 * size)
        await side.writer.write(b"next")
        await side.writer.flush()
        assert await client.receive_message() == b"next"


@pytest.mark.parametrize("size", [4, 65535])
async def test_a_handler_that_returns_while_another_message_is_sent_in_fragments(
    size: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither message can be finished, and nothing of one comes into the other."""
    go = asyncio.Event()
    async with streams() as (side, client):
        sending = asyncio.ensure_future(side.ws.send(each(go, b"a", b"b")))
        assert (await client.receive()).payload == b"a"
        await side.writer.write(bytes(size))
        side.finish.set()
        assert await client.receive_close() == (1000, "")
        client.send(close())
        go.set()
        with pytest.raises(ConnectionClosed):
            await sending
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_the_answer_goes_out_before_the_close_is_echoed() -> None:
    async def shout(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        while data := await reader.read():
            await asyncio.sleep(0.01)  # the handler takes its time
            await writer.write(data.upper())
            await writer.flush()

    server = wsfast.Server(stop_timeout=1)
    server.register_stream_handler(None, shout)
    async with server:
        await server.start("127.0.0.1", 0)
        async with await connect_raw(server) as client:
            client.send(text("hello"), close(1001))
            assert await client.receive_message() == b"HELLO"
            assert await client.receive_close() == (1001, "")


async def test_large_data_both_ways_at_once() -> None:
    async def copy(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        while data := await reader.read():
            await writer.write(data)
            await writer.flush()

    server = wsfast.Server(stop_timeout=1)
    server.register_stream_handler(None, copy)
    async with server:
        await server.start("127.0.0.1", 0)
        async with await connect_raw(server) as client, asyncio.timeout(60):
            chunk = bytes(range(256)) * 1024

            async def send() -> None:
                for _ in range(20):
                    client.send(binary(chunk))
                    await client.writer.drain()

            sending = asyncio.ensure_future(send())
            received = bytearray()
            while len(received) < 20 * len(chunk):
                message = await client.receive_message()
                assert isinstance(message, bytes)
                received += message
            assert received == chunk * 20
            await sending
            client.send(close())
            assert (await client.receive()).opcode == CLOSE


# --- Half-closing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [False, True])
async def test_each_direction_ends_by_itself(text: bool) -> None:
    """With half_close=True at both ends an empty message is the end of a direction, as FIN is TCP's."""
    server = wsfast.Server()

    @server.stream_handler(None, text=text, half_close=True)
    async def answer_at_the_end(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        parts = []
        while data := await reader.read():
            parts.append(data)
        assert await reader.read() == b""
        for part in parts:
            await writer.write(part.upper())
            await writer.flush()
        await writer.write_eof()
        await writer.write_eof()  # once more does no harm

    async with server, asyncio.timeout(20):
        await server.start("127.0.0.1", 0)
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with wsfast.connect_stream(uri, text=text, half_close=True) as (reader, writer):
            assert writer.can_write_eof()
            for number in range(100):
                await writer.write(b"line %d\n" % number)
                await writer.flush()
            await writer.write_eof()
            with pytest.raises(wsfast.InvalidState, match="after write_eof"):
                await writer.write(b"more")
            received = b""
            while data := await reader.read():
                received += data
            assert received == b"".join(b"LINE %d\n" % number for number in range(100))


@pytest.mark.parametrize("written", [b"", b"d"])
async def test_the_end_of_a_direction_can_be_cancelled_and_sent_again(written: bytes) -> None:
    """A call that was cancelled in line has sent nothing; the next one does, and nothing can be written in between."""
    server = wsfast.Server()

    @server.stream_handler(None, half_close=True)
    async def count(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        size = 0
        while data := await reader.read():
            size += len(data)
        await writer.write(b"%d" % size)
        await writer.write_eof()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"ab"
        begun.set()
        await go_on.wait()
        yield b"c"

    begun, go_on = asyncio.Event(), asyncio.Event()
    async with server, asyncio.timeout(20):
        await server.start("127.0.0.1", 0)
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with wsfast.connect_stream(uri, half_close=True) as (reader, writer):
            sending = asyncio.create_task(writer.ws.send(slowly()))
            await begun.wait()
            await writer.write(written)
            ending = asyncio.create_task(writer.write_eof())
            await asyncio.sleep(0)
            with pytest.raises(wsfast.InvalidState, match="after write_eof"):
                await writer.write(b"more")
            ending.cancel()
            await asyncio.wait([ending])
            assert ending.cancelled()
            with pytest.raises(wsfast.InvalidState, match="after write_eof"):
                await writer.write(b"more")
            go_on.set()
            await sending
            await writer.write_eof()
            assert [await reader.read(), await reader.read()] == [b"%d" % len(b"abc" + written), b""]


async def test_without_the_option_an_empty_message_is_nothing() -> None:
    server = wsfast.Server()
    taken: list[bytes] = []

    @server.stream_handler(None)
    async def take(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        with pytest.raises(wsfast.InvalidState, match="half_close=True at both ends"):
            await writer.write_eof()
        taken.append(await reader.readexactly(2))

    async with server, asyncio.timeout(20):
        await server.start("127.0.0.1", 0)
        async with wsfast.connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as ws:
            for message in ("", b"a", b"", "b"):
                await ws.send(message)
            await ws.wait_closed()
    assert taken == [b"ab"]


async def test_what_comes_after_the_end_of_a_direction_is_nothing() -> None:
    server = wsfast.Server()
    taken: list[bytes] = []

    @server.stream_handler(None, half_close=True)
    async def take(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        taken.append(await reader.read())
        await writer.write(b"read")
        await writer.flush()
        taken.append(await reader.read())
        await writer.ws.wait_closed()
        taken.append(await reader.read())

    async with server, asyncio.timeout(20):
        await server.start("127.0.0.1", 0)
        async with wsfast.connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as ws:
            await ws.send(b"a")
            assert await ws.recv() == b"read"
            for message in (b"", b"late", [b"frag", b"ments"]):
                await ws.send(message)
    assert taken == [b"a", b"", b""]
