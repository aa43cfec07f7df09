"""uvicorn's two implementations that are made of websockets: of its sans-IO layer, and of the old `legacy`."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import uvicorn
import websockets
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

told: list[Any] = []


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Send messages back, but for those that ask for something else."""
    assert (await receive())["type"] == "websocket.connect"
    if scope["path"] == "/denied":
        await send({"type": "websocket.close"})
        return
    subprotocol = next(iter(scope["subprotocols"]), None)
    await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": [(b"x-a", b"b"), (b"x-a", b"c")]})
    while (event := await receive())["type"] == "websocket.receive":
        if event.get("text") == "close":
            await send({"type": "websocket.close", "code": 4001, "reason": "asked for"})
            return
        if event.get("text") == "raise":
            raise RuntimeError("asked for")
        await send({**event, "type": "websocket.send"})
    told.append((event["code"], event.get("reason")))


async def until_told(count: int) -> Any:
    while len(told) < count:
        await asyncio.sleep(0.01)
    return told[count - 1]


async def main(kind: str) -> None:
    config = uvicorn.Config(application, port=0, ws=kind, lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    uri = f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    async with connect(f"{uri}/", subprotocols=[Subprotocol("a"), Subprotocol("b")]) as ws:
        assert ws.subprotocol == "a"
        assert ws.response is not None
        assert ws.response.headers.get_all("x-a") == ["b", "c"]
        for message in ("text", b"bytes", "", "long" * 100_000):
            await ws.send(message)
            assert await ws.recv() == message
        await ws.send(["in ", "pieces"])
        assert await ws.recv() == "in pieces"
        await (await ws.ping())
        await ws.close(4000, "reason")
    assert await until_told(1) == (4000, "reason")
    for text, code in (("close", 4001), ("raise", None)):
        async with connect(f"{uri}/") as ws:
            await ws.send(text)
            try:
                await ws.recv()
            except websockets.ConnectionClosedError as exc:
                assert (None if exc.rcvd is None else exc.rcvd.code) == code, exc
            else:
                raise AssertionError(text)
    try:
        await connect(f"{uri}/denied")
    except websockets.InvalidStatus as exc:
        assert exc.response.status_code == 403
    else:
        raise AssertionError("it was not denied")
    lost = await connect(f"{uri}/")
    lost.transport.abort()
    assert (await until_told(2))[0] in (1005, 1006)
    left = await connect(f"{uri}/")
    server.should_exit = True
    try:
        await left.recv()
    except websockets.ConnectionClosedError as exc:
        assert exc.rcvd is not None
        assert exc.rcvd.code == 1012, exc
    await serving


assert websockets.__name__ == "wsfast.websockets"
warnings.simplefilter("ignore", DeprecationWarning)
for implementation in ("websockets-sansio", "websockets"):
    told.clear()
    asyncio.run(asyncio.wait_for(main(implementation), 30))
