"""An ASGI echo under uvicorn on `wsfast.uvicorn`, for the suite: ``echo_asgi.py PORT [--http] [--loop uvloop]``."""

from __future__ import annotations

import argparse
from typing import Any

import uvicorn

from wsfast import Deflate
from wsfast.uvicorn import HTTP, configure


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Send back each message."""
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--http", action="store_true", help="take connections from their first byte")
    parser.add_argument("--loop", default="asyncio", choices=["asyncio", "uvloop"])
    options = parser.parse_args()
    # The suite asks for windows of every size.
    deflate = Deflate(server_max_window_bits=15, client_max_window_bits=15, threshold=0)
    ws = configure(max_size=None, compression=deflate)
    http: Any = HTTP if options.http else "httptools"
    config: Any = uvicorn.Config
    uvicorn.Server(
        config(echo, port=options.port, ws=ws, http=http, loop=options.loop, lifespan="off", log_level="warning")
    ).run()
