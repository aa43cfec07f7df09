"""Send every message back: python server_echo.py PORT"""

import asyncio
import sys

import wsfast


async def echo(ws: wsfast.WebSocket) -> None:
    async for message in ws:  # str is text, bytes is binary
        await ws.send(message)


async def main(port: int) -> None:
    async with wsfast.serve(echo, "127.0.0.1", port) as server:
        print(f"listening on port {server.sockets[0].getsockname()[1]}", flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
