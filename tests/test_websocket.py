"""What a handler holds: receiving and sending in every form, pings, attributes, cancellation."""

from __future__ import annotations

import array
import asyncio
import gc
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import websockets
from raw import RawClient, binary, close, pair, ping, text
from shared import port_of, until
from vectors import BINARY, CONT, PING, PONG, TEXT, frame
from websockets.asyncio.client import connect as websockets_connect

import wsfast
from wsfast import ConcurrencyError, ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, InvalidState, State
from wsfast.asyncio.fragments import Fragments

pytestmark = pytest.mark.anyio


async def arrived(client: RawClient) -> None:
    """Wait until the server has taken in what was sent before."""
    client.send(ping(b"arrived?"))
    assert await client.receive() == (True, 0, PONG, b"arrived?")


async def turns(count: int = 10) -> None:
    """Let the loop go on for a while."""
    for _ in range(count):
        await asyncio.sleep(0)


# --- Attributes -----------------------------------------------------------------------------------------


async def test_before_the_handshake() -> None:
    ws = wsfast.WebSocket()
    assert ws.state is State.CONNECTING
    known: list[object] = [ws.request, ws.response, ws.subprotocol, ws.remote_address, ws.local_address, ws.transport]
    assert known == [None] * 6
    assert (ws.close_code, ws.close_reason, ws.close_cause) == (None, None, None)
    assert (ws.latency, ws.buffered_amount) == (0, 0)
    assert set(ws.counters.values()) == {0}
    assert "CONNECTING" in repr(ws)
    for call in (lambda: ws.send_nowait("x"), ws.recv_streaming, ws.close_nowait):
        with pytest.raises(InvalidState, match="handshake is not finished"):
            call()
    for make in (ws.recv, lambda: ws.send("x"), ws.ping, ws.pong, ws.close, ws.wait_closed):
        with pytest.raises(InvalidState, match="handshake is not finished"):
            await make()


async def test_attributes_of_an_open_connection() -> None:
    async with pair() as (ws, client):
        assert ws.state is State.OPEN
        assert ws.remote_address == client.writer.get_extra_info("sockname")
        assert ws.local_address == client.writer.get_extra_info("peername")
        assert ws.transport is not None
        assert ws.request is not None
        assert ws.request.headers["host"] == "example.com"
        assert ws.subprotocol is None
        assert ws.response is not None
        assert ws.response.status_code == 101
        assert ws.response.headers["upgrade"] == "websocket"
        assert ws.id == ws.id
        assert (ws.username, ws.close_exc) == (None, None)
        assert ws.logger.extra == {"websocket": ws}
        assert (ws.reader, ws.writer) == (None, None)
        assert repr(ws) == f"<wsfast.WebSocket OPEN {ws.remote_address}>"


@pytest.mark.parametrize("end", ["end", "reset"])
async def test_the_peers_address_is_known_after_the_end(end: str) -> None:
    async with pair() as (ws, client):
        address = client.writer.get_extra_info("sockname")
        local = client.writer.get_extra_info("peername")
        if end == "end":
            await client.end()
        else:
            client.reset()
        await until(lambda: ws.state is State.CLOSED)
        assert (ws.remote_address, ws.local_address, ws.transport) == (address, local, None)


async def test_counters() -> None:
    async with pair() as (ws, client):
        assert ws.counters["messages_received"] == ws.counters["messages_sent"] == 0
        frames = [text("a"), binary(b"b", fin=False), ping(), frame(CONT, b"c", key=b"TEST"), text("")]
        client.send(*frames)
        assert (await client.receive()).opcode == PONG
        received = sum(map(len, frames))
        assert ws.counters["messages_received"] == 3
        assert ws.counters["bytes_received"] == received
        assert (ws.counters["pings_received"], ws.counters["pings_sent"]) == (1, 0)
        before = ws.counters["bytes_sent"]
        assert before == 2
        await ws.send("x")
        await ws.send([b"y", b"z"])
        ws.send_nowait(b"")
        for _ in range(5):
            await client.receive()
        assert ws.counters["messages_sent"] == 3
        assert ws.counters["bytes_sent"] == before + 3 + 3 + 3 + 2 + 2


async def test_counters_count_messages_in_pieces_once() -> None:
    async with pair() as (ws, client):
        client.send(binary(b"a", fin=False))
        pieces = ws.recv_streaming()
        assert await anext(pieces) == b"a"
        client.send(frame(CONT, b"b", fin=False, key=b"TEST"))
        assert await anext(pieces) == b"b"
        client.send(frame(CONT, b"c", key=b"TEST"))
        assert [piece async for piece in pieces] == [b"c"]
        assert ws.counters["messages_received"] == 1


# --- Receiving ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decode", "expected"), [(None, ["é", b"x"]), (True, ["é", "x"]), (False, ["é".encode(), b"x"])]
)
@pytest.mark.parametrize("waiting", [False, True])
async def test_recv_decodes(decode: bool | None, expected: list[object], waiting: bool) -> None:
    async with pair() as (ws, client):
        if waiting:
            for sent, wanted in zip((text("é"), binary(b"x")), expected, strict=True):
                receiving = asyncio.ensure_future(ws.recv(decode))
                await turns()
                client.send(sent)
                assert await receiving == wanted
        else:
            client.send(text("é"), binary(b"x"))
            await arrived(client)
            assert [await ws.recv(decode=decode), await ws.recv(decode)] == expected


async def test_recv_of_bytes_that_are_no_text() -> None:
    async with pair() as (ws, client):
        client.send(binary(b"\xff"), binary(b"x"))
        with pytest.raises(UnicodeDecodeError):
            await ws.recv(decode=True)
        assert await ws.recv() == b"x"


def receivers(ws: wsfast.WebSocket) -> list[Callable[[], Awaitable[object]]]:
    """All that receives."""
    return [ws.recv, lambda: anext(ws), lambda: anext(ws.recv_streaming())]


async def test_two_recv_at_once() -> None:
    async with pair() as (ws, client):
        first = asyncio.ensure_future(ws.recv())
        await turns()
        seconds: list[Callable[[], Awaitable[object]]] = [
            ws.recv,
            lambda: anext(ws),
            lambda: anext(ws.recv_streaming()),
        ]
        for second in seconds:
            with pytest.raises(ConcurrencyError, match="another coroutine is already running recv"):
                await second()
        client.send(text("x"))
        assert await first == "x"
        client.send(text("y"))
        assert await ws.recv() == "y"


WAITS: list[Callable[[Any], Any]] = [
    lambda recv: asyncio.wait_for(recv, 5),
    lambda recv: asyncio.gather(recv),
    lambda recv: asyncio.shield(recv),
    lambda recv: asyncio.ensure_future(recv),
    lambda recv: asyncio.create_task(recv),
    lambda recv: recv,
]


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("ready", [False, True])
async def test_recv_is_awaited_in_every_way(wait: Callable[[Any], Any], ready: bool) -> None:
    async with pair() as (ws, client):
        if ready:
            client.send(text("x"))
            await arrived(client)

        async def receive() -> Any:
            return await wait(ws.recv())

        receiving = asyncio.ensure_future(receive())
        if not ready:
            await turns()
            client.send(text("x"))
        assert await receiving in ("x", ["x"])


async def test_recv_knows_its_task() -> None:
    async with pair() as (ws, client):

        async def receive() -> bool:
            await ws.recv()
            return asyncio.current_task() is receiving

        receiving = asyncio.create_task(receive())
        await turns()
        client.send(text("x"))
        assert await receiving
        assert asyncio.current_task() is not receiving


async def test_recv_with_a_limit_loses_nothing() -> None:
    async with pair() as (ws, client):
        for number in range(200):
            client.send(text(str(number)))
        received: list[object] = []
        timeouts = 0
        while len(received) < 200:
            try:
                async with asyncio.timeout(0 if len(received) % 3 else 0.0005):
                    received.append(await ws.recv())
            except TimeoutError:
                timeouts += 1
                await asyncio.sleep(0)
        assert received == [str(number) for number in range(200)]
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await ws.recv()
        client.send(text("x"))
        assert await ws.recv() == "x"


@pytest.mark.parametrize("gap", range(6))
async def test_recv_cancelled_while_a_message_comes(gap: int) -> None:
    async with pair() as (ws, client):
        for number in range(20):
            receiving = asyncio.ensure_future(ws.recv())
            await turns(2)
            client.send(text(str(number)))
            await turns(gap)
            receiving.cancel()
            try:
                assert await receiving == str(number)
            except asyncio.CancelledError:
                assert await ws.recv() == str(number)


async def test_recv_cancelled_in_the_turn_in_which_a_message_comes() -> None:
    async with pair() as (ws, _):
        receiving = asyncio.ensure_future(ws.recv())
        await turns()
        receiving.cancel()
        ws._open_channel().feed(text("x"))
        with pytest.raises(asyncio.CancelledError):
            await receiving
        assert await ws.recv() == "x"
        receiving = asyncio.ensure_future(ws.recv())
        await turns()
        ws._open_channel().feed(text("y"))
        receiving.cancel()
        try:
            assert await receiving == "y"
        except asyncio.CancelledError:
            assert await ws.recv() == "y"


async def test_iteration_ends_or_raises() -> None:
    for ending, well in [(close(1000), True), (close(1001), True), (close(None), True), (close(1011), False)]:
        async with pair() as (ws, client):
            client.send(text("1"), binary(b"2"), ending)
            received: list[object] = []
            try:
                async for message in ws:
                    received.append(message)  # noqa: PERF401 - what came before the error counts
            except ConnectionClosedError:
                assert not well
            else:
                assert well
            assert received == ["1", b"2"]
            assert [message async for message in ws] == [] if well else True
            with pytest.raises(ConnectionClosedOK if well else ConnectionClosedError):
                await ws.recv()


async def test_reading_is_paused_by_bytes_held() -> None:
    async with pair(read_limit=10_000) as (ws, client):
        client.send(binary(bytes(1000)) * 1000)
        channel = ws._open_channel()
        await until(lambda: channel.paused)
        assert 10_000 < channel.held < 10_000 + 65536 + 64 * 70
        for _ in range(1000):
            assert await ws.recv() == bytes(1000)
        assert channel.held == 0
        assert not channel.paused


# --- recv_streaming -------------------------------------------------------------------------------------


async def test_streaming_gives_pieces_as_they_come() -> None:
    async with pair() as (ws, client):
        pieces = ws.recv_streaming()
        client.send(text("aé", fin=False))
        assert await anext(pieces) == "aé"
        rest = frame(CONT, b"bcdef", key=b"TEST")
        client.send(rest[:8])
        assert await anext(pieces) == "bc"
        client.send(rest[8:])
        assert await anext(pieces) == "def"
        with pytest.raises(StopAsyncIteration):
            await anext(pieces)
        with pytest.raises(StopAsyncIteration):
            await anext(pieces)
        client.send(text("whole"))
        assert await ws.recv() == "whole"


