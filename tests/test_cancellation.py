"""Cancelling any call, at any await: no message is lost, doubled or half-sent, and a task stays a task.

`cut` cancels the current task where what it awaits suspends for the k-th time. The other tests cancel a task from
outside, at all the moments that differ: before and after what it waits for has come, from a callback and from a task.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import random
import sys
import weakref
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from hostile import BINARY, CLOSE, CONT, PING, PONG, TEXT, Peer, frame, serving
from shared import echo, until

import wsfast
from wsfast import ConcurrencyError, ConnectionClosed, ConnectionClosedError
from wsfast.deflate.negotiate import Deflate

pytestmark = pytest.mark.anyio


class cut:  # noqa: N801
    """Await something, and cancel the current task at its k-th suspension; 0 for never."""

    def __init__(self, awaitable: Awaitable[Any], k: int) -> None:
        self.awaitable = awaitable
        self.k = k
        self.suspensions = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self.awaitable.__await__()
        step: Callable[[], Any] = lambda: next(inner)  # noqa: E731
        while True:
            try:
                waited_for = step()
            except StopIteration as exc:
                return exc.value
            self.suspensions += 1
            if self.suspensions == self.k:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            try:
                yield waited_for
            except BaseException as exc:
                thrown = exc
                step = lambda: inner.throw(thrown)  # noqa: E731, B023
            else:
                step = lambda: next(inner)  # noqa: E731


async def cut_off(awaitable: Awaitable[Any], k: int) -> tuple[bool, Any]:
    """Await something with a cut at the k-th suspension; return whether it was cut off, and the result."""
    try:
        return False, await cut(awaitable, k)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 1
        assert task.uncancel() == 0
        return True, None


@asynccontextmanager
async def pair(
    *extra: str, form: str | None = None, **options: Any
) -> AsyncIterator[tuple[wsfast.WebSocket, Peer, wsfast.Server]]:
    """Open a connection whose server's side is handed to the test itself."""
    held: asyncio.Future[wsfast.WebSocket] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def handler(ws: wsfast.WebSocket) -> None:
        held.set_result(ws)
        await done.wait()

    async def stream(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        held.set_result(writer._ws)
        await done.wait()

    async with serving({None: handler, "stream": stream}, **options) as server:
        peer = await Peer.open(server, form, *extra, buffers=4096 if "buffers" in options else None)
        async with asyncio.timeout(5):
            ws = await held
        try:
            yield ws, peer, server
        finally:
            done.set()
            peer.close()
            await until(lambda: not server.connections)


def feed(ws: wsfast.WebSocket, *messages: str) -> None:
    """Have messages arrive, now."""
    ws._channel.feed(b"".join(frame(TEXT, message.encode()) for message in messages))


async def turns(count: int = 5) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


# --- recv ---------------------------------------------------------------------------------------------------


async def test_recv_cancelled_before_and_after_the_message_comes() -> None:
    async with pair() as (ws, _, _):
        loop = asyncio.get_running_loop()
        got: list[str | bytes] = []
        sent = 0

        def arrive() -> None:
            nonlocal sent
            feed(ws, str(sent))
            sent += 1

        for origin in ("task", "callback"):
            for order in ("message first", "cancel first", "a turn between", "cancel, a turn, message", "no message"):
                task = asyncio.create_task(ws.recv())
                await turns()
                moments: dict[str, list[Callable[[], object] | None]] = {
                    "message first": [arrive, task.cancel],
                    "cancel first": [task.cancel, arrive],
                    "a turn between": [arrive, None, task.cancel],
                    "cancel, a turn, message": [task.cancel, None, arrive],
                    "no message": [task.cancel],
                }
                for act in moments[order]:
                    if act is None:
                        await asyncio.sleep(0)
                    elif origin == "task":
                        act()
                if origin == "callback":

                    def run(acts: list[Callable[[], object] | None]) -> None:
                        for i, act in enumerate(acts):
                            if act is None:
                                loop.call_soon(run, acts[i + 1 :])
                                return
                            act()

                    loop.call_soon(run, moments[order])
                with suppress(asyncio.CancelledError):
                    got.append(await task)
                await turns()
                assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
        while len(got) < sent:
            async with asyncio.timeout(1):
                got.append(await ws.recv())
        assert got == [str(i) for i in range(sent)]


async def test_recv_cut_at_every_suspension() -> None:
    async with pair() as (ws, peer, _):
        got: list[str | bytes] = []
        for k in range(4):
            feed(ws, f"there {k}")
            cancelled, message = await cut_off(ws.recv(), k)
            assert not cancelled  # it need not wait
            got.append(message)
            if k == 1:
                cancelled, _ = await cut_off(ws.recv(), k)
                assert cancelled
            sending = asyncio.create_task(peer.send(frame(TEXT, b"later")))
            cancelled, message = await cut_off(ws.recv(), k)
            assert cancelled is (k == 1)
            got.append(await ws.recv() if cancelled else message)
            await sending
        assert got == [text for k in range(4) for text in (f"there {k}", "later")]


@pytest.mark.parametrize("way", ["timeout", "wait_for", "task", "iteration", "streaming"])
async def test_recv_cancelled_at_random(way: str) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    total = 3000

    async def recv(ws: wsfast.WebSocket) -> Any:
        if way == "iteration":
            return await anext(ws)
        if way == "streaming":
            return "".join([piece async for piece in ws.recv_streaming(decode=True)])
        return await ws.recv()

    async def attempt(ws: wsfast.WebSocket) -> Any:
        patience = chance.choice([0, 0, 0.0001, 0.0005])
        if way == "wait_for":
            return await asyncio.wait_for(recv(ws), patience)
        if way == "task":
            task = asyncio.create_task(recv(ws))
            await turns(chance.randrange(4))
            task.cancel()
            try:
                return await task
            except asyncio.CancelledError:
                raise TimeoutError from None
        async with asyncio.timeout(patience):
            return await recv(ws)

    got: list[str] = []
    cancelled = 0

    async with pair() as (ws, peer, _):

        async def send() -> None:
            at = 0
            while at < total:
                n = chance.randrange(1, 20)
                await peer.send(*[frame(TEXT, str(i).encode()) for i in range(at, min(at + n, total))])
                at += n
                await turns(chance.randrange(10))

        sending = asyncio.create_task(send())
        async with asyncio.timeout(20):
            while len(got) < total:
                try:
                    got.append(await attempt(ws))
                except TimeoutError:
                    cancelled += 1
        await sending
    assert got == [str(i) for i in range(total)]
    assert cancelled


async def test_two_receive_at_once() -> None:
    async with pair() as (ws, _, _):
        first = asyncio.create_task(ws.recv())
        await turns()
        seconds: list[Callable[[], Awaitable[object]]] = [lambda: ws.recv(), lambda: anext(ws)]
        for second in seconds:
            with pytest.raises(ConcurrencyError, match="another coroutine is already running recv"):
                await second()
        with pytest.raises(ConcurrencyError):
            async for _ in ws.recv_streaming():
                pass
        feed(ws, "for the first")
        assert await first == "for the first"
        feed(ws, "for the next")
        assert await ws.recv() == "for the next"


async def test_each_step_of_an_iteration_is_an_awaitable_of_its_own() -> None:
    async with pair() as (ws, _, _):
        steps: Any = aiter(ws)
        feed(ws, "0", "1")
        first, second = anext(steps), anext(steps)
        assert [await second, await first] == ["0", "1"]
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            await first
        # One that was cancelled while it waited leaves the next one as it should be.
        for moment in (0, 1):
            task = asyncio.create_task(_step(steps))
            await turns(moment)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        feed(ws, "2")
        assert await anext(steps) == "2"


async def _step(steps: AsyncIterator[Any]) -> Any:
    return await anext(steps)


async def test_recv_that_is_never_awaited_takes_nothing() -> None:
    async with pair() as (ws, _, _):
        feed(ws, "kept")
        coroutine: Any = ws.recv()
        coroutine.close()
        assert await ws.recv() == "kept"


async def test_recv_in_a_task_of_its_own_closed_while_it_waits() -> None:
    """A coroutine that is closed, not cancelled, lets go of the connection as well."""
    async with pair() as (ws, _, _):

        async def receive() -> Any:
            return await ws.recv()

        coroutine = receive()
        coroutine.send(None)
        coroutine.close()
        await turns()
        feed(ws, "kept")
        assert await ws.recv() == "kept"


async def test_the_usual_ways_to_wait() -> None:
    async with pair() as (ws, _, _):
        loop = asyncio.get_running_loop()
        loop.call_later(0.01, feed, ws, "0")
        assert await asyncio.wait_for(ws.recv(), 1) == "0"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.recv(), 0.01)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await ws.recv()
        loop.call_later(0.01, feed, ws, "1", "2")
        assert await asyncio.gather(ws.recv()) == ["1"]  # type: ignore[comparison-overlap]
        assert await asyncio.shield(ws.recv()) == "2"
        loop.call_later(0.01, feed, ws, "3")
        done, pending = await asyncio.wait([asyncio.create_task(ws.recv()), asyncio.create_task(asyncio.sleep(60))],
                                           return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
        assert [task.result() for task in done] == ["3"]
        for task in pending:
            task.cancel()
        loop.call_later(0.01, feed, ws, "4")
        async with asyncio.TaskGroup() as group:
            receiving = group.create_task(ws.recv())
        assert receiving.result() == "4"
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(ws.recv())

                async def fail() -> None:
                    await turns()
                    raise ValueError

                group.create_task(fail())
        feed(ws, "5")
        assert await ws.recv() == "5"
        # A shielded one goes on, and takes what comes.
        inner = asyncio.ensure_future(ws.recv())
        outer = asyncio.create_task(_wait_shielded(inner))
        await turns()
        outer.cancel()
        await turns()
        feed(ws, "6")
        assert await inner == "6"
        loop.call_later(0.01, feed, ws, "7")
        future = asyncio.run_coroutine_threadsafe(ws.recv(), loop)
        assert await asyncio.wrap_future(future) == "7"
        for waiting in asyncio.as_completed([ws.recv()]):
            loop.call_later(0.01, feed, ws, "8")
            assert await waiting == "8"


async def _wait_shielded(inner: asyncio.Future[Any]) -> None:
    await asyncio.shield(inner)


async def test_cancelled_with_a_message_of_its_own() -> None:
    async with pair() as (ws, _, _):
        task = asyncio.create_task(ws.recv())
        await turns()
        assert not task.done()
        assert task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task


# --- A task stays a task ------------------------------------------------------------------------------------


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("origin", ["callback", "task", "transport"])
async def test_what_a_resumed_handler_sees(origin: str, debug: bool) -> None:
    """Its own task, its own context variables, though the transport's callback, or a task, is at work."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    loop = asyncio.get_running_loop()
    seen: list[Any] = []

    async with pair() as (ws, peer, _):
        loop.set_debug(debug)
        try:

            async def handler(name: str) -> None:
                variable.set(name)
                for _ in range(3):
                    message = await ws.recv()
                    task = asyncio.current_task()
                    seen.append((message, variable.get(), task.get_name() if task else None))
                    assert asyncio.get_running_loop() is loop
                    # What it starts inherits from it.
                    assert await asyncio.create_task(_get(variable)) == name
                    variable.set(name)
                    await asyncio.sleep(0)

            variable.set("outer")
            task = asyncio.create_task(handler("inner"), name="theirs")
            me = asyncio.current_task()
            await turns()
            for i in range(3):
                if origin == "task":
                    feed(ws, str(i))
                elif origin == "callback":

                    def arrive(i: int = i) -> None:
                        variable.set("callback")
                        feed(ws, str(i))
                        assert variable.get() == "callback"
                        assert asyncio.current_task() is None

                    loop.call_soon(arrive, context=contextvars.copy_context())
                else:
                    await peer.send(frame(TEXT, str(i).encode()))
                assert asyncio.current_task() is me
                assert variable.get() == "outer"
                await until(lambda: len(seen) == i + 1)  # noqa: B023
                await turns(8)
            await task
        finally:
            loop.set_debug(False)
    assert seen == [(str(i), "inner", "theirs") for i in range(3)]


async def _get(variable: contextvars.ContextVar[str]) -> str:
    return variable.get()


async def test_a_context_that_is_entered_already() -> None:
    """A task may run in the very context in which the callback runs that feeds it."""
    async with pair() as (ws, _, _):
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        task = loop.create_task(ws.recv(), context=context)
        await turns()
        loop.call_soon(feed, ws, "x", context=context)
        async with asyncio.timeout(1):
            assert await task == "x"


async def test_tasks_that_take_turns_to_receive() -> None:
    """Each message wakes the task that waits now, however often another one waited before."""
    async with pair() as (ws, _, _):
        loop = asyncio.get_running_loop()
        got: list[tuple[str, Any]] = []
        turn = asyncio.Semaphore(1)

        async def receive(name: str, counts: list[int]) -> None:
            for count in counts:
                async with turn:
                    got.extend([(name, await ws.recv()) for _ in range(count)])

        tasks = [asyncio.create_task(receive("a", [3, 1, 2])), asyncio.create_task(receive("b", [1, 3, 2]))]
        await turns()
        for i in range(12):
            loop.call_soon(feed, ws, str(i))
            await turns()
        await asyncio.gather(*tasks)
    assert got == [(name, str(i)) for i, name in enumerate("aaababbbaabb")]


async def test_nothing_is_kept_of_a_task_that_received() -> None:
    async with pair() as (ws, _, _):

        async def receive() -> None:
            for _ in range(3):
                await ws.recv()

        task = asyncio.create_task(receive())
        await turns()
        for _ in range(3):
            asyncio.get_running_loop().call_soon(feed, ws, "x")
            await turns()
        assert task.done()
        ref = weakref.ref(task)
        del task
        if sys.implementation.name == "pypy":
            gc.collect()  # else it frees it some time
        assert ref() is None


async def test_handlers_that_wake_each_other() -> None:
    """One handler's frames are another's, in the same process, and closing one from the other is no recursion."""
    async with pair() as (one, _, _), pair() as (other, _, _):

        async def relay() -> None:
            async for message in one:
                feed(other, str(message))
                if message == "close":
                    other.close_nowait()

        async def sink() -> list[Any]:
            return [message async for message in other]

        relaying, sinking = asyncio.create_task(relay()), asyncio.create_task(sink())
        await turns()
        asyncio.get_running_loop().call_soon(feed, one, "a", "b", "close")
        await turns()
        other.abort()
        with pytest.raises(ConnectionClosedError):
            await sinking
        relaying.cancel()
        with suppress(asyncio.CancelledError):
            await relaying


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
async def test_eager_tasks() -> None:
    async with pair() as (ws, _, _):
        loop = asyncio.get_running_loop()
        feed(ws, "there")
        task: Any = asyncio.Task(ws.recv(), loop=loop, eager_start=True)  # type: ignore[call-arg]
        assert task.done()
        assert await task == "there"
        task = asyncio.Task(ws.recv(), loop=loop, eager_start=True)  # type: ignore[call-arg]
        assert not task.done()
        feed(ws, "later")
        assert await task == "later"

        def eager(loop: asyncio.AbstractEventLoop, coro: Any, *, eager_start: bool = True, **options: Any) -> Any:
            # asyncio.eager_task_factory of CPython 3.13.0 does not know `eager_start`, which uvloop 0.23 passes.
            return asyncio.Task(coro, loop=loop, eager_start=True, **options)  # type: ignore[call-arg]

        loop.set_task_factory(eager)
        try:
            async with asyncio.TaskGroup() as group:
                receiving = group.create_task(ws.recv())
                loop.call_soon(feed, ws, "last")
            assert receiving.result() == "last"
        finally:
            loop.set_task_factory(None)


async def test_uncancel_is_left_to_the_task() -> None:
    async with pair() as (ws, _, _):

        async def stubborn() -> Any:
            task = asyncio.current_task()
            assert task is not None
            for _ in range(3):
                with suppress(asyncio.CancelledError):
                    await ws.recv()
                assert task.cancelling() == 1
                task.uncancel()
            return await ws.recv()

        task = asyncio.create_task(stubborn())
        for _ in range(3):
            await turns()
            assert task.cancel()
        await turns()
        asyncio.get_running_loop().call_soon(feed, ws, "x")
        assert await task == "x"


# --- send ---------------------------------------------------------------------------------------------------


async def drain(peer: Peer) -> list[tuple[int, bytes]]:
    """Read messages, put together, up to the message b"end"; fail at what is no well-formed sequence."""
    messages: list[tuple[int, bytes]] = []
    kind, parts = 0, b""
    while True:
        opcode, payload = await peer.read()
        assert opcode in (TEXT, BINARY, CONT, CLOSE), opcode
        if opcode == CLOSE:
            messages.append((CLOSE, payload))
            await peer.send(frame(CLOSE, payload))  # who sends while its side closes waits for the end
            peer.close()
            return messages
        assert (opcode == CONT) == bool(kind)
        kind, parts = kind or opcode, parts + payload
        if not peer.fin:
            continue
        if parts == b"end":
            return messages
        messages.append((kind, parts))
        kind, parts = 0, b""


async def stuff(ws: wsfast.WebSocket) -> None:
    """Send until the peer, who does not read, takes no more, and `send` would wait."""
    while not ws._channel.write_paused:
        ws.send_nowait(b"s" * 3000)
        ws._channel.flush()


class _Pieces:
    """An asynchronous iterable of fragments that suspends before each."""

    def __init__(self, mark: bytes) -> None:
        self.mark = mark

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.mark + b"p" * 4000
        await asyncio.sleep(0)
        yield b"p" * 4000
        await asyncio.sleep(0)
        yield b"tail"


MESSAGES: dict[str, Callable[[bytes], Any]] = {
    "bytes": lambda mark: mark,
    "str": lambda mark: mark.decode(),
    "bytearray": bytearray,
}


@pytest.mark.parametrize("what", MESSAGES)
@pytest.mark.parametrize("gate", [False, True], ids=["free", "behind another"])
async def test_send_cut_at_every_suspension(what: str, gate: bool) -> None:
    """Each message goes out once, or not at all."""
    k = 1
    while True:
        async with pair(buffers=8192) as (ws, peer, _):
            await stuff(ws)
            going = asyncio.Event()
            first = None
            if gate:

                async def slow(going: asyncio.Event = going) -> AsyncIterator[bytes]:
                    yield b"first" + b"p" * 4000
                    await going.wait()
                    yield b"tail"

                first = asyncio.create_task(ws.send(slow()))
                await turns()
            reading = asyncio.create_task(drain(peer))
            asyncio.get_running_loop().call_later(0.005, going.set)
            cutting = cut(ws.send(MESSAGES[what](b"mark")), k)
            try:
                await cutting
                cancelled = False
            except asyncio.CancelledError:
                asyncio.current_task().uncancel()  # type: ignore[union-attr]
                cancelled = True
            if first:
                await first
            await ws.send(b"end")
            messages = [payload for _, payload in await reading if payload[:1] != b"s"]
        marks = messages.count(b"mark")
        assert marks == 1 or (marks == 0 and cancelled and gate)
        assert all(message in (b"mark", b"first" + b"p" * 4000 + b"tail") for message in messages)
        assert len(messages) == marks + gate
        if not cancelled:
            break
        k += 1
    assert k >= 2


async def test_send_of_fragments_cut_at_every_suspension() -> None:
    """A message that was begun and is cancelled can only end the connection (RFC 6455, 5.4); else it is not sent."""
    k = 1
    outcomes = set()
    while True:
        async with pair() as (ws, peer, _):
            reading = asyncio.create_task(drain(peer))
            cancelled, _ = await cut_off(ws.send(_Pieces(b"mark")), k)
            with suppress(ConnectionClosed):
                await ws.send(b"end")
            async with asyncio.timeout(5):
                messages = await reading
        if cancelled and messages:
            assert messages == [(CLOSE, (1011).to_bytes(2, "big") + b"a message was not finished")]
            outcomes.add("closed")
        elif cancelled:
            outcomes.add("not sent")
        else:
            assert messages == [(BINARY, b"mark" + b"p" * 8000 + b"tail")]
            break
        k += 1
    assert k > 2
    assert "closed" in outcomes


@pytest.mark.parametrize("threshold", [None, 1], ids=["here", "in a thread"])
async def test_send_compressed_cut_at_every_suspension(threshold: int | None) -> None:
    """Compressing a message and sending it is one step, or the peer's inflater would lose its thread."""
    text = b"a text that comes again and again, " * 50
    k = 1
    while True:
        compression = Deflate(executor_threshold=threshold)
        async with pair("Sec-WebSocket-Extensions: permessage-deflate", compression=compression) as (ws, peer, _):
            inflate = zlib.decompressobj(-15)
            sent = [b"0" + text, b"1" + text, b"2" + text]
            outcome = [(await cut_off(ws.send(message), k))[0] for message in sent]
            await ws.send(b"end")
            got: list[bytes] = []
            while not got or got[-1] != b"end":
                _, payload = await peer.read()
                got.append(payload if payload == b"end" else inflate.decompress(payload + b"\0\0\xff\xff"))
        # Once begun it is finished; only one that still waited for its turn may be missing.
        assert got == [message for message in sent if message in got] + [b"end"]
        assert all(message in got for message, cancelled in zip(sent, outcome, strict=True) if not cancelled)
        if not any(outcome):
            break
        k += 1
    assert k > 1 or threshold is None


async def test_waiters_that_were_cancelled_are_let_go() -> None:
    """A program that looks every now and then whether a connection has ended must not grow by it."""
    async with pair(buffers=8192) as (ws, _, _):
        await stuff(ws)
        channel = ws._channel
        for _ in range(50):
            for waiting in (ws.wait_closed(), channel.outbox.drain(), ws.send(bytearray(b"x"))):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await waiting
        assert not channel._end
        assert not channel.outbox._drain
        ws.abort()


async def test_senders_do_not_interleave() -> None:
    async with pair(buffers=8192) as (ws, peer, _):

        async def pieces(name: bytes) -> AsyncIterator[bytes]:
            for _ in range(5):
                yield name * 4000
                await asyncio.sleep(0)
            yield name

        async def send_all() -> None:
            async with asyncio.TaskGroup() as group:
                for i in range(10):
                    group.create_task(ws.send(pieces(b"%d" % i)))
                    group.create_task(ws.send(f"whole {i}"))
                    group.create_task(ws.send(bytearray(b"odd %d" % i)))
            await ws.send(b"end")

        sending = asyncio.create_task(send_all())
        messages = await drain(peer)
        await sending
    expected = {(BINARY, b"%d" % i * 20001) for i in range(10)}
    expected |= {(TEXT, f"whole {i}".encode()) for i in range(10)} | {(BINARY, b"odd %d" % i) for i in range(10)}
    assert set(messages) == expected
    assert len(messages) == 30


async def test_waiting_senders_are_cancelled_in_any_order() -> None:
    """Whoever holds the turn and is cancelled passes it on, also if it was just given to one that is cancelled."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(30):
        async with pair() as (ws, peer, _):

            async def pieces() -> AsyncIterator[bytes]:
                await asyncio.sleep(0)
                yield b"whole"

            tasks = [asyncio.create_task(ws.send(pieces())) for _ in range(6)]
            for _ in range(3):
                await turns(chance.randrange(4))
                chance.choice(tasks).cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
            if ws.state.name == "OPEN":
                async with asyncio.timeout(1):
                    await ws.send(bytearray(b"end"))
                    while (await peer.read())[1] != b"end":
                        pass


# --- ping, close, wait_closed -------------------------------------------------------------------------------


async def test_ping_cut_at_every_suspension() -> None:
    async with pair() as (ws, peer, _):
        for k in range(1, 4):

            async def ping() -> float:
                return await (await ws.ping())

            cutting = asyncio.create_task(cut_off(ping(), k))
            opcode, payload = await peer.read()
            assert opcode == PING
            await turns()
            await peer.send(frame(PONG, payload))
            cancelled, latency = await cutting
            assert cancelled is (k == 1)
            await until(lambda: ws._channel.session._pings is None)
            assert ws.latency > 0
            assert cancelled or latency > 0


async def test_close_cut_at_every_suspension() -> None:
    """The closing handshake goes on without who began it, and its Close frame is sent once."""
    k = 1
    while True:
        async with pair() as (ws, peer, _):
            reading = asyncio.create_task(peer.read_close())
            cancelled, _ = await cut_off(ws.close(3001, "once"), k)
            assert await reading == (3001, "once")
            async with asyncio.timeout(1):
                await ws.close()
                await ws.wait_closed()
            assert peer.buffer == b""
            assert ws.close_cause == "closed by us"
        if not cancelled:
            break
        k += 1
    assert k == 2


async def test_wait_closed_cut_at_every_suspension() -> None:
    k = 1
    while True:
        async with pair() as (ws, peer, _):
            asyncio.get_running_loop().call_later(0.005, peer.reset)
            cancelled, _ = await cut_off(ws.wait_closed(), k)
            await ws.wait_closed()
            assert ws.state.name == "CLOSED"
        if not cancelled:
            break
        k += 1
    assert k == 2


async def test_pong_cut_at_every_suspension() -> None:
    """It goes out once, whether or not its sender waits until the peer takes it."""
    k = 1
    while True:
        async with pair(buffers=8192) as (ws, peer, _):
            await stuff(ws)
            cutting = asyncio.create_task(cut_off(ws.pong(b"beat"), k))
            await turns()
            pongs: list[bytes] = []
            while not cutting.done() or not pongs:
                opcode, payload = await peer.read()
                pongs += [payload] * (opcode == PONG)
            cancelled, _ = await cutting
            ws.send_nowait("end")
            while (opcode := (await peer.read())[0]) != TEXT:
                assert opcode != PONG
            assert pongs == [b"beat"]
            assert not ws._channel.outbox._drain
        if not cancelled:
            break
        k += 1
    assert k == 2


# --- The stream -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["write", "flush", "both"])
async def test_writer_cut_at_every_suspension(step: str) -> None:
    """What was written goes out once, in the message that the next flush ends."""
    k = 1
    while True:
        async with pair(form="stream", buffers=8192) as (ws, peer, _):
            writer = ws.writer
            assert writer is not None
            await stuff(ws)
            reading = asyncio.create_task(_read_bytes(peer, 70_004))
            cancelled = False
            if step == "flush":
                await writer.write(b"x" * 60_000)
                await writer.write(b"tail")
                cancelled, _ = await cut_off(writer.flush(), k)
                await writer.write(b"y" * 10_000)
            elif step == "write":
                cancelled, _ = await cut_off(writer.write(b"x" * 70_000), k)
                await writer.write(b"tail")
            else:
                cancelled, _ = await cut_off(_write_all(writer), k)
                if cancelled:
                    await reading_cancelled(reading, ws)
                    k += 1
                    continue
            await writer.flush()
            got = await reading
            first, last = (b"x" * 60_000 + b"tail", b"y" * 10_000) if step == "flush" else (b"x" * 70_000, b"tail")
            assert got == first + last
        if not cancelled:
            break
        k += 1
    assert k >= 2


async def _write_all(writer: wsfast.Writer) -> None:
    await writer.write(b"x" * 70_000)
    await writer.write(b"tail")


async def reading_cancelled(reading: asyncio.Task[Any], ws: wsfast.WebSocket) -> None:
    """Give a connection up on which an unknown part of a message was sent."""
    reading.cancel()
    ws.abort()
    with suppress(asyncio.CancelledError):
        await reading


async def _read_bytes(peer: Peer, total: int) -> bytes:
    got = b""
    while len(got) < total:
        opcode, payload = await peer.read()
        if payload[:1] != b"s":
            assert opcode in (BINARY, CONT)
            got += payload
    return got


@pytest.mark.parametrize("how", ["read", "readexactly", "readuntil", "readline"])
async def test_reader_cancelled_at_random(how: str) -> None:
    """Bytes that a cancelled read saw are there for the next."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    lines = [b"%d\n" % i * 3 for i in range(500)]
    data = b"".join(lines)
    got = b""
    async with pair(form="stream") as (ws, peer, _):
        reader = ws.reader
        assert reader is not None

        async def send() -> None:
            at = 0
            while at < len(data):
                n = chance.randrange(1, 40)
                await peer.send(frame(BINARY, data[at : at + n]))
                at += n
                await turns(chance.randrange(5))

        sending = asyncio.create_task(send())
        async with asyncio.timeout(20):
            while len(got) < len(data):
                with suppress(TimeoutError):
                    async with asyncio.timeout(chance.choice([0, 0.0001])):
                        if how == "read":
                            got += await reader.read(chance.randrange(1, 100))
                        elif how == "readexactly":
                            got += await reader.readexactly(min(3, len(data) - len(got)))
                        elif how == "readuntil":
                            got += await reader.readuntil(b"\n")
                        else:
                            got += await reader.readline()
        await sending
    assert got == data


async def test_streaming_cancelled_before_a_message_began_keeps_it() -> None:
    async with pair() as (ws, peer, _):
        for i in range(5):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.002):
                    async for _ in ws.recv_streaming():
                        pass
            await peer.send(frame(TEXT, b"a%d" % i, fin=False))
            await turns()
            await peer.send(frame(CONT, b"b"))
            message = await ws.recv() if i % 2 else "".join([str(piece) async for piece in ws.recv_streaming()])
            assert message == f"a{i}b"


