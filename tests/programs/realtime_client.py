"""Supabase's realtime client against a server of Phoenix' protocol: it subscribes, and again after each kind of end."""

from __future__ import annotations

import asyncio
import json

from realtime import AsyncRealtimeClient, RealtimeSubscribeStates

from wsfast import WebSocket, serve


async def main() -> None:
    joined: asyncio.Queue[WebSocket] = asyncio.Queue()
    states: list[str] = []
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def phoenix(ws: WebSocket) -> None:
        async for text in ws:
            message = json.loads(text)
            ref = message.get("ref")
            reply = {"response": {}, "status": "ok"}
            topic = message["topic"]
            await ws.send(json.dumps({"topic": topic, "event": "phx_reply", "payload": reply, "ref": ref}))
            if message["event"] == "phx_join":
                payload = {"type": "broadcast", "event": "shout", "payload": {"word": "hi"}}
                await ws.send(json.dumps({"topic": topic, "event": "broadcast", "payload": payload, "ref": None}))
                joined.put_nowait(ws)

    def subscribed(state: RealtimeSubscribeStates, error: Exception | None) -> None:
        states.append(state.value)

    async with serve(phoenix, "127.0.0.1", 0) as server, asyncio.timeout(40):
        port = server.sockets[0].getsockname()[1]
        client = AsyncRealtimeClient(f"ws://127.0.0.1:{port}/realtime/v1", "token", initial_backoff=0.05)
        channel = client.channel("room")
        channel.on_broadcast("shout", lambda payload: heard.put_nowait(payload["payload"]["word"]))
        await channel.subscribe(subscribed)
        assert await heard.get() == "hi"
        # A server that closes well, one that closes in an error, and one that is lost.
        for end in ("close", "error", "abort"):
            ws = await joined.get()
            if end == "abort":
                ws.abort()
            else:
                ws.close_nowait(1001 if end == "close" else 1011)
            assert await heard.get() == "hi"
        assert states[0] == "SUBSCRIBED", states
        await client.close()


asyncio.run(main())
