"""slack_sdk's socket mode client against a server that plays Slack: it connects, acknowledges, and connects again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse
from slack_sdk.socket_mode.websockets import SocketModeClient
from slack_sdk.web.async_client import AsyncWebClient

from wsfast import WebSocket, serve


async def main() -> None:
    acknowledged: asyncio.Queue[str] = asyncio.Queue()
    connections = 0

    async def slack(ws: WebSocket) -> None:
        nonlocal connections
        connections += 1
        await ws.send(json.dumps({"type": "hello"}))
        event = {"type": "events_api", "envelope_id": f"e{connections}", "payload": {"event": {"type": "message"}}}
        await ws.send(json.dumps(event))
        acknowledged.put_nowait(json.loads(await ws.recv())["envelope_id"])
        if connections == 1:
            await ws.send(json.dumps({"type": "disconnect", "reason": "refresh_requested"}))
        await ws.wait_closed()

    async def handle(client: Any, request: SocketModeRequest) -> None:
        await client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))

    async with serve(slack, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]

        async def open_connection(request: web.Request) -> web.Response:
            return web.json_response({"ok": True, "url": f"ws://127.0.0.1:{port}/link"})

        api = web.Application()
        api.router.add_post("/apps.connections.open", open_connection)
        runner = web.AppRunner(api)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        client = SocketModeClient(app_token="xapp-1", web_client=AsyncWebClient(base_url=base), ping_interval=0.2)
        client.socket_mode_request_listeners.append(handle)
        await client.connect()
        async with asyncio.timeout(20):
            assert [await acknowledged.get(), await acknowledged.get()] == ["e1", "e2"]
        assert await client.is_connected()
        await client.close()
        await runner.cleanup()


asyncio.run(main())
