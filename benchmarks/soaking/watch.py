"""The watch over the server's process: memory, descriptors, latency, a line now and then."""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from .peer import World

__all__ = ["Watch", "descriptors", "quantile", "rss_kb"]


def rss_kb(pid: int) -> int:
    """Read the resident memory of a process, in KB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def descriptors(pid: int) -> int:
    """Count the open file descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def quantile(ordered: list[float], q: float) -> float:
    """Take a quantile of sorted seconds, in milliseconds."""
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1e3 if ordered else 0.0


class Watch:
    """Memory, descriptors and the load's own delay over time, with a line now and then."""

    def __init__(self, world: World, server: subprocess.Popen[bytes], seconds: float) -> None:
        self.world, self.server, self.seconds = world, server, seconds
        self.samples: list[dict[str, float]] = []
        self.lags: list[float] = []

    async def run(self) -> None:
        """Sample each second until the end or until the server has ended."""
        begin = time.monotonic()
        seen = 0
        tty = sys.stderr.isatty()
        while True:
            before = time.monotonic()
            await asyncio.sleep(1)
            self.lags.append(max(0.0, time.monotonic() - before - 1))
            world = self.world
            if self.server.poll() is not None:
                world.fail(f"the server ended with {self.server.returncode}")
                world.stopping.set()
                return
            recent = sorted(world.latencies[seen:])
            seen = len(world.latencies)
            sample = {
                "t": round(time.monotonic() - begin, 1),
                "rss_kb": rss_kb(self.server.pid),
                "fds": descriptors(self.server.pid),
                "open": sum(world.open.values()),
                "sent": sum(world.sent.values()),
                "received": sum(world.received.values()),
                "p50_ms": round(quantile(recent, 0.5), 3),
                "p99_ms": round(quantile(recent, 0.99), 3),
            }
            self.samples.append(sample)
            if tty or len(self.samples) % 10 == 0:
                text = (
                    f"{sample['t']:.0f}/{self.seconds:.0f} s  open {sample['open']}  sent {sample['sent']:,}  back "
                    f"{sample['received']:,}  p50 {sample['p50_ms']:.1f} ms  p99 {sample['p99_ms']:.1f} ms  "
                    f"server {sample['rss_kb'] / 1024:.0f} MB, {sample['fds']} fds  failures {world.failures.total()}"
                )
                print(("\r\x1b[K" if tty else "") + text, end="" if tty else "\n", file=sys.stderr, flush=True)

    def grown(self) -> str | None:
        """Tell whether memory kept growing: the last quarter against the second."""
        values = [sample["rss_kb"] for sample in self.samples if sample["t"] <= self.seconds]
        if len(values) < 20:
            return None
        quarter = len(values) // 4
        early, late = statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:])
        if late > early * 1.2 + 16384:
            return f"the server's memory grew from {early / 1024:.0f} MB in the second quarter to {late / 1024:.0f} MB"
        return None
