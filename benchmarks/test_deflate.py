"""permessage-deflate beside websockets and aiohttp: inflate messages of 1 KiB, compress the replies, 100 at a time."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.deflate_cases import PAYLOADS, PEERS, incoming

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
