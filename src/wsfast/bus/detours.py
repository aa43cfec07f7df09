"""What a node of a cluster refuses because a slot is moving, or has moved, and how it reaches the node that has it.

A message that is refused so was not taken. It is tried again where the refusal points to, with all that is published to
its topic meanwhile behind it, so that their order stays. Other topics of the node go on as before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import Any, Final, Protocol

from ..exceptions import BusUnavailable
from .lost import DOWN_BYTES
from .outbox import Entry, Outbox, given_up

__all__ = ["Detours", "Node", "Owners"]

_RETRY: Final = 0.05
"""Seconds after which it is tried again while a slot is in between."""
_MAX_SECONDS: Final = 10.0


class Node(Protocol):
    """What a node is, here."""

    outbox: Outbox
    up: bool

    def pump(self) -> None:
        """Send what is in the outbox."""


class Owners(Protocol):
    """Who knows the nodes."""

    def owner(self, topic: str) -> Any:
        """Return the node that has a topic's slot, as far as is known; None if that is not known."""

    def named(self, address: str) -> Any:
        """Return the node at an address; one that is new is connected to."""


class _Detour:
    """One topic's messages while its slot moves."""

    __slots__ = ("at", "back", "left", "node", "single", "timer", "waiting")

    def __init__(self, node: Node, left: int, waiting: list[Entry]) -> None:
        self.node = node  # where some of them are under way
        self.left = left  # how many are
        self.back: list[Entry] = []  # of those that were under way together, the refused ones
        self.waiting = deque(waiting)
        self.at = ""  # the address of the node that the slot is moving to
        self.single = False  # the next is tried alone: none may overtake one that is refused
        self.timer: asyncio.Handle | None = None


class Detours:
    """The topics whose messages are on a detour.

    Args:
        loop: whose timers are used.
        owners: who knows the nodes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, owners: Owners) -> None:
        self.bytes: int = 0
        self._loop = loop
        self._owners = owners
        self._of: dict[str, _Detour] = {}

    def __contains__(self, topic: str) -> bool:
        return topic in self._of

    def __len__(self) -> int:
        return len(self._of)

    def add(self, topic: str, data: bytes, size: int, ttl: float) -> Awaitable[Any]:
        """Take in a message of a topic that is on a detour."""
        if self.bytes + len(data) > DOWN_BYTES:
            return given_up(f"{self.bytes} bytes wait for slots that move, the limit is {DOWN_BYTES}")
        entry = Entry(topic, data, size, ttl, self._loop.time() + _MAX_SECONDS)
        self.bytes += len(data)
        self._of[topic].waiting.append(entry)
        return entry

    def refused(self, node: Node, entry: Entry, why: str) -> None:
        """Take in a message that a node has refused; `node.outbox` has it no longer.

        Args:
            node: the node.
            entry: the message.
            why: what it said: MOVED or ASK, a slot, and an address; or TRYAGAIN.
        """
        detour = self._of.get(entry.topic)
        if detour is None:
            waiting = node.outbox.withdraw(entry.topic)
            self.bytes += sum(len(one.data) for one in waiting)
            detour = self._of[entry.topic] = _Detour(node, 1 + node.outbox.count_sent(entry.topic), waiting)
        word, *rest = why.split()
        if word == "ASK" and len(rest) > 1:
            detour.at = rest[1]
        elif word == "MOVED":
            detour.at = ""
        if node is not detour.node:
            entry.finish(error=BusUnavailable(f"the engine refused: {why}"))
            return
        if not entry.given_up:
            detour.back.append(entry)
            self.bytes += len(entry.data)
        self._one_less(entry.topic, detour)

    def begin(self, node: Node, topic: str) -> None:
        """Take what waits for a node, and what it will refuse, because a topic has another by now."""
        if topic in self._of:
            return
        waiting, left = node.outbox.withdraw(topic), node.outbox.count_sent(topic)
        self.bytes += sum(len(entry.data) for entry in waiting)
        detour = self._of[topic] = _Detour(node, left, waiting)
        if not left:
            self._send(topic, detour)

    def evacuated(self, node: Node, topic: str, entries: list[Entry]) -> None:
        """Take in a topic's messages that a node had which is part of the cluster no longer."""
        self.bytes += sum(len(entry.data) for entry in entries)
        detour = self._of.get(topic)
        if detour is None:
            detour = self._of[topic] = _Detour(node, 0, entries)
            self._send(topic, detour)
        elif detour.node is node and detour.left:
            detour.back += entries
            detour.left = 1
            self._one_less(topic, detour)
        else:
            detour.waiting.extendleft(reversed(entries))

    def taken(self, node: Node, entry: Entry) -> None:
        """Take note that a message was taken, or refused for good."""
        detour = self._of.get(entry.topic)
        if detour is not None and node is detour.node:
            self._one_less(entry.topic, detour)

    def lost(self, node: Node) -> None:
        """Take note that a node was lost: what was under way there waits in its outbox again."""
        for topic, detour in list(self._of.items()):
            if detour.node is node and detour.left:
                again = node.outbox.withdraw(topic)
                self.bytes += sum(len(entry.data) for entry in again)
                detour.back += again
                detour.left = 1
                self._one_less(topic, detour)

    def end(self, why: str) -> None:
        """Give up all."""
        for detour in self._of.values():
            if detour.timer is not None:
                detour.timer.cancel()
            for entry in (*detour.back, *detour.waiting):
                entry.finish(error=BusUnavailable(why))
        self._of.clear()
        self.bytes = 0

    def _one_less(self, topic: str, detour: _Detour) -> None:
        detour.left -= 1
        if detour.left or detour.timer is not None:
            return
        if detour.back:
            pause = 0.0 if not detour.single else _RETRY
            detour.waiting.extendleft(reversed(detour.back))
            detour.back = []
            detour.single = True
            detour.timer = self._loop.call_later(pause, self._send, topic, detour)
            return
        detour.single = False
        if detour.at:
            detour.timer = self._loop.call_soon(self._send, topic, detour)
        else:
            self._send(topic, detour)

    def _send(self, topic: str, detour: _Detour) -> None:
        """Send the next, or all where the last was taken."""
        detour.timer = None
        waiting, now = detour.waiting, self._loop.time()
        node = self._owners.named(detour.at) if detour.at else self._owners.owner(topic)
        why = (node.outbox.why if node is not None else "") or "a slot is moving"
        while waiting and waiting[0].due <= now:
            entry = waiting.popleft()
            self.bytes -= len(entry.data)
            entry.finish(error=BusUnavailable(f"the bus has taken nothing for {_MAX_SECONDS} s: {why}"))
        if not waiting:
            del self._of[topic]
            return
        if node is None or not node.up:
            detour.timer = self._loop.call_later(_RETRY, self._send, topic, detour)
            return
        batch = [waiting.popleft()] if detour.single else list(waiting)
        if not detour.single:
            waiting.clear()
        detour.node, detour.left = node, len(batch)
        for entry in batch:
            self.bytes -= len(entry.data)
            entry.asking = bool(detour.at)
            node.outbox.put(entry)
        if not (waiting or detour.at or detour.single):
            del self._of[topic]  # from here on it goes the usual way, behind these
        node.pump()
