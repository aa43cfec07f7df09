"""Plain TCP (or TLS) echo: the ceiling that the event loop itself sets. --form aiofastnet: its transports."""

import argparse
import asyncio
from typing import cast

from ._run import arguments, run, tls_context


class Echo(asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def main(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    if options.form == "aiofastnet":
        import aiofastnet

        await aiofastnet.create_server(loop, Echo, "127.0.0.1", options.port, ssl=tls_context(options))
    else:
        server = await loop.create_server(Echo, "127.0.0.1", options.port, ssl=tls_context(options))
        await server.serve_forever()
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(main, arguments())
