"""What other threads have posted to the event loop that topics run on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..telling import tell

if TYPE_CHECKING:
    import asyncio

__all__ = ["Call", "Inbox"]

Call: TypeAlias = tuple[Callable[..., object], tuple[Any, ...]]
"""A function and its arguments."""

_SLICE: Final = 0.005
"""Seconds for which what other threads have posted is done before others get a turn."""
_LOOK: Final = 16
"""Calls between two looks at the clock."""


class Inbox:
    """Makes the calls that other threads post, in order.

    Args:
        loop: the event loop that makes them.
        logger: for calls that raise.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, logger: Any) -> None:
        self._loop = loop
        self._logger = logger
        self._calls: deque[Call] = deque()
        self._working = False

    def take(self, calls: list[Call]) -> None:
        """Take some more calls, in the thread of the loop, and begin to make them."""
        self._calls.extend(calls)
        if not self._working:
            self._working = True
            self._work()

    def _work(self) -> None:
        """Make calls for 5 ms at most; go on in the next turn."""
        end = time.perf_counter() + _SLICE
        while self._calls:
            for _ in range(min(_LOOK, len(self._calls))):
                self._make_next()
            if self._calls and time.perf_counter() > end:
                self._loop.call_soon(self._work)
                return
        self._working = False

    def empty(self) -> None:
        """Make all calls now."""
        while self._calls:
            self._make_next()

    def _make_next(self) -> None:
        call, arguments = self._calls.popleft()
        try:
            call(*arguments)
        except Exception as exc:
            tell(self._logger.error, "topics: a call of another thread failed", exc_info=exc)
