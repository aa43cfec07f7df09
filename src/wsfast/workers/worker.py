"""A worker: one process that serves on the sockets that its supervisor opened."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from typing import Any, Final

from ..server import Server
from .settings import Settings, load_certificate, take_signals
from .target import TargetError, load, resolve

__all__ = ["main", "serve"]

_BEAT: Final = 1.0
_HANDSHAKES: Final = 2.0
"""Seconds for opening handshakes under way to finish, when a worker is told to end."""

_PATIENCE: Final = 0.75
"""The part of `stop_timeout` after which an ASGI application's requests are cancelled; its lifespan has the rest."""

_logger = logging.getLogger("wsfast.workers")


def main() -> None:
    """Run a worker as the supervisor has told it to, and end the process."""
    settings = Settings.load(sys.argv[1])
    number, life, *fds = map(int, sys.argv[2].split(","))
    set_up_logging(settings, f"worker {number}")
    sys.path.insert(0, settings.directory)
    sockets = [socket.socket(fileno=fd) for fd in fds]
    with socket.socket(fileno=life) as supervisor:
        supervisor.setblocking(False)
        try:
            run_loop(settings, _work(settings, sockets, supervisor))
        except TargetError as exc:
            _logger.error("%s", exc)
            sys.exit(3)
        except OSError as exc:
            _logger.error("cannot serve: %s", exc)
            sys.exit(3)


def set_up_logging(settings: Settings, who: str) -> None:
    """Log to stderr, as one of many, unless the program sets logging up by itself later."""
    text = f"%(asctime)s {who}[{os.getpid()}] %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=settings.log_level.upper(), format=text, stream=sys.stderr)


def run_loop(settings: Settings, main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on the event loop that was chosen."""
    if settings.uvloop:
        try:
            import uvloop
        except ImportError:
            main.close()
            raise TargetError("uvloop is not installed: pip install 'wsfast[speed]'") from None
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)
    else:
        with asyncio.Runner() as runner:
            runner.run(main)


async def _work(settings: Settings, sockets: list[socket.socket], supervisor: socket.socket) -> None:
    """Serve until told to end, with signs of life to the supervisor."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    # Ctrl-C reaches the whole group: what is to be done then is the supervisor's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    take_signals()

    def supervisor_spoke() -> None:
        with contextlib.suppress(BlockingIOError):
            if not supervisor.recv(16):
                loop.remove_reader(supervisor)
                _logger.warning("the supervisor has ended")
                stop.set()

    loop.add_reader(supervisor, supervisor_spoke)

    async def beat() -> None:
        while True:
            await asyncio.sleep(_BEAT)
            with contextlib.suppress(OSError):
                supervisor.send(b".")

    beating = loop.create_task(beat())

    def ready() -> None:
        with contextlib.suppress(OSError):
            supervisor.send(b"r")

    try:
        await serve(load(settings.target), settings, sockets, stop, ready)
    finally:
        beating.cancel()
        loop.remove_reader(supervisor)


async def serve(target: Any, settings: Settings, sockets: list[socket.socket], stop: asyncio.Event, ready: Any) -> None:
    """Serve a program on sockets that listen, until `stop` is set; then let it end in order.

    A program that is still starting then is cancelled.

    Args:
        target: a `Server`, an ASGI application, or what makes one.
        settings: how to serve.
        sockets: the listening sockets.
        stop: an event that is set when the worker has to end.
        ready: called once it serves.

    Raises:
        TargetError: the target is none of these.
    """
    started = False

    def begun() -> None:
        nonlocal started
        started = True
        ready()

    serving = asyncio.ensure_future(_serve(target, settings, sockets, stop, begun))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not started and serving.cancel():
            await asyncio.wait((serving,))
            if serving.cancelled():
                return
        await serving
    finally:
        stopping.cancel()
        if serving.cancel():
            await asyncio.wait((serving,))


async def _serve(
    target: Any, settings: Settings, sockets: list[socket.socket], stop: asyncio.Event, ready: Any
) -> None:
    program = await resolve(target)
    if not isinstance(program, Server):
        try:
            serve_asgi = importlib.import_module("wsfast.uvicorn.serving").run_server
        except ImportError as exc:
            raise TargetError(f"an ASGI application is served by uvicorn, which must be installed: {exc}") from None
        # Without `log_config`, uvicorn's lines go where all others go.
        options: dict[str, Any] = {"log_config": None}
        if settings.certfile is not None:
            options |= {"ssl_certfile": settings.certfile, "ssl_keyfile": settings.keyfile}
        patience = settings.stop_timeout * _PATIENCE
        drain = min(_HANDSHAKES, patience / 2)
        await serve_asgi(program, sockets, stop=stop, started=ready, drain=drain, patience=patience, **options)
        return
    context = None if settings.certfile is None else load_certificate(settings.certfile, settings.keyfile)
    for sock in sockets:
        await program.start(sock=sock, ssl=context)
    ready()
    ending = asyncio.ensure_future(program.wait_closed())  # the program may end by itself
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((ending, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        await program.drain(_HANDSHAKES)
        program.close()
        await ending


if __name__ == "__main__":
    main()
