"""`wsfast.testing`: the transports in memory by themselves, and pairs on both event loops."""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Any

import pytest

import wsfast
from wsfast.server.options import ServerOptions
from wsfast.testing import MemoryTransport, Pair, Pipe, pair

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
async def _nothing_left() -> Any:
    """No test leaves a task behind."""
    yield
    await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if "TestRunner" not in repr(task.get_coro())]


class Recorder(asyncio.Protocol):
    """Notes what is called."""

    def __init__(self, *, keep_open: bool = False) -> None:
        self.events: list[Any] = []
        self.keep_open = keep_open
        self.data = b""
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.events.append(len(data))

    def eof_received(self) -> bool:
        self.events.append("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost" if exc is None else type(exc).__name__)
        self.ended.set_result(exc)


class Buffered(Recorder, asyncio.BufferedProtocol):
    """Lends seven bytes at a time."""

    def get_buffer(self, sizehint: int) -> bytearray:
        self.buffer = bytearray(7)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self.buffer[:nbytes]))


async def turns(n: int = 20) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def arrived(recorder: Recorder, size: int) -> None:
    async with asyncio.timeout(5):
        while True:
            if len(recorder.data) >= size:
                return
            await asyncio.sleep(0.001)


def piped(**options: Any) -> tuple[Pipe, Recorder, Recorder]:
    pipe = Pipe(**options)
    client, server = Recorder(), Recorder()
    pipe.start(client, server)
    return pipe, client, server


# --- The transports


async def test_bytes_arrive_in_order_and_later() -> None:
    pipe, client, server = piped()
    pipe.client.write(b"one ")
    pipe.client.writelines([b"two ", b"three"])
    pipe.server.write(bytearray(b"back"))
    assert server.events == client.events == ["made"]
    await turns()
    assert server.data == b"one two three"
    assert client.data == b"back"
    pipe.client.close()
    await turns()
    assert server.events[-2:] == ["eof", "lost"]
    assert client.events[-1] == "lost"


async def test_what_a_transport_tells() -> None:
    pipe, client, server = piped()
    transport = pipe.client
    assert transport.get_extra_info("peername") == pipe.server.get_extra_info("sockname")
    assert transport.get_extra_info("nonsense", 5) == 5
    assert transport.get_protocol() is client
    assert pipe.server.get_protocol() is server
    assert transport.can_write_eof()
    assert transport.is_reading()
    assert not transport.is_closing()
    assert "open" in repr(transport)
    with pytest.raises(TypeError):
        transport.write("text")  # type: ignore[arg-type]
    transport.close()
    transport.close()
    assert transport.is_closing()
    transport.write(b"dropped")
    await turns()
    assert "lost" in repr(transport)
    assert server.data == b""


async def test_half_closing() -> None:
    pipe = Pipe()
    client, server = Recorder(), Recorder(keep_open=True)
    pipe.start(client, server)
    pipe.client.write(b"request")
    pipe.client.write_eof()
    with pytest.raises(RuntimeError):
        pipe.client.write(b"more")
    pipe.client.write_eof()
    await turns()
    assert server.events == ["made", 7, "eof"]
    pipe.server.write(b"answer")
    pipe.server.close()
    await turns()
    assert client.data == b"answer"
    assert client.events[-2:] == ["eof", "lost"]


async def test_abort_loses_what_is_unsent() -> None:
    pipe, client, server = piped(window=10)
    pipe.client.write(b"x" * 100)
    assert pipe.client.get_write_buffer_size() == 90
    pipe.client.abort()
    await turns()
    assert client.events == ["made", "lost"]
    assert server.data == b"x" * 10
    assert server.events[-2:] == ["eof", "lost"]


async def test_close_sends_what_is_unsent() -> None:
    pipe, client, server = piped(window=10)
    pipe.client.write(b"x" * 1000)
    pipe.client.close()
    assert pipe.client.is_closing()
    await turns(300)
    assert server.data == b"x" * 1000
    assert client.events == ["made", "lost"]


