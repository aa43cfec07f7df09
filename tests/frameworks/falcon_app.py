"""Falcon."""

from typing import Any

import falcon.asgi

from wsfast.asgi import of


class Index:
    async def on_get(self, req: Any, resp: Any) -> None:
        resp.text = "http"


class Echo:
    async def on_websocket(self, req: Any, socket: Any) -> None:
        await socket.accept(socket.subprotocols[0] if socket.subprotocols else None)
        while True:
            try:
                message = await socket.receive_text()
            except falcon.PayloadTypeError:
                continue
            if message == "close":
                await socket.close(4000, "asked to")
                return
            if message == "of":
                of(req).send_nowait(f"sent {of(req).counters['messages_sent']}")
            elif message == "bytes":
                await socket.send_data(b"\x00\xff")
            else:
                await socket.send_text(message)


app = falcon.asgi.App()
app.add_route("/", Index())
app.add_route("/ws", Echo())
