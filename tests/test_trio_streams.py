"""`wsfast.trio`: messages in pieces, the byte stream, and connecting again and again."""

from __future__ import annotations

import gc
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio_helpers import connection, half, in_trio, on_mock_clock, pair, serving

import wsfast
import wsfast.trio
from wsfast import CloseCause, State
from wsfast.codec import encode_frame
from wsfast.connection import Side
from wsfast.trio import ByteStream, stream_handler

# --- Messages in pieces -----------------------------------------------------------------------------------------


@in_trio
async def test_a_message_comes_in_pieces_as_they_arrive() -> None:
    async with half() as (ws, peer):
        pieces = ws.recv_streaming()
        for index, text in enumerate(("one ", "two ", "three")):
            await peer.send_all(encode_frame(1 if index == 0 else 0, text, fin=index == 2))
            assert await anext(pieces) == text
        assert [piece async for piece in pieces] == []
        await peer.send_all(encode_frame(1, "whole"))
        assert await ws.recv() == "whole"


@in_trio
async def test_the_rest_of_a_message_that_is_given_up_is_dropped() -> None:
    async with half() as (ws, peer):
        await peer.send_all(encode_frame(2, b"begun", fin=False))
        pieces = ws.recv_streaming()
        assert await anext(pieces) == b"begun"
        with pytest.raises(wsfast.ConcurrencyError):
            await ws.recv()
        with pytest.raises(wsfast.ConcurrencyError):
            await anext(ws.recv_streaming())
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(pieces)
        await peer.send_all(encode_frame(0, b"rest", fin=False) + encode_frame(0, b"end") + encode_frame(1, "next"))
        assert await ws.recv() == "next"
        del pieces
        # One of which nothing was taken is given up without harm.
        abandoned = ws.recv_streaming()
        with trio.move_on_after(0.01):
            await anext(abandoned)
        await peer.send_all(encode_frame(1, "still"))
        assert await ws.recv() == "still"


@in_trio
async def test_pieces_that_end_within_a_character() -> None:
    async with half() as (ws, peer):
        data = "\N{SNOWMAN}".encode()
        pieces = ws.recv_streaming(decode=True)
        await peer.send_all(encode_frame(2, data[:1], fin=False))
        assert await anext(pieces) == ""
        await peer.send_all(encode_frame(0, data[1:]))
        assert [piece async for piece in pieces] == ["\N{SNOWMAN}"]


@in_trio
async def test_a_large_message_is_held_within_the_read_limit() -> None:
    async with pair(read_limit=1000, max_size=1 << 22) as (client, server), trio.open_nursery() as nursery:
        message = bytes(range(256)) * 4096
        nursery.start_soon(client.send, message)
        received = bytearray()
        async for piece in server.recv_streaming(decode=False):
            received += piece
            assert server._held < 1000 + 2 * 65536
        assert received == message


# --- Byte streams -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def byte_streams(**options: Any) -> AsyncIterator[tuple[ByteStream, ByteStream]]:
    async with pair(**options) as (client, server):
        yield ByteStream(client), ByteStream(server)


@in_trio
async def test_the_rules_of_trio_for_streams() -> None:
    async with trio.open_nursery() as nursery:
        ends: list[wsfast.trio.WebSocket] = []

        async def make() -> tuple[ByteStream, ByteStream]:
            near, far = trio.testing.memory_stream_pair()
            made = connection(near, Side.CLIENT), connection(far, Side.SERVER)
            for ws in made:
                nursery.start_soon(ws._work)
            ends.extend(made)
            return ByteStream(made[0], half_close=True), ByteStream(made[1], half_close=True)

        await trio.testing.check_half_closeable_stream(make, None)  # a connection has room at first, always
        for ws in ends:
            ws.abort()


@in_trio
async def test_bytes_have_no_bounds_of_messages() -> None:
    async with byte_streams() as (client, server), trio.open_nursery() as nursery:
        sent = bytes(range(256)) * 1000
        nursery.start_soon(client.send_all, sent)
        received = bytearray()
        while len(received) < len(sent):
            received += await server.receive_some(1000)
        assert received == sent
        await client.send_all(memoryview(b"abcdef")[::1])
        assert await server.receive_some(2) == b"ab"
        with trio.CancelScope() as scope:
            scope.cancel()
            await server.receive_some()
        assert await server.receive_some() == b"cdef"
        await server.ws.send("text, in UTF-8: \N{SNOWMAN}")
        assert await client.receive_some() == "text, in UTF-8: \N{SNOWMAN}".encode()
        await server.aclose()
        assert await client.receive_some() == await client.receive_some() == b""
        assert client.ws.close_code == 1000


@in_trio
async def test_what_came_of_a_message_before_the_stream_was_begun() -> None:
    """Its sender may wait for a reaction before it goes on."""
    async with half() as (ws, peer):
        await peer.send_all(encode_frame(2, b"early", fin=False))
        await trio.testing.wait_all_tasks_blocked()
        stream = ByteStream(ws)
        assert await stream.receive_some() == b"early"
        await peer.send_all(encode_frame(0, b"late"))
        assert await stream.receive_some() == b"late"


