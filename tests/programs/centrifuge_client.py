"""centrifuge-python: connects, calls, and checks a proxy's address by `websockets.proxy`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import websockets
from centrifuge import Client


async def handler(ws: Any) -> None:
    async for message in ws:
        for line in message.splitlines():
            command = json.loads(line)
            if "connect" in command:
                reply = {"connect": {"client": "one", "version": "1", "ping": 25, "pong": True}}
            elif "rpc" in command:
                reply = {"rpc": {"data": command["rpc"]["data"]}}
            else:
                continue
            await ws.send(json.dumps({"id": command["id"], **reply}))


async def main() -> None:
    async with websockets.serve(handler, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/connection/websocket"
        client = Client(uri, proxy=None)
        await client.connect()
        await client.ready()
        result = await client.rpc("echo", {"a": 1})
        assert result.data == {"a": 1}, result
        await client.disconnect()
        try:
            Client(uri, proxy="ftp://user:secret@proxy.invalid")
        except ValueError as exc:
            assert "secret" not in str(exc), exc
        else:
            raise AssertionError("a proxy of another scheme was accepted")


asyncio.run(asyncio.wait_for(main(), 60))
