"""SIGINT and SIGTERM as a request to stop in order, for programs that serve until they are told otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["stopping_on_signals"]


class _Watch:
    """Handles the signals of an event loop for all who stop on them.

    Args:
        loop: the event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stops: list[Callable[[], object]] = []
        self._loop = loop
        self._before: dict[signal.Signals, Any] = {}
        self._armed = False

    def begin(self) -> None:
        """Handle the signals from now on, where the event loop can."""
        if self._armed:
            return
        self._armed = True
        # RuntimeError, or ValueError on uvloop: not in the main thread.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                self._loop.add_signal_handler(number, self._told)
                if handler is None or handler == signal.getsignal(number):  # it was set in C, or by the event loop
                    handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                self._before.setdefault(number, handler)

    def _told(self) -> None:
        # From now on as the system does by default: a second signal ends the process, even if a task never ends.
        self._armed = False
        for number in self._before:
            self._loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        for stop in self.stops:
            stop()

    def end(self) -> None:
        """Have the signals handled as before."""
        for number, handler in self._before.items():
            self._loop.remove_signal_handler(number)
            signal.signal(number, handler)


_WATCHES: dict[asyncio.AbstractEventLoop, _Watch] = {}
"""Those at work: an event loop has one handler for a signal, and a program may have several servers."""


@contextlib.contextmanager
def stopping_on_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Call a function, once, by the event loop, when SIGINT or SIGTERM comes; a second one ends the process at once.

    Several calls may be at work on one event loop; a signal is for all of them.

    When the last one has ended, the signals are handled as before, except that a handler which was set by the event
    loop's `add_signal_handler` is lost. Where the event loop handles no signals (Windows), or in another thread than
    the main one, nothing is changed: Ctrl-C cancels the main task.

    Args:
        stop: called when the signal comes.
    """
    loop = asyncio.get_running_loop()
    watch = _WATCHES.get(loop)
    if watch is None:
        watch = _WATCHES[loop] = _Watch(loop)
    watch.begin()
    watch.stops.append(stop)
    try:
        yield
    finally:
        watch.stops.remove(stop)
        if not watch.stops:
            del _WATCHES[loop]
            watch.end()
