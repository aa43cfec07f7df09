"""gql's WebSocket transport against a server of the graphql-transport-ws protocol."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from gql import Client, gql
from gql.transport.websockets import WebsocketsTransport

from wsfast import WebSocket, serve


async def graphql(ws: WebSocket) -> None:
    async for text in ws:
        message: dict[str, Any] = json.loads(text)
        if message["type"] == "connection_init":
            await ws.send(json.dumps({"type": "connection_ack"}))
        elif message["type"] == "subscribe":
            counting = "subscription" in message["payload"]["query"]
            for number in range(3 if counting else 1):
                data = {"count": number} if counting else {"hello": "world"}
                await ws.send(json.dumps({"id": message["id"], "type": "next", "payload": {"data": data}}))
            await ws.send(json.dumps({"id": message["id"], "type": "complete"}))


async def main() -> None:
    async with serve({"graphql-transport-ws": graphql}, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        transport = WebsocketsTransport(url=f"ws://127.0.0.1:{port}/graphql", headers={"X-Token": "t"})
        async with Client(transport=transport, fetch_schema_from_transport=False) as session:
            assert await session.execute(gql("query { hello }")) == {"hello": "world"}
            counted = [result["count"] async for result in session.subscribe(gql("subscription { count }"))]
            assert counted == [0, 1, 2], counted
        assert transport.response_headers["Upgrade"] == "websocket"


asyncio.run(main())
