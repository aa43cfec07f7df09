"""What belongs to an event loop: one thing of a kind for each, whatever threads they run in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["PerLoop"]

_T = TypeVar("_T")


class PerLoop(Generic[_T]):
    """One thing for each event loop, made when it is first asked for, and let go with the loop, or once that is closed.

    Args:
        make: makes it for a loop, in any thread.
    """

    def __init__(self, make: Callable[[asyncio.AbstractEventLoop], _T]) -> None:
        self._make = make
        self._made: WeakKeyDictionary[asyncio.AbstractEventLoop, _T] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def of(self, loop: asyncio.AbstractEventLoop) -> _T:
        """Return that of a loop."""
        made = self._made.get(loop)
        if made is None:
            with self._lock:
                # What is made refers to its loop, mostly, and so keeps the weak reference alive.
                for old in [old for old in self._made if old.is_closed()]:
                    del self._made[old]
                made = self._made.get(loop)
                if made is None:
                    made = self._made[loop] = self._make(loop)
        return made
