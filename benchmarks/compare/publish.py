"""What the documentation publishes of a comparison: docs/comparison.md and its chart, README's table and its chart."""

from collections.abc import Callable
from pathlib import Path

from .report import markdown
from .results import Results, summarise
from .scenarios import METRICS, SCENARIOS

__all__ = ["PUBLISHED", "missing", "publish", "readme"]

PUBLISHED = {
    "pingpong-64": "echo of 64 B, 100 connections",
    "large-64k": "echo of 64 KiB, 4 connections",
    "handshake": "handshakes in a second of CPU time",
}
"""README's rows: scenarios, and what they are called there."""
SERVERS = {
    "wsfast-message/uvloop": "wsfast",
    "picows-ws/uvloop": "picows",
    "aiohttp/uvloop": "aiohttp",
    "websockets/uvloop": "websockets",
}
"""README's columns: servers, and what they are called there."""
BEGIN, END = "<!-- figures: python -m benchmarks.compare --publish -->\n", "<!-- end of figures -->\n"

_HEAD = """# Beside the peers

What `python -m benchmarks.compare --publish` has measured. Read the ranges: a target whose range crosses it is met in
some rounds and missed in others. [performance.md](performance.md) says what is missed and why.

"""


def missing(results: Results) -> list[str]:
    """Name the figures of README's table that were not measured."""
    return [
        f"{scenario} of {server}"
        for scenario in PUBLISHED
        for server in SERVERS
        if summarise(results.records.get(scenario, {}).get(server, []), METRICS[_metric(scenario)].key) is None
    ]


def _metric(scenario: str) -> str:

    return SCENARIOS[scenario].metrics[0]


def readme(results: Results) -> str:
    """Write README's table of figures, with how they were measured."""
    lines = ["| | " + " | ".join(SERVERS.values()) + " |", "|---|" + "---:|" * len(SERVERS)]
    for scenario, title in PUBLISHED.items():
        metric = METRICS[_metric(scenario)]
        cells = []
        for server in SERVERS:
            found = summarise(results.records[scenario][server], metric.key)
            assert found is not None  # as `missing` says
            cells.append(f"{found.median:,.0f}" if metric.better == "high" else f"{found.median:.1f} µs")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    meta, versions = results.meta, results.meta["versions"]
    named = ", ".join(f"{name} {versions[name]}" for name in (*SERVERS.values(), "uvloop") if name in versions)
    chart = f"CPU time for a message and handshakes per second of it: {', '.join(SERVERS.values())}"
    method = (
        f"{meta['machine']}; load average {meta['load']} at the start, median of {meta['rounds']} interleaved rounds"
    )
    lines += [
        "",
        f"![{chart}](docs/figures/peers.svg)",
        "",
        "picows is measured by its API that follows websockets, as the others are handlers.",
        f"{method}, {meta['date']}; Python {versions.get('Python', '?')}, {named}.",
    ]
    return "\n".join(lines) + "\n"


def publish(results: Results, root: Path, draw: Callable[[Results, Path], None]) -> list[Path]:
    """Write the figures into the documentation.

    Args:
        results: what was measured; `missing` has nothing to say of it.
        root: the repository.
        draw: draws a chart of results into a file.

    Returns:
        The files that were written.

    Raises:
        ValueError: README has no place for the figures.
    """
    text = (root / "README.md").read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has no {(BEGIN if not begin else END).strip()} in it")
    few = Results(
        results.meta,
        results.checks,
        {name: {server: results.records[name][server] for server in SERVERS} for name in PUBLISHED},
    )
    docs = root / "docs"
    charts = {docs / "figures" / "peers.svg": few, docs / "comparison.png": results}
    for path, shown in charts.items():
        draw(shown, path)
    (docs / "comparison.md").write_text(_HEAD + markdown(results, "comparison.png"), encoding="utf-8")
    (root / "README.md").write_text(f"{before}{begin}\n{readme(results)}\n{end}{after}", encoding="utf-8")
    return [root / "README.md", docs / "comparison.md", *charts]
