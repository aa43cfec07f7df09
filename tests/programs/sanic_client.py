"""Sanic: its server drives `websockets.server.ServerProtocol` by itself; the client is `websockets.connect`."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import websockets
from sanic import Sanic

app = Sanic("echo")


@app.websocket("/ws")  # type: ignore[untyped-decorator]
async def echo(request: Any, ws: Any) -> None:
    async for message in ws:
        if message == "bye":
            await ws.close(3001, "bye")
        else:
            await ws.send(message)


async def talk(uri: str) -> None:
    while True:
        try:
            ws = await websockets.connect(uri)
            break
        except OSError:
            await asyncio.sleep(0.05)
    for message in ("a" * 100_000, b"b", ""):
        await ws.send(message)
        assert await ws.recv() == message
    await ws.send(["x", "y"])
    assert await ws.recv() == "xy"
    await (await ws.ping())
    await ws.send("bye")
    try:
        await ws.recv()
    except websockets.ConnectionClosedError as exc:
        assert exc.rcvd is not None, exc
        assert (exc.rcvd.code, exc.rcvd.reason) == (3001, "bye"), exc
    else:
        raise AssertionError("it was not closed")


async def main() -> None:
    command = [sys.executable, "-m", "wsfast.websockets", __file__]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = await asyncio.create_subprocess_exec(*command, str(port))
    try:
        await asyncio.wait_for(talk(f"ws://127.0.0.1:{port}/ws"), 60)
    finally:
        server.terminate()
        await server.wait()


if __name__ == "__main__":
    if sys.argv[1:]:
        app.run("127.0.0.1", int(sys.argv[1]), single_process=True, motd=False, access_log=False)
    else:
        asyncio.run(main())
