"""web3's WebSocket provider against a server of the JSON-RPC that Ethereum nodes speak."""

from __future__ import annotations

import asyncio
import json

from web3 import AsyncWeb3, WebSocketProvider

from wsfast import WebSocket, serve

HEAD = {"number": "0x10", "hash": "0x" + "1" * 64, "parentHash": "0x" + "2" * 64, "timestamp": "0x5"}


async def node(ws: WebSocket) -> None:
    async for text in ws:
        request = json.loads(text)
        method = request["method"]
        results = {"eth_blockNumber": "0x2a", "eth_subscribe": "0xabc", "eth_unsubscribe": True, "eth_chainId": "0x1"}
        await ws.send(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": results[method]}))
        if method == "eth_subscribe":
            params = {"subscription": "0xabc", "result": HEAD}
            await ws.send(json.dumps({"jsonrpc": "2.0", "method": "eth_subscription", "params": params}))


async def main() -> None:
    async with serve(node, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with AsyncWeb3(WebSocketProvider(f"ws://127.0.0.1:{port}")) as w3:
            assert await w3.provider.is_connected()
            assert await w3.eth.block_number == 42
            subscription = await w3.eth.subscribe("newHeads")
            async with asyncio.timeout(20):
                async for message in w3.socket.process_subscriptions():
                    assert message["subscription"] == subscription
                    assert message["result"]["number"] == 16
                    break
            assert await w3.eth.unsubscribe(subscription)
        assert not await w3.provider.is_connected()


asyncio.run(main())
