"""What a user takes for a coroutine behaves like one: nothing happens before it is awaited, in the loop's thread.

And the other way round: what acts at the call, acts in the loop's thread only.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from time import monotonic
from typing import Any
from unittest.mock import AsyncMock, create_autospec

import pytest
from certificates import Certificates
from shared import HeldCompression, until

import wsfast
from wsfast import ConcurrencyError, ConnectionClosedError, ConnectionClosedOK, Deflate, State
from wsfast.asyncio.streams import Writer

pytestmark = pytest.mark.anyio

LAZY = ["send", "recv", "ping", "pong", "close", "wait_closed"]


@asynccontextmanager
async def pair(
    certs: Certificates | None = None, **options: Any
) -> AsyncIterator[tuple[wsfast.WebSocket, wsfast.WebSocket]]:
    """Open a connection over a real socket, with TLS if there are certificates: the client's end and the server's."""
    tls = None if certs is None else certs.client_context()
    options["ssl"] = None if certs is None else certs.server_context()
    opened: asyncio.Future[wsfast.WebSocket] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def handler(ws: wsfast.WebSocket) -> None:
        opened.set_result(ws)
        await over.wait()

    async with asyncio.timeout(30), wsfast.serve(handler, "127.0.0.1", 0, stop_timeout=1, **options) as server:
        port = server.sockets[0].getsockname()[1]
        known = {name: options[name] for name in ("compression", "close_timeout") if name in options}
        scheme = "ws" if tls is None else "wss"
        async with wsfast.connect(f"{scheme}://127.0.0.1:{port}/", max_size=None, ssl=tls, **known) as client:
            yield client, await opened
            over.set()


# --- Nothing happens before it is awaited ----------------------------------------------------------------------


@pytest.mark.parametrize("name", LAZY)
def test_they_are_coroutine_functions(name: str) -> None:
    method = getattr(wsfast.WebSocket, name)
    assert inspect.iscoroutinefunction(method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # since 3.14, but programs call it
        assert asyncio.iscoroutinefunction(method)
    assert isinstance(getattr(AsyncMock(spec=wsfast.WebSocket), name), AsyncMock)
    assert isinstance(getattr(create_autospec(wsfast.WebSocket, instance=True), name), Callable)  # type: ignore[arg-type]


async def test_the_order_is_that_of_awaiting() -> None:
    async with pair() as (client, server):
        late = client.send("late")
        await client.send("early")
        await late
        assert [await server.recv(), await server.recv()] == ["early", "late"]


@pytest.mark.parametrize("message", ["text", b"bytes", bytearray(b"others"), ["frag", "ments"]], ids=repr)
async def test_what_is_cancelled_before_it_ran_has_sent_nothing(message: Any) -> None:
    async with pair() as (client, server):
        sending = asyncio.create_task(client.send(message))
        pinging = asyncio.create_task(client.ping())
        closing = asyncio.create_task(client.close())
        for task in (sending, pinging, closing):
            task.cancel()
        await asyncio.wait([sending, pinging, closing])
        await client.send("only this")
        assert await server.recv() == "only this"
        assert client.counters["pings_sent"] == 0
        assert client.state is State.OPEN


@pytest.mark.parametrize("name", LAZY)
async def test_what_is_never_awaited_warns_and_does_nothing(name: str) -> None:
    async with pair() as (client, server):

        def forget() -> None:
            getattr(client, name)(*["x"] * (name == "send"))
            gc.collect()  # PyPy tells it then

        with pytest.warns(RuntimeWarning, match=f"WebSocket.{name}' was never awaited"):
            forget()
        await client.send("only this")
        assert await server.recv() == "only this"
        assert client.state is State.OPEN


@pytest.mark.parametrize("size", [10, 70_000])
@pytest.mark.parametrize("compression", [None, Deflate(executor_threshold=50_000)], ids=["plain", "deflate"])
async def test_sending_from_threads(size: int, compression: Deflate | None) -> None:
    """The usual way from another thread: each message arrives whole, and none twice."""
    loop = asyncio.get_running_loop()
    async with pair(compression=compression) as (client, server):

        def work(letter: bytes) -> None:
            for _ in range(100):
                asyncio.run_coroutine_threadsafe(client.send(letter * size), loop).result(20)

        working = asyncio.gather(*(asyncio.to_thread(work, letter) for letter in (b"a", b"b", b"c")))
        received = [await server.recv() for _ in range(300)]
        await working
        assert sorted(received) == sorted([letter * size for letter in (b"a", b"b", b"c")] * 100)


async def test_receiving_from_a_thread() -> None:
    loop = asyncio.get_running_loop()
    async with pair() as (client, server):
        waiting = asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(server.recv(), loop).result(20))
        task = asyncio.create_task(waiting)
        await client.send("here")
        assert await task == "here"


async def test_they_can_be_tasks_and_be_gathered() -> None:
    async with pair() as (client, server):
        async with asyncio.TaskGroup() as group:
            taken = group.create_task(server.recv())
            group.create_task(client.send("x"))
        assert taken.result() == "x"
        _, message = await asyncio.wait_for(asyncio.gather(client.send("y"), server.recv()), 5)
        assert message == "y"


async def test_the_iterator_can_be_closed() -> None:
    async with pair() as (client, server):
        await client.send("1")
        await client.send("2")
        async with aclosing(aiter(server)) as messages:
            async for message in messages:
                assert message == "1"
                break
        assert await server.recv() == "2"


# --- What acts at the call ----------------------------------------------------------------------------------------

AT_ONCE: dict[str, Callable[[wsfast.WebSocket], object]] = {
    "send_nowait": lambda ws: ws.send_nowait("x"),
    "close_nowait": lambda ws: ws.close_nowait(),
    "abort": lambda ws: ws.abort(),
    # Coroutines that are driven by hand.
    "send": lambda ws: ws.send("x").send(None),
    "send bytearray": lambda ws: ws.send(bytearray(b"x")).send(None),
    "send fragments": lambda ws: ws.send(["x", "y"]).send(None),
    "recv": lambda ws: ws.recv().send(None),
    "anext": lambda ws: next(iter(anext(aiter(ws)).__await__())),
    "recv_streaming": lambda ws: ws.recv_streaming(),
    "ping": lambda ws: ws.ping().send(None),
    "pong": lambda ws: ws.pong().send(None),
    "close": lambda ws: ws.close().send(None),
    "wait_closed": lambda ws: ws.wait_closed().send(None),
}
SERVERS: dict[str, Callable[[wsfast.Server], object]] = {
    "close": lambda server: server.close(),
    "publish": lambda server: server.publish("topic", "x"),
}


def in_another_loop(call: Callable[[], object]) -> object:
    """Call it while another loop runs in this thread, as if that were the connection's."""
    outer, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    asyncio.tasks._leave_task(outer, task)  # from 3.14 on, a thread has one current task, not one for each loop
    asyncio._set_running_loop(None)
    inner = asyncio.new_event_loop()

    async def main() -> object:
        return call()

    try:
        return inner.run_until_complete(main())
    finally:
        inner.close()
        asyncio._set_running_loop(outer)
        asyncio.tasks._enter_task(outer, task)


