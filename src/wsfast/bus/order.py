"""The order of a history's messages where a server may publish them in another than it numbered them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from .interface import Position

__all__ = ["InOrder"]

_EARLY: Final = 1000
"""Messages that wait for one with a lower number."""
_LATE: Final = 1.0
"""Seconds for which such messages wait."""
_LATE_AT_FIRST: Final = 0.25
"""Seconds for which the first message to come waits, unless it is number 1: the ones before it are mostly old."""


class InOrder:
    """Hands on each message of a history once those before it have come, or were given up.

    A server takes what several processes store at once, and publishes it again, on several threads. Messages that were
    given up can be read from the history.

    Args:
        loop: whose timers are used.
        epoch: of the history.
        received: called with each message and its position, in order.

    Attributes:
        epoch: the argument.
    """

    __slots__ = ("_early", "_late", "_loop", "_next", "_received", "_timer", "epoch")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, epoch: str, received: Callable[[bytes, Position], None]
    ) -> None:
        self._loop = loop
        self._received = received
        self._next = 1
        self._late = _LATE_AT_FIRST
        self._early: dict[int, bytes] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.epoch: str = epoch

    def take(self, offset: int, data: bytes) -> None:
        """Take in a message as it comes; one that was given up is dropped."""
        if offset < self._next:
            return
        self._early[offset] = data
        if offset == self._next:
            self._hand_on()
        elif len(self._early) > _EARLY:
            self._give_up()
        elif self._timer is None:
            self._timer = self._loop.call_later(self._late, self._give_up)

    def end(self) -> None:
        """Hand on nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hand_on(self) -> None:
        self._late = _LATE
        while self._early:
            data = self._early.pop(self._next, None)
            if data is None:
                return
            self._next += 1
            self._received(data, Position(self.epoch, self._next - 1))
        self.end()

    def _give_up(self) -> None:
        """Stop waiting for the messages that are missing."""
        self.end()
        if self._early:
            self._next = min(self._early)
            self._hand_on()
        if self._early:
            self._timer = self._loop.call_later(self._late, self._give_up)
