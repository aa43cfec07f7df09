"""wsfast. --form listener: callbacks; --form message: a coroutine with `async for`."""

import argparse
import itertools
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


def topics_listener(total: int, each: int) -> type[wsfast.Listener]:
    """Make the listener of a connection that subscribes to some topics; what it sends goes to the next of all."""
    names = [f"topic.{number}" for number in range(total)]
    opened, next_name = itertools.count(), itertools.cycle(names)

    class ToTopics(wsfast.Listener):
        def on_open(self) -> None:
            number = next(opened)
            for i in range(each):
                self.ws.subscribe(names[(number + i * (total // each)) % total])

        def on_message(self, message: str | bytes) -> None:
            topics.publish(next(next_name), message)

    return ToTopics


topics = wsfast.Topics()


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
    server = wsfast.Server(max_size=None, topics=topics if options.topics else None)
    if options.topics:
        server.register_listener(None, topics_listener(*options.topics))
    elif options.form == "listener":
        server.register_listener(None, ToAll if options.broadcast else Echo)
    else:
        handler: Callable[[wsfast.WebSocket], Awaitable[None]] = to_all if options.broadcast else echo
        server.register_handler(None, handler)
    await server.serve_forever("127.0.0.1", options.port, ssl=tls_context(options))


if __name__ == "__main__":
    run(main, arguments())
