"""Topics behind an ASGI server: the connections of an application, and `wsfast.run` with one."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from test_run import running

import wsfast

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
