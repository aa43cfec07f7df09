"""wsfast. --form listener: callbacks; --form message: a coroutine with `async for`."""

import argparse
from collections.abc import Awaitable, Callable

import wsfast

from ._run import arguments, run, tls_context

connections: set[wsfast.WebSocket] = set()


class Echo(wsfast.Listener):
    def on_message(self, message: str | bytes) -> None:
        self.ws.send_nowait(message)


class ToAll(wsfast.Listener):
    def on_open(self) -> None:
        connections.add(self.ws)

    def on_message(self, message: str | bytes) -> None:
        wsfast.broadcast(connections, message)

    def on_close(self, code: int, reason: str) -> None:
        connections.discard(self.ws)


async def echo(ws: wsfast.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def to_all(ws: wsfast.WebSocket) -> None:
    connections.add(ws)
    try:
        async for message in ws:
            wsfast.broadcast(connections, message)
    finally:
        connections.discard(ws)


async def main(options: argparse.Namespace) -> None:
    server = wsfast.Server(max_size=None)
    if options.form == "listener":
        server.register_listener(None, ToAll if options.broadcast else Echo)
    else:
        handler: Callable[[wsfast.WebSocket], Awaitable[None]] = to_all if options.broadcast else echo
        server.register_handler(None, handler)
    await server.serve_forever("127.0.0.1", options.port, ssl=tls_context(options))


if __name__ == "__main__":
    run(main, arguments())
