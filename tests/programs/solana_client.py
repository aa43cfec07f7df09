"""solana's WebSocket client against a server of the JSON-RPC that its nodes speak."""

from __future__ import annotations

import asyncio
import json

from solana.rpc.websocket_api import SolanaWsClient
from websockets.exceptions import ConnectionClosed

from wsfast import WebSocket, serve


async def node(ws: WebSocket) -> None:
    async for text in ws:
        request = json.loads(text)
        await ws.send(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": 7}))
        if request["method"] == "slotSubscribe":
            params = {"subscription": 7, "result": {"parent": 75, "root": 44, "slot": 76}}
            await ws.send(json.dumps({"jsonrpc": "2.0", "method": "slotNotification", "params": params}))


async def main() -> None:
    async with serve(node, "127.0.0.1", 0) as server, asyncio.timeout(20):
        port = server.sockets[0].getsockname()[1]
        client = SolanaWsClient(f"ws://127.0.0.1:{port}")
        async with client:
            await client.slot_subscribe()
            notification = await client.recv()
            assert "76" in str(notification), notification
            await client.close()
            try:
                await client.recv()
            except ConnectionClosed as exc:
                assert str(exc) == "sent 1000 (OK); then received 1000 (OK)", exc
            else:
                raise AssertionError("recv() returned after close()")
        async with SolanaWsClient(f"ws://127.0.0.1:{port}") as client:
            server.close(1012, "restart")
            try:
                await client.recv()
            except ConnectionClosed as exc:
                assert exc.rcvd is not None
                assert exc.rcvd.code == 1012


asyncio.run(main())
