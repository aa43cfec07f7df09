"""A close comes behind all for which `send` was called before, in threads and on trio; test_calls has asyncio's."""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from types import FrameType
from typing import Any, Self

import pytest
import trio
import trio.testing
from shared import HeldCompression
from sync_helpers import PATIENCE, in_thread, running, until
from trio_helpers import connection, half, in_trio, on_mock_clock, pair

import wsfast
import wsfast.sync
import wsfast.trio
from wsfast import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, Side, State
from wsfast.connection import Connection

LARGE = "large " * 10_000


def gathered(into: list[Any]) -> Callable[[wsfast.WebSocket], Any]:
    """Make a handler that notes each message."""

    async def gather(ws: wsfast.WebSocket) -> None:
        async for message in ws:
            into.append(message)  # noqa: PERF401 - as they come

    return gather


# --- In threads -----------------------------------------------------------------------------------------------------


@contextmanager
def waiting(
    monkeypatch: pytest.MonkeyPatch, messages: list[Any], **options: Any
) -> Iterator[tuple[wsfast.sync.WebSocket, HeldCompression, list[Any], list[Any]]]:
    """Have threads send, of which the first compresses and the others wait; give what arrived, and what was raised."""
    held = HeldCompression(monkeypatch)
    arrived: list[Any] = []
    raised: list[Any] = []

    def send(message: Any) -> None:
        try:
            ws.send(message)
        except ConnectionClosed as exc:
            raised.append(exc)

    with running(gathered(arrived), compression="deflate", max_size=None) as served:
        ws = wsfast.sync.connect(served.uri, compression="deflate", **options)
        threads = [in_thread(partial(send, LARGE))]
        assert held.began.wait(PATIENCE)
        threads += [in_thread(partial(send, message)) for message in messages]
        until(lambda: len(ws._calls) == len(threads))
        try:
            yield ws, held, arrived, raised
        finally:
            held.go_on.set()
            for thread in threads:
                thread.join(PATIENCE)
                assert not thread.is_alive()
            assert ws.wait_closed(PATIENCE)
            assert not ws._calls


