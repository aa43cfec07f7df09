"""Quart."""

from typing import Any

from quart import Quart, websocket

from wsfast.asgi import of

app = Quart(__name__)


@app.get("/")
async def index() -> Any:
    return "http"


@app.websocket("/ws")
async def echo() -> None:
    offers = websocket.requested_subprotocols
    await websocket.accept(subprotocol=offers[0] if offers else None)
    while True:
        message = await websocket.receive()
        if message == "close":
            await websocket.close(4000, "asked to")
            return
        if message == "of":
            ws = of(websocket)
            ws.send_nowait(f"sent {ws.counters['messages_sent']}")
        else:
            await websocket.send(message)
