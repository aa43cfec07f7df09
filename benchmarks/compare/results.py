"""Figures and what follows from them: medians, spread, ratios, targets. The form of the JSON file."""

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from .scenarios import METRICS, SCENARIOS, TARGETS, Target

__all__ = ["Results", "Summary", "Verdict", "judge", "merge", "ratio", "summarise"]

Record = dict[str, float] | None


@dataclass
class Results:
    """All that was measured.

    Args:
        meta: machine, versions, command, date.
        checks: what the check found, by peer.
        records: by scenario and peer, one record for each round; None where it failed.
        failures: by scenario and peer, why.
    """

    meta: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, dict[str, float]] = field(default_factory=dict)
    records: dict[str, dict[str, list[Record]]] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Make plain data of it, the targets' verdicts included."""
        return {"format": 1, **asdict(self), "targets": [asdict(verdict) for verdict in judge(self)]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Results":
        """Read what to_json made. Raises ValueError for another format."""
        if data.get("format") != 1:
            raise ValueError("not a result file of this benchmark")
        return cls(data["meta"], data["checks"], data["records"], data["failures"])


def merge(parts: list[Results]) -> Results:
    """Put runs together; a scenario measured twice is taken from the last."""
    whole = Results(dict(parts[-1].meta))
    for name in ("command", "commit", "date"):
        whole.meta[name] = "; ".join(dict.fromkeys(part.meta[name] or "an unknown one" for part in parts))
    whole.meta["notes"] = list(dict.fromkeys(note for part in parts for note in part.meta["notes"]))
    whole.meta["versions"] = {name: version for part in parts for name, version in part.meta["versions"].items()}
    for part in parts:
        whole.checks |= part.checks
        whole.records |= part.records
        for scenario in part.records:
            whole.failures.pop(scenario, None)
        whole.failures |= part.failures
    return whole


@dataclass(frozen=True)
class Summary:
    """Median of the rounds, the least and the greatest."""

    median: float
    low: float
    high: float
    rounds: int

    @property
    def spread(self) -> float:
        """Half of the range, as a part of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


def _of(values: list[float]) -> Summary | None:
    return Summary(statistics.median(values), min(values), max(values), len(values)) if values else None


def summarise(records: list[Record], metric: str) -> Summary | None:
    """Sum up one metric over the rounds; None where nothing was measured."""
    return _of([record[metric] for record in records if record is not None and metric in record])


def ratio(ours: list[Record], theirs: list[Record], metric: str) -> Summary | None:
    """Sum up ours / theirs, round by round: what disturbs the machine for longer than a round drops out."""
    pairs = zip(ours, theirs, strict=False)
    found = [
        (a[metric], b[metric]) for a, b in pairs if a is not None and b is not None and metric in a and metric in b
    ]
    return _of([a / b for a, b in found if b > 0])


@dataclass(frozen=True)
class Verdict:
    """A target held up to the figures; `met` is None where it was not measured."""

    target: Target
    met: bool | None
    peer: str = ""
    figure: str = ""
    low: float = 0.0
    median: float = 0.0
    high: float = 0.0


def _judge(target: Target, results: Results) -> Verdict:
    records = results.records.get(target.scenario, {})
    ours = summarise(records.get(target.ours, []), target.metric)
    if ours is not None and not target.peers:
        figure = f"{ours.median:.2f}"
        return Verdict(target, ours.median <= target.plus, "", figure, ours.low, ours.median, ours.high)
    theirs = {name: found for name in target.peers if (found := summarise(records.get(name, []), target.metric))}
    if ours is None or not theirs:
        return Verdict(target, None)
    low_is_better = METRICS[target.metric].better == "low"
    choose = min if low_is_better else max
    peer = choose(theirs, key=lambda name: theirs[name].median)
    if target.plus:
        # Memory: an amount above the peer's, not a ratio to it.
        above = ours.median - target.ratio * theirs[peer].median
        low, high = ours.low - target.ratio * theirs[peer].median, ours.high - target.ratio * theirs[peer].median
        figure = f"{ours.median:.2f} = {theirs[peer].median:.2f} {'+' if above >= 0 else '-'} {abs(above):.2f} KB"
        return Verdict(target, above <= target.plus, peer, figure, low, above, high)
    found = ratio(records[target.ours], records[peer], target.metric)
    if found is None:
        return Verdict(target, None)
    if low_is_better:
        met = found.median < target.ratio if target.strict else found.median <= target.ratio
    else:
        met = found.median > target.ratio if target.strict else found.median >= target.ratio
    # Ratios far below 1 are easier read as a fraction of one.
    wide = found.median < 0.3
    figure = f"{found.median:.{3 if wide else 2}f}x" + (f" (1/{1 / found.median:.1f})" if wide and found.median else "")
    return Verdict(target, met, peer, figure, found.low, found.median, found.high)


def judge(results: Results) -> list[Verdict]:
    """Hold up every target whose scenario was measured."""
    return [_judge(target, results) for target in TARGETS if target.scenario in results.records]


def scenario_order(results: Results) -> list[str]:
    """Name the measured scenarios in the order of the list, own ones last."""
    known = [name for name in SCENARIOS if name in results.records]
    return known + [name for name in results.records if name not in SCENARIOS]