@pytest.mark.parametrize("name", AT_ONCE)
async def test_what_acts_at_once_refuses_other_threads(name: str) -> None:
    async with pair() as (client, server):
        with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
            await asyncio.to_thread(AT_ONCE[name], client)
        with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
            in_another_loop(lambda: AT_ONCE[name](client))
        assert client.state is State.OPEN
        await client.send("only this")
        assert await server.recv() == "only this"


async def test_a_broadcast_is_refused_where_no_loop_runs() -> None:
    """Where another loop runs it is taken: see test_server_threads."""
    async with pair() as (client, server):
        with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
            await asyncio.to_thread(wsfast.broadcast, [client], "never")
        wsfast.broadcast([client], "only this")
        assert await server.recv() == "only this"


@pytest.mark.parametrize("name", SERVERS)
async def test_a_server_refuses_other_threads(name: str) -> None:
    async with pair(topics=wsfast.Topics()) as (client, server):
        host = server._open_channel().host
        assert isinstance(host, wsfast.Server)
        with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
            await asyncio.to_thread(SERVERS[name], host)
        with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
            in_another_loop(lambda: SERVERS[name](host))
        assert host.is_serving()
        await client.send("only this")
        assert await server.recv() == "only this"


def test_a_loop_that_goes_on_in_another_thread() -> None:
    """A loop belongs to the thread that runs it, one after the other."""
    loop = asyncio.new_event_loop()
    failed: list[BaseException] = []
    server = wsfast.Server()

    @server.handler(None)
    async def handler(ws: wsfast.WebSocket) -> None:
        await ws.wait_closed()

    async def begin() -> wsfast.WebSocket:
        await server.start("127.0.0.1", 0)
        return await wsfast.connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")

    client = loop.run_until_complete(begin())

    async def go_on() -> None:
        assert client.send_nowait("x")
        await client.close()
        server.close()
        await server.wait_closed()

    def run() -> None:
        try:
            loop.run_until_complete(go_on())
        except BaseException as exc:
            failed.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    assert not failed
    assert not thread.is_alive()
    loop.close()


