"""Test a handler without a socket, over a network in memory that cuts what is sent to single bytes."""

import asyncio

import wsfast
import wsfast.testing


async def add(ws: wsfast.WebSocket) -> None:
    total = 0
    async for message in ws:
        total += int(message)
        await ws.send(str(total))


async def test_add() -> None:
    async with wsfast.testing.pair(add, chunk_size=1) as (client, _):
        for number, total in [("1", "1"), ("20", "21"), ("-21", "0")]:
            await client.send(number)
            assert await client.recv() == total


if __name__ == "__main__":
    asyncio.run(test_add())
    print("passed")
