"""Soak: thousands of connections, well-behaved and not, against a server in its own process for a chosen time.

    python -m benchmarks.soak [--connections 5000] [--seconds 600] [--loop uvloop] [--server wsfast]

Five kinds of peers run at once: chatty ones send messages of all sizes and check every echo; idle ones only answer
pings; slow ones send bursts and read little by little; half-open ones stop in mid-handshake, mid-frame, or never read;
misbehaving ones break the protocol, flood, or drop. What the well-behaved (chatty, idle, slow) sent must come back,
whole and in order; the others must be gone in time; the server's memory and descriptors must stay bounded and its log
free of tracebacks. Otherwise the exit code is 1 and the failures are listed.
"""

import argparse
import asyncio
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import IO, Any

from .soaking.half_open import half_open
from .soaking.misbehaving import misbehaving
from .soaking.peer import TEXT, World
from .soaking.server import CLOSE_TIMEOUT, MARGIN, OPEN_TIMEOUT, PING_INTERVAL, PING_TIMEOUT, serve
from .soaking.watch import Watch, descriptors, quantile, rss_kb
from .soaking.well_behaved import chatty, idle, slow, take_leave

ROOT = Path(__file__).resolve().parent.parent
SHARES = {"chatty": 0.40, "idle": 0.40, "slow": 0.05, "half-open": 0.07, "misbehaving": 0.08}
RUNS: dict[str, Callable[[World], Coroutine[Any, Any, None]]] = {
    "chatty": chatty,
    "idle": idle,
    "slow": slow,
    "half-open": half_open,
    "misbehaving": misbehaving,
}


