"""Draw the chart: `python -m benchmarks.compare.chart RESULTS.json OUT.png`, or .svg in its environment."""

import json
import math
import sys
import textwrap

from .results import Results, scenario_order, summarise
from .scenarios import METRICS, SCENARIOS

OURS, PEER, REFERENCE = "#d1495b", "#8d99ae", "#2b2d42"


def draw(results: Results, path: str) -> None:
    """Draw one panel for each scenario, one bar for each server, and save it as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [name for name in scenario_order(results) if any(results.records[name].values())]
    if not names:
        raise SystemExit("nothing was measured that could be drawn")
    columns = min(3, len(names))
    lines = math.ceil(len(names) / columns)
    height = 3.1 * lines + 0.5  # inches, the last for the title
    figure, axes = plt.subplots(lines, columns, figsize=(5.6 * columns, height), squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, names, strict=False):
        scenario = SCENARIOS[name]
        metric = METRICS[scenario.metrics[0]]
        records = results.records[name]
        bars = [(peer, found) for peer in records if (found := summarise(records[peer], metric.key))]
        bars.sort(key=lambda bar: bar[1].median, reverse=metric.better == "low")
        labels = [peer.removeprefix("client:") for peer, _ in bars]
        values = [found.median for _, found in bars]
        colours = [OURS if "wsfast" in peer else REFERENCE if peer == scenario.reference else PEER for peer, _ in bars]
        errors = [[max(0, f.median - f.low) for _, f in bars], [max(0, f.high - f.median) for _, f in bars]]
        axis.barh(labels, values, color=colours, xerr=errors, error_kw={"lw": 0.8, "ecolor": "#444444"})
        for index, (value, (_, found)) in enumerate(zip(values, bars, strict=True)):
            axis.annotate(f" {value:,.{metric.digits}f}", (found.high, index), va="center", fontsize=7)
        axis.set_xlim(0, max((found.high for _, found in bars), default=1) * 1.22 or 1)
        better = "less is better" if metric.better == "low" else "more is better"
        axis.set_title("\n".join(textwrap.wrap(f"{scenario.title}: {metric.title}, {better}", 62)), fontsize=8.5)
        axis.tick_params(labelsize=7.5)
        axis.spines[["top", "right"]].set_visible(False)
    meta = results.meta
    words = f"wsfast beside its peers: median of {meta['rounds']} interleaved rounds, lines from least to greatest. "
    title = textwrap.wrap(f"{words}{meta['machine']}, {meta['date']}", 72 * columns)
    figure.set_figheight(height + 0.16 * len(title))  # a line of the title is so high, in inches
    figure.suptitle("\n".join(title), fontsize=9, y=1 - 0.08 / height, va="top")
    figure.tight_layout(rect=(0, 0, 1, 1 - (0.1 + 0.16 * len(title)) / figure.get_figheight()))
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as source:
        draw(Results.from_json(json.load(source)), sys.argv[2])
