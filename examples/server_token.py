"""Answer a health check, and ask others for a token before they connect: TOKEN=secret python server_token.py PORT"""

import asyncio
import hmac
import os
import sys

import wsfast

EXPECTED = f"Bearer {os.environ['TOKEN']}".encode()


def check(ws: wsfast.WebSocket, request: wsfast.Request) -> wsfast.Response | None:
    if request.path == "/healthz":
        return ws.respond(200, "OK\n")
    given = request.headers.get("Authorization", "").encode()
    if not hmac.compare_digest(given, EXPECTED):  # in the same time, however much of it is right
        return ws.respond(401, "A token is required.\n")
    return None  # go on with the opening handshake


async def greet(ws: wsfast.WebSocket) -> None:
    await ws.send("welcome")


async def main(port: int) -> None:
    async with wsfast.serve(greet, "127.0.0.1", port, process_request=check) as server:
        print(f"listening on port {server.sockets[0].getsockname()[1]}", flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
