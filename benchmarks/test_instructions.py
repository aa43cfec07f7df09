"""The codec and the channel beside their stored baseline, in instructions per operation: see `instructions`.

A figure that is more than a quarter above its baseline fails. `python -m benchmarks.instructions --update` makes the
baseline anew, for what was made slower, or faster, on purpose. Where the stored figures say nothing (another Python,
compiler or processor), and where there is no valgrind, all are skipped, with the reason.
"""

from __future__ import annotations

import pytest

from . import instructions
from .conftest import add_table
from .instruction_cases import CASES


@pytest.fixture(scope="module")
def counted(request: pytest.FixtureRequest) -> tuple[dict[str, float], dict[str, float]]:
    """Count, and return the figures and the baseline."""
    stored = instructions.load()
    try:
        instructions.check_comparable(stored)
        counts = instructions.count()
    except instructions.UnavailableError as exc:
        pytest.skip(str(exc))
    table = instructions.table(counts, stored["instructions"])
    add_table(request.config, "instructions per operation, and the stored baseline", table)
    return counts, stored["instructions"]


@pytest.mark.parametrize("name", CASES)
def test_instructions(counted: tuple[dict[str, float], dict[str, float]], name: str) -> None:
    counts, baseline = counted
    if instructions.too_many(counts[name], baseline.get(name)):
        pytest.fail(f"{counts[name]:,.1f} instructions; the stored baseline is {baseline.get(name)}", pytrace=False)


def test_baseline_has_no_other_cases() -> None:
    assert list(instructions.load()["instructions"]) == list(CASES)