async def test_streaming_cut_at_every_suspension() -> None:
    """A message of which no piece was taken stays; of one that was begun, the rest is dropped, and nothing else."""
    pieces = [frame(TEXT, b"a", fin=False), frame(CONT, b"b", fin=False), frame(CONT, b"c")]
    k = 1
    while True:
        async with pair() as (ws, peer, _):
            got: list[str] = []

            async def take(ws: wsfast.WebSocket, got: list[str]) -> None:
                async for piece in ws.recv_streaming():
                    got.append(str(piece))  # noqa: PERF401 - what came before the cut counts

            cutting = asyncio.create_task(cut_off(take(ws, got), k))
            await turns()
            for piece in pieces:
                received = ws.counters["bytes_received"]
                await peer.send(piece)
                await until(lambda: ws.counters["bytes_received"] > received)  # noqa: B023
                await turns()
            cancelled, _ = await cutting
            await peer.send(frame(TEXT, b"next"))
            if cancelled and not got:
                assert await ws.recv() == "abc"
            assert await ws.recv() == "next"
            assert got == ["a", "b", "c"][: k - 1]
        if not cancelled:
            break
        k += 1
    assert k == 4


async def test_an_echo_server_outlives_it_all() -> None:
    async with serving(echo) as server:
        peer = await Peer.open(server)
        await peer.answered()
