"""Deepgram's SDK, whose clients use websockets' sync client and the old `legacy` one."""

from __future__ import annotations

import asyncio
import json
import warnings
from typing import Any

import websockets
from deepgram import AsyncDeepgramClient, DeepgramClient
from deepgram.core.api_error import ApiError
from deepgram.core.events import EventType
from deepgram.environment import DeepgramClientEnvironment

from wsfast import Request, Response, WebSocket, serve

METADATA = {
    "type": "Metadata",
    "transaction_key": "a",
    "request_id": "b",
    "sha256": "c",
    "created": "2020-01-01T00:00:00Z",
    "duration": 1.0,
    "channels": 1,
}


def check(ws: WebSocket, request: Request) -> Response | None:
    if request.headers["Authorization"] != "Token key":
        return ws.respond(401, "wrong key\n")
    return None


async def listen(ws: WebSocket) -> None:
    assert ws.request is not None
    async for message in ws:
        if isinstance(message, bytes):
            began = {"type": "SpeechStarted", "channel": [0], "timestamp": len(message)}
            await ws.send(json.dumps(began))
        elif json.loads(message)["type"] == "CloseStream":
            await ws.send(json.dumps(METADATA))
            if "model=failing" in ws.request.path:
                await ws.close(1011, "failed")
            return


def noting(seen: list[str]) -> dict[EventType, Any]:
    return {
        EventType.OPEN: lambda _: seen.append("open"),
        EventType.MESSAGE: lambda message: seen.append(message.type),
        EventType.ERROR: lambda exc: seen.append(str(exc)),
        EventType.CLOSE: lambda _: seen.append("close"),
    }


def in_a_thread(environment: DeepgramClientEnvironment, model: str, key: str = "key") -> list[str]:
    seen: list[str] = []
    with DeepgramClient(api_key=key, environment=environment).listen.v1.connect(model=model) as connection:
        for kind, call in noting(seen).items():
            connection.on(kind, call)
        connection.send_media(b"1234")
        connection.send_close_stream()
        connection.start_listening()
    return seen


async def on_the_loop(environment: DeepgramClientEnvironment, model: str, key: str = "key") -> list[str]:
    seen: list[str] = []
    client = AsyncDeepgramClient(api_key=key, environment=environment)
    async with client.listen.v1.connect(model=model) as connection:
        for kind, call in noting(seen).items():
            connection.on(kind, call)
        await connection.send_media(b"1234")
        await connection.send_close_stream()
        await connection.start_listening()
    return seen


async def main() -> None:
    async with serve(listen, "127.0.0.1", 0, process_request=check) as server, asyncio.timeout(30):
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        environment = DeepgramClientEnvironment(base="http", production=uri, agent=uri, agent_rest="http")
        usual = ["open", "SpeechStarted", "Metadata", "close"]
        failed = "received 1011 (internal error) failed; then sent 1011 (internal error) failed"
        for model, expected in (("usual", usual), ("failing", [*usual[:3], failed, "close"])):
            assert await on_the_loop(environment, model) == expected
            seen = await asyncio.to_thread(in_a_thread, environment, model)
            assert seen == expected, seen
        try:
            await on_the_loop(environment, "usual", "wrong")
        except (ApiError, websockets.exceptions.InvalidHandshake) as exc:
            assert getattr(exc, "status_code", 401) == 401
        else:
            raise AssertionError("a wrong key was taken")


assert websockets.__name__ == "wsfast.websockets"
warnings.simplefilter("ignore", DeprecationWarning)
asyncio.run(main())
