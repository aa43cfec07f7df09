"""FastAPI and Starlette on `wsfast.uvicorn`; heavier frameworks are in `tests/frameworks`."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from asgi_helpers import WAYS, running
from fastapi import Depends, FastAPI, HTTPException, WebSocket, WebSocketException
from raw import close, text
from shared import until
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from wsfast.asgi import broadcast, of

pytestmark = pytest.mark.anyio


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    """How uvicorn is told to use wsfast."""
    return WAYS[request.param]


def chat() -> FastAPI:
    """Make an application with a room, and endpoints that fail and refuse."""
    app = FastAPI()
    room: set[WebSocket] = set()

    async def user(websocket: WebSocket) -> str:
        if websocket.query_params.get("token") == "denied":
            raise WebSocketException(4401, "who are you?")
        return websocket.query_params.get("token", "anybody")

    @app.get("/hello")
    async def hello() -> str:
        return "hello"

    @app.websocket("/chat/{name}")
    async def endpoint(websocket: WebSocket, name: str, who: str = Depends(user)) -> None:
        await websocket.accept(subprotocol="chat" if websocket.scope["subprotocols"] else None)
        room.add(websocket)
        try:
            async for message in websocket.iter_text():
                broadcast(room, f"{name}/{who}: {message}")
        finally:
            room.discard(websocket)

    @app.websocket("/json")
    async def json(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json({"got": await websocket.receive_json()})
        await websocket.send_json({"bytes": True}, mode="binary")
        await websocket.close(4000, "done")

    @app.websocket("/not-caught")
    async def not_caught(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text(await websocket.receive_text())

    @app.websocket("/sends")
    async def sends(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text("tick")
            await asyncio.sleep(0.01)

    @app.websocket("/denied")
    async def denied(websocket: WebSocket) -> None:
        raise HTTPException(418, "a teapot")

    @app.websocket("/fails")
    async def fails(websocket: WebSocket) -> None:
        await websocket.accept()
        raise ValueError("a bug")

    return app


async def test_a_chat(way: dict[str, Any]) -> None:
    async with running(chat(), **way) as run:
        one, two = await run.connect("chat", path="/chat/a?token=x"), await run.connect(path="/chat/b")
        assert one.headers["sec-websocket-protocol"] == "chat"
        one.send(text("hello"))
        for client in one, two:
            assert await client.receive_message() == "a/x: hello"
        two.reset()
        await until(lambda: len(run.state.connections) == 1)
        one.send(text("still here"))
        assert await one.receive_message() == "a/x: still here"
        await one.end()


async def test_json_and_a_close_of_its_own(way: dict[str, Any]) -> None:
    async with running(chat(), **way) as run, await run.connect(path="/json") as client:
        client.send(text('{"a": 1}'))
        assert await client.receive_message() == '{"got":{"a":1}}'
        assert await client.receive_message() == b'{"bytes":true}'
        assert await client.receive_close() == (4000, "done")


@pytest.mark.parametrize(
    ("path", "status"), [("/denied", 418), ("/chat/a?token=denied", 403), ("/nowhere", 403), ("/hello", 403)]
)
async def test_refusals(way: dict[str, Any], path: str, status: int) -> None:
    async with running(chat(), **way) as run, await run.open() as client:
        await client.handshake(path=path)
        assert client.status == status


@pytest.mark.parametrize("path", ["/not-caught", "/sends"])
async def test_a_peer_that_leaves_is_no_error(way: dict[str, Any], path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with running(chat(), **way) as run:
        for how in "close", "reset":
            async with await run.connect(path=path) as client:
                if how == "close":
                    client.send(close())
                    while (await client.receive()).opcode != 8:
                        pass
                else:
                    client.reset()
                await until(lambda: not run.state.tasks)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_an_endpoint_that_fails(way: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    async with running(chat(), **way) as run, await run.connect(path="/fails") as client:
        assert await client.receive_close() == (1011, "")
    assert [record.levelname for record in caplog.records if record.levelno >= logging.WARNING] == ["ERROR"]


async def test_http_beside_websockets(way: dict[str, Any]) -> None:
    async with running(chat(), **way) as run, await run.open() as client:
        await client.exchange(b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert client.status == 200
        assert client.body == b'"hello"'


async def test_starlette(way: dict[str, Any]) -> None:
    async def endpoint(websocket: Any) -> None:
        if "deny" in websocket.query_params:
            await websocket.send_denial_response(PlainTextResponse("no", 402))
            return
        await websocket.accept(headers=[(b"x-a", b"1")])
        request = of(websocket).request
        assert request is not None
        assert request.path == "/"
        try:
            while True:
                await websocket.send_bytes(await websocket.receive_bytes())
        except WebSocketDisconnect as exc:
            ends.append((exc.code, exc.reason))

    ends: list[tuple[int, str]] = []
    async with running(Starlette(routes=[WebSocketRoute("/", endpoint)]), **way) as run:
        async with await run.open() as client:
            await client.handshake(path="/?deny=1")
            assert (client.status, client.body) == (402, b"no")
        async with await run.connect() as client:
            assert client.headers["x-a"] == "1"
            client.send(close(4001, "tired"))
            assert (await client.receive_close())[0] == 4001
            await until(lambda: ends)
    assert ends == [(4001, "tired")]
