"""wsfast's client. --form listener: callbacks; --form message: a coroutine."""

import argparse
import asyncio
import os

import wsfast
from benchmarks.compare.servers._run import client_arguments, run


async def main(options: argparse.Namespace) -> None:
    uri = f"ws://127.0.0.1:{options.port}/?pid={os.getpid()}"
    payload = os.urandom(options.size)
    if options.form == "listener":
        ended = asyncio.get_running_loop().create_future()

        class Again(wsfast.Listener):
            def on_open(self) -> None:
                self.ws.send_nowait(payload)

            def on_message(self, message: str | bytes) -> None:
                self.ws.send_nowait(message)

            def on_close(self, code: int, reason: str) -> None:
                ended.set_result(None)

        await wsfast.connect_listener(Again, uri, max_size=None)
        await ended
    else:
        async with wsfast.connect(uri, max_size=None) as ws:
            await ws.send(payload)
            async for message in ws:
                await ws.send(message)


if __name__ == "__main__":
    run(main, client_arguments())
