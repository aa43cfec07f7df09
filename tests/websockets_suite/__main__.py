"""``python -m tests.websockets_suite CHECKOUT [WORD ...]`` runs websockets' own tests on `wsfast.websockets`.

CHECKOUT is a folder with websockets' source and tests; words choose test files that contain one of them. It prints for
each file how many pass, and with ``-v`` why the others do not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

CHILD = Path(__file__).with_name("child.py")


def run(checkout: Path, module: str, timeout: float) -> dict[str, list[str]]:
    """Run a module of tests; return for each test what became of it."""
    command = [sys.executable, str(CHILD), str(checkout), module]
    try:
        done = subprocess.run(command, cwd=checkout, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return {"(the module)": ["failed", f"took more than {timeout} s"]}
    lines = done.stdout.decode(errors="replace").splitlines()
    try:
        outcomes: dict[str, list[str]] = json.loads(lines[-1])
    except (IndexError, ValueError):
        return {"(the module)": ["failed", done.stderr.decode(errors="replace")[-2000:]]}
    return outcomes


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.websockets_suite", description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("words", nargs="*")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell why tests fail")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for a file")
    options = parser.parse_intermixed_args()
    tests = options.checkout.resolve() / "tests"
    if not tests.is_dir():
        parser.error(f"{tests} is no folder")
    totals = [0, 0]
    for path in sorted(tests.rglob("test_*.py")):
        name = path.relative_to(tests).with_suffix("").as_posix().replace("/", ".")
        if options.words and not any(word in name for word in options.words):
            continue
        outcomes = run(options.checkout.resolve(), f"tests.{name}", options.timeout)
        passed = sum(outcome == "passed" for outcome, _ in outcomes.values())
        counted = sum(outcome != "skipped" for outcome, _ in outcomes.values())
        totals[0] += passed
        totals[1] += counted
        print(f"{name:34} {passed:4} of {counted:4}", flush=True)
        if options.verbose:
            for test, (outcome, text) in outcomes.items():
                if outcome == "failed":
                    print(f"    {test}: {text}", flush=True)
    print(f"{'all':34} {totals[0]:4} of {totals[1]:4}")


if __name__ == "__main__":
    main()
