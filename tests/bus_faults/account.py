"""Runs several processes' worth of topics in one loop, and keeps account of what each should get."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import wsfast
from wsfast.bus import Bus
from wsfast.topics.index import Member
from wsfast.topics.topics import hub_of

__all__ = ["Account", "Node", "accounts"]


class _Sink:
    """A connection in memory that takes each message."""

    def __init__(self) -> None:
        self.got: list[str] = []

    def send_gathered(self, frames: bytes, count: int, cork: bool = False) -> bool:
        at = 0
        while at < len(frames):
            size = frames[at + 1]
            assert size < 126
            self.got.append(frames[at + 2 : at + 2 + size].decode())
            at += 2 + size
        return True

    def transport_failed(self, exc: BaseException) -> None:
        raise exc


class Node:
    """A process: its topics, and one connection to all of them.

    Attributes:
        topics: the `Topics`.
        gaps: what was told to be lost.
    """

    def __init__(self, number: int, bus: Bus, history: bool) -> None:
        self.number = number
        self.gaps: list[wsfast.Gap] = []
        self.topics = wsfast.Topics(bus, on_gap=self.gaps.append)
        if history:
            self.topics.configure("*", history=wsfast.History(size=100_000, ttl=600))
        self.sink = _Sink()
        self.sent: dict[str, int] = {}
        self.refused = 0

    async def start(self, names: list[str]) -> None:
        """Start, and subscribe to all topics."""
        await self.topics.start()
        member = Member(hub_of(self.topics).index, self.sink)
        self.member = member
        for name in names:
            member.index.subscribe(member, name)
            hub_of(self.topics).join(name, hub_of(self.topics).rules.of(name))
        for name in names:
            with contextlib.suppress(wsfast.BusUnavailable):
                await hub_of(self.topics).settled(name)

    def publish(self, name: str) -> Any:
        """Publish the next of this process' messages of a topic."""
        number = self.sent[name] = self.sent.get(name, 0) + 1
        return self.topics.publish(name, f"{name} {self.number} {number}")

    def told(self, name: str) -> float:
        """Return how many messages of a topic were said to be lost."""
        return sum(float("inf") if gap.missed is None else gap.missed for gap in self.gaps if gap.topic == name)


class Account:
    """Some nodes and their topics."""

    def __init__(self, nodes: list[Node], names: list[str]) -> None:
        self.nodes = nodes
        self.names = names

    async def publish(self, seconds: float, rate: float, *, wait: bool) -> None:
        """Have each node publish to each topic for some time.

        Args:
            seconds: how long.
            rate: messages a second, of each node.
            wait: whether each waits until its last messages were taken, so that none is refused.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds

        async def one(node: Node) -> None:
            number = 0
            waiting: list[Any] = []
            while loop.time() < end:
                waiting.append(node.publish(self.names[number % len(self.names)]))
                number += 1
                if wait and len(waiting) >= 10:
                    for entry in waiting:
                        await entry
                    waiting.clear()
                await asyncio.sleep(1 / rate)
            for entry in waiting:
                try:
                    await entry
                except wsfast.BusUnavailable:
                    node.refused += 1

        await asyncio.gather(*(one(node) for node in self.nodes))

    def missing(self, node: Node) -> dict[str, int]:
        """Return how many of the others' messages a node has not got, for each topic; its own it has at once."""
        got = dict.fromkeys(self.names, 0)
        for text in node.sink.got:
            name, number, _ = text.split()
            if int(number) != node.number:
                got[name] += 1
        return {
            name: sum(other.sent.get(name, 0) for other in self.nodes if other is not node) - got[name]
            for name in self.names
        }

    def check_order(self) -> None:
        """See that each node got each message at most once, and those of each publisher and topic in order."""
        for node in self.nodes:
            latest: dict[tuple[str, str], int] = {}
            for text in node.sink.got:
                name, publisher, number = text.split()
                before = latest.get((name, publisher), 0)
                assert int(number) > before, f"node {node.number} got {text!r} after {before}"
                latest[name, publisher] = int(number)

    async def settle(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until a condition holds; tell whether it did."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not condition():
                    await asyncio.sleep(0.05)
        return condition()


@contextlib.asynccontextmanager
async def accounts(make: Callable[[], Bus], count: int, topics: int, *, history: bool) -> AsyncIterator[Account]:
    """Run some nodes on some topics."""
    names = [f"t.{number}" for number in range(topics)]
    nodes = [Node(number, make(), history) for number in range(count)]
    try:
        for node in nodes:
            await node.start(names)
        yield Account(nodes, names)
    finally:
        for node in nodes:
            await node.topics.close()