async def _soak(options: argparse.Namespace, port: int, server: subprocess.Popen[bytes], log: IO[bytes]) -> int:
    loop = asyncio.get_running_loop()
    world = World(loop, port)
    counts = {kind: max(1, round(options.connections * share)) for kind, share in SHARES.items()}
    world.rate = options.rate / counts["chatty"]
    fds_before, rss_before = descriptors(server.pid), rss_kb(server.pid)
    watch = Watch(world, server, options.seconds)
    watching = asyncio.create_task(watch.run())
    tasks = [asyncio.create_task(RUNS[kind](world)) for kind, count in counts.items() for _ in range(count)]
    try:
        await world.pause(options.seconds)
    except asyncio.CancelledError:
        print("\ninterrupted: ending the connections", file=sys.stderr)
    world.stopping.set()
    patience = 60 + PING_INTERVAL + PING_TIMEOUT + 2 * CLOSE_TIMEOUT + 4 * MARGIN
    done, late = await asyncio.wait(tasks, timeout=patience)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    if late:
        world.fail(f"{len(late)} peers did not come to their end within {patience:g} s")
    for task in done:
        if not task.cancelled() and (exc := task.exception()) is not None:
            world.fail(f"a peer of the load failed: {type(exc).__name__}: {exc}")
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)

    alive = server.poll() is None
    fds_after = rss_after = 0
    if alive:
        end = time.monotonic() + OPEN_TIMEOUT + CLOSE_TIMEOUT + MARGIN
        fds_after = descriptors(server.pid)
        while fds_after > fds_before + 2 and time.monotonic() < end:
            await asyncio.sleep(0.2)  # nothing tells when another process closes a descriptor
            fds_after = descriptors(server.pid)
        rss_after = rss_kb(server.pid)
        if fds_after > fds_before + 2:
            world.fail(f"descriptors: {fds_before} before, {fds_after} after every connection was closed")
        peer = await world.join("chatty")
        if peer is not None:
            peer.send(TEXT, b"once more")
            await take_leave(world, peer)
    if grown := watch.grown():
        world.fail(grown)
    for kind in ("chatty", "idle", "slow"):
        if world.sent[kind] != world.received[kind]:
            world.fail(f"{kind}: {world.sent[kind]} messages sent, {world.received[kind]} came back")
        if not world.sent[kind]:
            world.fail(f"{kind}: nothing was sent")
    log.seek(0)
    written = log.read().decode(errors="replace")
    if written.count("Traceback (most recent call last)"):
        first = written.index("Traceback (most recent call last)")
        world.fail(f"{written.count('Traceback (most recent')} tracebacks in the server's log")
        print(f"\nthe first traceback of the server:\n{written[max(0, first - 300) : first + 3000]}")

    ordered = sorted(world.latencies)
    latency = {f"p{q:g}": round(quantile(ordered, q / 100), 3) for q in (50, 90, 99, 99.9)}
    latency["max"] = round(ordered[-1] * 1e3, 3) if ordered else 0.0
    rss = [sample["rss_kb"] for sample in watch.samples] or [0]
    print(f"\n{options.connections} connections for {options.seconds:g} s, server {options.server} on {options.loop}")
    for kind in ("chatty", "idle", "slow"):
        messages = f"{world.sent[kind]:>10,} sent  {world.received[kind]:>10,} back"
        print(f"  {kind:<12} {counts[kind]:>6} connections  {messages}")
    for kind in ("half-open", "misbehaving"):
        print(f"  {kind:<12} {counts[kind]:>6} connections")
    for name, count in sorted(world.events.items()):
        print(f"    {name}: {count:,}")
    print("  latency, ms: " + ", ".join(f"{name} {value:,.1f}" for name, value in latency.items()))
    print(f"  the load's own delay, ms: p50 {quantile(sorted(watch.lags), 0.5):.1f}, max {max(watch.lags) * 1e3:.1f}")
    memory = f"{rss_before / 1024:.0f} before, {max(rss) / 1024:.0f} at most, {rss[-1] / 1024:.0f} at the end"
    print(f"  server memory, MB: {memory}, {rss_after / 1024:.0f} after all were closed")
    step = max(1, len(rss) // 20)
    print("    over time: " + " ".join(f"{value / 1024:.0f}" for value in rss[::step]))
    print(f"  descriptors: {fds_before} before, {max(s['fds'] for s in watch.samples):.0f} at most, {fds_after} after")
    if options.json:
        data = {
            "options": {name: value for name, value in vars(options).items() if name != "json"},
            "connections": counts,
            "sent": world.sent,
            "received": world.received,
            "events": world.events,
            "failures": world.failures,
            "latency_ms": latency,
            "samples": watch.samples,
        }
        options.json.write(json.dumps(data, indent=1) + "\n")
    if world.failures:
        print("FAILED")
        for text, count in world.failures.most_common():
            print(f"  {text}" + (f"  ({count} times)" if count > 1 else ""))
        return 1
    print("clean: nothing lost, nothing left behind")
    return 0


def _run(main: Coroutine[Any, Any, Any], loop: str) -> Any:
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=5000, help="how many at once (5000)")
    parser.add_argument("--seconds", type=float, default=600, help="how long, ramp-up included (600)")
    parser.add_argument(
        "--rate", type=float, default=2000, help="messages per second of all chatty peers together (2000)"
    )
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="uvloop", help="of the server (uvloop)")
    parser.add_argument("--server", choices=["wsfast", "websockets"], default="wsfast", help="whose echo (wsfast)")
    parser.add_argument("--seed", type=int, help="of the random choices (printed)")
    parser.add_argument("--json", type=argparse.FileType("w"), metavar="FILE", help="write figures and samples")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.serve:
        _run(serve(options.server), options.loop)
        return 0
    if hard < options.connections * 1.2 + 100:
        parser.error(f"{options.connections} connections need more than the {hard} descriptors allowed (ulimit -n)")
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    random.seed(seed)
    print(f"seed {seed}")
    with tempfile.TemporaryFile() as log:
        command = [sys.executable, "-m", "benchmarks.soak", "--serve", "--server", options.server]
        server = subprocess.Popen([*command, "--loop", options.loop], stdout=subprocess.PIPE, stderr=log, cwd=ROOT)
        try:
            if server.stdout is None:
                raise RuntimeError("the server's output is piped")
            line = server.stdout.readline()
            if not line.strip().isdigit():
                log.seek(0)
                raise SystemExit(f"the server did not start: {log.read().decode(errors='replace')[-2000:]}")
            try:
                import uvloop  # noqa: F401

                own = "uvloop"
            except ImportError:
                own = "asyncio"
            return int(_run(_soak(options, int(line), server, log), own))
        finally:
            server.terminate()
            try:
                server.wait(5)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


if __name__ == "__main__":
    sys.exit(main())
