"""async-substrate-interface: calls, and has its connection replaced by ``ws.protocol.fail``."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import websockets
from async_substrate_interface.async_substrate import Websocket
from websockets.asyncio.server import serve


async def handler(ws: Any) -> None:
    try:
        async for message in ws:
            command = json.loads(message)
            await ws.send(json.dumps({"jsonrpc": "2.0", "id": command["id"], "result": command["method"]}))
    except websockets.ConnectionClosedError as exc:
        assert exc.rcvd is not None, exc
        assert exc.rcvd.code == 1012, exc


async def call(client: Any, method: str) -> None:
    number = await client.send({"method": method, "params": []})
    while (answer := await client.retrieve(number)) is None:
        await asyncio.sleep(0.01)
    assert answer["result"] == method, answer


async def main() -> None:
    async with serve(handler, "127.0.0.1", 0) as server:
        client = Websocket(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with client:
            await call(client, "system_chain")
            first = client.ws
            await client.connect(True)
            assert client.ws is not first
            await first.wait_closed()
        await client.shutdown()


asyncio.run(asyncio.wait_for(main(), 60))
