"""cdp-use, which browser-use is built on: it reads what websockets tells its log at DEBUG, and rewrites it."""

from __future__ import annotations

import asyncio
import json
import logging

from cdp_use.client import CDPClient

from wsfast import WebSocket, serve


async def browse(ws: WebSocket) -> None:
    async for message in ws:
        asked = json.loads(message)
        await ws.send(json.dumps({"method": "Page.loadEventFired", "params": {"timestamp": 1}}))
        await ws.send(json.dumps({"id": asked["id"], "result": {"frameId": asked["params"]["url"][:9]}}))


async def main() -> None:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("websockets.client")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    async with asyncio.timeout(20), serve(browse, "127.0.0.1", 0, max_size=None) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        loaded = []
        async with CDPClient(uri, max_ws_frame_size=2**21) as client:
            client.register.Page.loadEventFired(lambda event, session=None: loaded.append(event["timestamp"]))
            for url in ("https://a", "https://b" * 100_000):
                assert (await client.send.Page.navigate({"url": url}))["frameId"] == url[:9]
        assert loaded == [1, 1]
    told = "\n".join(lines)
    for text in ("Connected", "Page.navigate", "Page.loadEventFired", "Disconnected"):
        assert text in told, told


asyncio.run(main())
