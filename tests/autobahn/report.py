"""How the outcomes are told: as text, and as the table in docs/conformance.md."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .suite import Outcome, Result, Suite, group_of

BEGIN, END = "<!-- autobahn: made by python -m tests.autobahn -->", "<!-- /autobahn -->"


def counts(results: Iterable[Result]) -> str:
    """Return "45 OK", "34 OK, 3 INFORMATIONAL": the good first, then by number."""
    found = collections.Counter(result.verdict for result in results)
    order = sorted(found.items(), key=lambda item: (item[0] != "OK", -item[1], item[0]))
    return ", ".join(f"{number} {verdict}" for verdict, number in order)


def text(outcome: Outcome, suite: Suite) -> Iterator[str]:
    """Yield the lines on one outcome: the counts of each group, then every case that is not as it should be."""
    yield f"{outcome.label}: {len(outcome.results)} cases in {outcome.seconds:.0f} s"
    for group, results in _by_group(outcome):
        yield f"  {group:>2}  {counts(results):<26} {suite.titles.get(group, '')}"
    if missing := [result.case for result in outcome.bad if result.behavior == "MISSING"]:
        yield f"  no result from {len(missing)}: {', '.join(missing[:20])}{', ...' if len(missing) > 20 else ''}"
    for result in outcome.bad:
        if result.behavior == "MISSING":
            continue
        yield f"  {result.case}: {result.behavior}, close {result.close}"
        if result.expected:
            yield f"      expected: {result.expected}"
        yield f"      got:      {result.got}"
    for problem in outcome.problems:
        yield f"  problem: {problem}"
    if outcome.passed:
        yield f"{outcome.label}: PASS"
    else:
        yield f"{outcome.label}: FAIL, {len(outcome.bad)} cases, {len(outcome.problems)} other problems"


def markdown(outcomes: Sequence[Outcome], suite: Suite, cases: Sequence[str], caption: str) -> str:
    """Return a table with a row for each group and a column for each outcome."""
    number = collections.Counter(map(group_of, cases))
    lines = [caption, ""]
    lines += ["| group | cases | " + " | ".join(outcome.label for outcome in outcomes) + " |"]
    lines += ["|---|--:|" + "---|" * len(outcomes)]
    tables = [dict(_by_group(outcome)) for outcome in outcomes]
    for group in number:
        cells = [counts(table.get(group, [])) or "not run" for table in tables]
        title = f"{group} {suite.titles.get(group, '')}".strip()
        lines.append(f"| {title} | {number[group]} | " + " | ".join(cells) + " |")
    totals = [counts(outcome.results.values()) for outcome in outcomes]
    lines.append(f"| all | {len(cases)} | " + " | ".join(totals) + " |")
    if any(result.informational for outcome in outcomes for result in outcome.results.values()):
        lines += ["", "INFORMATIONAL is what the suite says of 7.1.6, 7.13.1 and 7.13.2 whatever the peer does."]
    bad = [(outcome, result) for outcome in outcomes for result in outcome.bad]
    if bad:
        lines += ["", "Not OK:", ""]
        lines += [
            f"- {outcome.label}, {result.case}: {result.behavior}, close {result.close}" for outcome, result in bad
        ]
    problems = [(outcome, problem) for outcome in outcomes for problem in outcome.problems]
    if problems:
        lines += ["", "Other problems:", ""]
        lines += [f"- {outcome.label}: {problem.splitlines()[0]}" for outcome, problem in problems]
    return "\n".join(lines) + "\n"


def check_markdown(path: Path) -> None:
    """Raise ValueError unless `write_markdown` will know what to replace in the file."""
    if path.exists():
        document = path.read_text("utf-8")
        if not (0 <= document.find(BEGIN) < document.find(END)):
            raise ValueError(f"{path} has no place for the table: the lines {BEGIN!r} and {END!r}")


def write_markdown(path: Path, table: str) -> None:
    """Put the table between its two marks in the file, or make a file of it."""
    block = f"{BEGIN}\n\n{table}\n{END}"
    if path.exists():
        document = path.read_text("utf-8")
        before, rest = document.split(BEGIN, 1)
        path.write_text(before + block + rest.split(END, 1)[1], "utf-8")
    else:
        path.write_text(f"# Conformance\n\n{block}\n", "utf-8")


def _by_group(outcome: Outcome) -> list[tuple[str, list[Result]]]:
    groups = collections.defaultdict(list)
    for result in outcome.results.values():
        groups[group_of(result.case)].append(result)
    return sorted(groups.items(), key=lambda item: int(item[0]))