@in_trio
async def test_a_connection_that_breaks_breaks_the_stream() -> None:
    async with byte_streams() as (client, server):
        await client.send_all(b"last")
        assert await server.receive_some() == b"last"
        client.ws.abort()
        for call in (server.receive_some, lambda: server.send_all(b"x")):
            with pytest.raises(trio.BrokenResourceError) as caught:
                await call()
            assert isinstance(caught.value.__cause__, wsfast.ConnectionClosedError)
        await server.wait_send_all_might_not_block()  # nothing is waited for


@in_trio
async def test_arguments_of_streams() -> None:
    async with byte_streams() as (client, server):
        for bad, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError)):
            with pytest.raises(error, match="max_bytes"):
                await client.receive_some(bad)  # type: ignore[arg-type]
        with pytest.raises(wsfast.InvalidState, match="half_close"):
            await client.send_eof()
        with pytest.raises(wsfast.ConcurrencyError):
            await server.ws.recv()
        with pytest.raises(wsfast.ConcurrencyError):
            ByteStream(server.ws)
    with pytest.raises(TypeError, match="callable"):
        stream_handler(1)  # type: ignore[arg-type]


@in_trio
async def test_a_handler_of_streams(caplog: pytest.LogCaptureFixture) -> None:
    async def upper(stream: ByteStream) -> None:
        """Shout."""
        assert stream.ws.request.path == "/"
        async for data in stream:
            await stream.send_all(data.upper())
            if data == b"end":
                return

    handler = stream_handler(upper)
    assert handler.__doc__ == "Shout."
    async with serving({"bytes": handler}) as (_, uri):
        async with wsfast.trio.connect(uri, subprotocols=["bytes"]) as ws:
            stream = ByteStream(ws)
            for data in (b"one", b"end"):
                await stream.send_all(data)
                assert await stream.receive_some() == data.upper()
            assert await stream.receive_some() == b""
        async with wsfast.trio.connect(uri, subprotocols=["bytes"]) as ws:
            ws.abort()  # the peer's doing is no error of the handler's
    assert "raised" not in caplog.text


# --- Connecting again and again ---------------------------------------------------------------------------------


def delays(*seconds: float) -> Any:
    return lambda: iter(seconds)


@in_trio
async def test_connecting_again() -> None:
    async def once(ws: wsfast.trio.WebSocket) -> None:
        await ws.send(await ws.recv())

    rounds: list[wsfast.trio.WebSocket] = []
    async with serving(once) as (_, uri), trio.open_nursery() as nursery:
        async for ws in wsfast.trio.connect(uri, nursery=nursery, reconnect_delays=delays(0, 0, 0)):
            assert all(one.state is State.CLOSED for one in rounds)
            rounds.append(ws)
            await ws.send(str(len(rounds)))
            assert [message async for message in ws] == [str(len(rounds))]
        # Connections that the server ends at once count as attempts that failed: the delays are at their end.
        assert len(rounds) == 4


@in_trio
async def test_leaving_the_loop_closes_the_last_connection() -> None:
    async with serving() as (_, uri), trio.open_nursery() as nursery:
        async for ws in wsfast.trio.connect(uri, nursery=nursery):
            await ws.send("last")
            break
        gc.collect()
        await ws.wait_closed()
        assert (ws.close_code, ws.close_cause) == (1000, CloseCause.LOCAL)


@on_mock_clock
async def test_attempts_that_fail_are_delayed() -> None:
    moments: list[float] = []

    def judge(exc: Exception) -> Exception | None:
        moments.append(trio.current_time())
        return None if len(moments) < 4 else wsfast.InvalidState("enough")

    near, far = trio.testing.memory_stream_pair()
    await far.aclose()
    await near.aclose()
    async with trio.open_nursery() as nursery:
        connect = wsfast.trio.connect(
            "ws://127.0.0.1:1/",
            nursery=nursery,
            proxy=None,
            process_exception=judge,
            reconnect_delays=delays(10, 20, 40),
        )
        with pytest.raises(wsfast.InvalidState, match="enough") as caught:
            async for _ in connect:
                pass  # pragma: no cover - nobody listens
        assert isinstance(caught.value.__cause__, OSError)
    assert [round(after - before) for before, after in itertools.pairwise(moments)] == [10, 20, 40]


@in_trio
async def test_what_cannot_connect_again() -> None:
    with pytest.raises(TypeError, match="nursery"):
        aiter(wsfast.trio.connect("ws://localhost/"))
    made: Iterator[float] = iter(())
    async with trio.open_nursery() as nursery:
        with pytest.raises(OSError, match="refused"):
            async for _ in wsfast.trio.connect(
                "ws://127.0.0.1:1/", nursery=nursery, proxy=None, reconnect_delays=lambda: made
            ):
                pass  # pragma: no cover - nobody listens
