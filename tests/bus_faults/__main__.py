"""Run the faults for long: ``python -m tests.bus_faults --times 20``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from engines import Engine, find

from .scenarios import SCENARIOS
from .topologies import TOPOLOGIES


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.bus_faults", description="Buses under faults, for minutes.")
    parser.add_argument("--times", type=int, default=20, help="how often each fault happens (default: 20)")
    parser.add_argument(
        "--engine",
        default="redis-server",
        help="or valkey-server, nats-server, and of redis-server a cluster, or sentinels (default: redis-server)",
    )
    parser.add_argument("--only", default="", help="scenarios whose names have this in them")
    parser.add_argument("--uvloop", action="store_true")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    failed = 0
    server = "redis-server" if args.engine in TOPOLOGIES else args.engine
    for name, scenario in TOPOLOGIES.get(args.engine, SCENARIOS).items():
        if args.only not in name or ("nats" in args.engine and "cut" in name):
            continue
        with tempfile.TemporaryDirectory() as directory:
            engine = Engine(find(server), Path(directory))
            engine.start()
            start = time.monotonic()
            try:
                if args.uvloop:
                    import uvloop

                    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                        outcome = runner.run(scenario(engine, args.times))
                else:
                    outcome = asyncio.run(scenario(engine, args.times))
            except AssertionError as exc:
                failed += 1
                print(f"FAILED  {name}: {exc}", flush=True)
            else:
                figures = ", ".join(f"{value:g} {what}" for what, value in outcome.items())
                print(f"passed  {name} x {args.times}, {time.monotonic() - start:.0f} s: {figures}", flush=True)
            finally:
                engine.stop()
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
