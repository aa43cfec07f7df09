"""`serve`: an ASGI application on a running event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, cast

from uvicorn import Config, Server

from .http import HTTP
from .protocol import Protocol

if TYPE_CHECKING:
    import socket

__all__ = ["serve"]


class _Server(Server):
    def __init__(self, config: Config, ready: Callable[[], object] | None) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell who waits for it that the server listens."""
        await super().startup(sockets)
        if self.started and self._ready is not None:
            self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals to the program that runs the loop."""
        yield


async def serve(
    app: Any,
    sockets: Sequence[socket.socket] | None = None,
    *,
    ws: type[Protocol] = Protocol,
    stop: asyncio.Event | None = None,
    started: Callable[[], object] | None = None,
    **options: Any,
) -> None:
    """Serve an ASGI application on the running loop: WebSockets by wsfast, HTTP by uvicorn, and its lifespan.

    It runs until `stop` is set or it is cancelled, and then stops in order: each WebSocket is closed with 1012, and the
    lifespan is ended. Signals are left alone.

    Args:
        app: the application, or where it is: ``"module:name"``.
        sockets: where to listen, bound; they are closed at the end. Default: the options ``host`` and ``port``, ``uds``
            or ``fd``.
        ws: what `configure` made. Default: `Protocol`.
        stop: an event that ends it. Default: none.
        started: called once it listens and the application has started. Default: nothing is called.
        options: of `uvicorn.Config`: ``host``, ``port``, ``ssl_certfile``, ``root_path``, ``lifespan``, ``log_config``,
            ``timeout_graceful_shutdown`` and others.

    Raises:
        TypeError: there is no such option.
        RuntimeError: the application, or listening, failed to start; the log says why.
    """
    server = _Server(Config(app, http=cast(Any, HTTP), ws=cast(Any, ws), **options), started)
    task = asyncio.ensure_future(_run(server, None if sockets is None else list(sockets)))
    stopping = None if stop is None else asyncio.ensure_future(_stop(server, stop))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        server.should_exit = True
        await task
        raise
    finally:
        if stopping is not None:
            stopping.cancel()


async def _run(server: Server, sockets: list[socket.socket] | None) -> None:
    try:
        await server.serve(sockets)
    except SystemExit:  # uvicorn ends the program if the lifespan or listening fails
        raise RuntimeError("the application did not start, or could not listen: the log says why") from None


async def _stop(server: Server, stop: asyncio.Event) -> None:
    await stop.wait()
    server.should_exit = True