async def test_flow_control() -> None:
    pipe, client, server = piped(window=100)
    pipe.client.set_write_buffer_limits(high=50, low=20)
    assert pipe.client.get_write_buffer_limits() == (20, 50)
    pipe.server.pause_reading()
    assert not pipe.server.is_reading()
    pipe.client.write(b"x" * 150)
    assert pipe.client.get_write_buffer_size() == 50
    assert client.events == ["made"]
    pipe.client.write(b"y")
    assert client.events == ["made", "pause"]
    await turns()
    assert server.data == b""
    assert pipe.in_flight == {"client": 100, "server": 0}
    pipe.server.resume_reading()
    await turns()
    assert client.events == ["made", "pause", "resume"]
    assert server.data == b"x" * 150 + b"y"
    with pytest.raises(ValueError, match="high"):
        pipe.client.set_write_buffer_limits(high=1, low=2)


async def test_limits_of_what_is_unsent() -> None:
    pipe, client, _ = piped()
    for given, set_to in (({}, (16384, 65536)), ({"low": 100}, (100, 400)), ({"high": 100}, (25, 100))):
        pipe.client.set_write_buffer_limits(**given)
        assert pipe.client.get_write_buffer_limits() == set_to
    pipe.pause()
    pipe.client.write(b"x" * 65536)
    pipe.client.write(b"x" * 50)
    assert client.events == ["made"]
    pipe.client.set_write_buffer_limits(high=49)
    assert client.events == ["made", "pause"]


async def test_reading_may_be_resumed_without_a_pause() -> None:
    pipe, _, server = piped()
    pipe.client.write(b"x")
    pipe.server.resume_reading()
    await turns()
    assert server.events == ["made", 1]


async def test_a_pause_holds_what_is_about_to_arrive() -> None:
    pipe, client, server = piped()
    pipe.client.write(b"a")
    pipe.server.write(b"b")
    pipe.pause("client")
    pipe.client.pause_reading()
    await turns()
    assert client.events == server.events == ["made"]
    assert pipe.in_flight == {"client": 1, "server": 1}
    pipe.resume()
    pipe.client.resume_reading()
    await turns()
    assert (client.data, server.data) == (b"b", b"a")


async def test_what_is_sent_behind_the_end_is_lost() -> None:
    pipe = Pipe(window=10)
    client, server = Recorder(), Recorder(keep_open=True)
    pipe.start(client, server)
    pipe.half_close("client")
    pipe.client.write(b"x" * 100_000)
    assert pipe.client.get_write_buffer_size() == 0
    await turns()
    assert server.events == ["made", "eof"]


async def test_the_other_end_is_gone() -> None:
    """What is sent to an end that has closed comes back as a reset, as with TCP."""
    pipe = Pipe()
    client, server = Recorder(keep_open=True), Recorder()
    pipe.start(client, server)
    pipe.server.close()
    await turns()
    assert client.events == ["made", "eof"]
    pipe.client.write(b"x")
    await turns()
    assert client.events == ["made", "eof", "ConnectionResetError"]


async def test_a_buffered_protocol_and_a_change_of_protocol() -> None:
    pipe = Pipe()
    client, first, then = Recorder(), Recorder(), Buffered()
    pipe.start(client, first)
    pipe.client.write(b"to the first")
    await turns()
    pipe.server.set_protocol(then)
    pipe.client.write(b"to the buffered one")
    await turns()
    assert first.data == b"to the first"
    assert then.data == b"to the buffered one"
    assert then.events == [7, 7, 5]
    pipe.client.close()
    await turns()
    assert then.events[-2:] == ["eof", "lost"]


async def test_a_change_of_protocol_within_one_piece() -> None:
    """The rest is for the new one, of whatever kind it is."""

    class Changing(Buffered):
        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            pipe.server.set_protocol(then)

    for then in (Recorder(), Buffered()):
        pipe = Pipe()
        first = Changing()
        pipe.start(Recorder(), first)
        pipe.client.write(b"to the first and to another")
        await turns()
        assert first.data == b"to the "
        assert then.data == b"first and to another"


async def test_a_buffer_without_room() -> None:
    class Broken(Buffered):
        def get_buffer(self, sizehint: int) -> bytearray:
            return bytearray()

    loop = asyncio.get_running_loop()
    reported: list[Any] = []
    loop.set_exception_handler(lambda loop, context: reported.append(context["exception"]))
    try:
        pipe = Pipe()
        client, server = Recorder(), Broken()
        pipe.start(client, server)
        pipe.client.write(b"x")
        await turns()
    finally:
        loop.set_exception_handler(None)
    assert [str(error) for error in reported] == ["get_buffer() returned an empty buffer"]
    assert server.events == ["made", "RuntimeError"]
    pipe.client.abort()
    await turns()


