"""ASGI applications under uvicorn. --form WS:APP.

WS is who serves WebSockets: wsfast (--ws), wsfast-http (--http), sansio or wsproto; APP is bare, or fastapi, which
takes the calls of FastAPI's WebSocket. With --broadcast, the application sends what comes to every connection; `shared`
behind APP, as in wsfast:bare-shared, does so by `wsfast.asgi.broadcast`.
"""

import argparse
from typing import Any

import uvicorn

from ._run import arguments, run

connections: dict[int, Any] = {}


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Echo."""
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        text = event.get("text")
        if text is not None:
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "bytes": event["bytes"]})


async def bare_to_all(scope: Any, receive: Any, send: Any) -> None:
    """Send what comes to all, one after the other."""
    await receive()
    await send({"type": "websocket.accept"})
    connections[id(send)] = send
    try:
        while (event := await receive())["type"] == "websocket.receive":
            for one in list(connections.values()):
                await one({"type": "websocket.send", "bytes": event["bytes"]})
    finally:
        del connections[id(send)]


async def bare_shared(scope: Any, receive: Any, send: Any) -> None:
    """Send what comes to all, encoded once."""
    import wsfast.asgi

    await receive()
    await send({"type": "websocket.accept"})
    connections[id(send)] = wsfast.asgi.of(scope)
    try:
        while (event := await receive())["type"] == "websocket.receive":
            wsfast.asgi.broadcast(connections.values(), event["bytes"])
    finally:
        del connections[id(send)]


def fastapi(to_all: bool, shared: bool) -> Any:
    """Make the same on FastAPI."""
    from fastapi import FastAPI, WebSocket, WebSocketDisconnect

    app = FastAPI()

    async def echo(websocket: Any) -> None:
        await websocket.accept()
        while True:
            event = await websocket.receive()
            if event["type"] == "websocket.disconnect":
                return
            text = event.get("text")
            if text is not None:
                await websocket.send_text(text)
            else:
                await websocket.send_bytes(event["bytes"])

    async def everybody(websocket: Any) -> None:
        await websocket.accept()
        connections[id(websocket)] = websocket
        try:
            while True:
                data = await websocket.receive_bytes()
                if shared:
                    from wsfast.asgi import broadcast

                    broadcast(connections.values(), data)
                    continue
                for one in list(connections.values()):
                    await one.send_bytes(data)
        except WebSocketDisconnect:
            pass
        finally:
            del connections[id(websocket)]

    handler = everybody if to_all else echo
    handler.__annotations__ = {"websocket": WebSocket}
    app.websocket("/{rest:path}")(handler)
    return app


async def main(options: argparse.Namespace) -> None:
    ws, _, name = options.form.partition(":")
    name, _, shared = name.partition("-")
    if name == "fastapi":
        app: Any = fastapi(options.broadcast, bool(shared))
    else:
        app = (bare_shared if shared else bare_to_all) if options.broadcast else bare
    choices: dict[str, Any] = {
        "wsfast": {"ws": "wsfast.uvicorn:Protocol", "http": "httptools"},
        "wsfast-http": {"http": "wsfast.uvicorn:HTTP"},
        "sansio": {"ws": "websockets-sansio", "http": "httptools"},
        "wsproto": {"ws": "wsproto", "http": "httptools"},
    }
    quiet: dict[str, Any] = {"lifespan": "off", "log_level": "critical", "access_log": False}
    config = uvicorn.Config(app, host="127.0.0.1", port=options.port, ws_max_size=1 << 30, **choices[ws], **quiet)
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    run(main, arguments())
