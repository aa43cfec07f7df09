"""SIGINT and SIGTERM as a request to stop in order, for programs that serve until they are told otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

__all__ = ["stopping_on_signals"]


@contextlib.contextmanager
def stopping_on_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Call a function, once, by the event loop, when SIGINT or SIGTERM comes; a second one ends the program at once.

    Where the event loop handles no signals (Windows), or in another thread than the main one, nothing is changed:
    Ctrl-C cancels the main task.

    Args:
        stop: what begins to stop.
    """
    loop = asyncio.get_running_loop()
    handled: list[int] = []

    def restore() -> None:
        while handled:
            loop.remove_signal_handler(handled.pop())

    def told() -> None:
        restore()
        stop()

    # RuntimeError, or ValueError on uvloop: not in the main thread.
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, told)
            handled.append(number)
    try:
        yield
    finally:
        restore()
