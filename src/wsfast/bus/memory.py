"""The bus of a single process: there are no others, and histories are kept in its memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Generator
from typing import Any

from ..exceptions import BusUnavailable
from .interface import Bus, Position, Reading, Receiver
from .outbox import given_up
from .store import Store

__all__ = ["MemoryBus", "Taken"]


class Taken:
    """The awaitable of a message that was taken at once."""

    __slots__ = ("position",)

    def __init__(self, position: Position | None = None) -> None:
        self.position: Position | None = position

    def __await__(self) -> Generator[Any, None, Any]:
        return self.position
        yield


_TAKEN = Taken()


class MemoryBus(Bus):
    """Keeps histories for one process; its messages reach no other process.

    Args:
        store: the histories. Default: one of its own.
    """

    def __init__(self, store: Store | None = None) -> None:
        self._store = Store() if store is None else store
        self._receiver: Receiver | None = None
        self._closed = False
        self._topics: set[str] = set()
        self._stored: deque[tuple[str, bytes, Position]] = deque()  # that are not handed on yet
        self._loop: asyncio.AbstractEventLoop
        self._sweeping: asyncio.TimerHandle | None = None

    async def start(self, receiver: Receiver, origin: int) -> None:
        """Begin to work."""
        if self._receiver is not None:
            raise RuntimeError("the bus runs already")
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._sweep()
        receiver.state_changed(True, "alone")

    async def close(self) -> None:
        """End."""
        self._receiver = None
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()

    def subscribe(self, topic: str) -> None:
        """Ask for the messages of a topic."""
        self._topics.add(topic)

    def unsubscribe(self, topic: str) -> None:
        """Stop asking for the messages of a topic."""
        self._topics.discard(topic)

    async def settled(self) -> None:
        """Return at once."""

    def publish(self, topic: str, data: bytes) -> Awaitable[None]:
        """Send a message to nobody, as there are no other processes."""
        if self._closed:
            return given_up("the bus was closed")
        return _TAKEN

    def store(self, topic: str, data: bytes, size: int, ttl: float) -> Awaitable[Position]:
        """Keep a message, and give it to this process if it subscribed."""
        if self._closed:
            return given_up("the bus was closed")
        position = self._store.append(topic, data, size, ttl, self._loop.time())
        if topic in self._topics:
            self._stored.append((topic, data, position))
            if len(self._stored) == 1:  # else what stored this is being handed on
                self._hand_on()
        return Taken(position)

    def _hand_on(self) -> None:
        stored = self._stored
        while stored:
            try:
                if self._receiver is not None:
                    self._receiver.received(*stored[0])
            finally:
                stored.popleft()

    async def read(self, topic: str, after: Position | None, limit: int = 1000) -> Reading:
        """Read a history."""
        if self._closed:
            raise BusUnavailable("the bus was closed")
        return self._store.read(topic, after, limit, self._loop.time())

    def _sweep(self) -> None:
        self._store.sweep(self._loop.time())
        self._sweeping = self._loop.call_later(10, self._sweep)
