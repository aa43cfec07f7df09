"""wsfast beside its peers, measured on this machine.

Every round runs every server once, A B C A B C ..., each in a process of its own on one core, the load on another.
The first run makes an environment for the peers in the user's cache directory; it needs a C compiler, and takes Node's
peers in where node and npm are.
"""

import argparse
import datetime
import fnmatch
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .environment import Environment, EnvironmentFailedError, checkout_state, prepare
from .publish import PUBLISHED, SERVERS, missing, publish
from .report import listing, markdown, scenario_text, targets_text
from .results import Results, judge, merge
from .runner import MeasurementFailedError, check, choose_cores, measure
from .scenarios import METRICS, PEERS, SCENARIOS, TARGETS, Scenario


class Progress:
    """One line on the terminal that says what is running and how long it will take; lines of a log elsewhere."""

    def __init__(self) -> None:
        self._tty = sys.stderr.isatty()
        self._start = time.monotonic()
        self._shown = ""
        self.done = 0
        self.total = 0

    def clear(self) -> None:
        """Take the line away before something else is printed."""
        if self._tty:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def say(self, text: str) -> None:
        """Tell what is being prepared."""
        self.clear()
        print(f"{text} ...", file=sys.stderr, flush=True)

    def begin(self, total: int) -> None:
        """Start counting."""
        self.total, self._start = total, time.monotonic()

    def step(self, scenario: str, stage: str, peer: str, last: str) -> None:
        """Show what is about to run."""
        left = ""
        if self.done:
            seconds = (time.monotonic() - self._start) / self.done * (self.total - self.done)
            left = f", {int(seconds) // 60}:{int(seconds) % 60:02} left"
        if self._tty:
            width = os.get_terminal_size(sys.stderr.fileno()).columns
            bar = f"[{self.done}/{self.total}{left}] {scenario}, {stage}: {peer}" + (f"  (last {last})" if last else "")
            sys.stderr.write("\r\x1b[K" + bar[: width - 1])
            sys.stderr.flush()
        elif self._shown != f"{scenario} {stage}":
            self._shown = f"{scenario} {stage}"
            print(f"[{self.done}/{self.total}{left}] {scenario}, {stage}", file=sys.stderr, flush=True)


def _choose(patterns: list[str] | None, names: list[str], what: str) -> list[str]:
    """Choose names by glob patterns, separated by commas; those that begin with ! take away."""
    words = [word for pattern in patterns or [] for word in pattern.split(",") if word]
    wanted = [word for word in words if not word.startswith("!")]
    unwanted = [word[1:] for word in words if word.startswith("!")]
    for word in (*wanted, *unwanted):
        if not fnmatch.filter(names, word):
            raise SystemExit(f"no {what} is called {word}; --list shows them all")
    chosen = [name for name in names if not wanted or any(fnmatch.fnmatch(name, word) for word in wanted)]
    return [name for name in chosen if not any(fnmatch.fnmatch(name, word) for word in unwanted)]


def _machine() -> str:
    model, quota = platform.processor() or platform.machine(), ""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
        kb = int(Path("/proc/meminfo").read_text().split()[1])
        quota = f", {kb / 1048576:.0f} GiB"
    except (OSError, ValueError, IndexError):
        pass
    virtual = ""
    try:
        if " hypervisor" in Path("/proc/cpuinfo").read_text():
            virtual = ", a virtual machine"
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} core{'s' * (cores != 1)}{quota}{virtual}, {platform.system()} {platform.release()}"


