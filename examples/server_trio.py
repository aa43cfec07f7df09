"""Send every message back, on trio: python server_trio.py PORT"""

import sys
from functools import partial

import trio

import wsfast.trio


async def echo(ws: wsfast.trio.WebSocket) -> None:
    async for message in ws:  # str is text, bytes is binary
        await ws.send(message)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(wsfast.trio.serve, echo, "127.0.0.1", int(sys.argv[1])))
        print(f"listening on port {server.sockets[0].getsockname()[1]}", flush=True)


if __name__ == "__main__":
    trio.run(main)
