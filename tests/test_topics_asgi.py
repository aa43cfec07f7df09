"""Topics behind an ASGI server: the connections of an application, and `wsfast.run` with one."""

from __future__ import annotations

import asyncio
import pickle
import socket
from pathlib import Path
from typing import Any

import asgi_helpers
import pytest
from test_run import running

import wsfast
import wsfast.asgi

pytest.importorskip("uvicorn", reason="needs uvicorn")

PROGRAM = """
import os
import wsfast
from wsfast.bus import LocalBus

topics = wsfast.Topics(LocalBus())

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await topics.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await topics.close()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    ws = wsfast.asgi.of(scope)
    await topics.subscribe(ws, "room")
    await send({"type": "websocket.send", "text": f"joined {os.getpid()}"})
    while (event := await receive())["type"] == "websocket.receive":
        topics.publish("room", event["text"])
"""


def test_an_application_on_two_workers(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(PROGRAM)
    with running(tmp_path / "app.py", "--workers", "2", target="app:app") as run:
        run.wait_log("2 workers are ready")
        joined: dict[str, Any] = {}
        while len(joined) < 2:
            ws = run.connect()
            joined[ws.recv(10)] = ws
        one, two = joined.values()
        for number in range(10):
            one.send(f"{number}")
            assert one.recv(10) == two.recv(10) == f"{number}"
        for ws in (one, two):
            ws.close()
        assert run.end() == 0


@pytest.mark.anyio
async def test_in_one_process() -> None:
    topics = wsfast.Topics()
    opened: list[wsfast.WebSocket] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            return
        await receive()
        await send({"type": "websocket.accept"})
        opened.append(wsfast.asgi.of(scope))
        topics.subscribe(opened[-1], "room")
        await send({"type": "websocket.send", "text": "joined"})
        await receive()

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        stop, started = asyncio.Event(), asyncio.Event()
        async with topics:
            serving = asyncio.create_task(
                wsfast.uvicorn.serve(app, [sock], stop=stop, started=started.set, lifespan="off", log_level="warning")
            )
            await started.wait()
            async with wsfast.connect(f"ws://127.0.0.1:{sock.getsockname()[1]}/") as ws:
                assert await ws.recv() == "joined"
                topics.publish("room", "hello")
                await opened[0].send("in order")
                assert [await ws.recv(), await ws.recv()] == ["hello", "in order"]
                assert opened[0].topics == {"room"}
            stop.set()
            await serving
            assert topics.counters["subscriptions"] == 0


ROOM = """
from contextlib import asynccontextmanager
import fastapi
import wsfast
import wsfast.asgi

topics = wsfast.Topics()
ws = wsfast.uvicorn.configure(topics=topics)

@asynccontextmanager
async def lifespan(app):
    async with topics:
        yield

app = fastapi.FastAPI(lifespan=lifespan)

@app.websocket("/chat/{room}")
async def chat(websocket: fastapi.WebSocket, room: str):
    await websocket.accept()
    connection = wsfast.asgi.of(websocket)
    await connection.subscribe(room)
    await websocket.send_text(f"subscribed to {connection.topics}")
    async for message in websocket.iter_text():
        connection.publish(room, message)
    connection.unsubscribe(room)
"""


@pytest.mark.anyio
async def test_the_websockets_own_methods_on_fastapi() -> None:
    module: dict[str, Any] = {}
    exec(ROOM, module)
    topics = module["topics"]
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        stop, started = asyncio.Event(), asyncio.Event()
        serving = asyncio.create_task(
            wsfast.uvicorn.serve(
                module["app"], [sock], ws=module["ws"], stop=stop, started=started.set, log_level="warning"
            )
        )
        await started.wait()
        url = f"ws://127.0.0.1:{sock.getsockname()[1]}/chat/r"
        async with wsfast.connect(url) as one, wsfast.connect(url) as two:
            assert await one.recv() == await two.recv() == "subscribed to {'r'}"
            await one.send("hello")
            assert await two.recv() == "hello"
            await two.send("to the first")
            assert await one.recv() == "to the first"  # what it published itself it is not sent
        stop.set()
        await serving
    assert topics.counters["subscriptions"] == 0


def test_topics_of_configure() -> None:
    topics = wsfast.Topics()
    kind = wsfast.uvicorn.configure(topics=topics, max_size=7)
    assert kind.options["topics"] is topics
    with pytest.raises(TypeError, match="topics must be a Topics or None, got dict"):
        wsfast.uvicorn.configure(topics={})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cannot be given to other processes: name it"):
        pickle.dumps(kind)


@pytest.mark.anyio
async def test_without_topics_it_says_how_to_have_them() -> None:
    raised: list[Exception] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            wsfast.asgi.of(scope).subscribe("room")
        except wsfast.InvalidState as exc:
            raised.append(exc)

    async with asgi_helpers.running(app) as run, await run.connect() as client:
        assert (await client.receive_close())[0] == 1000
    assert "wsfast.uvicorn.configure(topics=" in str(raised[0])
