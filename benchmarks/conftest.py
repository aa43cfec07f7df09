"""How a benchmark is measured, and the tables at the end: those of some tests, and the nanoseconds per operation."""

from __future__ import annotations

import time
from collections.abc import Callable
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


def note(group: str, name: str, nbytes: int, seconds: float) -> None:
    """Take a measurement that was made without `measure` into the table; the seconds are those of one operation."""
    _rows.append(Row(group, name, nbytes, seconds))


_TABLES = pytest.StashKey[dict[str, list[str]]]()


def add_table(config: pytest.Config, title: str, lines: list[str]) -> None:
    """Take a table of its own into the summary; its lines have at most 80 columns."""
    config.stash.setdefault(_TABLES, {})[title] = lines


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return max(time.perf_counter() - start, 1e-7)


@pytest.fixture
def measure(benchmark: Any) -> Callable[..., None]:
    """Measure a call that does COUNT operations of `nbytes` each, for about a twentieth of a second."""

    def run(group: str, name: str, nbytes: int, call: Callable[[], object]) -> None:
        benchmark.group = group
        once = timed(call)
        if once < 0.02:
            once = timed(call)  # the first was cold
        iterations = max(1, min(200, int(1e-3 / once)))
        # What takes long, such as a large message by the Python twin, was seen once by now; twice is enough.
        rounds = max(3 if once < 0.3 else 1, min(50, int(0.05 / (once * iterations))))
        benchmark.pedantic(call, rounds=rounds, iterations=iterations, warmup_rounds=int(once < 0.02))
        if benchmark.stats is None:  # --benchmark-disable
            return
        seconds = benchmark.stats.stats.min / COUNT
        benchmark.extra_info["ns per operation"] = round(seconds * 1e9, 1)
        if nbytes:
            benchmark.extra_info["GB/s"] = round(nbytes / seconds / 1e9, 3)
        _rows.append(Row(group, name, nbytes, seconds))

    return run


def pytest_configure(config: pytest.Config) -> None:
    """Leave out pytest-benchmark's tables, of over 200 columns, unless one of its options was given."""
    given = any(str(argument).startswith("--benchmark-") for argument in config.invocation_params.args)
    if not given and hasattr(config.option, "benchmark_quiet"):
        config.option.benchmark_quiet = True


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was measured as tables, below pytest-benchmark's own."""
    for title, lines in terminalreporter.config.stash.get(_TABLES, {}).items():
        terminalreporter.write_sep("=", title)
        for line in lines:
            terminalreporter.write_line(line)
    if not _rows:
        return
    write = terminalreporter.write_line
    terminalreporter.write_sep("=", f"ns per operation in batches of {COUNT}, best round")
    for line in summary(_rows):
        write(line)
    write("")
    write("ratio: wsfast (Cython; a handler) to the best peer, below 1 where it is faster.")
    write("--benchmark-autosave stores this run, --benchmark-compare shows changes to it;")
    write("--benchmark-sort=min and other options print the tables too, of 220 columns.")


_OURS = ("cython", "python", "message", "listener", "stream")


def summary(rows: list[Row]) -> list[str]:
    """Return a table of at most 80 columns: a row for each group, ours first, and the ratio to the best peer."""
    lines: list[str] = []
    kind = None
    for group in dict.fromkeys(row.group for row in rows):
        cells = {row.name: row for row in rows if row.group == group}
        first = group.partition(" ")[0]
        peers = [row for name, row in cells.items() if name not in _OURS]
        best = min(peers, key=lambda row: row.seconds, default=None)
        ours = cells.get("cython") or cells.get("message")
        if first != kind:
            kind = first
            lines += ["", f"{first:<25}{'wsfast':>9}{'GB/s':>7}{'python':>11}{'best peer':>11}  {'':<10}{'ratio':>5}"]
        name = group.removeprefix(first).strip()[:24] or group[:24]
        line = f"{name:<25}{_figure(ours)}"
        line += f"{ours.nbytes / ours.seconds / 1e9:>7.2f}" if ours and ours.nbytes >= 4096 else f"{'':>7}"
        line += f"{_figure(cells.get('python'), 11)}{_figure(best, 11)}  {best.name[:10] if best else '':<10}"
        if ours and best:
            line += f"{ours.seconds / best.seconds:>5.2f}"
        lines.append(line.rstrip())
    return lines


def _figure(row: Row | None, width: int = 9) -> str:
    if row is None:
        return " " * width
    ns = row.seconds * 1e9
    if ns >= 1e7:
        return f"{f'{ns / 1e6:,.1f} ms':>{width}}"
    return f"{ns:>{width},.0f}" if ns >= 1000 else f"{ns:>{width}.1f}"
