"""`wsfast.trio`: the connection, the client and the server."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import proxies
import pytest
import tls_helpers
import trio
import trio.testing
import websockets.trio.client
import websockets.trio.server
from certificates import Certificates
from sync_helpers import running, scripted, socks_proxy
from trio_helpers import echo, half, in_trio, on_mock_clock, pair, serving

import wsfast
import wsfast.sync
import wsfast.trio
from wsfast import CloseCause, CloseCode, Response, State
from wsfast.connection import Connection, Side
from wsfast.dial.reconnect import process_exception
from wsfast.trio.stream import Transport, secure

# --- Messages ---------------------------------------------------------------------------------------------------


@in_trio
async def test_messages_go_both_ways() -> None:
    async with serving() as (_, uri), wsfast.trio.connect(uri) as ws:
        for message in ("text", b"binary", "", b"", "\N{SNOWMAN}" * 50000, bytes(300000)):
            await ws.send(message)
            assert await ws.recv() == message
        await ws.send(b"bytes as text", text=True)
        assert await ws.recv() == "bytes as text"
        await ws.send("text")
        assert await ws.recv(decode=False) == b"text"
        await ws.send(b"binary")
        assert await ws.recv(decode=True) == "binary"
    assert ws.state is State.CLOSED
    assert (ws.close_code, ws.close_reason, ws.close_cause) == (1000, "", CloseCause.LOCAL)


@in_trio
async def test_what_is_counted() -> None:
    async with pair() as (client, server):
        await client.send("four")
        await client.send(["one", "two"])
        await (await client.ping(b"1")).wait()
        assert [await server.recv() for _ in range(2)] == ["four", "onetwo"]
        await server.send(b"")
        assert await client.recv() == b""
        # Frames of 4, 3, 3 and no bytes and a ping of 1, with heads of 2 bytes and keys of 4.
        sent = {"messages_sent": 2, "bytes_sent": 4 + 3 + 3 + 0 + 1 + 5 * 6, "pings_sent": 1}
        received = {"messages_received": 1, "bytes_received": 2 + 3, "pings_received": 0}
        assert client.counters == sent | received
        assert (server.counters["messages_received"], server.counters["messages_sent"]) == (2, 1)
        assert server.counters["bytes_received"] == sent["bytes_sent"]
        assert server.counters["pings_received"] == 1


async def pieces(*items: Any) -> AsyncIterator[Any]:
    for item in items:
        yield item


@pytest.mark.parametrize("make", [list, iter, lambda items: pieces(*items)], ids=["list", "iterator", "async"])
@in_trio
async def test_fragments_are_one_message(make: Any) -> None:
    async with pair() as (client, server):
        await client.send(make(["one ", "two ", "three"]))
        assert await server.recv() == "one two three"
        await client.send(make([b"a", bytearray(b"b")]))
        assert await server.recv() == b"ab"
        await client.send(make([]))
        await client.send("after nothing")
        assert await server.recv() == "after nothing"


@pytest.mark.parametrize("bad", [1, None, {"a": 1}, [None], ["a", b"b"], [1, "a"]], ids=repr)
@in_trio
async def test_messages_of_other_types_are_refused(bad: Any) -> None:
    async with pair() as (client, _):
        with pytest.raises(TypeError):
            await client.send(bad)


@in_trio
async def test_a_refused_message_leaves_the_connection_open_unless_it_was_begun() -> None:
    async with pair() as (client, server):
        with pytest.raises(TypeError):
            await client.send(["a", 1])  # type: ignore[list-item]
        await client.send("still open")
        assert await server.recv() == "still open"
        with pytest.raises(TypeError):
            await client.send(piece for piece in ("a", "b", 1))  # type: ignore[misc]
        with pytest.raises(wsfast.ConnectionClosedError):
            await server.recv()
        assert server.close_code == CloseCode.INTERNAL_ERROR
        assert server.close_reason == "a message was not finished"


@in_trio
async def test_an_iterable_must_not_send_itself() -> None:
    async with pair() as (client, server):

        async def nested() -> AsyncIterator[str]:
            await client.send("within")
            yield "a"

        with pytest.raises(wsfast.ConcurrencyError):
            await client.send(nested())
        await client.send("after")
        assert await server.recv() == "after"


@in_trio
async def test_iteration_ends_with_the_connection() -> None:
    async with pair() as (client, server), trio.open_nursery() as nursery:
        await client.send("one")
        await client.send("two")
        nursery.start_soon(client.close)
        assert [message async for message in server] == ["one", "two"]
        with pytest.raises(wsfast.ConnectionClosedOK):
            await server.recv()
        with pytest.raises(wsfast.ConnectionClosedOK):
            await server.send("too late")


@in_trio
async def test_iteration_raises_where_the_connection_failed() -> None:
    async with half() as (ws, far):
        await far.send_all(b"\x83\x00")  # opcode 3 is reserved
        with pytest.raises(wsfast.ConnectionClosedError) as caught:
            async for _ in ws:
                raise AssertionError
        assert isinstance(caught.value.__cause__, wsfast.ProtocolError)
        assert ws.close_cause is CloseCause.PROTOCOL_ERROR


@in_trio
async def test_one_task_receives() -> None:
    async with pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.recv)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(wsfast.ConcurrencyError):
            await client.recv()
        await server.send("for the first")


@in_trio
async def test_compression() -> None:
    async with (
        serving(compression="deflate") as (_, uri),
        wsfast.trio.connect(uri, compression="deflate") as ws,
    ):
        assert ws.response is not None
        assert "permessage-deflate" in ws.response.headers["Sec-WebSocket-Extensions"]
        await ws.send("abc" * 10000)
        assert await ws.recv() == "abc" * 10000
        await ws.send(["abc" * 10000, "def"])
        assert await ws.recv() == "abc" * 10000 + "def"


# --- Trio's rules -----------------------------------------------------------------------------------------------


@in_trio
async def test_every_await_is_a_checkpoint() -> None:
    async with pair() as (client, server):
        for message in ("one", "two", "three"):
            await server.send(message)
        await trio.testing.wait_all_tasks_blocked()
        with trio.testing.assert_checkpoints():
            await client.recv()
        with trio.testing.assert_checkpoints():
            await client.__anext__()
        with trio.testing.assert_checkpoints():
            await client.send("message")
        with trio.testing.assert_checkpoints():
            await client.send(["in", "fragments"])
        with trio.testing.assert_checkpoints():
            await client.ping()
        with trio.testing.assert_checkpoints():
            await client.pong()
        with trio.testing.assert_checkpoints():
            await client.close()
        with trio.testing.assert_checkpoints():
            await client.close()
        with trio.testing.assert_checkpoints():
            await client.wait_closed()
        with trio.testing.assert_checkpoints():
            await client.recv()  # the third
        for call in (client.recv, partial(client.send, "a"), client.ping, client.pong):
            with trio.testing.assert_checkpoints(), pytest.raises(wsfast.ConnectionClosedOK):
                await call()


@in_trio
async def test_a_cancelled_recv_loses_nothing() -> None:
    async with pair() as (client, server), trio.open_nursery() as nursery:
        received: list[str | bytes] = []

        async def send() -> None:
            for number in range(300):
                await server.send(str(number))

        nursery.start_soon(send)
        spins = 0
        while len(received) < 300:
            with trio.CancelScope() as scope:
                # It is cancelled now and then while it waits, and before it begins.
                if spins % 3 == 0:
                    scope.cancel()
                elif spins % 3 == 1:
                    scope.deadline = trio.current_time() + 1e-4
                received.append(await client.recv())
            spins += 1
        assert received == [str(number) for number in range(300)]


@in_trio
async def test_a_cancelled_send_sends_nothing() -> None:
    async with pair() as (client, server):
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.send("never")
        assert scope.cancelled_caught
        await client.send("sent")
        assert await server.recv() == "sent"


@in_trio
async def test_a_send_that_waits_for_room_can_be_cancelled() -> None:
    async with pair(write_limit=1000) as (client, server):
        open_again = trio.Event()
        send_all = client._stream.send_all

        async def stuck(data: Any) -> None:
            await open_again.wait()
            await send_all(data)

        client._stream.send_all = stuck  # type: ignore[method-assign]
        sent = []
        with trio.move_on_after(0.1) as scope:
            for number in range(10):
                await client.send(bytes([number]) * 400)
                sent.append(number)
        assert scope.cancelled_caught
        assert 2 <= len(sent) <= 4
        open_again.set()
        await client.send("last")
        assert [await server.recv() for _ in sent] == [bytes([number]) * 400 for number in sent]
        assert await server.recv() == "last"


@in_trio
async def test_a_message_in_fragments_that_is_cancelled_ends_the_connection() -> None:
    async with pair() as (client, server):

        async def endless() -> AsyncIterator[str]:
            yield "a"
            yield "b"
            await trio.sleep_forever()

        with trio.move_on_after(0.05):
            await client.send(endless())
        with pytest.raises(wsfast.ConnectionClosedError) as caught:
            await server.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == CloseCode.INTERNAL_ERROR


@in_trio
async def test_senders_take_turns() -> None:
    async with pair(write_limit=100) as (client, server), trio.open_nursery() as nursery:

        async def slowly(letter: str) -> AsyncIterator[str]:
            for _ in range(20):
                await trio.lowlevel.checkpoint()
                yield letter

        for letter in "abc":
            nursery.start_soon(client.send, slowly(letter))
        received = sorted([await server.recv() for _ in range(3)])
        assert received == ["a" * 20, "b" * 20, "c" * 20]


@in_trio
async def test_exceptions_leave_the_block_as_they_are() -> None:
    async with serving() as (_, uri):
        with pytest.raises(KeyError, match="mine"):
            async with wsfast.trio.connect(uri) as ws:
                raise KeyError("mine")
        assert ws.state is State.CLOSED
        assert ws._connection.close_sent is not None
        assert ws._connection.close_sent.code == CloseCode.INTERNAL_ERROR


@in_trio
async def test_a_cancelled_block_closes_the_connection() -> None:
    ended = trio.Event()
    codes = []

    async def handler(ws: wsfast.trio.WebSocket) -> None:
        await ws.wait_closed()
        codes.append(ws.close_code)
        ended.set()

    async with serving(handler) as (_, uri):
        with trio.CancelScope() as scope:
            async with wsfast.trio.connect(uri) as ws:
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert ws.state is State.CLOSED
        await ended.wait()
        assert codes == [CloseCode.INTERNAL_ERROR]


@on_mock_clock
async def test_a_cancelled_block_does_not_wait_for_ever() -> None:
    near, far = trio.testing.memory_stream_pair()
    accepted = trio.Event()

    async def silent() -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await far.receive_some()
        parser = wsfast.handshake.RequestParser()
        request = parser.feed(head)
        assert request is not None
        await far.send_all(wsfast.handshake.accept_response(wsfast.handshake.check_request(request).key))
        accepted.set()

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(silent)
        with trio.move_on_after(5):
            async with wsfast.trio.connect("ws://host/", stream=near, close_timeout=3, ping_interval=None) as ws:
                await accepted.wait()
                await trio.sleep_forever()
        assert trio.current_time() - began == pytest.approx(5 + 3, abs=0.3)
        assert ws.state is State.CLOSED


@in_trio
async def test_a_nursery_that_is_given() -> None:
    async with serving() as (server, uri):
        async with trio.open_nursery() as nursery:
            ws = await wsfast.trio.connect(uri, nursery=nursery)
            await ws.send("a")
            assert await ws.recv() == "a"
            await ws.close()
            other = await wsfast.trio.connect(uri, nursery=nursery)
            await other.send("b")
            assert await other.recv() == "b"
            assert len(server.connections) == 1
            nursery.cancel_scope.cancel()
        assert other.state is State.CLOSED
        assert other._connection.close_sent is not None
        assert other._connection.close_sent.code == CloseCode.GOING_AWAY
        with pytest.raises(TypeError, match="nursery"):
            await wsfast.trio.connect(uri)


@in_trio
async def test_a_cancelled_close_goes_on() -> None:
    async with pair() as (client, server):
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.close(1001, "bye")
        assert scope.cancelled_caught
        with pytest.raises(wsfast.ConnectionClosedOK):
            await server.recv()
        assert (server.close_code, server.close_reason) == (1001, "bye")
        await client.wait_closed()


# --- Time -------------------------------------------------------------------------------------------------------


@on_mock_clock
async def test_keepalive_pings_are_answered() -> None:
    async with pair(ping_interval=20, ping_timeout=5) as (client, server):
        await trio.sleep(200)
        assert client.state is server.state is State.OPEN
        assert 9 <= client._session.pings_received <= 10


@on_mock_clock
async def test_a_silent_peer_is_lost() -> None:
    async with half(ping_interval=20, ping_timeout=5) as (ws, far):
        began = trio.current_time()
        with pytest.raises(wsfast.ConnectionClosedError) as caught:
            await ws.recv()
        assert caught.value.cause is CloseCause.KEEPALIVE
        assert trio.current_time() - began == pytest.approx(25, abs=0.2)
        await ws.wait_closed()
        received = b""
        while data := await far.receive_some():
            received += data
        peer = Connection(Side.SERVER)
        peer.receive_data(received)
        assert peer.close_rcvd is not None
        assert (peer.close_rcvd.code, peer.close_rcvd.reason) == (1011, "keepalive ping timeout")


@on_mock_clock
async def test_closing_is_bounded() -> None:
    async with half(close_timeout=7) as (ws, _):
        began = trio.current_time()
        await ws.close()
        assert trio.current_time() - began == pytest.approx(7, abs=0.2)
        assert ws.close_cause is CloseCause.TIMEOUT
        assert ws.close_code == 1006


@on_mock_clock
async def test_a_peer_that_takes_nothing_is_lost() -> None:
    async with half(close_timeout=7, ping_interval=None) as (ws, _):
        near = ws._stream

        async def stuck(data: Any) -> None:
            await trio.sleep_forever()

        near.send_all = stuck  # type: ignore[method-assign]
        await ws.send("x")
        began = trio.current_time()
        await ws.close()
        assert trio.current_time() - began == pytest.approx(7, abs=0.2)


@on_mock_clock
async def test_a_ping_measures_the_round_trip() -> None:
    async with half(ping_interval=None) as (ws, far):
        waiter = await ws.ping(b"data")
        with pytest.raises(wsfast.ConcurrencyError):
            await ws.ping(b"data")
        assert not waiter.is_set()
        await trio.sleep(3)
        await far.send_all(b"\x8a\x04data")
        await waiter.wait()
        assert waiter.is_set()
        assert waiter.latency == ws.latency == pytest.approx(3)
        late, forgiven = await ws.ping(), await ws.ping(ack_on_close=True)
        ws.abort()
        with pytest.raises(wsfast.ConnectionClosedError):
            await late.wait()
        await forgiven.wait()
        assert forgiven.is_set()
        assert forgiven.latency is None


@on_mock_clock
async def test_a_close_frame_waits_for_answers() -> None:
    async with pair() as (client, server):
        await client.send("question")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.close)
            await trio.testing.wait_all_tasks_blocked()
            assert server.state is State.OPEN
            assert await server.recv() == "question"
            await server.send("answer")
            with pytest.raises(wsfast.ConnectionClosedOK):
                await server.recv()
        assert await client.recv() == "answer"


@on_mock_clock
async def test_who_does_not_receive_is_not_waited_for() -> None:
    async with pair() as (client, server):
        await client.send("question")
        began = trio.current_time()
        await client.close()
        assert trio.current_time() - began < 1.5
        assert client.close_code == 1000
        assert await server.recv() == "question"


@on_mock_clock
async def test_reading_is_paused() -> None:
    async with pair(read_limit=1000, write_limit=1000) as (client, server):
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for number in range(2000):
                    await client.send(str(number))

            nursery.start_soon(send)
            await trio.sleep(60)  # keepalive goes on
            assert server._held < 1000 + 256 * 100
            assert [await server.recv() for _ in range(2000)] == [str(number) for number in range(2000)]
        assert client.state is State.OPEN


@on_mock_clock
async def test_the_end_of_the_stream_is_the_end() -> None:
    async with half() as (ws, far):
        await far.send_all(b"\x81\x01a")
        await far.aclose()
        assert await ws.recv() == "a"
        with pytest.raises(wsfast.ConnectionClosedError):
            await ws.recv()
        with pytest.raises(wsfast.ConnectionClosedError):
            await ws.send("b")
        assert ws.close_cause is CloseCause.LOST
        await ws.wait_closed()


@on_mock_clock
async def test_a_peer_that_has_ended_its_side_gets_what_is_unsent() -> None:
    async with half(close_timeout=5) as (ws, far):
        send_all = ws._stream.send_all

        async def slowly(data: Any) -> None:
            await trio.sleep(3)
            await send_all(data)

        ws._stream.send_all = slowly  # type: ignore[method-assign]
        await ws.send("unsent")
        await far.send_eof()
        with pytest.raises(wsfast.ConnectionClosedError):
            await ws.recv()
        peer = Connection(Side.SERVER)
        assert peer.receive_data(await far.receive_some()) == ["unsent"]
        assert await far.receive_some() == b""


async def broken(data: Any) -> None:
    raise trio.BrokenResourceError


@on_mock_clock
async def test_a_failed_write_does_not_hide_the_close_frame() -> None:
    async with half() as (ws, far):
        ws._stream.send_all = broken  # type: ignore[method-assign]
        await ws.send("x")
        await trio.testing.wait_all_tasks_blocked()
        assert ws._broken
        await far.send_all(b"\x88\x02\x03\xf0")
        with pytest.raises(wsfast.ConnectionClosedError) as caught:
            await ws.send("y")
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1008


@on_mock_clock
async def test_a_failed_write_is_no_reason_to_wait_for_ever() -> None:
    async with half(close_timeout=5, read_limit=1) as (ws, far):
        await far.send_all(b"\x81\x01a" * 10)
        await trio.testing.wait_all_tasks_blocked()
        assert ws._paused
        ws._stream.send_all = broken  # type: ignore[method-assign]
        await ws.send("x")
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        with pytest.raises(wsfast.ConnectionClosedError):
            await ws.send("y")
        assert trio.current_time() - began == pytest.approx(5, abs=0.2)
        assert [await ws.recv() for _ in range(10)] == ["a"] * 10


# --- The client -------------------------------------------------------------------------------------------------


@in_trio
async def test_a_client_and_a_server_on_asyncio() -> None:
    with running(subprotocols=["chat"]) as server:
        async with wsfast.trio.connect(server.uri, subprotocols=["chat"]) as ws:
            assert ws.subprotocol == "chat"
            await ws.send("hello")
            assert await ws.recv() == "hello"
            await (await ws.ping()).wait()
            assert ws.latency > 0
        assert ws.close_code == 1000


@in_trio
async def test_tls(certs: Certificates) -> None:
    async with (
        serving(ssl=certs.server_context()) as (_, uri),
        wsfast.trio.connect(uri, ssl=certs.client_context()) as ws,
    ):
        await ws.send(bytes(1000000), compress=False)
        assert await ws.recv() == bytes(1000000)
    assert ws.close_code == 1000
    async with serving(ssl=certs.server_context()) as (_, uri):
        with pytest.raises(ssl.SSLError):
            async with wsfast.trio.connect(uri):
                raise AssertionError
        with pytest.raises(wsfast.InvalidMessage):
            async with wsfast.trio.connect(uri.replace("wss", "ws")):
                raise AssertionError


@in_trio
async def test_who_cannot_be_told_why_tls_failed_does_not_hide_it(certs: Certificates) -> None:
    """The server is gone when it is to be sent the alert: the error is what is wrong with its certificate, not that."""
    near, far = trio.testing.memory_stream_pair()
    server = tls_helpers.Peer(certs.server_context(), server_side=True)
    sent = 0

    async def send_once(data: bytes) -> None:
        nonlocal sent
        sent += 1
        if sent > 1:
            raise trio.BrokenResourceError
        server.receive(data)
        await far.send_all(server.take())

    stream = Transport(near)
    stream.send_all = send_once  # type: ignore[assignment, method-assign]
    with pytest.raises(ssl.SSLCertVerificationError):
        await secure(stream, ssl.create_default_context(), "localhost")
    assert sent == 2


@in_trio
async def test_tls_with_asyncio(certs: Certificates) -> None:
    with running(ssl=certs.server_context()) as server:
        async with wsfast.trio.connect(server.uri, ssl=certs.client_context()) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"
        assert ws.close_code == 1000


@in_trio
async def test_unix_sockets(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    seen: list[Any] = []

    async def handler(ws: wsfast.trio.WebSocket) -> None:
        seen.append(ws.remote_address)
        await echo(ws)

    async with serving(handler, path=path), wsfast.trio.unix_connect(path) as ws:
        await ws.send("hello")
        assert await ws.recv() == "hello"
        assert seen == [ws.remote_address] == [None]
    assert not os.path.exists(path)  # noqa: ASYNC240
    with pytest.raises(FileNotFoundError):
        async with wsfast.trio.unix_connect(path):
            raise AssertionError


@in_trio
async def test_a_socket_that_is_given() -> None:
    async with serving() as (server, uri):
        sock = socket.create_connection(server.sockets[0].getsockname())
        async with wsfast.trio.connect(uri, sock=sock) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"


@in_trio
async def test_a_proxy() -> None:
    heads = []

    async def tunnel(client: trio.SocketStream) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await client.receive_some()
        heads.append(head)
        if b" refused:" in head:
            await client.send_all(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            return
        target = head.split()[1].decode()
        async with await trio.open_tcp_stream("127.0.0.1", int(target.rpartition(":")[2])) as server:
            await client.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(copy, client, server)
                nursery.start_soon(copy, server, client)

    async def copy(source: trio.SocketStream, target: trio.SocketStream) -> None:
        async for data in source:
            await target.send_all(data)
        with suppress(trio.BrokenResourceError):
            await target.send_eof()

    async with serving() as (_, uri):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, tunnel, 0, host="127.0.0.1"))
            proxy = f"http://me:secret@127.0.0.1:{listeners[0].socket.getsockname()[1]}"
            async with wsfast.trio.connect(uri, proxy=proxy) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
            assert b"Proxy-Authorization: Basic " in heads[0]
            with pytest.raises(wsfast.ProxyError, match="403"):
                async with wsfast.trio.connect("ws://refused/", proxy=proxy):
                    raise AssertionError
            nursery.cancel_scope.cancel()
        with pytest.raises(wsfast.ProxyError, match=r"could not connect to the proxy http://\S+: .*refused$"):
            async with wsfast.trio.connect(uri, proxy=proxy):
                raise AssertionError


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
@in_trio
async def test_a_socks_proxy(scheme: str) -> None:
    seen: list[str] = []
    async with serving() as (_, uri):
        with scripted(socks_proxy(seen)) as port:
            async with wsfast.trio.connect(uri, proxy=f"{scheme}://me:secret@127.0.0.1:{port}") as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
        host = "localhost" if scheme == "socks5h" else "127.0.0.1"
        assert seen == ["me:secret", f"{host}:{uri.rstrip('/').rpartition(':')[2]}"]
        with pytest.raises(wsfast.ProxyError):
            async with wsfast.trio.connect(uri, proxy="socks5://127.0.0.1:1"):
                raise AssertionError


@in_trio
async def test_a_proxy_with_tls(certs: Certificates) -> None:
    ready: list[int] = []
    stops: list[Any] = []
    async with serving(ssl=certs.server_context()) as (_, uri), trio.open_nursery() as nursery:

        async def tunnels(task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
            async def run() -> None:
                async with proxies.proxy("http", tls=certs.server_context()) as tunnel:
                    ready.append(tunnel.port)
                    done = asyncio.Event()
                    stops.append((asyncio.get_running_loop(), done))
                    trio.from_thread.run_sync(task_status.started)
                    await done.wait()

            await trio.to_thread.run_sync(asyncio.run, run())

        await nursery.start(tunnels)
        try:
            async with wsfast.trio.connect(
                uri,
                ssl=certs.client_context(),
                proxy=f"https://localhost:{ready[0]}",
                proxy_ssl=certs.client_context(),
            ) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
            with pytest.raises(wsfast.ProxyError, match="certificate"):
                async with wsfast.trio.connect(uri, ssl=certs.client_context(), proxy=f"https://localhost:{ready[0]}"):
                    raise AssertionError
        finally:
            loop, done = stops[0]
            loop.call_soon_threadsafe(done.set)


@in_trio
async def test_the_server_of_websockets() -> None:
    async def echo(ws: Any) -> None:
        async for message in ws:
            await ws.send(message)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(websockets.trio.server.serve, echo, 0)
        port = server.listeners[0].socket.getsockname()[1]
        async with wsfast.trio.connect(f"ws://localhost:{port}/", compression="deflate") as ws:
            await ws.send("hello" * 1000)
            assert await ws.recv() == "hello" * 1000
        assert ws.close_code == 1000
        nursery.cancel_scope.cancel()


@in_trio
async def test_a_server_that_answers_nonsense() -> None:
    for answer, error in (
        (b"", wsfast.InvalidMessage),
        (b"nonsense\r\n\r\n", wsfast.InvalidMessage),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", wsfast.InvalidHandshake),
    ):
        near, far = trio.testing.memory_stream_pair()
        await far.send_all(answer)
        await far.send_eof()
        with pytest.raises(error):
            async with wsfast.trio.connect("ws://host/", stream=near):
                raise AssertionError


@in_trio
async def test_nobody_listens() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    sock.close()
    with pytest.raises(ConnectionRefusedError):
        async with wsfast.trio.connect(f"ws://127.0.0.1:{port}/"):
            raise AssertionError


@on_mock_clock
async def test_opening_is_bounded() -> None:
    near, _far = trio.testing.memory_stream_pair()
    with pytest.raises(TimeoutError, match="more than 4 s"):
        async with wsfast.trio.connect("ws://host/", stream=near, open_timeout=4):
            raise AssertionError
    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"x")


@in_trio
async def test_a_cancelled_connect_closes_what_it_opened() -> None:
    near, _far = trio.testing.memory_stream_pair()
    with trio.move_on_after(0.05) as scope:
        async with wsfast.trio.connect("ws://host/", stream=near):
            raise AssertionError
    assert scope.cancelled_caught
    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"x")


def test_wrong_arguments_are_told_at_once() -> None:
    with pytest.raises(TypeError, match="additional_headers"):
        wsfast.trio.connect("ws://host/", extra_headers={})  # type: ignore[call-arg]
    with pytest.raises(wsfast.InvalidURI):
        wsfast.trio.connect("http://host/")
    with pytest.raises(ValueError, match="ping_interval"):
        wsfast.trio.connect("ws://host/", ping_interval=-1)
    with pytest.raises(ValueError, match="expected one of"):
        wsfast.trio.connect("ws://host/", stream=trio.testing.memory_stream_pair()[0], unix=True, path="x")


@in_trio
async def test_refusals_and_redirects() -> None:
    async def answer(ws: wsfast.trio.WebSocket, request: wsfast.Request) -> Response | None:
        await trio.lowlevel.checkpoint()
        if request.path == "/moved":
            response = ws.respond(302, "")
            response.headers["Location"] = "/"
            return response
        return ws.respond(403, "no") if request.path == "/forbidden" else None

    async with serving(process_request=answer) as (_, uri):
        with pytest.raises(wsfast.InvalidStatus) as caught:
            async with wsfast.trio.connect(uri + "forbidden"):
                raise AssertionError
        assert caught.value.response.status_code == 403
        assert caught.value.response.body == b"no"
        async with wsfast.trio.connect(uri + "moved") as ws:
            assert ws.request.path == "/"
        with pytest.raises(wsfast.InvalidStatus):
            async with wsfast.trio.connect(uri + "moved", max_redirects=0):
                raise AssertionError


# --- The server -------------------------------------------------------------------------------------------------


@in_trio
async def test_a_client_without_an_event_loop() -> None:
    def talk(uri: str) -> tuple[Any, Any]:
        with wsfast.sync.connect(uri) as ws:
            ws.send("hello")
            return ws.recv(timeout=5), ws

    async with serving() as (_, uri):
        answer, ws = await trio.to_thread.run_sync(talk, uri)
        assert answer == "hello"
        assert ws.close_code == 1000


@in_trio
async def test_the_client_of_websockets() -> None:
    async with serving(compression="deflate") as (_, uri):
        async with websockets.trio.client.connect(uri) as ws:
            await ws.send("hello" * 1000)
            assert await ws.recv() == "hello" * 1000
            await ws.send(["a", "b"])
            assert await ws.recv() == "ab"
        assert ws.close_code == 1000


@in_trio
async def test_handlers_by_subprotocol() -> None:
    async def one(ws: wsfast.trio.WebSocket) -> None:
        await ws.send("one")

    async def two(ws: wsfast.trio.WebSocket) -> None:
        await ws.send("two")

    async with serving({"one": one, "two": two}) as (_, uri):
        for name in ("one", "two"):
            async with wsfast.trio.connect(uri, subprotocols=[name]) as ws:
                assert await ws.recv() == name
                with pytest.raises(wsfast.ConnectionClosedOK):
                    await ws.recv()
        with pytest.raises(wsfast.InvalidStatus) as caught:
            async with wsfast.trio.connect(uri):
                raise AssertionError
        assert caught.value.response.status_code == 400


@in_trio
async def test_a_handler_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(ws: wsfast.trio.WebSocket) -> None:
        async with trio.open_nursery():
            raise KeyError("mine")

    async with serving(handler) as (_, uri), wsfast.trio.connect(uri) as ws:
        with pytest.raises(wsfast.ConnectionClosedError):
            await ws.recv()
        assert ws.close_code == CloseCode.INTERNAL_ERROR
        async with wsfast.trio.connect(uri) as other:  # the server goes on
            await other.wait_closed()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "handler for subprotocol None raised"
    ] * 2


class _Ending(BaseException):
    """What trio passes on, for it is no `Exception`."""


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("end", [_Ending(), SystemExit(3), asyncio.CancelledError()], ids=repr)
def test_what_is_no_exception_ends_the_server(end: BaseException, grouped: bool) -> None:
    """As with websockets: only the connection whose handler raised it gets 1011."""
    codes = {}

    async def handler(ws: wsfast.trio.WebSocket) -> None:
        async for message in ws:
            if message == "end":
                raise BaseExceptionGroup("several", [end]) if grouped else end
            await ws.send(message)

    async def use(uri: str, first: str, told: trio.Event) -> None:
        async with wsfast.trio.connect(uri) as ws:
            try:
                await ws.send(first)
                await ws.recv()
                told.set()
                await ws.recv()
            except wsfast.ConnectionClosed:
                pass
            finally:  # what comes out of the server cancels this
                codes[first] = ws.close_code

    async def main() -> None:
        async with trio.open_nursery() as nursery, serving(handler) as (_, uri):
            told = trio.Event()
            nursery.start_soon(use, uri, "other", told)
            await told.wait()
            await use(uri, "end", told)

    with pytest.raises(BaseExceptionGroup) as info:
        trio.run(main)
    assert info.value.split(type(end))[0] is not None
    assert info.value.split(type(end))[1] is None
    assert codes == {"end": CloseCode.INTERNAL_ERROR, "other": CloseCode.GOING_AWAY}


@in_trio
async def test_the_end_of_a_connection_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(ws: wsfast.trio.WebSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.recv)

    async with serving(handler) as (_, uri), wsfast.trio.connect(uri):
        pass
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@in_trio
async def test_shutdown_closes_connections() -> None:
    async with serving() as (server, uri), wsfast.trio.connect(uri) as ws:
        await ws.send("there")
        assert await ws.recv() == "there"
        assert len(server.connections) == 1
        await server.shutdown(reason="bye")
        with pytest.raises(wsfast.ConnectionClosedOK):
            await ws.recv()
        assert (ws.close_code, ws.close_reason) == (1001, "bye")
        assert server.sockets == ()
        assert not server.connections
        with pytest.raises(ConnectionRefusedError):
            async with wsfast.trio.connect(uri):
                raise AssertionError


@in_trio
async def test_shutdown_cancels_handlers_that_stay() -> None:
    cancelled = []

    async def handler(ws: wsfast.trio.WebSocket) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.append(ws)
            raise

    async with serving(handler, stop_timeout=0.5) as (server, uri), wsfast.trio.connect(uri) as ws:
        await server.shutdown()
        assert len(cancelled) == 1
        assert ws.close_code == 1001


@in_trio
async def test_a_handler_may_stop_the_server() -> None:
    servers: list[wsfast.trio.Server] = []

    async def handler(ws: wsfast.trio.WebSocket) -> None:
        await ws.recv()
        await servers[0].shutdown()

    async with serving(handler) as (server, uri):
        servers.append(server)
        async with wsfast.trio.connect(uri) as ws:
            await ws.send("stop")
            await ws.wait_closed()
            assert ws.close_code == 1001


@in_trio
async def test_who_is_in_the_handshake_is_told_of_the_end() -> None:
    asked = trio.Event()

    async def hook(ws: wsfast.trio.WebSocket, request: wsfast.Request) -> None:
        asked.set()
        await trio.sleep_forever()

    async with serving(process_request=hook) as (server, uri), trio.open_nursery() as nursery:
        statuses = []

        async def client() -> None:
            with pytest.raises(wsfast.InvalidStatus) as caught:
                async with wsfast.trio.connect(uri):
                    raise AssertionError
            statuses.append(caught.value.response.status_code)

        nursery.start_soon(client)
        await asked.wait()
        await server.shutdown()
    assert statuses == [503]


@in_trio
async def test_a_cancelled_server_closes_connections() -> None:
    async with trio.open_nursery() as clients:
        async with trio.open_nursery() as nursery:

            async def echo(ws: wsfast.trio.WebSocket) -> None:
                async for message in ws:
                    await ws.send(message)

            server = await nursery.start(partial(wsfast.trio.serve, echo, "127.0.0.1", 0))
            uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            ws = await wsfast.trio.connect(uri, nursery=clients)
            nursery.cancel_scope.cancel()
        await ws.wait_closed()
        assert ws.close_code == 1001


@in_trio
async def test_too_many_connections() -> None:
    async with serving(max_connections=1) as (_, uri), wsfast.trio.connect(uri):
        with pytest.raises(wsfast.InvalidStatus) as caught:
            async with wsfast.trio.connect(uri):
                raise AssertionError
        assert caught.value.response.status_code == 503
        assert caught.value.response.headers["Retry-After"] == "5"


@in_trio
async def test_slow_and_bad_requests() -> None:
    async with serving(open_timeout=0.2) as (server, _):
        host, port = server.sockets[0].getsockname()
        stream = await trio.open_tcp_stream(host, port)
        assert await stream.receive_some() == b""  # it has said nothing in time
        await stream.aclose()
        stream = await trio.open_tcp_stream(host, port)
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = b""
        while data := await stream.receive_some():
            answer += data
        assert answer.startswith(b"HTTP/1.1 426 ")
        await stream.aclose()
        stream = await trio.open_tcp_stream(host, port)
        await stream.send_all(b"\x16\x03\x01nonsense\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 400 ")
        await stream.aclose()


@in_trio
async def test_wrong_options_of_a_server() -> None:
    async def handler(ws: wsfast.trio.WebSocket) -> None: ...

    for error, text, options in (
        (TypeError, "response_headers", {"extra_headers": {}}),
        (ValueError, "max_size", {"max_size": 0}),
        (TypeError, "ssl", {"ssl": True}),
        (ValueError, "max_connections", {"max_connections": 0}),
    ):
        with pytest.raises(error, match=text):
            await wsfast.trio.serve(handler, "127.0.0.1", 0, **options)
    with pytest.raises(ValueError, match="one address"):
        await wsfast.trio.serve(handler)


@in_trio
async def test_recv_streaming_shows_what_has_come_already() -> None:
    """Its sender may wait for a reaction to that."""
    seen = trio.Event()

    async def pieces() -> AsyncIterator[str]:
        yield "first"
        await seen.wait()
        yield "second"

    async with pair() as (one, other), trio.open_nursery() as nursery:
        nursery.start_soon(one.send, pieces())
        while not other._connection.decoder.held:
            await trio.sleep(0.001)
        got = []
        async for piece in other.recv_streaming():
            got.append(piece)
            seen.set()
        assert got[0] == "first"
        assert "".join(map(str, got)) == "firstsecond"


@in_trio
async def test_a_response_that_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection was open already, and nobody runs it: whoever has heard of it must learn of its end."""
    made: list[wsfast.trio.WebSocket] = []
    began = trio.Event()

    class Noted(wsfast.trio.WebSocket):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    async def fails(self: Transport, data: bytes) -> None:
        # As a client that resets the connection just then.
        (ws,) = made
        assert ws.state is State.OPEN
        nursery.start_soon(waits, ws)
        await began.wait()
        raise trio.BrokenResourceError

    async def waits(ws: wsfast.trio.WebSocket) -> None:
        began.set()
        with pytest.raises(wsfast.ConnectionClosedError):
            await ws.recv()
        await ws.wait_closed()

    topics = wsfast.Topics()
    async with trio.open_nursery() as nursery, serving(create_connection=Noted, topics=topics) as (server, _):
        monkeypatch.setattr(Transport, "send_all", fails)
        stream = await trio.open_tcp_stream("127.0.0.1", server.sockets[0].getsockname()[1])
        await stream.send_all(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert await stream.receive_some() == b""
        await stream.aclose()
        (ws,) = made
        await ws.wait_closed()
        assert ws.state is State.CLOSED
        assert not server.connections
        with pytest.raises(wsfast.ConnectionClosedError):
            await ws.send("x")


@in_trio
async def test_a_reset_within_the_handshake_is_worth_another_try() -> None:
    """Its cause is the system's error, not trio's for it, which says nothing, and ended a loop that connects again."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def reset() -> None:
            sock, _ = listening.accept()
            with sock:
                assert sock.recv(65536)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, reset)
            with pytest.raises(wsfast.InvalidMessage) as caught:
                async with wsfast.trio.connect(f"ws://127.0.0.1:{listening.getsockname()[1]}/"):
                    raise AssertionError
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert process_exception(caught.value) is None


@in_trio
async def test_connect_is_entered_once_at_a_time() -> None:
    """Two at once too: else the first connection would be nobody's, and stay open."""
    async with serving() as (_, uri):
        connecting = wsfast.trio.connect(uri)
        refused: list[str] = []

        async def enter() -> None:
            try:
                await connecting.__aenter__()
            except RuntimeError as exc:
                refused.append(str(exc))

        async with connecting:
            await enter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(enter)  # which runs when this task first waits
            async with connecting:
                pass
        assert refused == ["connect(...) can be entered once at a time"] * 2


@in_trio
async def test_handlers_that_cannot_serve() -> None:
    async def old(ws: wsfast.trio.WebSocket, path: str) -> None: ...

    def plain(ws: wsfast.trio.WebSocket) -> None: ...

    handler: Any
    given: Any
    for handler, text in (
        (None, "a handler must be callable, got NoneType"),
        (old, r"missing a required argument: 'path'; the path is ws.request.path$"),
        (plain, "must be a coroutine function.* is a plain function that returns nothing"),
    ):
        for given in (handler, {None: echo, "a": handler}):
            with pytest.raises(TypeError, match=text):
                await wsfast.trio.serve(given, "127.0.0.1", 0)
    with pytest.raises(TypeError, match=r"must take 1 argument \(stream\)"):
        wsfast.trio.stream_handler(old)  # type: ignore[arg-type]
