"""Alpaca's market data stream, on websockets' old client: it connects again after each kind of end."""

from __future__ import annotations

import asyncio
import threading

import msgpack
from alpaca.data.live import StockDataStream

from wsfast import WebSocket, serve

TRADES = 4
seen: list[int] = []


async def feed(ws: WebSocket) -> None:
    assert ws.request is not None
    assert ws.request.headers["Content-Type"] == "application/msgpack"
    await ws.send(msgpack.packb([{"T": "success", "msg": "connected"}]))
    assert msgpack.unpackb(await ws.recv())["action"] == "auth"
    await ws.send(msgpack.packb([{"T": "success", "msg": "authenticated"}]))
    assert msgpack.unpackb(await ws.recv())["action"] == "subscribe"
    seen.append(len(seen) + 1)
    trade = {"T": "t", "S": "A", "i": seen[-1], "x": "V", "p": 1.0, "s": 1, "c": [], "t": msgpack.Timestamp(1, 0)}
    await ws.send(msgpack.packb([trade]))
    if seen[-1] == 1:
        await (await ws.ping())  # it has the trade
        ws.abort()
    elif seen[-1] < TRADES:
        await ws.close(1001 if seen[-1] == 2 else 1011)
    else:
        await ws.wait_closed()
        assert ws.close_code == 1000, ws.close_code


async def main() -> None:
    async with serve(feed, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        stream = StockDataStream("key", "secret", raw_data=True, url_override=f"ws://127.0.0.1:{port}")
        stream._reconnect_min_backoff = stream._reconnect_max_backoff = 0.01
        taken: list[int] = []

        async def take(trade: dict[str, int]) -> None:
            taken.append(trade["i"])
            if trade["i"] == TRADES:
                await stream.stop_ws()

        stream.subscribe_trades(take, "A")
        thread = threading.Thread(target=stream.run, daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, 30)
        assert not thread.is_alive()
        assert taken[-1] == TRADES, taken
        assert seen == [1, 2, 3, 4], seen


asyncio.run(main())