@pytest.mark.parametrize("ending", ["close", "the block ends", "_leave"])
def test_a_thread_that_closes_does_not_overtake_those_in_line(ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first compresses, the others wait for it, or have gone on and are not where it could be seen."""
    messages = ["small", b"bytes", ["frag", "ments"], LARGE]
    with waiting(monkeypatch, messages) as (ws, held, arrived, raised):
        ends: dict[str, Callable[[], object]] = {
            "close": partial(ws.close, 4000),
            "the block ends": partial(ws.__exit__, None, None, None),
            "_leave": partial(ws._leave, 4000, wsfast.CloseCause.LOCAL),  # what a server does when the handler returns
        }
        closing = in_thread(ends[ending])
        until(lambda: ws._behind)
        with pytest.raises(ValueError, match="1006"):
            ws.close(1006)
        again = in_thread(ws.close)  # one that comes later
        held.go_on.set()
        closing.join(PATIENCE)
        again.join(PATIENCE)
    until(lambda: len(arrived) == 5)
    assert sorted(map(str, arrived)) == sorted(map(str, [LARGE, "small", b"bytes", "fragments", LARGE]))
    assert raised == []
    assert ws.close_code == (1000 if ending == "the block ends" else 4000)


def test_a_stop_does_not_overtake_what_a_thread_compresses(monkeypatch: pytest.MonkeyPatch) -> None:
    held = HeldCompression(monkeypatch)
    threads: list[threading.Thread] = []

    def handler(ws: wsfast.sync.WebSocket) -> None:
        threads.extend(in_thread(partial(ws.send, message)) for message in (LARGE, "small"))
        ws.wait_closed()

    with wsfast.sync.serve(handler, "127.0.0.1", 0, compression="deflate") as server:
        serving = in_thread(server.serve_forever)
        uri = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/"
        with wsfast.sync.connect(uri, compression="deflate") as ws:
            assert held.began.wait(PATIENCE)
            (served,) = server.connections
            until(lambda: len(served._calls) == 2)
            stopping = in_thread(server.shutdown)
            until(lambda: served._behind)
            held.go_on.set()
            assert sorted(str(message) for message in ws) == sorted([LARGE, "small"])
            assert ws.close_code == 1001
        for thread in (stopping, serving, *threads):
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_a_close_takes_half_of_its_time_for_those_in_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with waiting(monkeypatch, [], close_timeout=0.2) as (ws, held, arrived, raised):
        closing = in_thread(ws.close)
        until(lambda: ws.state is State.CLOSED)
        closing.join(PATIENCE)
        assert ws.close_code == 1000  # the peer has answered in the other half
        held.go_on.set()
    assert arrived == []
    assert [type(exc) for exc in raised] == [ConnectionClosedOK]


@pytest.mark.parametrize("begun", [True, False], ids=["begun", "not begun"])
def test_a_close_waits_for_no_fragments_of_a_thread_that_may_never_come(begun: bool) -> None:
    stop, within = threading.Event(), threading.Event()

    def endless() -> Iterator[str]:
        if begun:
            yield "never"
        within.set()
        assert stop.wait(PATIENCE)
        yield "comes"

    def send() -> None:
        with pytest.raises(ConnectionClosed):
            ws.send(endless())

    with running() as served:
        ws = wsfast.sync.connect(served.uri, close_timeout=None)
        sending = in_thread(send)
        assert within.wait(PATIENCE)
        ws.close()
        assert ws.state is State.CLOSED
        stop.set()
        sending.join(PATIENCE)


def test_a_connection_that_ends_while_a_close_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    with waiting(monkeypatch, ["small"], close_timeout=None) as (ws, held, _, raised):
        closing = in_thread(ws.close)
        until(lambda: ws._behind)
        ws.abort()
        closing.join(PATIENCE)
        assert not closing.is_alive()
        assert ws._behind is None
        held.go_on.set()
    assert [type(exc) for exc in raised] == [ConnectionClosedError] * 2


# --- Ctrl-C in threads ----------------------------------------------------------------------------------------------


class InterruptAt:
    """Raises KeyboardInterrupt at one of the moments at which Python could: when a function begins, or was called.

    But not within `__del__`, which is called at any time, and of which Python drops what it raises. Nothing is
    collected meanwhile: Python 3.11 calls a freed function where a collection as it makes a frame ends the profile.

    Args:
        moment: how many of them are let pass.
    """

    def __init__(self, moment: int) -> None:
        self.left = moment

    def __enter__(self) -> Self:
        gc.disable()
        sys.setprofile(self._event)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.setprofile(None)
        gc.enable()

    def _event(self, frame: FrameType, event: str, arg: object) -> None:
        if event not in ("call", "c_return") or "/wsfast/" not in frame.f_code.co_filename:
            return
        within: FrameType | None = frame
        while within is not None:
            if within.f_code.co_name == "__del__":
                return
            within = within.f_back
        self.left -= 1
        if self.left < 0:
            sys.setprofile(None)
            raise KeyboardInterrupt


CALLS: dict[str, Callable[[wsfast.sync.WebSocket], object]] = {
    "send": lambda ws: ws.send("x" * 400),
    "fragments": lambda ws: ws.send(["frag", "ments"]),
    "recv": lambda ws: ws.recv(),
    "stream": lambda ws: list(ws.recv_streaming()),
    "recv in time": lambda ws: ws.recv(timeout=PATIENCE),
    "ping": lambda ws: ws.ping(),
    "close": lambda ws: ws.close(),
}


@pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="its `with lock` can leave the lock held when an exception comes from outside"
)
@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("name", CALLS)
def test_ctrl_c_at_each_moment(name: str, compression: Any) -> None:
    """What is interrupted goes out whole or not at all; the connection works on, or ends, and nothing hangs."""
    arrived: list[Any] = []

    async def handler(ws: wsfast.WebSocket) -> None:
        await ws.send("here")
        async for message in ws:
            arrived.append(message)  # noqa: PERF401 - as they come

    moment, interrupted = 0, True
    with running(handler, compression=compression) as served:
        while interrupted:
            arrived.clear()
            ws = wsfast.sync.connect(served.uri, compression=compression, close_timeout=2, ping_interval=None)
            interrupted = False
            try:
                with InterruptAt(moment):
                    CALLS[name](ws)
            except KeyboardInterrupt:
                interrupted = True
            until(lambda: not ws._lock.locked())  # noqa: B023 - the connection's thread takes it too, now and then
            assert not ws._gate.locked(), moment
            assert not ws._calls, moment
            assert ws._streamer is None, moment
            assert name == "recv in time" or not ws._turnstile._is_owned(), moment  # type: ignore[attr-defined]
            try:
                ws.send("marker")
            except ConnectionClosed:
                assert name != "recv", moment
            else:
                until(lambda: "marker" in arrived)
            ws.close()
            assert ws.wait_closed(PATIENCE), moment
            assert ws.close_code in (1000, 1006, 1011), moment
            assert set(arrived) <= {"x" * 400, "fragments", "marker"}, moment
            moment += 1
    assert moment > 5


# --- On trio --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def held_pair(**options: Any) -> AsyncIterator[tuple[wsfast.trio.WebSocket, wsfast.trio.WebSocket, trio.Event]]:
    """Run both ends of a connection, with a client whose network takes nothing yet, and much unsent."""
    near, far = trio.testing.memory_stream_pair()
    client = connection(near, Side.CLIENT, write_limit=1000, max_size=None, **options)
    server = connection(far, Side.SERVER, max_size=None)
    go_on, transmit = trio.Event(), near.send_stream.send_all_hook
    assert transmit is not None

    async def hold() -> None:
        await go_on.wait()
        await transmit()

    near.send_stream.send_all_hook = hold
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client._work)
        nursery.start_soon(server._work)
        await client.send(LARGE)
        assert client._full
        try:
            yield client, server, go_on
        finally:
            client.abort()
            server.abort()


async def all_of(ws: wsfast.trio.WebSocket, into: list[Any]) -> None:
    """Note each message until the end."""
    async for message in ws:
        into.append(message)  # noqa: PERF401 - as they come


@in_trio
async def test_who_closes_does_not_overtake_those_that_wait_for_the_peer() -> None:
    """Whole messages go out at once, one that is cancelled does not, and the close waits for one in fragments."""
    arrived: list[Any] = []
    async with held_pair() as (client, server, go_on), trio.open_nursery() as nursery:
        nursery.start_soon(all_of, server, arrived)
        leaving: list[trio.CancelScope] = []

        async def send_cancelled() -> None:
            with trio.CancelScope() as scope:
                leaving.append(scope)
                await client.send("never")

        for message in ("one", b"two", ["thr", "ee"], "four"):
            nursery.start_soon(client.send, message)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(send_cancelled)
            await trio.testing.wait_all_tasks_blocked()
        for scope in leaving:
            scope.cancel()
        nursery.start_soon(client.close, 1001)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ValueError, match="1006"):
            await client.close(1006)
        nursery.start_soon(client.close, 1000)  # without effect
        late = trio.Event()

        async def send_late() -> None:
            with pytest.raises(ConnectionClosedOK):
                await client.send("late")
            late.set()

        nursery.start_soon(send_late)
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        await late.wait()
        assert client.close_code == 1001
    assert arrived == [LARGE, "one", b"two", "three", "four"]


@pytest.mark.parametrize("first", ["whole", "fragments"])
@pytest.mark.parametrize("behind", ["small", LARGE, ["frag", "ments"]], ids=["small", "large", "fragments"])
def test_who_closes_behind_what_was_sent_does_not_overtake_on_trio(first: str, behind: Any) -> None:
    """The turn is the next one's already, whose task has not run yet."""

    async def main() -> None:
        async with pair() as (client, server):

            async def slowly() -> AsyncIterator[str]:
                yield "fir"
                await trio.lowlevel.checkpoint()
                yield "st"

            async def send_and_close() -> None:
                await client.send("first" if first == "whole" else slowly())
                await client.close()

            arrived: list[Any] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(all_of, server, arrived)
                nursery.start_soon(send_and_close)
                await trio.lowlevel.checkpoint()
                nursery.start_soon(client.send, behind)
            assert arrived == ["first", "".join(behind)]
            assert client.close_code == 1000

    in_order = 0
    for _ in range(12):  # trio runs the tasks of one turn in a random order
        try:
            trio.run(main)
            in_order += 1
        except* ConnectionClosedOK:
            pass  # the close was called first
    assert in_order


@on_mock_clock
async def test_a_close_takes_half_of_its_time_for_fragments_that_wait() -> None:
    async with held_pair(close_timeout=10) as (client, _, go_on):
        started = trio.current_time()

        async def endless() -> AsyncIterator[str]:
            yield "never"
            await trio.sleep_forever()

        async def send() -> None:
            with pytest.raises(ConnectionClosedError):
                await client.send(endless())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(client.close)
            await trio.testing.wait_all_tasks_blocked(0.001)
            assert client.state.name == "OPEN"
            await trio.sleep(5.1)
            assert client.state is State.CLOSING
            await client.wait_closed()
            assert trio.current_time() - started <= 10.5
            nursery.cancel_scope.cancel()
        go_on.set()


@in_trio
async def test_those_in_line_learn_of_the_end() -> None:
    raised: list[type] = []
    async with held_pair(close_timeout=None) as (client, _, _), trio.open_nursery() as nursery:

        async def send(message: Any) -> None:
            try:
                await client.send(message)
            except ConnectionClosed as exc:
                raised.append(type(exc))

        for message in (["frag", "ments"], "whole", ["frag", "ments"]):
            nursery.start_soon(send, message)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(client.close)
        await trio.testing.wait_all_tasks_blocked()
        client.abort()
    assert raised == [ConnectionClosedError] * 3


@in_trio
async def test_a_message_in_line_is_sent_in_its_callers_context() -> None:
    """What is wrong with it is raised by its own `send`."""
    async with held_pair() as (client, server, go_on), trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(UnicodeDecodeError):
                await client.send(b"\xff", text=True)

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(client.send, "behind")
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        assert [await server.recv() for _ in range(2)] == [LARGE, "behind"]


# --- Ctrl-C on trio -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["send_message", "send_pong", "send_ping", "close"])
def test_ctrl_c_within_a_step_comes_at_the_next_checkpoint(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So no frame is cut, and what compresses stays in step with the peer."""
    calls: dict[str, Callable[[wsfast.trio.WebSocket], Any]] = {
        "send_message": lambda ws: ws.send("whole"),
        "send_pong": lambda ws: ws.pong(b"here"),
        "send_ping": lambda ws: ws.ping(),
        "close": lambda ws: ws.close(),
    }
    method = getattr(Connection, step)

    def interrupted(*args: Any, **options: Any) -> Any:
        result = method(*args, **options)
        signal.raise_signal(signal.SIGINT)
        return result

    async def main() -> None:
        async with half() as (client, peer):
            with monkeypatch.context() as patch:
                patch.setattr(Connection, step, interrupted)
                with pytest.raises(KeyboardInterrupt):
                    await calls[step](client)
                    await trio.sleep(PATIENCE)
            with trio.fail_after(PATIENCE):
                assert await peer.receive_some()
            assert client.state is (State.CLOSING if step == "close" else State.OPEN)

    trio.run(main)


@pytest.mark.parametrize("task", ["_take_in", "_count"])
def test_ctrl_c_does_not_end_a_connections_tasks(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method = getattr(wsfast.trio.WebSocket, task)
    interrupts = [True]

    def interrupted(self: Any, *args: Any) -> Any:
        if interrupts and trio.lowlevel.current_task().name.endswith(("_read", "_work")):
            interrupts.clear()
            signal.raise_signal(signal.SIGINT)
        return method(self, *args)

    async def main() -> None:
        async with pair() as (client, server):
            monkeypatch.setattr(wsfast.trio.WebSocket, task, interrupted)
            with pytest.raises(KeyboardInterrupt):
                await client.send("one")
                await server.recv()
                await trio.sleep(PATIENCE)
            assert not interrupts
            await client.send("two")
            with trio.fail_after(PATIENCE):
                while await server.recv() != "two":
                    pass

    trio.run(main)
