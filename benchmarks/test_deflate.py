"""permessage-deflate beside websockets and aiohttp: the work on messages of 1 KiB by itself, then whole servers.

`test_exchange` inflates messages and compresses the replies, 100 at a time, with each library's own objects.
`test_servers` and `test_memory_of_idle_connections` measure echo servers from outside (Linux only); the summary has a
table of each.
"""

from __future__ import annotations

import contextlib
import statistics
from typing import Any

import pytest

from benchmarks.conftest import add_table
from benchmarks.deflate_cases import PAYLOADS, PEERS, incoming
from benchmarks.deflate_load import MESSAGES, Stream, echo
from benchmarks.deflate_servers import SERVERS

COUNT = 100


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("takeover", [True, False], ids=["takeover", "no takeover"])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_exchange(benchmark: Any, payload: str, takeover: bool, peer: str) -> None:
    benchmark.group = f"deflate {payload} 1 KiB, {'takeover' if takeover else 'no takeover'}, 100 messages"
    messages = PAYLOADS[payload](COUNT)
    packed = incoming(messages, takeover=takeover)

    def setup() -> tuple[tuple[Any], dict[str, Any]]:
        # The incoming stream starts anew each time, and the connection with it; the first message warms it up.
        connection = PEERS[peer](takeover=takeover)
        connection.exchange(packed[0])
        return (connection,), {}

    def run(connection: Any) -> None:
        exchange = connection.exchange
        for one in packed[1:]:
            exchange(one)

    benchmark.pedantic(run, setup=setup, rounds=30, warmup_rounds=2)
    (connection,), _ = setup()
    run(connection)
    benchmark.extra_info["sent/received plain"] = round(connection.sent / sum(map(len, messages)), 3)


# --- Servers ------------------------------------------------------------------------------------------------

ROUNDS = 3
CONNECTIONS = 16
ROUND_TRIPS = 100
IDLE_CONNECTIONS = 200
THEIRS = ("websockets", "aiohttp")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_servers(benchmark: Any, pytestconfig: pytest.Config, payload: str, loop: str) -> None:
    """Messages per CPU second of echo servers, each in its process, in interleaved rounds."""
    benchmark.group = f"deflate servers, {payload} 1 KiB, takeover, {loop}"
    stream = Stream(payload)
    times: dict[str, list[float]] = {}
    left: dict[str, float] = {}

    def run() -> None:
        with contextlib.ExitStack() as stack:
            servers = {peer: stack.enter_context(echo(peer, loop)) for peer in SERVERS if peer != "wsfast budget"}
            for peer, server in servers.items():
                server.connect(CONNECTIONS, stream)
                left[peer] = server.clients[0].check()
                server.run(MESSAGES // 4)
            for _ in range(ROUNDS):
                for peer, server in servers.items():
                    times.setdefault(peer, []).append(server.run(ROUND_TRIPS))

    benchmark.pedantic(run, rounds=1, iterations=1)
    rates = {peer: 1 / statistics.median(found) for peer, found in times.items()}
    best = max(rates[peer] for peer in THEIRS)
    benchmark.extra_info |= {peer: round(rate) for peer, rate in rates.items()}
    lines = [f"{'':<18}{'messages per CPU s':>20}{'size left':>11}{'to websockets or aiohttp':>26}"]
    lines += [f"{peer:<18}{rate:>20,.0f}{left[peer]:>11.3f}{rate / best:>26.2f}" for peer, rate in rates.items()]
    add_table(pytestconfig, benchmark.group, lines)


def test_memory_of_idle_connections(benchmark: Any, pytestconfig: pytest.Config) -> None:
    """Resident memory of echo servers for each connection that has exchanged a compressed message of 1 KiB of JSON."""
    benchmark.group = "deflate servers, memory"
    stream = Stream("json", takeover=False)
    memory: dict[str, float] = {}

    def run() -> None:
        for peer in ("wsfast budget", "wsfast", *THEIRS):
            with echo(peer, "asyncio") as server:
                # The first ones make what all of them share, and spend the budget.
                server.connect(50, stream)
                server.run(1)
                before = server.resident
                server.connect(IDLE_CONNECTIONS, stream)
                for client in server.clients[50:]:
                    client.send()
                    assert client.receive()[0] & 0x40
                memory[peer] = (server.resident - before) / IDLE_CONNECTIONS / 1024

    benchmark.pedantic(run, rounds=1, iterations=1)
    benchmark.extra_info |= {peer: round(kib, 1) for peer, kib in memory.items()}
    least = min(memory[peer] for peer in THEIRS)
    lines = [f"{'':<18}{'KiB per connection':>20}{'to websockets or aiohttp':>37}"]
    lines += [f"{peer:<18}{kib:>20.1f}{kib / least:>37.2f}" for peer, kib in memory.items()]
    add_table(pytestconfig, benchmark.group, lines)
