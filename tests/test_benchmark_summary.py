"""What `pytest benchmarks/` prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_summary_fits_80_columns() -> None:
    """pytest-benchmark's own tables, which are wider, come only where one of its options is given."""
    # The worker of xdist that runs this test says so in the environment, and pytest-benchmark measures nothing there.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "benchmarks/test_codec.py"]
    done = subprocess.run(
        [*command, "-k", "mask and 64 and KiB and not python"],
        cwd=ROOT,
        env={**environment, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "best peer" in done.stdout
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []
