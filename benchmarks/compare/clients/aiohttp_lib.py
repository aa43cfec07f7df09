"""aiohttp's client."""

import argparse
import os

import aiohttp

from benchmarks.compare.servers._run import client_arguments, run


async def main(options: argparse.Namespace) -> None:
    uri = f"ws://127.0.0.1:{options.port}/?pid={os.getpid()}"
    async with aiohttp.ClientSession() as session, session.ws_connect(uri, max_msg_size=0) as ws:
        await ws.send_bytes(os.urandom(options.size))
        async for message in ws:
            if message.type is aiohttp.WSMsgType.BINARY:
                await ws.send_bytes(message.data)


if __name__ == "__main__":
    run(main, client_arguments())
