"""Telling the log: a log that fails is told on stderr, and takes nothing else with it."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable

__all__ = ["tell"]


def tell(log: Callable[..., object], *args: object, **options: object) -> None:
    """Tell the log something.

    A handler, a filter or an adapter of the program's own may raise. Peers cause most lines, so that each could end a
    connection half-way, or a server, if it came out where the line was told. `logging` prints what its own handlers
    raise, and goes on; so does this.

    Args:
        log: a method of a logger, such as ``logger.info``.
        args, options: what it is given.
    """
    try:
        if isinstance(getattr(log, "__self__", None), (logging.Logger, logging.LoggerAdapter)):
            options["stacklevel"] = 2  # the record names the caller, not this module
        log(*args, **options)
    except Exception:
        if logging.raiseExceptions and sys.stderr is not None:
            try:
                traceback.print_exc()
            except Exception:  # stderr may be closed
                return
