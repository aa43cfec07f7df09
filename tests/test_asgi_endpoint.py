"""The channel's twins: `receive` and `send` of an ASGI application are coroutines to whoever awaits them."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from typing import Any

import pytest
from asgi_helpers import Receive, Scope, Send, accept, running
from raw import text
from shared import until

import wsfast
import wsfast.asyncio._channel_py as python_twin

pytestmark = pytest.mark.anyio

NAMES = ("join", "receive", "send")


def test_the_twins_have_the_same_names() -> None:
    cython = importlib.import_module("wsfast.asyncio._channel")
    for name in NAMES:
        ours, theirs = getattr(cython.EventEndpoint, name), getattr(python_twin.EventEndpoint, name)
        assert inspect.getdoc(ours) == inspect.getdoc(theirs)
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    for twin in (cython, python_twin):
        with pytest.raises(TypeError, match="cannot create 'EventEndpoint' instances"):
            twin.EventEndpoint()


async def test_nothing_is_sent_before_it_is_awaited() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        waiting: Any = receive()
        assert asyncio.iscoroutine(waiting)
        waiting.close()
        later: Any = send({"type": "websocket.send", "text": "second"})
        await send({"type": "websocket.send", "text": "first"})
        await later
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            await later
        await asyncio.create_task(send({"type": "websocket.send", "text": "by a task"}))  # type: ignore[arg-type]
        await asyncio.gather(*(send({"type": "websocket.send", "text": str(n)}) for n in range(3)))

    async with running(app) as run, await run.connect() as client:
        for expected in "first", "second", "by a task", "0", "1", "2":
            assert await client.receive_message() == expected
        assert (await client.receive_close())[0] == 1000


async def test_send_that_is_forgotten_warns() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        with pytest.warns(RuntimeWarning, match="send' was never awaited"):
            send({"type": "websocket.send", "text": "never"})
        closed: Any = send({"type": "websocket.send", "text": "never"})
        closed.close()
        thrown: Any = send({"type": "websocket.send", "text": "never"})
        with pytest.raises(KeyError):
            thrown.throw(KeyError("x"))
        await send({"type": "websocket.send", "text": "last"})

    async with running(app) as run, await run.connect() as client:
        assert await client.receive_message() == "last"


@pytest.mark.parametrize("event", [{"type": "websocket.send", "text": "x"}, {"type": "strange"}, ["no event"]], ids=str)
async def test_another_thread_is_refused_whatever_it_sends(event: Any) -> None:
    """Whose thread it is comes before what is sent and how the connection is."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        with pytest.raises(RuntimeError, match="by its own event loop only"):
            await asyncio.to_thread(lambda: send(event).send(None))  # type: ignore[attr-defined]
        await send({"type": "websocket.send", "text": "last"})

    async with running(app) as run, await run.connect() as client:
        assert await client.receive_message() == "last"


async def test_one_task_receives_at_a_time() -> None:
    raised = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        first: Any = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        try:
            await receive()
        except RuntimeError as exc:
            raised.append(exc)
        except Exception as exc:
            raised.append(exc)  # type: ignore[arg-type]
        await send({"type": "websocket.send", "text": (await first)["text"]})

    async with running(app) as run, await run.connect() as client:
        client.send(text("to the first"))
        assert await client.receive_message() == "to the first"
    assert len(raised) == 1


async def test_a_task_that_sends_without_end_lets_others_run() -> None:
    turns = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        for _ in range(10_000):
            await send({"type": "websocket.send", "text": "x"})
        counting.cancel()

    async with running(app) as run, await run.connect() as client:
        while (await client.receive()).opcode != 8:
            pass
    assert turns >= 4


@pytest.mark.parametrize("ending", ["websocket.close", "the application returns"])
async def test_an_end_comes_after_what_a_thread_compresses(ending: str) -> None:
    large = "large " * 100_000
    tasks: list[asyncio.Future[None]] = []
    last: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        events = [{"type": "websocket.send", "text": message} for message in (large, "small")]
        tasks.extend(asyncio.ensure_future(send(event)) for event in events)
        await asyncio.sleep(0)
        if ending == "websocket.close":
            await send({"type": "websocket.close", "code": 1000})
            await asyncio.wait(tasks)
            last.append(await receive())

    async with running(app) as run:
        async with wsfast.connect(f"ws://127.0.0.1:{run.port}/", max_size=None, compression="deflate") as client:
            assert [await client.recv(), await client.recv()] == [large, "small"]
            with pytest.raises(wsfast.ConnectionClosedOK):
                await client.recv()
        await asyncio.gather(*tasks)
        await until(lambda: not run.state.tasks)
    assert [event["type"] for event in last] == ["websocket.disconnect"] * len(last)


@pytest.mark.parametrize("ending", ["websocket.close", "the server stops"])
async def test_an_end_behind_what_a_thread_compresses_is_told_at_once(ending: str) -> None:
    """The peer never answers the Close frame."""
    told: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        sending = asyncio.ensure_future(send({"type": "websocket.send", "text": "large " * 100_000}))
        await asyncio.sleep(0)
        if ending == "websocket.close":
            await send({"type": "websocket.close"})
        else:
            run.server.should_exit = True
            told.append(await receive())
        await sending  # what comes of it must not take the end back
        told.append(await asyncio.wait_for(receive(), 1))

    async with running(app, timeout_graceful_shutdown=10) as run:
        client = await run.connect(headers={"Sec-WebSocket-Extensions": "permessage-deflate"})
        await until(lambda: len(told) == (1 if ending == "websocket.close" else 2))
        client.abort()
    assert {event["type"] for event in told} == {"websocket.disconnect"}
