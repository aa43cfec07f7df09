"""`serve`: an ASGI application on a running event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, cast

from uvicorn import Config, Server

from .http import HTTP, awaits_request
from .protocol import Protocol, note_stop

if TYPE_CHECKING:
    import socket

__all__ = ["run_server", "serve"]


_LOOK: Final = 0.01
"""Seconds between two looks at the connections, when the server stops."""
_QUIET: Final = 3
"""Looks in a row that see no request awaited: the loop sets up what it has accepted in some turns."""


class _Server(Server):
    """uvicorn's server, within a program that runs the loop.

    Args:
        config: uvicorn's.
        started: called once it listens.
        drain: seconds for the requests of connections that were accepted to come, when it stops.
        patience: seconds, these included, after which what still runs is cancelled, unless uvicorn has an option for
            it; None waits for ever.
    """

    def __init__(
        self, config: Config, started: Callable[[], object] | None, drain: float = 0.0, patience: float | None = None
    ) -> None:
        super().__init__(config)
        self._tell_started = started
        self._drain = drain
        self._patience = patience
        self._lifespan_task: asyncio.Task[Any] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._told_to_stop = False

    async def run_until_stopped(self, sockets: list[socket.socket] | None) -> None:
        """Serve until `stop` is called.

        Raises:
            RuntimeError: the application, or listening, failed to start.
            asyncio.CancelledError: this task was cancelled.
        """
        self._task = asyncio.current_task()
        try:
            if not self._told_to_stop:
                # If the lifespan or listening fails, uvicorn ends the program; its older versions just return.
                with contextlib.suppress(SystemExit):
                    await self.serve(sockets)
                if not (self.started or self._told_to_stop):
                    raise RuntimeError("the application did not start, or could not listen: the log says why")
        except asyncio.CancelledError:
            if not self._told_to_stop or self.started:
                raise
        finally:
            self._task = None
            if not self.started:
                await self._give_up()
            for sock in sockets or ():
                sock.close()

    def stop(self) -> None:
        """Begin to stop; an application that is still starting is cancelled."""
        self.should_exit = self._told_to_stop = True
        if not self.started and self._task is not None:
            self._task.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell who waits for it that the server listens."""
        run_lifespan = getattr(self.lifespan, "main", None)
        if run_lifespan is not None:

            async def main() -> None:
                self._lifespan_task = asyncio.current_task()
                await run_lifespan()

            self.lifespan.main = main
        await super().startup(sockets)
        if self.started and self._tell_started is not None:
            self._tell_started()

    async def _give_up(self) -> None:
        """End what has begun of a start that did not succeed."""
        for server in getattr(self, "servers", ()):
            server.close()
        task = self._lifespan_task
        if task is not None and task.cancel():
            await asyncio.wait((task,))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the requests of connections that were accepted come, then stop as uvicorn does."""
        for server in self.servers:
            server.close()
        begun, quiet = monotonic(), 0
        while quiet < _QUIET and monotonic() < begun + self._drain:
            await asyncio.sleep(_LOOK)
            # Which connections are still in the TLS handshake is told by nobody.
            waiting = self.config.is_ssl or any(map(awaits_request, self.server_state.connections))
            quiet = 0 if waiting else quiet + 1
        note_stop(self.server_state)
        if self._patience is not None and self.config.timeout_graceful_shutdown is None:
            # uvicorn knows whole seconds only, and waits for as long as is asked for.
            left = max(0.0, begun + self._patience - monotonic())
            self.config.timeout_graceful_shutdown = left  # type: ignore[assignment]
        await super().shutdown(sockets)

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
    lifespan is ended. An application that is still starting is cancelled. Signals are left alone.

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
    await run_server(app, sockets, ws=ws, stop=stop, started=started, **options)


async def run_server(
    app: Any,
    sockets: Sequence[socket.socket] | None,
    *,
    ws: type[Protocol] = Protocol,
    stop: asyncio.Event | None = None,
    started: Callable[[], object] | None = None,
    drain: float = 0.0,
    patience: float | None = None,
    **options: Any,
) -> None:
    """Serve as `serve` does; `drain` and `patience` say how long a stop waits, see `_Server`."""
    server = _Server(Config(app, http=cast(Any, HTTP), ws=cast(Any, ws), **options), started, drain, patience)
    task = asyncio.ensure_future(server.run_until_stopped(None if sockets is None else list(sockets)))
    stopping = None if stop is None else asyncio.ensure_future(_stop(server, stop))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        server.stop()
        await task
        raise
    finally:
        if stopping is not None:
            stopping.cancel()


async def _stop(server: _Server, stop: asyncio.Event) -> None:
    await stop.wait()
    server.stop()
