"""Pass every message on to all who are connected: python server_chat.py PORT"""

import asyncio
import sys

import wsfast

server = wsfast.Server()


@server.handler(None)
async def chat(ws: wsfast.WebSocket) -> None:
    async for message in ws:
        wsfast.broadcast(server.connections, message)  # encoded once, and nobody waits for who does not read


async def main(port: int) -> None:
    await server.start("127.0.0.1", port)
    print(f"listening on port {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
