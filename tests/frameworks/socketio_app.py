"""python-socketio: its clients speak Engine.IO, so the test of it is another."""

from typing import Any

import socketio

server = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins="*")


@server.event
async def message(sid: str, data: Any) -> Any:
    return {"echo": data}


async def http(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"http"})


app = socketio.ASGIApp(server, other_asgi_app=http)
