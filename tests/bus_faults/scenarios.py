"""What is done to buses, and what must hold after it."""

from __future__ import annotations

import asyncio
import random
import secrets
import signal
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from wsfast.bus import LocalBus, NatsBus, RedisBus

from .account import Account, accounts

__all__ = ["SCENARIOS", "Outcome", "with_history", "without_history"]

Outcome = dict[str, float]


def _bus(engine: Any) -> Callable[[], RedisBus | NatsBus]:
    prefix = f"faults-{secrets.token_hex(4)}"
    return lambda: (NatsBus if engine.is_nats else RedisBus)(engine.url, prefix=prefix)


async def _kill_again_and_again(engine: Any, times: int, pause: float, fault: str) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(times):
        await asyncio.sleep(pause * random.uniform(0.5, 1))
        if fault == "kill":
            engine.kill()
            await asyncio.sleep(random.uniform(0, 0.3))
            await loop.run_in_executor(None, engine.start)
        elif fault == "hang":
            engine.kill(signal.SIGSTOP)
            await asyncio.sleep(3.5)
            engine.kill(signal.SIGCONT)
        else:
            engine.ask("CLIENT", "KILL", "TYPE", random.choice(["normal", "pubsub"]))


async def with_history(account: Account, fault: Awaitable[None], seconds: float) -> Outcome:
    """Publish while a fault happens: nothing may be lost."""
    publishing = asyncio.ensure_future(account.publish(seconds, 200, wait=True))
    await fault
    await publishing
    settled = await account.settle(lambda: all(not any(account.missing(node).values()) for node in account.nodes), 20)
    missing = {node.number: account.missing(node) for node in account.nodes}
    assert settled, f"lost: {missing}"
    account.check_order()
    for node in account.nodes:
        assert not node.refused, f"node {node.number}: {node.refused} were refused"
        assert not node.gaps, f"node {node.number} was told of losses that are none: {node.gaps[:3]}"
    return {
        "sent": sum(sum(node.sent.values()) for node in account.nodes),
        "duplicates dropped": sum(node.topics.counters["duplicates"] for node in account.nodes),
        "recovered": sum(node.topics.counters["recovered"] for node in account.nodes),
        "reconnects": sum(node.topics.counters["reconnects"] for node in account.nodes),
    }


async def without_history(account: Account, fault: Awaitable[None], seconds: float) -> Outcome:
    """Publish while a fault happens: what is lost must be told."""
    publishing = asyncio.ensure_future(account.publish(seconds, 200, wait=False))
    await fault
    await publishing

    def told() -> bool:
        return all(
            node.told(name) >= missed for node in account.nodes for name, missed in account.missing(node).items()
        )

    settled = await account.settle(told, 20)
    silent = {
        (node.number, name): (missed, node.told(name))
        for node in account.nodes
        for name, missed in account.missing(node).items()
        if missed > node.told(name)
    }
    assert settled, f"losses that were not told, (missed, told): {silent}"
    account.check_order()
    lost = sum(sum(account.missing(node).values()) for node in account.nodes)
    return {
        "sent": sum(sum(node.sent.values()) for node in account.nodes),
        "lost and told": lost,
        "told": sum(sum(gap.missed or 0 for gap in node.gaps) for node in account.nodes),
        "reconnects": sum(node.topics.counters["reconnects"] for node in account.nodes),
    }


def _scenario(fault: str, *, history: bool) -> Callable[[Any, int], Coroutine[Any, Any, Outcome]]:
    async def run(engine: Any, times: int) -> Outcome:
        pause = 1.0
        seconds = times * {"kill": 1.6, "hang": 5.0, "cut": 1.0}[fault] + 1
        async with accounts(_bus(engine), 3, 5, history=history) as account:
            faults = _kill_again_and_again(engine, times, pause, fault)
            return await (with_history if history else without_history)(account, faults, seconds)

    return run


async def local_processes_come_and_go(engine: Any, times: int) -> Outcome:
    """Nodes on the local bus are aborted and replaced; the one that keeps the histories stays."""
    with tempfile.TemporaryDirectory() as directory:
        make = lambda: LocalBus(Path(directory) / "bus")  # noqa: E731
        async with accounts(make, 3, 5, history=True) as account:

            async def come_and_go() -> None:
                for _ in range(times):
                    await asyncio.sleep(random.uniform(0.2, 0.5))
                    async with accounts(make, 1, 5, history=True) as other:
                        await asyncio.sleep(random.uniform(0, 0.2))
                        del other

            return await with_history(account, come_and_go(), times * 0.6 + 1)


SCENARIOS: dict[str, Callable[[Any, int], Coroutine[Any, Any, Outcome]]] = {
    "engine killed, history": _scenario("kill", history=True),
    "engine killed, no history": _scenario("kill", history=False),
    "engine hangs, history": _scenario("hang", history=True),
    "engine hangs, no history": _scenario("hang", history=False),
    "connections cut, history": _scenario("cut", history=True),
    "connections cut, no history": _scenario("cut", history=False),
    "local processes come and go": local_processes_come_and_go,
}
"""Each is called with an engine and how often to do it; it raises `AssertionError` where something does not hold.

A server of NATS cannot be told to cut connections.
"""
