"""How a benchmark is measured, and the table of nanoseconds per operation at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

COUNT = 100
"""Operations per timed call."""


class Row(NamedTuple):
    """One measurement."""

    group: str
    name: str
    nbytes: int
    seconds: float  # per operation, the best round


_rows: list[Row] = []

COUNTED = pytest.StashKey[list[str]]()
"""The lines of the table of instructions, where they were counted."""


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return max(time.perf_counter() - start, 1e-7)


@pytest.fixture
def measure(benchmark: Any) -> Iterator[Callable[..., None]]:
    """Measure a call that does COUNT operations of `nbytes` each, for about a fifth of a second."""

    def run(group: str, name: str, nbytes: int, call: Callable[[], object]) -> None:
        benchmark.group = group
        once = timed(call)
        if once < 0.02:
            once = timed(call)  # the first was cold
        iterations = max(1, min(200, int(1e-3 / once)))
        rounds = max(3, min(100, int(0.2 / (once * iterations))))
        benchmark.pedantic(call, rounds=rounds, iterations=iterations, warmup_rounds=int(once < 0.02))
        if benchmark.stats is None:  # --benchmark-disable
            return
        seconds = benchmark.stats.stats.min / COUNT
        benchmark.extra_info["ns per operation"] = round(seconds * 1e9, 1)
        if nbytes:
            benchmark.extra_info["GB/s"] = round(nbytes / seconds / 1e9, 3)
        _rows.append(Row(group, name, nbytes, seconds))

    return run


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was measured as a table: a row for each group, a column for each implementation."""
    counted = terminalreporter.config.stash.get(COUNTED, None)
    if counted is not None:
        terminalreporter.write_sep("=", "instructions per operation, and the stored baseline")
        for line in counted:
            terminalreporter.write_line(line)
    if not _rows:
        return
    names = list(dict.fromkeys(row.name for row in _rows))
    width = max(len(row.group) for row in _rows)
    write = terminalreporter.write_line
    terminalreporter.write_sep("=", f"ns per operation in batches of {COUNT}, best round (GB/s from 4 KiB on)")
    write(" " * width + "".join(f"{name:>22}" for name in names))
    for group in dict.fromkeys(row.group for row in _rows):
        cells = {row.name: row for row in _rows if row.group == group}
        line = f"{group:<{width}}"
        for name in names:
            if name not in cells:
                line += f"{'':>22}"
                continue
            row = cells[name]
            figure = f"{row.seconds * 1e9:,.0f}" if row.seconds > 1e-6 else f"{row.seconds * 1e9:.1f}"
            if row.nbytes >= 4096:
                figure += f" ({row.nbytes / row.seconds / 1e9:.2f})"
            line += f"{figure:>22}"
        write(line)
