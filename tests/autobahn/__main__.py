"""Checks wsfast, or any WebSocket server or client, with the Autobahn|Testsuite. See README.md."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import importlib.util
import itertools
import os
import platform
import shlex
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from . import report
from .environment import PINS, NoPython27Error, SetupError, prepare
from .processes import Children
from .run import Runner, Target
from .suite import Outcome, Result, Suite

# Exit statuses; 77 is what automake's and meson's test drivers call a skip.
PASS, FAIL, CANNOT_RUN, SKIP, INTERRUPTED = 0, 1, 2, 77, 130


class Progress:
    """Shows how far the run is: on a terminal in place, elsewhere a line every 10 seconds."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.bad = total, 0, 0
        self.begun = self.shown = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def result(self, target: Target, result: Result) -> None:
        self.done += 1
        if not result.good:
            self.bad += 1
            self.line(f"{target.label}: {result.case} {result.behavior}, close {result.close}")
        now = time.monotonic()
        if now - self.shown >= (0.1 if self.terminal else 10) or self.done == self.total:
            self.shown = now
            state = f"{self.done}/{self.total} cases, {self.bad} not OK, {now - self.begun:.0f} s"
            if self.terminal:
                print(f"\r\x1b[K{state} ({target.label} {result.case})", end="", file=sys.stderr, flush=True)
            else:
                print(state, file=sys.stderr, flush=True)

    def line(self, text: str) -> None:
        """Print a line of its own."""
        print(f"\r\x1b[K{text}" if self.terminal else text, file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.autobahn", description=__doc__)
    parser.add_argument("side", choices=["server", "client", "both"], help="which side of wsfast is checked")
    parser.add_argument("--codec", choices=["cython", "python", "both"], default="both", help="default: both")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio", help="default: asyncio")
    parser.add_argument("--listener", action="store_true", help="check the server's callback form, not its coroutines")
    parser.add_argument("--tls", action="store_true", help="over TLS, with certificates made for the run")
    parser.add_argument("--cases", default="", metavar="LIST", help="comma list of ids, groups, globs: 1,6.4,'9.1.*'")
    parser.add_argument("--quick", action="store_true", help="leave out groups 9, 12 and 13")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 4), metavar="N", help="fuzzers at once")
    parser.add_argument("--stall", type=float, default=120, metavar="S", help="give up after S seconds of no result")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep the logs and the suite's HTML pages in a new DIR")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the table of results into FILE")
    parser.add_argument("--command", metavar="CMD", help="check this instead of wsfast; {port} and {url} are filled in")
    args = parser.parse_args(argv)
    if args.command is not None:
        if args.side == "both":
            parser.error("--command checks one side: server or client")
        if "{port}" not in args.command and "{url}" not in args.command:
            parser.error("--command needs {port} or {url} in it")
        if not shutil.which(shlex.split(args.command)[0]):
            parser.error(f"no such program: {shlex.split(args.command)[0]}")
    if args.listener and (args.side != "server" or args.command):
        parser.error("--listener is for the side server")
    if args.jobs < 1:
        parser.error("--jobs is at least 1")
    if args.out and args.out.exists() and any(args.out.iterdir()):
        parser.error(f"{args.out} is not empty")
    if args.markdown:
        try:
            report.check_markdown(args.markdown)
        except (OSError, ValueError) as error:
            parser.error(str(error))
    return args


def targets(args: argparse.Namespace) -> list[Target]:
    if args.command is not None:
        return [Target(args.side, command=args.command, tls=args.tls)]
    sides = ["server", "client"] if args.side == "both" else [args.side]
    codecs = ["cython", "python"] if args.codec == "both" else [args.codec]
    return [
        Target(side, codec, args.loop, args.listener, tls=args.tls) for side, codec in itertools.product(sides, codecs)
    ]


def caption(args: argparse.Namespace) -> str:
    """Say what the table was made of: versions, machine, day, command."""
    suite = PINS.read_text().partition("autobahntestsuite==")[2].split()[0]
    what = "`" + args.command.replace(sys.executable, "python") + "`" if args.command else "wsfast"
    if not args.command:
        import wsfast

        what += f" {wsfast.__version__}"
    words = ["python -m tests.autobahn", args.side, "--loop", args.loop]
    words += ["--codec", args.codec] * (args.codec != "both") + ["--listener"] * args.listener + ["--tls"] * args.tls
    words += ["--quick"] * args.quick + ["--cases", shlex.quote(args.cases)] * bool(args.cases)
    made = f"`{' '.join(words)}`" if not args.command else "`python -m tests.autobahn`"
    return (
        f"{what} under autobahntestsuite {suite}, {datetime.date.today():%Y-%m-%d}, {made}, "
        f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} {platform.machine()}. "
        "A case counts as OK when both what was answered and how the connection was closed are OK."
    )


async def run(args: argparse.Namespace, python27: Path, suite: Suite, cases: list[str], out: Path) -> list[Outcome]:
    """Run every target, one after the other, each with its cases split over the jobs."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    chosen = targets(args)
    progress = Progress(len(chosen) * len(cases))
    outcomes = []
    with Children() as children:
        runner = Runner(python27, children, out, bool(args.out), args.jobs, args.stall, progress.result)
        for target in chosen:
            outcome = await runner.run(target, cases)
            progress.end()
            print("\n".join(report.text(outcome, suite)), flush=True)
            outcomes.append(outcome)
    return outcomes


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if not args.command and importlib.util.find_spec("wsfast") is None:
        print("wsfast cannot be imported: install it, or set PYTHONPATH=src", file=sys.stderr)
        return CANNOT_RUN
    try:
        python27 = prepare(lambda line: print(line, file=sys.stderr, flush=True))
        suite = Suite.load(python27)
        cases = suite.select([p.strip() for p in args.cases.split(",") if p.strip()], args.quick)
    except NoPython27Error as error:
        print(f"SKIPPED: {error}", file=sys.stderr)
        return SKIP
    except (SetupError, ValueError) as error:
        print(error, file=sys.stderr)
        return CANNOT_RUN
    with tempfile.TemporaryDirectory(prefix="wsfast-autobahn-") as scratch:
        try:
            outcomes = asyncio.run(run(args, python27, suite, cases, (args.out or Path(scratch)).absolute()))
        except asyncio.CancelledError:
            print("interrupted", file=sys.stderr)
            return INTERRUPTED
    if args.markdown:
        report.write_markdown(args.markdown, report.markdown(outcomes, suite, cases, caption(args)))
    return PASS if all(outcome.passed for outcome in outcomes) else FAIL


if __name__ == "__main__":
    sys.exit(main())
