"""How echoes scale with threads: ``python -m benchmarks.threads``, on CPython with and without a GIL.

Each thread has an event loop with a server and clients of it, so that all work is done in the threads that are counted,
and nothing is left to a load generator that would need cores of its own. Rounds with one thread and with several
alternate, and the best of each counts: noise only slows down. The processor's time for an echo tells what threads cost
each other where other programs share the cores; `--realtime` lets none of these run during a round, which takes some
tenths of a second, so that a busy machine can be measured too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager

import wsfast


async def _echo(ws: wsfast.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def _work(wait: Callable[[], object], clients: int, count: int, size: int) -> float:
    """Echo; return the moment of the end."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(wsfast.serve(_echo, "127.0.0.1", 0))
        port = server.sockets[0].getsockname()[1]
        uri = f"ws://127.0.0.1:{port}/"
        connected = [await stack.enter_async_context(wsfast.connect(uri)) for _ in range(clients)]
        message = b"x" * size

        async def talk(ws: wsfast.WebSocket, times: int) -> None:
            for _ in range(times):
                await ws.send(message)
                await ws.recv()

        await asyncio.gather(*(talk(ws, 50) for ws in connected))
        wait()
        await asyncio.gather(*(talk(ws, count) for ws in connected))
        return time.perf_counter()


def measure(threads: int, clients: int, count: int, size: int, uvloop: bool) -> tuple[float, float]:
    """Return the echoes of all threads in a second, and the microseconds of a processor for each."""
    factory = None
    if uvloop:
        import uvloop as uvloop_module

        factory = uvloop_module.new_event_loop
    began: list[float] = []
    ended: list[float] = []
    barrier = threading.Barrier(threads, lambda: began.extend((time.perf_counter(), time.process_time())))

    def run() -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            ended.append(runner.run(_work(barrier.wait, clients, count, size)))

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    echoes = threads * clients * count
    return echoes / (max(ended) - began[0]), (time.process_time() - began[1]) / echoes * 1e6


@contextmanager
def _undisturbed(realtime: bool) -> Iterator[None]:
    """Run at the priority of real time, if that is asked for: threads that are started here do so too."""
    if realtime:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        if realtime:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            time.sleep(0.5)  # others were kept waiting


def main() -> None:
    """Print a line for each number of threads."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description="How echoes scale with threads.")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads (default: 1 2)")
    parser.add_argument("--clients", type=int, default=8, help="of each thread (default: 8)")
    parser.add_argument("--count", type=int, default=3000, help="echoes of each client and round (default: 3000)")
    parser.add_argument("--size", type=int, default=64, help="bytes of a message (default: 64)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--realtime", action="store_true", help="let no other program run meanwhile (Linux, as root)")
    args = parser.parse_args()
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"{sys.version.split()[0]}, {'with' if gil else 'without'} a GIL, {'uvloop' if args.uvloop else 'asyncio'}")
    best = dict.fromkeys(args.threads, (0.0, 1e9))
    for _ in range(args.rounds):
        for threads in args.threads:
            with _undisturbed(args.realtime):
                rate, cost = measure(threads, args.clients, args.count, args.size, args.uvloop)
            best[threads] = max(best[threads][0], rate), min(best[threads][1], cost)
    for threads, (rate, cost) in best.items():
        times = rate / best[args.threads[0]][0]
        print(f"{threads} threads: {rate:>10,.0f} echoes/s, {times:.2f}x, {cost:.1f} us of a processor each")


if __name__ == "__main__":
    main()
