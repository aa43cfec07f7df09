"""Programs of others run unchanged on `wsfast.websockets`; see tests/programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from programs.__main__ import PROGRAMS, run

pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif(
        "WSFAST_PROGRAMS" not in os.environ,
        reason="installs packages: set WSFAST_PROGRAMS to a folder for their environments",
    ),
]


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name: str) -> None:
    done = run(name, Path(os.environ["WSFAST_PROGRAMS"]))
    assert done.returncode == 0, done.stdout + done.stderr
