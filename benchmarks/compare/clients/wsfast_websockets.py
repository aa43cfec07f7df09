"""The client of wsfast's drop-in for the websockets library."""

import argparse
import os

from benchmarks.compare.servers._run import client_arguments, run
from wsfast.websockets.asyncio.client import connect


async def main(options: argparse.Namespace) -> None:
    uri = f"ws://127.0.0.1:{options.port}/?pid={os.getpid()}"
    async with connect(uri, max_size=None, compression=None, proxy=None) as ws:
        await ws.send(os.urandom(options.size))
        async for message in ws:
            await ws.send(message)


if __name__ == "__main__":
    run(main, client_arguments())
