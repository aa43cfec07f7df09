"""SIGINT and SIGTERM as a request to stop in order, for programs that serve until they are told otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["stopping_on_signals"]


@contextlib.contextmanager
def stopping_on_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Call a function, once, by the event loop, when SIGINT or SIGTERM comes; a second one ends the process at once.

    At the end the signals are handled as before, unless a handler was set by the event loop, which cannot tell of it.
    Where the event loop handles no signals (Windows), or in another thread than the main one, nothing is changed:
    Ctrl-C cancels the main task.

    Args:
        stop: what begins to stop.
    """
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {}

    def told() -> None:
        # The system's way, which no handler and no task that does not end can delay.
        for number in before:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        stop()

    # RuntimeError, or ValueError on uvloop: not in the main thread.
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            loop.add_signal_handler(number, told)
            if handler is None or handler == signal.getsignal(number):  # of C, or of the event loop
                handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            before[number] = handler
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