# --- Order behind a gate -------------------------------------------------------------------------------------------


async def pieces(*parts: str) -> AsyncIterator[str]:
    for part in parts:
        await asyncio.sleep(0)
        yield part


async def test_all_ways_of_sending_keep_the_order_in_which_they_were_awaited() -> None:
    """Compressed in a thread, sent in fragments, large or small: one queue."""
    async with pair(compression=Deflate(executor_threshold=1000)) as (client, server):
        messages: list[Any] = []
        for n in range(30):
            messages += [f"{n} small", f"{n} large " * 1000, f"{n} bytes".encode(), [f"{n} ", "fragments"]]
            messages += [pieces(f"{n} ", "later"), bytearray(b"%d" % n) * 2000]
        expected = [
            message if isinstance(message, (str, bytes)) else bytes(message) if isinstance(message, bytearray) else None
            for message in messages
        ]
        for n in range(30):
            expected[6 * n + 3], expected[6 * n + 4] = f"{n} fragments", f"{n} later"
        tasks = [asyncio.create_task(client.send(message)) for message in messages]
        received = [await server.recv() for _ in messages]
        await asyncio.gather(*tasks)
        assert received == expected


async def test_a_cancelled_one_leaves_the_queue_and_the_others_go_on() -> None:
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[str]:
        yield "first "
        await gate.wait()
        yield "message"

    async with pair() as (client, server):
        tasks = [asyncio.create_task(client.send(slow()))]
        tasks += [asyncio.create_task(client.send(f"{n}")) for n in range(10)]
        await asyncio.sleep(0)
        for n in (1, 4, 10):
            tasks[n].cancel()
        await asyncio.sleep(0)
        gate.set()
        assert await server.recv() == "first message"
        assert [await server.recv() for _ in range(7)] == ["1", "2", "4", "5", "6", "7", "8"]
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in done] == [n in (1, 4, 10) for n in range(11)]


async def test_one_that_is_cancelled_as_its_turn_comes_hands_it_on() -> None:
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[str]:
        yield "first"
        await gate.wait()
        # In the turn in which its turn comes, before it runs.
        asyncio.get_running_loop().call_soon(waiting[0].cancel)

    async with pair() as (client, server):
        sending = asyncio.create_task(client.send(slow()))
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(client.send(f"{n}")) for n in range(3)]
        await asyncio.sleep(0)
        gate.set()
        assert [await server.recv() for _ in range(3)] == ["first", "1", "2"]
        await asyncio.wait([sending, *waiting])
        assert [task.cancelled() for task in waiting] == [True, False, False]


async def test_nothing_overtakes_by_send_nowait() -> None:
    async with pair(compression=Deflate(executor_threshold=1000)) as (client, server):
        sending = asyncio.create_task(client.send("large " * 100_000))
        await asyncio.sleep(0)
        with pytest.raises(ConcurrencyError):
            client.send_nowait("small")
        await sending
        assert await server.recv() == "large " * 100_000


async def test_what_was_sent_before_a_close_arrives_though_a_thread_compresses_it() -> None:
    async with pair(compression=Deflate(executor_threshold=1000)) as (client, server):
        large = "large " * 100_000
        tasks = [asyncio.create_task(client.send(message)) for message in (large, "small", large, ["frag", "ments"])]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(client.close()))
        assert [await server.recv() for _ in range(4)] == [large, "small", large, "fragments"]
        await asyncio.gather(*tasks)
        with pytest.raises(ConnectionClosedOK):
            await server.recv()