@pytest.mark.parametrize("chunk_size", [1, 3, 1000])
async def test_chunks(chunk_size: int) -> None:
    pipe, _, server = piped(chunk_size=chunk_size)
    pipe.client.write(b"0123456789" * 10)
    await turns(150)
    assert server.data == b"0123456789" * 10
    assert max(event for event in server.events if isinstance(event, int)) == min(chunk_size, 100)


async def test_latency_keeps_the_order() -> None:
    dice = random.Random(5)
    pipe, _, server = piped(latency=lambda: dice.uniform(0, 0.005))
    sent = b""
    for i in range(50):
        pipe.client.write(b"%d " % i)
        sent += b"%d " % i
    await arrived(server, len(sent))
    assert server.data == sent


async def test_latency_and_bandwidth_take_their_time() -> None:
    loop = asyncio.get_running_loop()
    for options, least in (({"latency": 0.05}, 0.05), ({"bandwidth": 100_000}, 0.1)):
        pipe, _, server = piped(**options)
        began = loop.time()
        pipe.client.write(b"x" * 10_000)
        await arrived(server, 10_000)
        assert least * 0.9 <= loop.time() - began < least + 1


async def test_pause_resume_drop_reset() -> None:
    pipe, client, server = piped()
    pipe.pause("client")
    pipe.client.write(b"a")
    pipe.server.write(b"b")
    await turns()
    assert (client.data, server.data) == (b"b", b"")
    pipe.resume()
    await turns()
    assert server.data == b"a"
    pipe.drop()
    pipe.client.write(b"lost")
    await turns()
    assert server.data == b"a"
    assert client.events[-1] == 1
    pipe.reset()
    await turns()
    assert client.events[-1] == server.events[-1] == "ConnectionResetError"


async def test_a_protocol_that_raises_is_reported() -> None:
    class Broken(Recorder):
        def data_received(self, data: bytes) -> None:
            raise KeyError("mine")

    loop = asyncio.get_running_loop()
    reported: list[Any] = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda loop, context: reported.append(context["exception"]))
    try:
        pipe = Pipe()
        client, server = Recorder(), Broken()
        pipe.start(client, server)
        pipe.client.write(b"x")
        await turns()
    finally:
        loop.set_exception_handler(before)
    assert isinstance(reported[0], KeyError)
    assert server.events[-1] == "KeyError"
    pipe.client.abort()
    await turns()


@pytest.mark.parametrize(
    "options", [{"latency": -1}, {"bandwidth": 0}, {"chunk_size": 0}, {"window": 0}], ids=lambda o: str(o)
)
async def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Pipe(**options)
    with pytest.raises(ValueError, match="side"):
        Pipe().pause("left")  # type: ignore[arg-type]


async def test_streams_of_asyncio_work_on_it() -> None:
    """It is a transport like any other: asyncio's own streams run on it."""
    loop = asyncio.get_running_loop()
    pipe = Pipe(chunk_size=5)
    readers = [asyncio.StreamReader(limit=1000), asyncio.StreamReader(limit=1000)]
    protocols = [asyncio.StreamReaderProtocol(reader) for reader in readers]
    pipe.start(*protocols)
    writer = asyncio.StreamWriter(pipe.client, protocols[0], readers[0], loop)
    writer.write(b"x" * 200_000 + b"\n")
    line: Any = None

    async def take() -> None:
        nonlocal line
        line = await readers[1].readexactly(200_001)

    await asyncio.gather(writer.drain(), take())
    assert line == b"x" * 200_000 + b"\n"
    writer.close()
    await writer.wait_closed()
    pipe.server.close()
    await turns()


# --- Pairs


async def test_both_ends() -> None:
    async with pair() as (client, server):
        await client.send("hello")
        assert await server.recv() == "hello"
        await server.send(b"back")
        assert await client.recv() == b"back"
        assert await (await client.ping()) >= 0
        assert await (await server.ping()) >= 0
    assert client.close_code == server.close_code == 1000
    assert client.close_cause is wsfast.CloseCause.LOCAL


@pytest.mark.parametrize("end", ["client", "server"])
async def test_either_end_may_close(end: str) -> None:
    async with pair() as (client, server):
        closing, other = (client, server) if end == "client" else (server, client)
        await closing.close(4000, "bye")
        with pytest.raises(wsfast.ConnectionClosedError, match="4000"):
            await other.recv()
        assert other.close_reason == "bye"


