"""Litestar."""

from litestar import Litestar, MediaType, WebSocket, get, websocket

from wsfast.asgi import of


@get("/", media_type=MediaType.TEXT)
async def index() -> str:
    return "http"


@websocket("/ws")
async def echo(socket: WebSocket) -> None:
    offers = socket.scope["subprotocols"]
    await socket.accept(subprotocols=offers[0] if offers else None)
    while True:
        event = await socket.receive()
        if event["type"] == "websocket.disconnect":
            return
        if event.get("text") == "close":
            await socket.close(4000, "asked to")
            return
        if event.get("text") == "of":
            of(socket).send_nowait(f"sent {of(socket).counters['messages_sent']}")
        elif event.get("text") is not None:
            await socket.send_text(event["text"])
        else:
            await socket.send_bytes(event["bytes"])


app = Litestar([index, echo])
