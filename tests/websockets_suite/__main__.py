"""``python -m tests.websockets_suite CHECKOUT [WORD ...]`` runs websockets' own tests on `wsfast.websockets`.

CHECKOUT is a folder with websockets' source and tests; words choose test files that contain one of them. It prints for
each file how many tests pass, how many do not as expected (and with ``-v`` for which reason), and which fail
unexpectedly: if there is one, the command fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .expected import EXPECTED, LEFT_OUT

CHILD = Path(__file__).with_name("child.py")


def run(checkout: Path, module: str, timeout: float) -> dict[str, list[str]]:
    """Run a module of tests; return for each test what became of it."""
    command = [sys.executable, str(CHILD), str(checkout), module]
    try:
        # The tests' own unit of time is a millisecond, which a busy machine cannot keep to.
        env = {"WEBSOCKETS_TESTS_TIMEOUT_FACTOR": "30", **os.environ}
        done = subprocess.run(command, cwd=checkout, capture_output=True, timeout=timeout, env=env, check=False)
    except subprocess.TimeoutExpired:
        return {"(the module)": ["failed", f"took more than {timeout} s"]}
    lines = done.stdout.decode(errors="replace").splitlines()
    try:
        outcomes: dict[str, list[str]] = json.loads(lines[-1])
    except (IndexError, ValueError):
        return {"(the module)": ["failed", done.stderr.decode(errors="replace")[-2000:]]}
    return outcomes


def main() -> int:
    """Run what the command line asks for; return 1 if a test fails that is expected to pass."""
    parser = argparse.ArgumentParser(prog="python -m tests.websockets_suite", description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("words", nargs="*")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell why tests do not pass")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for a file")
    options = parser.parse_intermixed_args()
    tests = options.checkout.resolve() / "tests"
    if not tests.is_dir():
        parser.error(f"{tests} is no folder")
    totals = [0, 0, 0]
    for path in sorted(tests.rglob("test_*.py")):
        name = path.relative_to(tests).with_suffix("").as_posix().replace("/", ".")
        if options.words and not any(word in name for word in options.words):
            continue
        if name in LEFT_OUT:
            print(f"{name:34} left out: {LEFT_OUT[name]}", flush=True)
            continue
        outcomes = run(options.checkout.resolve(), f"tests.{name}", options.timeout)
        reasons = EXPECTED.get(name, {})
        passed = [test for test, (outcome, _) in outcomes.items() if outcome == "passed"]
        failed = {test: text for test, (outcome, text) in outcomes.items() if outcome == "failed"}
        known = {test: reason for test in failed if (reason := reasons.get(test.rpartition(".")[2]))}
        counts = len(passed), len(known), len(failed) - len(known)
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        print(_line(name, counts), flush=True)
        for test, text in failed.items():
            if test not in known:
                print(f"    UNEXPECTED {test}: {text}", flush=True)
            elif options.verbose:
                print(f"    {test}: {known[test]}", flush=True)
    print(_line("all", totals))
    return int(totals[2] > 0)


def _line(name: str, counts: Sequence[int]) -> str:
    passed, known, unexpected = counts
    told = f", {unexpected} unexpectedly" if unexpected else ""
    return f"{name:34} {passed:4} pass, {known:3} do not as expected{told}"


if __name__ == "__main__":
    sys.exit(main())