async def test_streaming_of_what_is_queued_already() -> None:
    async with pair() as (ws, client):
        client.send(text("1"), binary(b"2"), binary(b"3", fin=False), frame(CONT, b"4", key=b"TEST"), text(""))
        await arrived(client)
        for expected in ("1", b"2", b"34", ""):
            assert [piece async for piece in ws.recv_streaming()] == [expected]


@pytest.mark.parametrize(
    ("decode", "expected"), [(True, ["é", "é"]), (False, ["é".encode()] * 2), (None, ["é", "é".encode()])]
)
async def test_streaming_decodes(decode: bool | None, expected: list[object]) -> None:
    async with pair() as (ws, client):
        received: list[object] = []
        for opcode in (TEXT, BINARY):
            whole = frame(opcode, "é".encode(), key=b"TEST")
            pieces = ws.recv_streaming(decode)
            receiving = asyncio.ensure_future(anext(pieces))
            await turns()
            client.send(whole[:7])
            await until(lambda: ws.counters["bytes_received"] % 8 == 7)
            client.send(whole[7:])
            parts: list[Any] = [await receiving]
            parts += [piece async for piece in pieces]
            received.append("".join(parts) if isinstance(parts[0], str) else b"".join(parts))
        assert received == expected


BREAK = pytest.param(
    "break",
    marks=pytest.mark.skipif(sys.implementation.name == "pypy", reason="frees the iterator late: see docs/faq.md"),
)


@pytest.mark.parametrize("how", [BREAK, "aclose", "cancel"])
@pytest.mark.parametrize("rest", [b"", frame(CONT, b"more", fin=False, key=b"TEST")])
async def test_streaming_that_is_given_up_drops_the_rest_of_the_message(how: str, rest: bytes) -> None:
    async with pair() as (ws, client):
        client.send(binary(b"begin", fin=False))
        if how == "break":
            async for piece in ws.recv_streaming():
                assert piece == b"begin"
                break
        else:
            pieces: Any = ws.recv_streaming()
            assert await anext(pieces) == b"begin"
            if how == "aclose":
                await pieces.aclose()
                with pytest.raises(StopAsyncIteration):
                    await anext(pieces)
            else:
                receiving = asyncio.ensure_future(anext(pieces))
                await turns()
                receiving.cancel()
                with suppress(asyncio.CancelledError):
                    await receiving
        receiving = asyncio.ensure_future(ws.recv())
        client.send(rest, frame(CONT, b"end", key=b"TEST"), text("next"), binary(b"2", fin=False))
        assert await receiving == "next"
        client.send(frame(CONT, b"!", key=b"TEST"))
        assert await ws.recv() == b"2!"


async def test_streaming_given_up_with_the_rest_in_the_queue() -> None:
    async with pair() as (ws, client):
        client.send(binary(b"begin", fin=False))
        pieces: Any = ws.recv_streaming()
        assert await anext(pieces) == b"begin"
        client.send(
            frame(CONT, b"more", fin=False, key=b"TEST"),
            frame(CONT, b"end", key=b"TEST"),
            text("ne", fin=False),
            frame(CONT, b"xt", key=b"TEST"),
            text("unfin", fin=False),
        )
        await arrived(client)
        await pieces.aclose()
        assert await ws.recv() == "next"
        client.send(frame(CONT, b"ished", key=b"TEST"))
        assert [piece async for piece in ws.recv_streaming()] == ["unfin", "ished"]


async def test_streaming_begins_with_what_has_come_of_a_frame() -> None:
    """Its sender may wait for a reaction to that."""
    data = text("begun, and finished later")
    async with pair() as (ws, client):
        client.writer.write(data[:12])
        await until(lambda: ws.counters["bytes_received"] == 12)
        pieces = ws.recv_streaming()
        assert await anext(pieces) == "begun,"
        client.writer.write(data[12:])
        assert [piece async for piece in pieces] == [" and finished later"]


