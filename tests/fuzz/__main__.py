"""Run a fuzzing target: ``python -m tests.fuzz decoder --seconds 600``; README.md tells more."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

from . import TARGETS

HERE = Path(__file__).parent


def main() -> None:
    """Parse the command line and hand over to libFuzzer, which ends the process."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz a part of wsfast with atheris.")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60, help="how long (default: 60)")
    parser.add_argument("--max-len", type=int, default=2048, help="the longest input, in bytes (default: 2048)")
    parser.add_argument("--keep", type=Path, help="a folder for what covers more (default: a temporary one)")
    parser.add_argument("--replay", type=Path, nargs="+", help="run these inputs instead, without a fuzzer")
    parser.add_argument("--merge", type=Path, help="add to the seeds the fewest inputs of this folder that cover more")
    args = parser.parse_args()

    if args.replay:
        module = importlib.import_module(f"{__package__}.{args.target}")
        for path in args.replay:
            module.run(path.read_bytes())
            print(f"{path}: passed")
        return

    import atheris

    # What is imported within is instrumented: the pure Python of wsfast, the codec's twin above all.
    with atheris.instrument_imports(include=["wsfast", "tests.fuzz"]):
        module = importlib.import_module(f"{__package__}.{args.target}")

    seeds = HERE / "corpus" / args.target
    grown = args.keep or Path(tempfile.mkdtemp(prefix=f"wsfast-fuzz-{args.target}-"))
    grown.mkdir(parents=True, exist_ok=True)
    options = [f"-max_len={args.max_len}", "-timeout=20", "-rss_limit_mb=2048", f"-artifact_prefix={grown}/"]
    if args.merge:
        options += ["-merge=1", str(seeds), str(args.merge)]
    else:
        options += [f"-max_total_time={args.seconds}", "-print_final_stats=1", str(grown), str(seeds)]
    print(f"fuzzing {args.target} for {args.seconds} s; failing inputs go to {grown}", flush=True)
    atheris.Setup([sys.argv[0], *options], module.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
