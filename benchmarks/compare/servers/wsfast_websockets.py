"""wsfast's drop-in for the websockets library."""

import argparse
import asyncio

from wsfast.websockets.asyncio.server import ServerConnection, broadcast, serve

from ._run import arguments, run, tls_context

connections: set[ServerConnection] = set()


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def to_all(ws: ServerConnection) -> None:
    connections.add(ws)
    try:
        async for message in ws:
            broadcast(connections, message)
    finally:
        connections.discard(ws)


async def main(options: argparse.Namespace) -> None:
    handler = to_all if options.broadcast else echo
    context = tls_context(options)
    async with serve(handler, "127.0.0.1", options.port, max_size=None, compression=None, ssl=context):
        await asyncio.Event().wait()


if __name__ == "__main__":
    run(main, arguments())
