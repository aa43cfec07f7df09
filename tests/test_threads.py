"""Several event loops, each in a thread of its own: nothing that they share may be mixed up.

It shows most on CPython without a GIL.
"""

from __future__ import annotations

import asyncio
import sys
import sysconfig
import threading
from typing import Any

import pytest
from shared import echo
from test_codec_threads import THREADS, side_by_side

import wsfast
from wsfast import Deflate
from wsfast.transport.loops import PerLoop

MESSAGES: list[str | bytes] = ["text", b"binary", "ä" * 300, "x" * 100_000, b"y" * 70_000, "€" * 40_000]


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="CPython with a GIL")
def test_the_gil_stays_off() -> None:
    """The extensions declare that they can do without; one that did not would switch it on for all."""
    assert not sys._is_gil_enabled()  # type: ignore[attr-defined]


@pytest.mark.parametrize("compression", [None, Deflate(server_no_context_takeover=True)])
def test_echoes_in_several_loops(compression: Deflate | None) -> None:
    """Each loop has a server and clients; keys, kept memory, pools of compressors and caches are everybody's."""

    async def work(number: int) -> None:
        async with wsfast.serve(echo, "127.0.0.1", 0, compression=compression) as server:
            port = server.sockets[0].getsockname()[1]

            async def talk(client: int) -> None:
                async with wsfast.connect(f"ws://127.0.0.1:{port}/", compression=compression) as ws:
                    for i in range(8):
                        for message in MESSAGES:
                            mark = f"{number} {client} {i} "
                            sent = mark + message if isinstance(message, str) else mark.encode() + message
                            await ws.send(sent)
                            assert await ws.recv() == sent

            await asyncio.gather(talk(0), talk(1))
            assert server.counters["opened"] == 2

    side_by_side(lambda number: asyncio.run(work(number)))


def test_a_budget_that_threads_share() -> None:
    budget = wsfast.DeflateBudget(1000)

    def work(number: int) -> None:
        for _ in range(2000):
            if budget.reserve(300):
                assert budget.used <= 1000
                budget.release(300)

    side_by_side(work)
    assert budget.used == 0
    assert [budget.reserve(300) for _ in range(THREADS)].count(True) == 3


def test_what_each_loop_has_is_not_added_to_while_it_is_walked() -> None:
    class Loop:
        def is_closed(self) -> bool:
            """Have another thread add its own meanwhile, which has to wait."""
            if not threads:
                threads.append(threading.Thread(target=of_each.of, args=(others,)))
                threads[0].start()
                threads[0].join(0.1)
            return False

    threads: list[threading.Thread] = []
    of_each: PerLoop[list[Any]] = PerLoop(lambda loop: [loop])
    loops: list[Any] = [Loop(), Loop()]
    others: Any = Loop()
    made = [of_each.of(loop) for loop in loops]
    threads[0].join()
    assert [of_each.of(loop) for loop in [*loops, others]] == [*made, [others]]


def test_what_each_loop_has_is_made_and_dropped_in_many_threads() -> None:
    """It is kept in one dict for all: a thread that drops those of closed loops walks it, while others add theirs."""

    class Loop:
        closed = False

        def is_closed(self) -> bool:
            return self.closed

    of_each: PerLoop[list[Any]] = PerLoop(lambda loop: [loop])

    def work(number: int) -> None:
        for _ in range(100):
            loop: Any = Loop()
            made = of_each.of(loop)
            assert made == [loop]
            assert of_each.of(loop) is made
            loop.closed = True

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        side_by_side(work)
    finally:
        sys.setswitchinterval(interval)
