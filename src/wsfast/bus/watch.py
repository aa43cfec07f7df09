"""Tells which workers of a host have ended, where the engine of a bus does not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from .interface import Position
from .local import BUS_DIRECTORY, LocalBus

__all__ = ["Watcher", "watch_workers"]


class Watcher:
    """The `Receiver` of a process that wants no messages: it is only told which other processes have ended.

    Args:
        ended: called with the origin of each.
    """

    def __init__(self, ended: Callable[[int], object]) -> None:
        self._ended = ended

    def received(self, topic: str, data: bytes, position: Position | None) -> None:
        """Drop a message."""

    def state_changed(self, up: bool, why: str) -> None:
        """Take no note of who keeps the histories."""

    def missed(self, topics: Iterable[str]) -> None:
        """Take no note of messages that were missed."""

    def process_ended(self, origin: int) -> None:
        """Tell that another process has ended."""
        self._ended(origin)


async def watch_workers(origin: int, ended: Callable[[int], object]) -> LocalBus | None:
    """Watch the other workers that `wsfast.run` has started on this host, by streams that end with them.

    Args:
        origin: the number of this process, as the bus of its messages has it.
        ended: called with the number of each that has ended and watched, too.

    Returns:
        What has to be closed in the end; None if this process is no worker of `wsfast.run`.

    Raises:
        OSError: the others cannot be met.
    """
    if not os.environ.get(BUS_DIRECTORY):
        return None
    bus = LocalBus()
    await bus.start(Watcher(ended), origin)
    return bus