def _command(words: list[str]) -> str:
    """Tell the command that measures this again: that which names a file to write to is left out."""
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        name, given, _ = word.partition("=")
        if name not in ("--json", "--markdown", "--chart"):
            kept.append(word)
        elif not given:
            next(rest)
    return "python -m benchmarks.compare " + shlex.join(kept)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--scenario", action="append", metavar="GLOB[,...]", help="scenarios to run (all); !GLOB leaves out")
    add("--servers", action="append", metavar="GLOB[,...]", help="servers that take part; !GLOB leaves out")
    add("--targets-only", action="store_true", help="only the servers that a target names")
    add("--rounds", type=int, default=5, help="interleaved rounds (5)")
    add("--seconds", type=float, default=1.0, help="seconds for each measurement (1)")
    add("--warm", type=float, default=0.3, help="seconds of warming up before each (0.3)")
    add("--no-check", action="store_true", help="leave out the check that echoes are right")
    add("--cores", metavar="SERVER,LOAD", help="the two cores (chosen so that they are not one core's threads)")
    add("--json", metavar="FILE", help="write all figures")
    add("--markdown", metavar="FILE", help="write the report")
    add("--chart", metavar="FILE.png", help="draw the chart, as PNG or, by its name, as SVG")
    add(
        "--from",
        dest="sources",
        nargs="+",
        metavar="FILE.json",
        help="measure nothing: report on earlier runs, put together",
    )
    add(
        "--publish",
        action="store_true",
        help="write docs/comparison.md with its chart, and README's table with its chart",
    )
    add("--fail-on-miss", action="store_true", help="end with 2 when a target is missed")
    add("--python", metavar="EXE", help="use this interpreter and its packages as they are, install nothing")
    add("--node-path", metavar="DIR", help="use Node's packages in this directory as they are")
    add("--upgrade", action="store_true", help="bring the peers to their newest releases first")
    add("--list", action="store_true", help="list scenarios and servers")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds <= 0 or options.warm < 0:
        parser.error("--rounds and --seconds must be positive")
    return options


def _peers_of(scenario: Scenario, options: argparse.Namespace, environment: Environment | None) -> list[str]:
    """Name who takes part in a scenario."""
    role = [name for name in PEERS if PEERS[name].client == PEERS[scenario.peers[0]].client]
    names = list(scenario.peers)
    if options.servers:
        # A pattern may bring in servers beyond the usual ones, except a plain echo where WebSocket is needed.
        every = _choose(options.servers, list(PEERS), "server")
        positive = any(not word.startswith("!") for text in options.servers for word in text.split(",") if word)
        names = [name for name in (role if positive else names) if name in every]
        if "broadcast" in scenario.args:
            names = [name for name in names if not PEERS[name].raw]
    if options.targets_only:
        targets = [target for target in TARGETS if target.scenario == scenario.name]
        named = {name for target in targets for name in (target.ours, *target.peers)}
        if named:
            named.add(scenario.reference)
        if options.publish and scenario.name in PUBLISHED:
            named |= set(SERVERS)
        names = [name for name in names if name in named]
    if environment is not None:
        missing = {
            "node": environment.node is None,
            "uws": environment.uws is None,
            "uws-node": not environment.uws_node,
        }
        names = [name for name in names if not missing.get(PEERS[name].kind)]
    return names