async def test_large_messages_and_backpressure() -> None:
    async with pair(chunk_size=1000, window=5000) as (client, server):
        messages = [bytes([i]) * 100_000 for i in range(5)]

        async def send() -> None:
            for message in messages:
                await client.send(message)

        sending = asyncio.ensure_future(send())
        await turns(50)
        assert not sending.done()
        assert [await server.recv() for _ in messages] == messages
        await sending


async def test_unread_messages_do_not_hold_up_the_end() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with pair() as (client, server):
        for _ in range(20):
            client.send_nowait("x" * 50_000)
            server.send_nowait("x" * 50_000)
    assert loop.time() - began < 3


async def test_a_server_with_handlers() -> None:
    server = wsfast.Server()

    @server.handler("upper")
    async def upper(ws: wsfast.WebSocket) -> None:
        async for message in ws:
            assert isinstance(message, str)
            await ws.send(message.upper())

    @server.stream_handler("tunnel")
    async def tunnel(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        while data := await reader.read():
            await writer.write(data)
            await writer.flush()

    class Ticks(wsfast.Listener):
        def on_message(self, message: str | bytes) -> None:
            self.ws.send_nowait(message)

    server.register_listener("ticks", Ticks)

    for name, sent, expected in (("upper", "x", "X"), ("tunnel", b"x", b"x"), ("ticks", "x", "x")):
        async with pair(server, subprotocols=["nothing", name]) as (client, there):
            assert client.subprotocol == there.subprotocol == name
            await client.send(sent)
            assert await client.recv() == expected
    with pytest.raises(wsfast.InvalidStatus, match="400") as caught:
        async with pair(server, subprotocols=["other"]):
            pass
    assert b"supported: upper, tunnel, ticks" in caught.value.response.body
    assert not server.connections
    async with pair(server, subprotocols=["upper"]) as one, pair(server, subprotocols=["upper"]) as other:
        await asyncio.gather(one.client.send("a"), other.client.send("b"))
        assert (await one.client.recv(), await other.client.recv()) == ("A", "B")
    server.close()
    await server.wait_closed()


async def test_a_handler_alone() -> None:
    async def handler(ws: wsfast.WebSocket) -> None:
        assert ws.request is not None
        await ws.send(f"{ws.request.path} {ws.subprotocol}")

    async with pair(handler, uri="ws://server.test/path?x=1", subprotocols=["a"]) as (client, _):
        assert await client.recv() == "/path?x=1 a"
        with pytest.raises(wsfast.ConnectionClosedOK):
            await client.recv()


@pytest.mark.parametrize("own", [True, False], ids=["a handler", "a Server"])
@pytest.mark.parametrize("count", [1, 300])
async def test_what_was_sent_reaches_a_handler_though_the_block_is_left_at_once(own: bool, count: int) -> None:
    received: list[str | bytes] = []

    async def handler(ws: wsfast.WebSocket) -> None:
        async for message in ws:
            await asyncio.sleep(0)  # it is a little slower than the test
            received.append(message)

    server = wsfast.Server()
    server.register_handler(None, handler)
    sent = [f"{n} {'x' * 1000}" for n in range(count)]
    async with pair(handler if own else server) as (client, _):
        for message in sent:
            await client.send(message)
    assert received == sent
    server.close()


async def test_a_handler_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(ws: wsfast.WebSocket) -> None:
        raise KeyError("mine")

    async with pair(handler) as (client, _):
        with pytest.raises(wsfast.ConnectionClosedError, match="1011"):
            await client.recv()
    assert "mine" in caplog.text


async def test_a_handler_that_does_not_end_is_cancelled() -> None:
    cancelled = False

    async def handler(ws: wsfast.WebSocket) -> None:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    async with pair(handler, server_options={"stop_timeout": 0.2}):
        pass
    assert cancelled


async def test_options_of_both_sides() -> None:
    options: ServerOptions = {"compression": "deflate", "max_size": 100}
    async with pair(server_options=options, compression="deflate", additional_headers={"X-Y": "z"}) as (client, server):
        assert server.request is not None
        assert server.request.headers["X-Y"] == "z"
        assert client.response is not None
        assert "permessage-deflate" in client.response.headers["Sec-WebSocket-Extensions"]
        await client.send("x" * 101)
        with pytest.raises(wsfast.ConnectionClosedError, match="1009"):
            await server.recv()
    with pytest.raises(TypeError, match="server_options"):
        pair(wsfast.Server(), server_options={})
    with pytest.raises(ValueError, match="max_size"):
        pair(max_size=0)


async def test_a_reset() -> None:
    ends = pair()
    async with ends as (client, server):
        ends.pipe.reset()
        for end in (client, server):
            with pytest.raises(wsfast.ConnectionClosedError) as caught:
                await end.recv()
            assert caught.value.cause is wsfast.CloseCause.LOST


async def test_a_cable_that_is_pulled_is_found_by_keepalive() -> None:
    async with pair(ping_interval=0.1, ping_timeout=0.1) as ends:
        client, server = ends
        await client.send("x")
        assert await server.recv() == "x"
        ends.pipe.drop()
        with pytest.raises(wsfast.ConnectionClosedError, match="keepalive"):
            await client.recv()
        assert server.state is wsfast.State.OPEN


async def test_a_close_that_is_never_answered() -> None:
    async with pair(close_timeout=0.1) as ends:
        ends.pipe.drop()
        await ends.client.close()
        assert ends.client.close_cause is wsfast.CloseCause.TIMEOUT


async def test_half_closed() -> None:
    async with pair() as ends:
        ends.pipe.half_close("client")
        ends.pipe.half_close("client")
        with pytest.raises(wsfast.ConnectionClosedError):
            await ends.server.recv()


async def test_a_stall() -> None:
    async with pair() as ends:
        client, server = ends
        ends.pipe.pause()
        await client.send("late")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await server.recv()
        ends.pipe.resume()
        assert await server.recv() == "late"
        ends.pipe.pause()  # and the end comes all the same


@pytest.mark.parametrize("side", ["client", "server"])
async def test_a_test_that_reads_nothing_does_not_hold_up_the_end(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[pair.__module__], "_PATIENCE", 0.05)
    loop = asyncio.get_running_loop()
    async with pair() as ends:
        getattr(ends.pipe, side).pause_reading()
        began = loop.time()
    assert 0.04 < loop.time() - began < 2
    assert [end.state for end in ends] == [wsfast.State.CLOSED] * 2
    assert ends.client.close_code == 1006


async def test_latency_is_the_round_trips() -> None:
    async with pair(latency=0.03) as (client, _):
        assert 0.05 < await (await client.ping()) < 1


async def test_a_slow_network_does_not_hold_up_the_end() -> None:
    loop = asyncio.get_running_loop()
    async with pair() as ends:
        ends.pipe.latency = 100.0
        await ends.client.send("x")
        began = loop.time()
    assert loop.time() - began < 5
    assert ends.client.close_code == 1000


async def test_a_block_that_raises_drops_both_ends() -> None:
    seen: list[Pair] = []

    async def fail() -> None:
        async with pair() as ends:
            seen.append(ends)
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert [end.state for end in seen[0]] == [wsfast.State.CLOSED] * 2


async def test_every_cut_gives_the_same() -> None:
    """The whole of a conversation, whatever the pieces that the network makes of it."""

    async def talk(chunk_size: int) -> list[Any]:
        deflate: ServerOptions = {"compression": "deflate"}
        async with pair(chunk_size=chunk_size, server_options=deflate, compression="deflate") as (c, s):
            await c.send("x" * 1000)
            await c.send(["frag", "ments"])
            await c.send(b"")
            return [await s.recv(), await s.recv(), await s.recv()]

    for size in (1, 2, 3, 7, 64, 65536):
        assert await talk(size) == ["x" * 1000, "fragments", b""]


async def test_many_pairs_at_once() -> None:
    async def one(number: int) -> None:
        async with pair(chunk_size=number + 1) as (client, server):
            for i in range(20):
                await client.send(f"{number}.{i}")
                assert await server.recv() == f"{number}.{i}"

    await asyncio.gather(*(one(number) for number in range(20)))


async def test_repr_and_types() -> None:
    async with pair() as ends:
        assert isinstance(ends.pipe.client, MemoryTransport)
        assert ends.client.remote_address == ("127.0.0.1", 80)
        assert ends.server.transport is ends.pipe.server


async def test_it_is_there_without_an_import_of_its_own() -> None:
    code = "import wsfast; wsfast.testing.pair; wsfast.sync.connect; print(hasattr(wsfast, 'nonsense'))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert (await process.communicate())[0].split() == [b"False"]