@pytest.mark.parametrize("how", ["dropped", "collected"])
async def test_streaming_given_up_in_another_thread_ends_in_that_of_the_loop(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The garbage collector may run in any thread; a loop can be told of readers in its own only."""
    ended: list[int] = []
    end = Fragments.end

    def noting(fragments: Fragments, *, skip: bool) -> None:
        ended.append(threading.get_ident())
        end(fragments, skip=skip)

    monkeypatch.setattr(Fragments, "end", noting)
    async with pair() as (ws, client):
        client.send(text("unfin", fin=False))
        held: list[Any] = [ws.recv_streaming()]
        assert await anext(held[0]) == "unfin"
        if how == "collected":
            held.append(held)  # a cycle

        def give_up() -> None:
            nonlocal held
            held = []
            gc.collect()

        thread = threading.Thread(target=give_up)
        thread.start()
        thread.join()
        client.send(frame(CONT, b"ished", key=b"TEST"), text("next"))
        await until(lambda: ended)
        assert await ws.recv() == "next"
    assert ended == [threading.get_ident()]


@pytest.mark.parametrize("how", ["cancel", "aclose", "forget"])
async def test_streaming_given_up_before_its_first_piece_loses_nothing(how: str) -> None:
    async with pair() as (ws, client):
        pieces: Any = ws.recv_streaming()
        if how == "cancel":
            receiving = asyncio.ensure_future(anext(pieces))
            await turns()
            receiving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await receiving
        elif how == "aclose":
            await pieces.aclose()
        del pieces
        client.send(text("1"), text("2", fin=False), frame(CONT, b"!", key=b"TEST"))
        assert await ws.recv() == "1"
        assert await ws.recv() == "2!"


@pytest.mark.parametrize("queued", [True, False])
async def test_streaming_that_cannot_be_decoded_at_its_end_drops_no_other_message(queued: bool) -> None:
    async with pair() as (ws, client):
        receiving = asyncio.ensure_future(anext(ws.recv_streaming(decode=True)))
        await turns()
        others = [binary(b"2"), binary(b"3", fin=False), frame(CONT, b"!", key=b"TEST")]
        client.send(binary(b"\xff"), *(others if queued else []))
        with pytest.raises(UnicodeDecodeError):
            await receiving
        if not queued:
            undecoded = asyncio.ensure_future(anext(ws.recv_streaming()))
            await turns()
            client.send(*others)
            assert await undecoded == b"2"
        else:
            assert await ws.recv() == b"2"
        assert await ws.recv() == b"3!"


async def test_streaming_that_cannot_be_decoded_in_its_middle_drops_the_rest_of_the_message() -> None:
    async with pair() as (ws, client):
        receiving = asyncio.ensure_future(anext(ws.recv_streaming(decode=True)))
        await turns()
        client.send(binary(b"\xff", fin=False))
        with pytest.raises(UnicodeDecodeError):
            await receiving
        client.send(frame(CONT, b"rest", key=b"TEST"), binary(b"2"))
        assert await ws.recv() == b"2"


async def test_recv_within_streaming_is_refused() -> None:
    async with pair() as (ws, client):
        client.send(binary(b"a", fin=False))
        pieces = ws.recv_streaming()
        assert await anext(pieces) == b"a"
        for other in receivers(ws):
            with pytest.raises(ConcurrencyError, match="recv_streaming"):
                await other()
        client.send(frame(CONT, b"b", key=b"TEST"), text("next"))
        assert [piece async for piece in pieces] == [b"b"]
        assert await ws.recv() == "next"


async def test_the_end_within_streaming() -> None:
    async with pair() as (ws, client):
        client.send(binary(b"a", fin=False), close(1011))
        pieces = ws.recv_streaming()
        assert await anext(pieces) == b"a"
        with pytest.raises(ConnectionClosedError):
            await anext(pieces)
        with pytest.raises(ConnectionClosedError):
            await ws.recv()


async def test_streaming_a_message_larger_than_what_may_be_held() -> None:
    async with pair(read_limit=10_000, max_size=None) as (ws, client):
        data = bytes(range(256)) * 10_000
        client.send(binary(data))
        received = bytearray()
        async for piece in ws.recv_streaming():
            assert isinstance(piece, bytes)
            assert ws._open_channel().held < 200_000
            received += piece
        assert received == data


async def test_streaming_given_up_reads_on() -> None:
    """What held the peer back was the rest of the message, which is dropped."""
    async with pair(read_limit=10_000) as (ws, client):
        client.send(binary(bytes(100), fin=False))
        pieces: Any = ws.recv_streaming()
        assert await anext(pieces) == bytes(100)
        client.send(frame(CONT, bytes(50_000), key=b"TEST"))
        channel = ws._open_channel()
        await until(lambda: channel.paused)
        await pieces.aclose()
        assert not channel.paused
        assert channel.held == 0
        client.send(text("next"))
        assert await ws.recv() == "next"


# --- Sending --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "as_text", "opcode", "payload"),
    [
        ("é", None, TEXT, "é".encode()),
        ("é", False, BINARY, "é".encode()),
        (b"\xff", None, BINARY, b"\xff"),
        (b"\xc3\xa9", True, TEXT, "é".encode()),
        (bytearray(b"ab"), None, BINARY, b"ab"),
        (memoryview(b"abcd")[1:3], None, BINARY, b"bc"),
        (memoryview(b"abcd")[::2], None, BINARY, b"ac"),
        (array.array("B", b"xyz"), None, BINARY, b"xyz"),
        (array.array("B", b"xyz"), True, TEXT, b"xyz"),
        ("", None, TEXT, b""),
        (b"", None, BINARY, b""),
        (type("Text", (str,), {})("sub"), None, TEXT, b"sub"),
        ("x" * 125, None, TEXT, b"x" * 125),
        ("x" * 126, None, TEXT, b"x" * 126),
        (b"x" * 65535, None, BINARY, b"x" * 65535),
        (b"x" * 65536, None, BINARY, b"x" * 65536),
        ("é" * 500_000, None, TEXT, "é".encode() * 500_000),
    ],
)
async def test_send(message: Any, as_text: bool | None, opcode: int, payload: bytes) -> None:
    async with pair() as (ws, client):
        sending = asyncio.ensure_future(ws.send(message, text=as_text))
        assert await client.receive() == (True, 0, opcode, payload)
        await sending


async def each(*items: Any) -> AsyncIterator[Any]:
    for item in items:
        await asyncio.sleep(0)
        yield item


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("items", "as_text", "opcode", "payload"),
    [
        (["a", "é", ""], None, TEXT, "aé".encode()),
        ([b"a", bytearray(b"b"), memoryview(b"c")], None, BINARY, b"abc"),
        ([b"\xc3", b"\xa9"], True, TEXT, "é".encode()),
        (["a", "b"], False, BINARY, b"ab"),
        (["one"], None, TEXT, b"one"),
        ([""], None, TEXT, b""),
    ],
)
async def test_send_fragments(
    asynchronous: bool, items: list[Any], as_text: bool | None, opcode: int, payload: bytes
) -> None:
    async with pair() as (ws, client):
        sending = asyncio.ensure_future(ws.send(each(*items) if asynchronous else iter(items), text=as_text))
        received = [await client.receive()]
        while not received[-1].fin:
            received.append(await client.receive())
        await sending
        assert [one.opcode for one in received] == [opcode] + [CONT] * len(items)
        assert b"".join(one.payload for one in received) == payload


async def test_fragments_go_out_as_they_are_made() -> None:
    async with pair() as (ws, client):
        gate = asyncio.Event()

        async def slowly() -> AsyncIterator[str]:
            yield "first"
            await gate.wait()
            yield "second"

        sending = asyncio.ensure_future(ws.send(slowly()))
        assert await client.receive() == (False, 0, TEXT, b"first")
        gate.set()
        assert await client.receive() == (False, 0, CONT, b"second")
        assert await client.receive() == (True, 0, CONT, b"")
        await sending


async def test_nothing_to_send() -> None:
    async with pair() as (ws, client):
        await ws.send([])
        await ws.send(each())
        await ws.send("after")
        assert await client.receive_message() == "after"


@pytest.mark.parametrize("message", [None, 1, 1.5, {"a": "b"}, object()])
async def test_what_is_no_message(message: Any) -> None:
    async with pair() as (ws, client):
        with pytest.raises(TypeError, match="a message must be str, bytes-like or an iterable of these, got"):
            await ws.send(message)
        with pytest.raises(TypeError):
            ws.send_nowait(message)
        await ws.send("fine")
        assert await client.receive_message() == "fine"


@pytest.mark.parametrize("piece", [None, 1, ["a"], {"a": 1}, object()])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_what_is_no_fragment(piece: Any, asynchronous: bool) -> None:
    async with pair() as (ws, client):
        with pytest.raises(TypeError, match="all fragments must be str or bytes-like, got"):
            await ws.send(each(piece) if asynchronous else [piece])
        await ws.send("fine")
        assert await client.receive_message() == "fine"


@pytest.mark.parametrize("message", ["\ud800", b"\xff"])
async def test_what_is_no_text(message: Any) -> None:
    async with pair() as (ws, client):
        with pytest.raises(UnicodeError):
            await ws.send(message, text=True)
        if isinstance(message, str):
            with pytest.raises(UnicodeError):
                await ws.send(message)
            with pytest.raises(UnicodeError):
                ws.send_nowait(message)
        await ws.send("fine")
        assert await client.receive_message() == "fine"
        assert ws.counters["messages_sent"] == 1


@pytest.mark.parametrize(
    ("items", "kind"), [(["a", b"b"], TypeError), ([b"a", 1], TypeError), ([b"a", b"b", RuntimeError()], RuntimeError)]
)
async def test_a_message_that_cannot_be_finished_closes(items: list[Any], kind: type[Exception]) -> None:
    async with pair() as (ws, client):

        async def faulty() -> AsyncIterator[Any]:
            for item in items:
                if isinstance(item, Exception):
                    raise item
                yield item

        with pytest.raises(kind):
            await ws.send(faulty())
        received = await client.receive()
        while received.opcode in (TEXT, BINARY, CONT):
            assert not received.fin
            received = await client.receive()
        assert received.payload == b"\x03\xf3a message was not finished"


async def test_after_a_message_that_was_cut_off_the_connection_is_closed() -> None:
    async def stuck() -> AsyncIterator[str]:
        yield "a"
        await asyncio.Event().wait()

    async with pair() as (ws, client):
        sending = asyncio.ensure_future(ws.send(stuck()))
        assert (await client.receive()).payload == b"a"
        sending.cancel()
        await asyncio.wait([sending])
        sending_more = [asyncio.ensure_future(ws.send(message)) for message in ("x", [b"a", b"b"], bytearray(b"x"))]
        assert (await client.receive_close())[0] == 1011
        client.send(close(1011))
        for ended in await asyncio.gather(*sending_more, return_exceptions=True):
            assert isinstance(ended, ConnectionClosed)


async def test_a_message_that_fails_before_it_began_does_not_close() -> None:
    async with pair() as (ws, client):
        with pytest.raises(TypeError):
            await ws.send([1])  # type: ignore[list-item]
        await ws.send("fine")
        assert await client.receive_message() == "fine"


async def test_messages_in_fragments_are_not_interleaved() -> None:
    async with pair() as (ws, client):

        async def many(name: str) -> None:
            for number in range(5):
                await ws.send(each(*(f"{name}{number}" for _ in range(4))))
                await ws.send(f"whole {name}{number}")
                await ws.ping()

        senders = [asyncio.ensure_future(many(name)) for name in "abcde"]
        messages: list[list[Any]] = []
        pings = 0
        parts: list[str] = []
        while len(messages) < 50 or pings < 25:
            received = await client.receive()
            if received.opcode == PING:
                pings += 1
                continue
            assert (received.opcode == CONT) is bool(parts), "a message began before the last one ended"
            parts.append(received.payload.decode())
            if received.fin:
                messages.append([part for part in parts if part])
                parts = []
        await asyncio.gather(*senders)
        for name in "abcde":
            own = [message for message in messages if message[0].removeprefix("whole ").startswith(name)]
            expected = [[[f"{name}{n}"] * 4, [f"whole {name}{n}"]] for n in range(5)]
            assert own == [message for two in expected for message in two]


async def test_a_sender_that_waits_its_turn_can_be_cancelled() -> None:
    async with pair() as (ws, client):
        gate = asyncio.Event()

        async def slowly() -> AsyncIterator[str]:
            yield "a"
            await gate.wait()
            yield "b"

        first = asyncio.ensure_future(ws.send(slowly()))
        await turns()
        second = asyncio.ensure_future(ws.send("cancelled"))
        third = asyncio.ensure_future(ws.send("third"))
        fourth = asyncio.ensure_future(ws.send("cancelled too"))
        await turns()
        second.cancel()
        gate.set()
        fourth.cancel()
        await asyncio.gather(first, third)
        assert second.cancelled()
        assert fourth.cancelled()
        assert await client.receive_message() == "ab"
        assert await client.receive_message() == "third"
        await ws.send("last")
        assert await client.receive_message() == "last"


async def test_a_sender_that_is_cancelled_when_its_turn_has_come_passes_it_on() -> None:
    async with pair() as (ws, client):
        gate = asyncio.Event()

        async def slowly() -> AsyncIterator[str]:
            yield "a"
            await gate.wait()
            yield "b"

        async def first() -> None:
            await ws.send(slowly())
            second.cancel()  # which was given the turn, and does not know it yet

        sending = asyncio.ensure_future(first())
        await turns()
        second = asyncio.ensure_future(ws.send("cancelled"))
        third = asyncio.ensure_future(ws.send("third"))
        await turns()
        gate.set()
        await asyncio.gather(sending, third)
        assert second.cancelled()
        assert [await client.receive_message(), await client.receive_message()] == ["ab", "third"]
        assert not ws._open_channel().gated


async def test_send_nowait_within_a_message_of_fragments() -> None:
    async with pair() as (ws, client):
        gate = asyncio.Event()

        async def slowly() -> AsyncIterator[str]:
            yield "a"
            await gate.wait()

        sending = asyncio.ensure_future(ws.send(slowly()))
        await turns()
        with pytest.raises(InvalidState, match="unfinished"):
            ws.send_nowait("x")
        gate.set()
        await sending
        assert ws.send_nowait("x")
        assert [await client.receive_message(), await client.receive_message()] == ["a", "x"]


async def test_send_waits_above_high_water() -> None:
    async with pair() as (ws, client):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                await ws.send(bytes(65536))
                sent += 1

        flooding = asyncio.ensure_future(flood())
        await until(lambda: ws._open_channel().write_paused)
        await turns(100)
        before = sent
        await turns(100)
        assert sent == before
        assert 65536 < ws.buffered_amount < 4 * 65536
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(before + 10):
            assert (await client.receive()).payload == bytes(65536)
        flooding.cancel()


async def test_a_send_that_is_cancelled_while_it_waits_was_sent_whole() -> None:
    async with pair() as (ws, client):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        count = 0
        while not ws._open_channel().write_paused:
            await asyncio.wait([asyncio.ensure_future(ws.send(bytes(65536)))], timeout=0.01)
            count += 1
        cancelled = asyncio.ensure_future(ws.send("cancelled"))
        await turns()
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(count):
            assert (await client.receive()).payload == bytes(65536)
        assert await client.receive_message() == "cancelled"
        await ws.send("last")
        assert await client.receive_message() == "last"


async def test_a_sender_that_is_cancelled_as_it_is_let_go_was_sent_whole() -> None:
    async with pair() as (ws, client):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        count = 0
        while not ws._open_channel().write_paused:
            ws.send_nowait(bytes(65536))
            await turns(1)
            count += 1

        async def send(message: str) -> None:
            await ws.send(message)
            second.cancel()  # which may go on as well, and does not know it yet

        sending, second = [asyncio.ensure_future(send(message)) for message in ("first", "second")]
        await turns()
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(count):
            assert (await client.receive()).payload == bytes(65536)
        await sending
        with pytest.raises(asyncio.CancelledError):
            await second
        await ws.send("last")
        assert [await client.receive_message() for _ in range(3)] == ["first", "second", "last"]


@pytest.mark.parametrize("overflow", ["error", "drop", "close"])
async def test_send_nowait_obeys_its_limit(overflow: Any) -> None:
    async with pair(overflow=overflow, max_buffered=1_000_000, write_limit=65536) as (ws, client):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        accepted = 0
        outcome: object = None
        while outcome is None:
            try:
                if ws.send_nowait(bytes(100_000)):
                    accepted += 1
                else:
                    outcome = "dropped"
            except (wsfast.BufferFull, ConnectionClosed) as exc:
                outcome = exc
            if accepted % 5 == 0:
                await asyncio.sleep(0)
        assert 850_000 < ws.buffered_amount <= 1_000_000 + 100
        if overflow == "error":
            assert isinstance(outcome, wsfast.BufferFull)
            assert "limit of 1000000" in str(outcome)
            assert ws.send_nowait("small")
        elif overflow == "drop":
            assert outcome == "dropped"
            assert ws.send_nowait("small") is True
        else:
            assert isinstance(outcome, ConnectionClosed)
            assert ws.close_cause is wsfast.CloseCause.OVERFLOW
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(accepted):
            assert (await client.receive()).payload == bytes(100_000)
        if overflow == "close":
            assert (await client.receive_close())[0] == 1013
        else:
            assert await client.receive_message() == "small"


async def test_send_after_the_end() -> None:
    async with pair() as (ws, client):
        client.send(close(1001))
        await client.receive_close()
        for message in ("x", b"x", bytearray(), ["a"], each("a")):
            with pytest.raises(ConnectionClosedOK):
                await ws.send(message)
        with pytest.raises(ConnectionClosedOK):
            ws.send_nowait("x")
        with pytest.raises(ConnectionClosedOK):
            await ws.ping()
        with pytest.raises(ConnectionClosedOK):
            await ws.pong()


async def test_order_of_mixed_sends() -> None:
    async with pair() as (ws, client):

        async def send() -> None:
            for number in range(0, 300, 3):
                await ws.send(str(number))
                ws.send_nowait(str(number + 1))
                await ws.send(bytearray(str(number + 2).encode()), text=True)
                if number % 30 == 0:
                    await ws.pong(b"between")

        sending = asyncio.ensure_future(send())
        received: list[int] = []
        while len(received) < 300:
            one = await client.receive()
            if one.opcode == TEXT:
                received.append(int(one.payload))
        await sending
        assert received == list(range(300))


# --- Compression in a thread ----------------------------------------------------------------------------


@asynccontextmanager
async def compressing(**options: Any) -> AsyncIterator[tuple[wsfast.WebSocket, Any]]:
    """Open a connection that compresses messages of 1000 bytes and more in a thread; the client is `websockets`."""
    opened: asyncio.Future[wsfast.WebSocket] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def handler(ws: wsfast.WebSocket) -> None:
        opened.set_result(ws)
        await done.wait()

    deflate = wsfast.Deflate(**{"executor_threshold": 1000, **options})
    async with wsfast.serve(handler, "127.0.0.1", 0, compression=deflate, stop_timeout=1.0) as server:
        url = f"ws://127.0.0.1:{port_of(server)}/"
        async with websockets_connect(url, max_size=None) as client, asyncio.timeout(20):
            assert client.response is not None
            assert client.response.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
            try:
                yield await opened, client
            finally:
                done.set()


async def test_messages_compressed_in_a_thread_and_others_at_once() -> None:
    async with compressing() as (ws, client):
        messages = [f"{number} " * (1 if number % 3 == 0 else 50 if number % 3 == 1 else 5000) for number in range(60)]
        sending = asyncio.gather(*(ws.send(message) for message in messages), ws.send(each("frag", "ments")))
        received = [await client.recv() for _ in range(61)]
        await sending
        assert received == [*messages, "fragments"]


async def test_a_large_message_that_is_compressed_here_fills_its_turn() -> None:
    """Little comes out of it, but it takes its time."""
    async with compressing(executor_threshold=None) as (ws, client):
        for size, full in ((65535, False), (65536, True)):
            others: list[int] = []
            asyncio.get_running_loop().call_soon(others.append, 1)
            await ws.send(bytearray(size))
            assert bool(others) is full
            assert await client.recv() == bytes(size)


async def test_no_thread_is_to_be_had() -> None:
    async with compressing() as (ws, client):
        executor = ThreadPoolExecutor()
        executor.shutdown()
        asyncio.get_running_loop().set_default_executor(executor)
        for message in ("x" * 2000, bytearray(2000)):
            with pytest.raises(RuntimeError, match="after shutdown"):
                await ws.send(message)
        await ws.send("small")
        assert await client.recv() == "small"


async def test_the_threads_end_before_a_message_is_compressed() -> None:
    """The compressor and the peer may be out of step from then on."""
    async with compressing() as (ws, client):
        executor = ThreadPoolExecutor(1)
        go = threading.Event()
        executor.submit(go.wait, 20)
        asyncio.get_running_loop().set_default_executor(executor)
        sending = asyncio.ensure_future(ws.send("never sent " * 1000))
        await turns()
        executor.shutdown(wait=False, cancel_futures=True)
        try:
            with pytest.raises(asyncio.CancelledError):
                await sending
        finally:
            go.set()
        with pytest.raises(websockets.ConnectionClosedError):
            await client.recv()
        assert (client.close_code, client.close_reason) == (1011, "a message was not finished")
        await ws.wait_closed()
        assert ws.counters["messages_sent"] == 0
        assert not ws._open_channel().gated


async def test_send_nowait_of_what_is_not_compressed_the_plain_way() -> None:
    async with compressing() as (ws, client):
        messages: list[Any] = [bytearray(b"a" * 500), memoryview(b"b" * 5000), array.array("H", [1, 2])]
        for message in messages:
            assert ws.send_nowait(message)
            assert await client.recv() == bytes(message)
        assert ws.counters["messages_sent"] == 3


async def test_random_pings_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair() as (ws, client):
        drawn = [b"1111", b"1111", b"1111", b"2222"]
        monkeypatch.setattr("os.urandom", lambda n: drawn.pop(0))
        for payload in (b"1111", b"2222"):
            await ws.ping()
            assert await client.receive() == (True, 0, PING, payload)
        assert not drawn


async def test_send_nowait_while_a_thread_compresses() -> None:
    async with compressing() as (ws, client):
        sending = asyncio.ensure_future(ws.send("large " * 1_000_000))
        await turns(1)
        assert ws._open_channel().is_sending  # from its first step on, so that nothing overtakes it
        with pytest.raises(ConcurrencyError, match="several steps"):
            ws.send_nowait("small")
        await sending
        assert ws.send_nowait("small")
        assert [await client.recv(), await client.recv()] == ["large " * 1_000_000, "small"]


async def test_a_send_that_is_cancelled_while_a_thread_compresses() -> None:
    async with compressing() as (ws, client):
        sending = asyncio.ensure_future(ws.send("cancelled " * 1_000_000))
        await turns(1)
        assert ws._open_channel().is_sending
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await ws.send("next " * 1000)
        await ws.send("last")
        assert await client.recv() == "cancelled " * 1_000_000
        assert await client.recv() == "next " * 1000
        assert await client.recv() == "last"


async def test_the_end_while_a_thread_compresses() -> None:
    async with compressing() as (ws, client):
        sending = asyncio.ensure_future(ws.send("lost " * 1_000_000))
        waiting = asyncio.ensure_future(ws.send("lost too"))
        await turns(1)
        assert ws._open_channel().is_sending
        client.transport.abort()
        await ws.wait_closed()
        for one in (sending, waiting):
            with suppress(ConnectionClosedError):  # the message may have been compressed in time
                await one
        with pytest.raises(ConnectionClosedError):
            await ws.send("lost " * 1000)


async def _one_piece() -> AsyncIterator[str]:
    yield "x"


@pytest.mark.parametrize(
    "call",
    [lambda ws: ws.send("x"), lambda ws: ws.send(_one_piece()), lambda ws: ws.ping(), lambda ws: ws.pong()],
    ids=["send", "send in fragments", "ping", "pong"],
)
async def test_what_is_sent_while_closing_waits_to_tell_how_it_ended(
    call: Callable[[wsfast.WebSocket], Awaitable[Any]],
) -> None:
    async with pair() as (ws, client):
        ws.close_nowait(4000)
        task = asyncio.ensure_future(call(ws))
        await turns()
        assert not task.done()
        assert await client.receive_close() == (4000, "")
        client.send(close(4000))
        with pytest.raises(ConnectionClosed) as info:
            await task
        assert info.value.rcvd is not None
        assert info.value.rcvd.code == 4000


async def test_a_message_in_fragments_waits_while_the_peer_takes_nothing() -> None:
    given = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal given
        for _ in range(1000):
            given += 1
            yield bytes(65536)

    async with pair(write_limit=65536) as (ws, _):
        task = asyncio.ensure_future(ws.send(pieces()))
        await until(lambda: ws.buffered_amount > 65536)
        await turns()
        before = given
        await turns()
        assert given == before < 1000
        assert not task.done()
        ws.abort()
        with pytest.raises(ConnectionClosed):
            await task


# --- Pings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["sign of life \u20ac", "sign of life \u20ac".encode(), b""])
async def test_a_pong_of_this_side(data: str | bytes) -> None:
    """RFC 6455, 5.5.3: "A Pong frame MAY be sent unsolicited"."""
    async with pair() as (ws, client):
        await ws.pong(data)
        assert await client.receive() == (True, 0, PONG, data.encode() if isinstance(data, str) else data)


async def test_ping_and_latency() -> None:
    async with pair() as (ws, client):
        assert ws.latency == 0
        waiter = await ws.ping()
        received = await client.receive()
        assert (received.opcode, len(received.payload)) == (PING, 4)
        await asyncio.sleep(0.05)
        client.send(frame(PONG, received.payload, key=b"TEST"))
        latency = await waiter
        assert 0.04 < latency < 5  # uvloop's timers may be a millisecond early
        assert ws.latency == latency


@pytest.mark.parametrize(("data", "payload"), [("é", "é".encode()), (b"", b""), (bytearray(b"x"), b"x")])
async def test_ping_with_data(data: Any, payload: bytes) -> None:
    async with pair() as (ws, client):
        waiter = await ws.ping(data)
        assert await client.receive() == (True, 0, PING, payload)
        with pytest.raises(ConcurrencyError, match="same data"):
            await ws.ping(data)
        client.send(frame(PONG, payload, key=b"TEST"))
        await waiter
        await ws.ping(data)


async def test_a_pong_answers_the_pings_before_it() -> None:
    async with pair() as (ws, client):
        waiters = [await ws.ping(str(number)) for number in range(4)]
        client.send(frame(PONG, b"unasked", key=b"TEST"), frame(PONG, b"2", key=b"TEST"))
        await asyncio.gather(*waiters[:3])
        last: Any = waiters[3]
        assert not last.done()
        client.abort()
        with pytest.raises(ConnectionClosedError):
            await last


async def test_pings_that_are_left_alone_make_no_noise() -> None:
    async with pair() as (ws, client):
        await ws.ping()
        client.abort()
        await ws.wait_closed()


async def test_pings_are_bounded() -> None:
    async with pair() as (ws, client):
        for _ in range(64):
            await ws.ping()
        with pytest.raises(InvalidState, match="64 pings are unanswered"):
            await ws.ping()
        for _ in range(63):
            await client.receive()
        client.send(frame(PONG, (await client.receive()).payload, key=b"TEST"))
        await arrived(client)
        await ws.ping()


@pytest.mark.parametrize("call", ["ping", "pong"])
async def test_control_frames_are_short(call: str) -> None:
    async with pair() as (ws, client):
        await getattr(ws, call)(bytes(125))
        with pytest.raises(ValueError, match="at most 125 bytes, got 126"):
            await getattr(ws, call)(bytes(126))
        assert len((await client.receive()).payload) == 125
        await ws.send("fine")
        assert await client.receive_message() == "fine"


async def test_a_ping_flood_to_which_nobody_listens_is_answered_once() -> None:
    async with pair() as (ws, client):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        channel = ws._open_channel()
        count = 0
        while not channel.write_paused:
            ws.send_nowait(bytes(65536))
            count += 1
            await asyncio.sleep(0)
        before = ws.buffered_amount
        for number in range(10_000):
            client.send(ping(b"%d" % number))
        client.send(text("the last"))
        assert await ws.recv() == "the last"
        assert ws.buffered_amount <= before + 3  # one pong is under way
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(count):
            assert (await client.receive()).opcode == BINARY
        assert await client.receive() == (True, 0, PONG, b"0")
        assert await client.receive() == (True, 0, PONG, b"9999")
        await ws.send("fine")
        assert await client.receive_message() == "fine"
