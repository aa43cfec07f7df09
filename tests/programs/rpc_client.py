"""fastapi-websocket-rpc: its client on wsfast, its server on uvicorn in a process of its own."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

from fastapi_websocket_rpc import RpcMethodsBase, WebSocketRpcClient

SERVER = """
import uvicorn
from fastapi import FastAPI
from fastapi_websocket_rpc import RpcMethodsBase, WebsocketRPCEndpoint

class Methods(RpcMethodsBase):
    async def add(self, a=0, b=0):
        return a + b

app = FastAPI()
WebsocketRPCEndpoint(Methods()).register_route(app, "/ws")
uvicorn.run(app, host="127.0.0.1", port={port}, log_level="error")
"""


async def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", SERVER.replace("{port}", str(port))])
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    client = WebSocketRpcClient(f"ws://127.0.0.1:{port}/ws", RpcMethodsBase(), retry_config=False)
                    async with client:
                        response = await client.other.add(a=1, b=41)
                        assert response.result == "42", response
                    break
                except OSError:  # it does not listen yet
                    await asyncio.sleep(0.1)
        try:
            async with WebSocketRpcClient(f"ws://127.0.0.1:{port}/other", RpcMethodsBase(), retry_config=False):
                raise AssertionError("connected to what is not there")
        except Exception as exc:
            assert "403" in str(exc) or "404" in str(exc), repr(exc)
    finally:
        server.kill()
        server.wait()


asyncio.run(main())