@pytest.mark.parametrize("first", ["large " * 100_000, ["slow ", "frag", "ments"]], ids=["compressed", "fragments"])
@pytest.mark.parametrize(
    "behind", ["small", "large " * 100_000, ["frag", "ments"]], ids=["small", "large", "fragments"]
)
async def test_who_closes_behind_what_was_sent_does_not_overtake_those_in_line(first: Any, behind: Any) -> None:
    """The turn is the next one's already, whose task has not run yet."""
    async with pair(compression=Deflate(executor_threshold=1000)) as (client, server):

        async def slowly() -> AsyncIterator[str]:
            for piece in first:
                await asyncio.sleep(0)
                yield piece

        async def send_and_close() -> None:
            await client.send(first if isinstance(first, str) else slowly())
            await client.close()

        closing = asyncio.create_task(send_and_close())
        sending = asyncio.create_task(client.send(behind))
        assert [await server.recv(), await server.recv()] == ["".join(first), "".join(behind)]
        await asyncio.gather(closing, sending)
        with pytest.raises(ConnectionClosedOK):
            await server.recv()


@pytest.mark.parametrize("ending", ["the handler returns", "close_nowait", "the handler raises", "the server stops"])
async def test_whatever_closes_comes_after_what_a_thread_compresses(ending: str) -> None:
    large = "large " * 100_000
    tasks: list[asyncio.Task[None]] = []
    sending = asyncio.Event()

    async def handler(ws: wsfast.WebSocket) -> None:
        tasks.extend(asyncio.create_task(ws.send(message)) for message in (large, "small"))
        await asyncio.sleep(0)
        assert ws._open_channel().gated
        if ending == "close_nowait":
            with pytest.raises(ValueError, match="1006"):
                ws.close_nowait(1006)
            ws.close_nowait(4000)
            ws.close_nowait(4001)
        elif ending == "the handler raises":
            raise RuntimeError("as it is to be")
        sending.set()
        if ending == "the server stops":
            await ws.wait_closed()

    compression = Deflate(executor_threshold=1000)
    codes = {"the handler returns": 1000, "close_nowait": 4000, "the handler raises": 1011, "the server stops": 1001}
    async with asyncio.timeout(30), wsfast.serve(handler, "127.0.0.1", 0, compression=compression) as server:
        port = server.sockets[0].getsockname()[1]
        async with wsfast.connect(f"ws://127.0.0.1:{port}/", max_size=None, compression=compression) as client:
            if ending == "the server stops":
                await sending.wait()
                server.close()
            assert [await client.recv(), await client.recv()] == [large, "small"]
            with pytest.raises(wsfast.ConnectionClosed):
                await client.recv()
            assert client.close_code == codes[ending]
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("call", ["server", "client"])
async def test_a_peers_close_is_answered_behind_what_a_thread_compresses(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 6455, 5.5.1: it "MAY delay sending a Close frame until its current message is sent"."""
    held = HeldCompression(monkeypatch)
    async with pair(compression=Deflate(executor_threshold=1000)) as (client, server):
        sender, closer = (server, client) if call == "server" else (client, server)
        large = "large " * 10_000
        sending = [asyncio.create_task(sender.send(message)) for message in (large, "behind it")]
        receiving = asyncio.create_task(sender.recv())
        await until(held.began.is_set)
        received = sender.counters["bytes_received"]
        closing = asyncio.create_task(closer.close(4000))
        await until(lambda: sender.counters["bytes_received"] > received)
        assert sender.state is State.OPEN
        held.go_on.set()
        assert await closer.recv() == large
        await closing
        done = await asyncio.gather(*sending, receiving, return_exceptions=True)
        assert done[0] is None
        assert [type(one) for one in done[1:]] == [ConnectionClosedError] * 2
        assert sender.close_code == closer.close_code == 4000


async def test_what_is_not_compressed_in_time_is_not_reported_as_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to a peer's Close frame waits for `GRACE` at most; a message that comes too late raises."""
    monkeypatch.setattr("wsfast.session.GRACE", 0.05)
    held = HeldCompression(monkeypatch)
    async with pair(compression=Deflate(executor_threshold=1000)) as (client, server):
        sending = [asyncio.create_task(server.send(message)) for message in ("large " * 10_000, "behind it")]
        await until(held.began.is_set)
        await client.close()
        assert client.close_code == 1000
        held.go_on.set()
        done = await asyncio.gather(*sending, return_exceptions=True)
        assert [type(one) for one in done] == [ConnectionClosedOK] * 2
        with pytest.raises(ConnectionClosedOK):
            await client.recv()


async def test_a_close_takes_close_timeout_once_though_a_thread_compresses(monkeypatch: pytest.MonkeyPatch) -> None:
    held = HeldCompression(monkeypatch)
    async with pair(compression=Deflate(executor_threshold=1000), close_timeout=0.2) as (client, server):
        transport = server._open_channel().transport
        assert transport is not None
        transport.pause_reading()  # the peer does not answer
        sending = asyncio.create_task(client.send("large " * 10_000))
        await until(held.began.is_set)
        client.close_nowait()
        latest = monotonic() + 0.2
        await until(lambda: client.state is State.CLOSING)
        session = client._open_channel().session
        assert session.drop_at is not None
        assert session.drop_at <= latest
        await client.wait_closed()
        held.go_on.set()
        with pytest.raises(ConnectionClosedError, match="close timeout"):
            await sending


async def test_a_close_waits_for_no_fragments_that_may_never_come() -> None:
    async def endless() -> AsyncIterator[str]:
        yield "never"
        await asyncio.Event().wait()

    async with pair(compression=Deflate(executor_threshold=1000), close_timeout=0.2) as (client, _):
        tasks = [asyncio.create_task(client.send(message)) for message in ("large " * 100_000, endless())]
        await asyncio.sleep(0)
        await client.close()
        assert client.state is State.CLOSED
        await tasks[0]
        tasks[1].cancel()
        await asyncio.wait(tasks)


# --- Sending while this side closes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["send", "bytearray", "fragments", "ping", "pong", "flush", "write"])
async def test_who_sends_while_this_side_closes_learns_how_it_ended(call: str) -> None:
    """As in websockets: it waits for the end, and raises ConnectionClosedOK where that was a good one."""
    calls: dict[str, Callable[[wsfast.WebSocket], Any]] = {
        "send": lambda ws: ws.send("x"),
        "bytearray": lambda ws: ws.send(bytearray(b"x")),
        "fragments": lambda ws: ws.send(["x", "y"]),
        "ping": lambda ws: ws.ping(),
        "pong": lambda ws: ws.pong(),
        "flush": lambda ws: writer.flush(),
        "write": lambda ws: writer.write(bytes(100_000)),
    }
    async with pair() as (client, _):
        writer = Writer(client)
        await writer.write(b"something")
        client.close_nowait()
        assert client.state.name == "CLOSING"
        for _ in range(2):
            with pytest.raises(ConnectionClosedOK):
                await calls[call](client)
            assert client.state is State.CLOSED


async def test_who_sends_while_this_side_closes_learns_of_a_bad_end() -> None:
    async with pair(close_timeout=0.1) as (client, server):
        transport = server._open_channel().transport
        assert transport is not None
        transport.pause_reading()  # the peer does not answer
        client.close_nowait()
        with pytest.raises(ConnectionClosedError, match="close timeout"):
            await client.send("x")


# --- A place for the user's own ---------------------------------------------------------------------------------------


async def test_attributes_of_the_program() -> None:
    seen: list[Any] = []

    def process_request(ws: wsfast.WebSocket, request: wsfast.Request) -> None:
        ws.user = "ada"  # type: ignore[attr-defined]

    async def handler(ws: wsfast.WebSocket) -> None:
        seen.append(ws.user)  # type: ignore[attr-defined]

    async with wsfast.serve(handler, "127.0.0.1", 0, process_request=process_request) as server:
        async with wsfast.connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as ws:
            await ws.wait_closed()
            with pytest.raises(AttributeError):
                ws.user  # type: ignore[attr-defined]  # noqa: B018
        await until(lambda: seen)
    assert seen == ["ada"]


# --- A sending side that the program ends -----------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("call", ["send", "send_nowait", "fragments", "flush", "ping"])
async def test_what_cannot_be_sent_any_more_is_not_said_to_be(
    call: str, compression: Any, secure: bool, certs: Certificates
) -> None:
    calls: dict[str, Callable[[wsfast.WebSocket], Any]] = {
        "send": lambda ws: ws.send("x"),
        "send_nowait": lambda ws: ws.send_nowait("x"),
        "fragments": lambda ws: ws.send(["x", "y"]),
        "flush": lambda ws: writer.flush(),
        "ping": lambda ws: ws.ping(),
    }
    async with pair(certs if secure else None, compression=compression) as (client, _):
        assert client.transport is not None
        writer = Writer(client)
        await writer.write(b"something")
        client.transport.write_eof()
        with pytest.raises(ConnectionClosedError) as caught:
            await calls[call](client)
        assert repr(caught.value.__cause__) == "RuntimeError('Cannot call write() after write_eof()')"
        await client.wait_closed()
        assert client.state is State.CLOSED
