"""The report, as text for the terminal and as Markdown for the docs."""

from .results import Results, Verdict, judge, ratio, scenario_order, summarise
from .scenarios import METRICS, PEERS, SCENARIOS, Scenario

__all__ = ["listing", "markdown", "scenario_text", "targets_text"]

MARKS = {True: "met", False: "missed", None: "not measured"}


def _rows(scenario: Scenario, results: Results) -> tuple[list[str], list[list[str]]]:
    """Make the table of a scenario, best first."""
    records = results.records[scenario.name]
    first = METRICS[scenario.metrics[0]]
    titles = ["", first.title, "spread", "ratio", *(METRICS[key].title for key in scenario.metrics[1:])]
    found = [(name, summary) for name in records if (summary := summarise(records[name], first.key))]
    found.sort(key=lambda pair: pair[1].median, reverse=first.better == "high")
    reference = scenario.reference if scenario.reference in dict(found) else (found[0][0] if found else "")
    rows = []
    for name, summary in found:
        against = ratio(records[name], records[reference], first.key)
        row = [name.removeprefix("client:"), f"{summary.median:,.{first.digits}f}", f"±{summary.spread:.0%}"]
        row.append(f"{against.median:.2f}" if against else "")
        for key in scenario.metrics[1:]:
            one = summarise(records[name], key)
            row.append(f"{one.median:,.{METRICS[key].digits}f}" if one else "")
        if name == reference:
            row[3] = "1 (ref)"
        rows.append(row)
    return titles, rows


def _text_table(titles: list[str], rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    lines = []
    for row in (titles, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def scenario_text(name: str, results: Results) -> str:
    """Write one scenario's table for the terminal."""
    scenario = SCENARIOS[name]
    lines = [f"\n{name}: {scenario.title}  [wsload {scenario.args}]"]
    titles, rows = _rows(scenario, results)
    if rows:
        lines.append(_text_table(titles, rows))
    lines += [f"  {peer}: {reason}" for peer, reason in results.failures.get(name, {}).items()]
    return "\n".join(lines)


def _verdict_row(verdict: Verdict) -> list[str]:
    target = verdict.target
    spread = ""
    if verdict.met is not None:
        spread = f"{verdict.low:.3g} to {verdict.high:.3g}"
    return [
        target.scenario,
        target.ours.removeprefix("client:"),
        target.text,
        verdict.peer.removeprefix("client:"),
        verdict.figure,
        spread,
        MARKS[verdict.met],
    ]


_VERDICT_TITLES = ["scenario", "wsfast", "target", "against", "figure", "low to high", ""]


def targets_text(results: Results) -> str:
    """Write the targets and whether they are met."""
    verdicts = judge(results)
    if not verdicts:
        return ""
    met, missed = (sum(verdict.met is mark for verdict in verdicts) for mark in (True, False))
    unknown = len(verdicts) - met - missed
    head = f"\ntargets: {met} met, {missed} missed, {unknown} not measured"
    return head + "\n" + _text_table(_VERDICT_TITLES, [_verdict_row(verdict) for verdict in verdicts])


def _markdown_table(titles: list[str], rows: list[list[str]], numbers_from: int) -> list[str]:
    lines = ["| " + " | ".join(titles) + " |"]
    lines.append("|" + "|".join("---:" if i >= numbers_from else "---" for i in range(len(titles))) + "|")
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return lines


def _notes(results: Results) -> list[str]:
    notes = list(results.meta["notes"])
    for feature, text in (
        ("utf8", "do not refuse invalid UTF-8 in a text message, so their text costs them no check"),
        ("fragments", "hand out frames and leave joining fragments to the user"),
    ):
        names = [name for name, found in results.checks.items() if not found.get(feature)]
        if names:
            notes.append(f"{', '.join(sorted({name.split('/')[0] for name in names}))}: {text}")
    return notes


def markdown(results: Results, chart: str | None = None) -> str:
    """Write the whole report in Markdown.

    Args:
        results: what was measured.
        chart: link to the chart, as it is to stand in the text.
    """
    meta = results.meta
    about = f"Machine: {meta['machine']}. {meta['date']}, wsfast at {meta['commit'] or 'an unknown commit'}"
    method = (
        f"{meta['rounds']} interleaved rounds of {meta['seconds']:g} s; each figure is the median, `spread` half of "
        "the range in percent of it. CPU is user + system time per message of the server's whole process (of the "
        "client's, where the client is measured). Ratios are taken round by round, then their median. `uws` is "
        "uWebSockets (C++): `uws/c` from C, `uws/node` through its binding for Node; `raw` is a plain echo without "
        "WebSocket, `picows` its core API, `picows-ws` its API that follows websockets."
    )
    versions = "Versions: " + ", ".join(f"{name} {version}" for name, version in meta["versions"].items()) + "."
    lines = [f"Command: `{meta['command']}`", "", f"{about}, load average at the start {meta['load']}."]
    lines += ["", versions, "", method]
    notes = _notes(results)
    if notes:
        lines += ["", *(f"- {note}" for note in notes)]
    if chart:
        lines += ["", f"![CPU per message and memory per connection]({chart})"]
    verdicts = judge(results)
    if verdicts:
        lines += ["", "## Targets", ""]
        rows = [_verdict_row(verdict) for verdict in verdicts]
        for row in rows:
            row[-1] = f"**{row[-1]}**" if row[-1] == "missed" else row[-1]
        lines += _markdown_table(_VERDICT_TITLES, rows, 99)
    lines += ["", "## Figures"]
    for name in scenario_order(results):
        scenario = SCENARIOS[name]
        lines += ["", f"### {name}: {scenario.title}", "", f"`wsload {scenario.args}`", ""]
        titles, rows = _rows(scenario, results)
        for row in rows:
            if row[0].startswith("wsfast"):
                row[0] = f"**{row[0]}**"
        lines += _markdown_table(titles, rows, 1)
        failed = results.failures.get(name, {})
        if failed:
            lines += ["", *(f"- {peer}: {reason}" for peer, reason in failed.items())]
    return "\n".join(lines) + "\n"


def listing() -> str:
    """List scenarios and servers."""
    scenarios = [f"  {scenario.name:<24}{scenario.title}" for scenario in SCENARIOS.values()]
    return "\n".join(["scenarios:", *scenarios, "servers (and clients):", *(f"  {name}" for name in PEERS)])
