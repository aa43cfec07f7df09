"""BlackSheep."""

from typing import Any

from blacksheep import Application, WebSocket, WebSocketDisconnectError, get, text, ws

from wsfast.asgi import of

app = Application()


@get("/")
async def index() -> Any:
    return text("http")


@ws("/ws")
async def echo(socket: WebSocket) -> None:
    offers = socket.scope["subprotocols"]
    await socket.accept(subprotocol=offers[0] if offers else None)
    while True:
        try:
            message = await socket.receive_text()
        except WebSocketDisconnectError:
            return
        if message == "close":
            await socket.close(4000, "asked to")
            return
        if message == "of":
            of(socket).send_nowait(f"sent {of(socket).counters['messages_sent']}")
        elif message == "bytes":
            await socket.send_bytes(b"\x00\xff")
        else:
            await socket.send_text(message)
