"""The server's process: an echo on two subprotocols, by a coroutine and by callbacks, with short limits."""

import asyncio
import contextlib

__all__ = [
    "CLOSE_TIMEOUT",
    "MARGIN",
    "MAX_SIZE",
    "OPEN_TIMEOUT",
    "PING_INTERVAL",
    "PING_TIMEOUT",
    "SUBPROTOCOLS",
    "serve",
]

# The server's limits are short, so that each is reached many times in a run.
OPEN_TIMEOUT = 5.0
PING_INTERVAL = 5.0
PING_TIMEOUT = 5.0
CLOSE_TIMEOUT = 5.0
MAX_SIZE = 1 << 20
MARGIN = 10.0  # seconds that the server may be late on a busy machine
SUBPROTOCOLS = ("message", "listener")


async def _serve_wsfast() -> int:
    import wsfast

    async def echo(ws: wsfast.WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    class Echo(wsfast.Listener):
        def on_message(self, message: str | bytes) -> None:
            self.ws.send_nowait(message)

    server = wsfast.Server(
        max_size=MAX_SIZE,
        open_timeout=OPEN_TIMEOUT,
        ping_interval=PING_INTERVAL,
        ping_timeout=PING_TIMEOUT,
        close_timeout=CLOSE_TIMEOUT,
    )
    server.register_handler("message", echo)
    server.register_listener("listener", Echo)
    await server.start("127.0.0.1", 0, backlog=4096)
    return int(server.sockets[0].getsockname()[1])


async def _serve_websockets() -> int:
    import logging

    from websockets.asyncio.server import ServerConnection
    from websockets.asyncio.server import serve as websockets_serve
    from websockets.exceptions import ConnectionClosed

    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # it logs peers' faults with tracebacks

    async def echo(ws: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in ws:
                await ws.send(message)

    server = await websockets_serve(
        echo,
        "127.0.0.1",
        0,
        subprotocols=list(SUBPROTOCOLS),  # type: ignore[arg-type]
        compression=None,
        max_size=MAX_SIZE,
        open_timeout=OPEN_TIMEOUT,
        ping_interval=PING_INTERVAL,
        ping_timeout=PING_TIMEOUT,
        close_timeout=CLOSE_TIMEOUT,
        backlog=4096,
    )
    return int(next(iter(server.sockets)).getsockname()[1])


async def serve(name: str) -> None:
    """Serve with the library of this name; print the port, then run until the process is ended."""
    port = await (_serve_wsfast() if name == "wsfast" else _serve_websockets())
    print(port, flush=True)
    await asyncio.Event().wait()
