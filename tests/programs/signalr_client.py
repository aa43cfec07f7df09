"""pysignalr, which puts an iteration of its own into websockets' `connect`."""

from __future__ import annotations

import asyncio
import json

import pysignalr
from pysignalr.exceptions import NegotiationFailure
from pysignalr.messages import InvocationMessage, Message
from pysignalr.protocol.json import JSONProtocol
from pysignalr.transport.websocket import WebsocketTransport

from wsfast import Request, Response, WebSocket, serve

END = "\x1e"
LAST = 3
seen: list[str] = []


def check(ws: WebSocket, request: Request) -> Response | None:
    return ws.respond(404, "no hub\n") if request.path == "/away" else None


async def hub(ws: WebSocket) -> None:
    seen.append(str(await ws.recv()))
    await ws.send("{}" + END)
    await ws.send(json.dumps({"type": 1, "target": "t", "arguments": [len(seen)]}) + END)
    if len(seen) == LAST:
        await ws.wait_closed()
    else:
        await (await ws.ping())
        await ws.close(1011 if len(seen) == 1 else 1000)


async def main() -> None:
    pysignalr.BACKOFF_INITIAL = 0.01
    async with serve(hub, "127.0.0.1", 0, process_request=check) as server, asyncio.timeout(30):
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        taken: asyncio.Queue[int] = asyncio.Queue()

        async def take(message: Message) -> None:
            if isinstance(message, InvocationMessage):
                taken.put_nowait(message.arguments[0])

        task = asyncio.create_task(WebsocketTransport(f"{uri}/", JSONProtocol(), take, skip_negotiation=True).run())
        while await taken.get() != LAST:
            pass
        task.cancel()
        await asyncio.wait([task])
        away = WebsocketTransport(
            f"{uri}/away", JSONProtocol(), take, skip_negotiation=True, retry_count=1, retry_sleep=0.01
        )
        try:
            await away.run()
        except NegotiationFailure as exc:
            assert "HTTP 404" in str(exc.__cause__), exc.__cause__
        else:
            raise AssertionError("it connected to what is not there")


asyncio.run(main())