def _draw(results: Results, path: str, python: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as data:
        json.dump(results.to_json(), data)
        data.flush()
        root = Path(__file__).resolve().parent.parent.parent
        command = [python, "-m", "benchmarks.compare.chart", data.name, str(Path(path).resolve())]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the chart could not be drawn: {(done.stderr.strip().splitlines() or ['?'])[-1]}")


def _run(
    options: argparse.Namespace, scenarios: list[Scenario], environment: Environment, progress: Progress
) -> Results:
    """Measure; what is there is kept when the user interrupts."""
    cores = choose_cores()
    if options.cores:
        server, _, load = options.cores.partition(",")
        cores = (int(server), int(load or server))
    if cores[0] == cores[1]:
        environment.notes.append("server and load share one core: messages/s and latency mean little")
    results = Results()
    plan = {scenario.name: _peers_of(scenario, options, environment) for scenario in scenarios}
    scenarios = [scenario for scenario in scenarios if plan[scenario.name]]
    checks = {}
    if not options.no_check:
        for scenario in scenarios:
            for name in plan[scenario.name]:
                if not PEERS[name].raw and not PEERS[name].client:
                    checks[name, scenario.tls] = True
    results.meta = {
        "command": _command(sys.argv[1:]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": _machine(),
        "cores": cores,
        "load": Path("/proc/loadavg").read_text().split()[0],
        "commit": checkout_state(),
        "versions": environment.versions,
        "notes": environment.notes,
        "rounds": options.rounds,
        "seconds": options.seconds,
    }
    progress.begin(len(checks) + options.rounds * sum(map(len, plan.values())))
    wrong: dict[tuple[str, bool], str] = {}
    last = ""
    try:
        for name, tls in checks:
            progress.step("check", "TLS" if tls else "TCP", name, "")
            try:
                results.checks[name] = check(PEERS[name], environment, tls, cores)
            except MeasurementFailedError as failed:
                wrong[name, tls] = f"left out, the check failed: {failed}"
                progress.clear()
                print(f"{name}: {wrong[name, tls]}", file=sys.stderr, flush=True)
            progress.done += 1
        for scenario in scenarios:
            records = results.records.setdefault(scenario.name, {})
            failures: dict[str, str] = {}
            for turn in range(options.rounds):
                for name in plan[scenario.name]:
                    progress.step(scenario.name, f"round {turn + 1}/{options.rounds}", name, last)
                    progress.done += 1
                    if (name, scenario.tls) in wrong:
                        failures[name] = wrong[name, scenario.tls]
                        continue
                    kept = records.setdefault(name, [])
                    try:
                        found = measure(scenario, PEERS[name], environment, cores, options.seconds, options.warm)
                        kept.append(found)
                        metric = METRICS[scenario.metrics[0]]
                        last = f"{name} {found[metric.key]:,.{metric.digits}f} {metric.title}"
                    except MeasurementFailedError as failed:
                        kept.append(None)
                        failures[name] = str(failed)
            if failures:
                results.failures[scenario.name] = failures
            progress.clear()
            print(scenario_text(scenario.name, results), flush=True)
    except KeyboardInterrupt:
        progress.clear()
        results.meta["notes"] = [*environment.notes, "interrupted: not all rounds were run"]
        results.records = {name: records for name, records in results.records.items() if any(records.values())}
        print("\ninterrupted; what was measured follows", file=sys.stderr)
    return results


def main() -> int:
    """Run the command line."""
    options = _arguments()
    if options.list:
        print(listing())
        return 0
    for path in (options.json, options.markdown, options.chart):
        if path and not Path(path).resolve().parent.is_dir():
            raise SystemExit(f"{path}: there is no such directory")
    progress = Progress()
    python = options.python or sys.executable
    try:
        if options.sources:
            try:
                results = merge([Results.from_json(json.loads(Path(path).read_text())) for path in options.sources])
            except (OSError, ValueError, KeyError) as failed:
                raise SystemExit(f"could not be read: {failed}") from None
            for name in results.records:
                print(scenario_text(name, results))
            if (options.chart or options.publish) and not options.python:
                python = prepare(progress.say, need_wsfast=False, need_uws=False, need_node=False).python
        else:
            scenarios = [SCENARIOS[name] for name in _choose(options.scenario, list(SCENARIOS), "scenario")]
            names = {name for scenario in scenarios for name in _peers_of(scenario, options, None)}
            environment = prepare(
                progress.say,
                python=options.python,
                node_path=options.node_path,
                upgrade=options.upgrade,
                need_wsfast=any(PEERS[name].kind == "wsfast" for name in names),
                need_uws=any(PEERS[name].kind == "uws" for name in names),
                need_node=any(PEERS[name].kind in ("node", "uws-node") for name in names),
            )
            if environment.tls is None:
                scenarios = [scenario for scenario in scenarios if not scenario.tls]
            python = environment.python
            # Thousands of connections need as many descriptors, in the servers too.
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            for note in environment.notes:
                print(f"note: {note}", file=sys.stderr)
            if not scenarios or not names:
                raise SystemExit("nothing to measure")
            results = _run(options, scenarios, environment, progress)
    except EnvironmentFailedError as failed:
        raise SystemExit(f"the benchmark's environment could not be made: {failed}") from None
    print(targets_text(results))
    if options.json:
        Path(options.json).write_text(json.dumps(results.to_json(), indent=1) + "\n")
    if options.markdown:
        chart = os.path.relpath(options.chart, Path(options.markdown).parent) if options.chart else None
        Path(options.markdown).write_text(markdown(results, chart))
    if options.chart:
        _draw(results, options.chart, python)
    if options.publish:
        if unmeasured := missing(results):
            raise SystemExit(f"nothing is published, since README's table lacks {', '.join(unmeasured)}")
        written = publish(results, Path(__file__).parents[2], lambda shown, path: _draw(shown, str(path), python))
        print("\nwritten:", *(os.path.relpath(path) for path in written))
    if results.failures:
        return 1
    missed = any(verdict.met is False for verdict in judge(results))
    return 2 if options.fail_on_miss and missed else 0


if __name__ == "__main__":
    sys.exit(main())
