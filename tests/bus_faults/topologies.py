"""Faults of several servers of Redis together: a cluster's slots move, and replicas take over."""

from __future__ import annotations

import asyncio
import random
import secrets
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from engines import REDISES, Cluster, Engine, find

from wsfast.bus import RedisBus

from .account import Account, accounts
from .scenarios import Outcome, with_history, without_history

__all__ = ["TOPOLOGIES"]

_Scenario = Callable[[Any, int], Coroutine[Any, Any, Outcome]]


async def _until(condition: Callable[..., bool], *args: object) -> None:
    """Wait until something holds that servers are asked for.

    Sentinels that were held up, as on a busy machine, do nothing for 30 s, time and again.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(180):
        while not await loop.run_in_executor(None, condition, *args):
            await asyncio.sleep(0.05)


def _in_sync(replica: Engine) -> bool:
    try:
        return b"master_link_status:up" in replica.ask("INFO", "replication")
    except OSError:  # one that becomes a replica cuts its connections
        return False


def _cluster(
    fault: Callable[[Cluster, Account], Coroutine[Any, Any, None]], seconds: float, history: bool
) -> _Scenario:
    async def run(_: Any, times: int) -> Outcome:
        with tempfile.TemporaryDirectory() as directory, Cluster(Path(directory)) as cluster:
            prefix = secrets.token_hex(4)

            async def faults() -> None:
                for _ in range(times):
                    await asyncio.sleep(random.uniform(0.5, 1))
                    await fault(cluster, account)

            async with accounts(
                lambda: RedisBus(cluster.nodes[0].url, prefix=prefix, cluster=True), 3, 5, history=history
            ) as account:
                judge = with_history if history else without_history
                return await judge(account, faults(), times * seconds + 2)

    return run


async def _move_a_slot(cluster: Cluster, account: Account) -> None:
    loop = asyncio.get_running_loop()
    topic = random.choice(account.names)
    source = cluster.owner(topic)
    target = random.choice([node for node in cluster.nodes if node is not source])
    cluster.begin_to_move(topic, target)
    await asyncio.sleep(random.uniform(0, 1))
    while await loop.run_in_executor(None, cluster.move_key, topic):
        await asyncio.sleep(random.uniform(0, 1))
    cluster.end_moving(topic)


async def _fail_over(cluster: Cluster, account: Account) -> None:
    loop = asyncio.get_running_loop()
    source = cluster.owner(random.choice(account.names))
    if len(cluster.nodes) == 3:
        await loop.run_in_executor(None, cluster.add)
    replica = next(node for node in cluster.nodes if not cluster.serves(node))
    await _until(lambda: cluster.id(source).encode() in replica.ask("CLUSTER", "NODES"))
    replica.ask("CLUSTER", "REPLICATE", cluster.id(source))
    await _until(_in_sync, replica)
    await asyncio.sleep(1)
    source.kill()
    await _until(lambda: cluster.serves(replica))
    await loop.run_in_executor(None, source.start)


def _sentinels(fault: str, *, history: bool) -> _Scenario:
    async def run(_: Any, times: int) -> Outcome:
        with tempfile.TemporaryDirectory() as directory:
            engines: list[Engine] = []

            def start(name: str, config: str = "") -> Engine:
                folder = Path(directory, name)
                folder.mkdir()
                made = Engine(find(REDISES[0]), folder, "--repl-diskless-sync-delay", "0")
                engines.append(made)
                if config:
                    path = folder / "sentinel.conf"
                    path.write_text(config)
                    made.start(str(path), "--sentinel")
                else:
                    made.start()
                return made

            try:
                return await _with_sentinels(start, fault, times, history)
            finally:
                for made in engines:
                    made.stop()

    return run


async def _with_sentinels(start: Callable[..., Engine], fault: str, times: int, history: bool) -> Outcome:
    loop = asyncio.get_running_loop()
    pair = [start("0"), start("1")]
    pair[1].ask("REPLICAOF", "127.0.0.1", str(pair[0].port))
    config = (
        f"sentinel monitor main 127.0.0.1 {pair[0].port} 2\n"
        "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 3000\n"
    )
    watchers = [start(f"sentinel {number}", config) for number in range(3)]
    await _until(lambda: b"slave0" in pair[0].ask("INFO", "replication") and _in_sync(pair[1]))
    await _until(lambda: all(b"sentinels=3" in one.ask("INFO", "sentinel") for one in watchers))
    prefix = secrets.token_hex(4)

    def master() -> Engine:
        port = int(watchers[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main").split(b"\r\n")[4])
        return next(one for one in pair if one.port == port)

    async def faults() -> None:
        for _ in range(times):
            await asyncio.sleep(random.uniform(1, 2))
            before = await loop.run_in_executor(None, master)
            if fault == "asked":
                watchers[0].ask("SENTINEL", "FAILOVER", "main")
            else:
                before.kill(signal.SIGSTOP if fault == "hangs" else signal.SIGKILL)
            await _until(lambda old: master() is not old, before)
            if fault == "killed":
                await loop.run_in_executor(None, before.start)
            elif fault == "hangs":
                before.kill(signal.SIGCONT)
            # They may have gone back to it: on a busy machine the other one, too, answers too late for them.
            await _until(lambda: _in_sync(next(one for one in pair if one is not master())))

    sentinels = [("127.0.0.1", one.port) for one in watchers]
    async with accounts(
        lambda: RedisBus(sentinels=sentinels, service="main", prefix=prefix), 3, 5, history=history
    ) as account:
        return await (with_history if history else without_history)(account, faults(), times * 8 + 2)


TOPOLOGIES: dict[str, dict[str, _Scenario]] = {
    "cluster": {
        "slots move, history": _cluster(_move_a_slot, 2.5, True),
        "slots move, no history": _cluster(_move_a_slot, 2.5, False),
        "a replica takes over, history": _cluster(_fail_over, 8, True),
        "a replica takes over, no history": _cluster(_fail_over, 8, False),
    },
    "sentinels": {
        f"a master {what}, {'history' if history else 'no history'}": _sentinels(fault, history=history)
        for fault, what in (("killed", "is killed"), ("hangs", "hangs"), ("asked", "is replaced"))
        for history in (True, False)
    },
}
"""The scenarios that start servers of their own, by the name of what those make together."""
