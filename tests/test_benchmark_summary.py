"""What `pytest benchmarks/` prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_columns_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.conftest import Row, summary

    rows = [
        Row("encode 1 MiB non-ASCII, client", name, 1 << 20, seconds)
        for name, seconds in (("cython", 9.99e-3), ("python", 160.9e-3), ("websockets", 1234.5e-3))
    ]
    line = summary(rows)[-1]
    assert len(line) <= 80
    assert " ".join(line.split()) == "1 MiB non-ASCII, client 9,990,000 0.10 160.9 ms 1,234.5 ms websockets 0.01"


def test_the_table_of_instructions_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.instruction_cases import CASES
    from benchmarks.instructions import table

    much = dict.fromkeys(CASES, 4_999_999.9)
    for stored in (much, dict.fromkeys(CASES, 1_000_000.0), {name: 2 * figure for name, figure in much.items()}, {}):
        assert [line for line in table(much, stored) if len(line) > 80] == []


def test_the_summary_fits_80_columns() -> None:
    """pytest-benchmark's own tables, which are wider, come only where one of its options is given."""
    # The worker of xdist that runs this test says so in the environment, and pytest-benchmark measures nothing there.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [
            *command,
            "benchmarks/test_codec.py",
            "benchmarks/test_deflate.py",
            "-k",
            "mask and 64 and KiB and not python or memory",
        ],
        cwd=ROOT,
        env={**environment, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "best peer" in done.stdout
    assert "KiB per connection" in done.stdout
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []
