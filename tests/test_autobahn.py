"""The quick part of the Autobahn|Testsuite. In full it is a command of its own: `python -m tests.autobahn both`.

Needs a CPython 2.7, and is skipped where there is none. The first run makes the suite's environment, from PyPI.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SKIP = 77

# All that is quick, and of the slow groups one case of each kind.
CASES = ["1", "2", "3", "4", "5", "6", "7", "10"]
CASES += ["9.1.3", "9.2.3", "9.3.7", "9.4.7", "9.5.6", "9.6.6", "9.7.1", "9.8.1"]
CASES += ["12.1.1", "12.2.1", "12.4.1", "13.1.1", "13.3.1", "13.5.1"]


@pytest.mark.autobahn
@pytest.mark.parametrize(
    ("arguments", "codecs"),
    [
        (["server"], 2),
        (["server", "--loop", "uvloop", "--codec", "cython"], 1),
        (["server", "--listener", "--codec", "cython"], 1),
        (["client"], 2),
        (["client", "--loop", "uvloop", "--codec", "cython"], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_quick_cases(arguments: list[str], codecs: int) -> None:
    run(arguments, CASES, codecs)


@pytest.mark.autobahn
def test_a_few_cases_over_tls() -> None:
    run(["both", "--tls", "--codec", "cython"], ["1", "7.1", "9.1.1", "12.1.1"], 2)


def run(arguments: list[str], cases: list[str], passes: int) -> None:
    command = [sys.executable, "-m", "tests.autobahn", *arguments, "--cases", ",".join(cases)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    if done.returncode == SKIP:
        pytest.skip(done.stderr.strip().removeprefix("SKIPPED: "))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    # Each side and codec that was asked for was run, and said so.
    assert done.stdout.count(": PASS") == passes
