"""`run`: a program in many processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from ..options import named_options
from .settings import Settings, load_certificate
from .target import TargetError, split

__all__ = ["run"]


@named_options("run()")
def run(
    target: Any,
    *,
    workers: int = 1,
    host: str | None = "127.0.0.1",
    port: int = 8765,
    unix: str | os.PathLike[str] | None = None,
    certfile: str | os.PathLike[str] | None = None,
    keyfile: str | os.PathLike[str] | None = None,
    uvloop: bool = False,
    reload: bool = False,
    directory: str | os.PathLike[str] | None = None,
    stop_timeout: float = 30.0,
    hang_timeout: float | None = 30.0,
    log_level: str = "info",
) -> None:
    """Serve a program until SIGTERM or SIGINT, in any number of processes.

    A supervisor holds the listening sockets, starts the workers, and starts another in the place of one that ends. On
    SIGHUP it replaces them one after the other, with the program as it is then: no connection is refused meanwhile. On
    SIGTERM and SIGINT the workers stop as `Server.close` does, and the supervisor ends after them; a second one ends
    them at once. It works as a service of systemd (socket activation, readiness, reload, watchdog) and as the first
    process of a container. Workers can exchange messages by `LocalBus`.

    Args:
        target: ``"module:attribute"``, which names a `Server`, an ASGI application, or a callable without arguments
            that returns one, plain or async. Such an object itself is served in this process alone.
        workers: how many processes serve. Default: 1.
        host: where to listen; None for all interfaces. Default: ``"127.0.0.1"``.
        port: 0 for any free one, which the log tells. Default: 8765.
        unix: a path for a Unix socket, instead of host and port. Default: none.
        certfile, keyfile: a certificate's chain and key in PEM, for wss://. Default: none.
        uvloop: run on uvloop. Default: False.
        reload: replace the workers when a Python file below `directory` changes; for development. Default: False.
        directory: from where the module is imported. Default: the current one.
        stop_timeout: seconds for workers to end before they are killed. Default: 30.
        hang_timeout: seconds without a sign of life after which a worker is killed and replaced; None for never.
            Default: 30.
        log_level: ``"debug"``, ``"info"``, ``"warning"`` or ``"error"``: what is logged to stderr, unless the program
            sets up logging by itself. Default: ``"info"``.

    Raises:
        SystemExit: with 1 if it could not start, or a worker could not at first.
        ValueError, TypeError: an option is out of range; the text names it.
    """
    settings = Settings(
        target=target if isinstance(target, str) else "",
        workers=workers,
        host=host,
        port=port,
        unix=None if unix is None else os.fspath(unix),
        certfile=None if certfile is None else os.fspath(certfile),
        keyfile=None if keyfile is None else os.fspath(keyfile),
        uvloop=uvloop,
        reload=reload,
        directory=os.path.abspath(os.curdir if directory is None else directory),
        stop_timeout=stop_timeout,
        hang_timeout=hang_timeout,
        log_level=log_level,
    )
    if not os.path.isdir(settings.directory):
        raise ValueError(f"directory must name an existing directory, got {settings.directory!r}")
    if settings.certfile is not None:
        try:
            load_certificate(settings.certfile, settings.keyfile)  # workers do it again: this is to say it once
        except OSError as exc:
            print(f"wsfast: {exc}", file=sys.stderr)
            sys.exit(1)
    if isinstance(target, str):
        split(target)
        from .supervisor import Supervisor  # not at the top: a worker has no use for it

        status = Supervisor(settings).run()
    else:
        if workers > 1 or reload:
            raise TypeError("workers import the program: give its name, module:attribute, instead of the object")
        status = _alone(target, settings)
    if status:
        sys.exit(status)


def _alone(target: Any, settings: Settings) -> int:
    """Serve in this process."""
    from .supervisor import open_sockets
    from .worker import run_loop, serve, set_up_logging

    set_up_logging(settings, "wsfast")

    async def work() -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await serve(target, settings, open_sockets(settings)[0], stop, lambda: None)

    try:
        run_loop(settings, work())
    except (TargetError, OSError) as exc:
        print(f"wsfast: {getattr(exc, 'strerror', None) or exc}", file=sys.stderr)
        return 1
    return 0
