"""SVG figure of the confirmed candidates: a dot for each seed, and lines for the mean and the standard deviation.

The axis covers only the range of the values. MLflow's bar charts start at zero, which hides small differences.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from statistics import fmean, stdev

NAME = "figures/confirmed_means.svg"  # path of the artifact
WIDTH, LABELS, ROW, MARGIN = 760, 180, 34, 46  # pixels
STYLE = (
    "text{font:13px sans-serif;fill:#333} .seed{fill:#7aa6d6} .mean{stroke:#12406e;stroke-width:2} .grid{stroke:#ddd}"
)


def confirmed_figure(metric: str, values: Mapping[str, Sequence[float]]) -> str:
    """Returns the figure as the content of an SVG file.

    Args:
        metric: Name of the metric.
        values: One value for each seed, keyed by the label of the candidate; the best candidate comes first.
    """
    every = [value for seeds in values.values() for value in seeds]
    low, high = min(every), max(every)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    height = MARGIN + ROW * len(values) + 24

    def x(value: float) -> float:
        return LABELS + 20 + (value - low) / (high - low) * (WIDTH - LABELS - 60)

    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"><style>{STYLE}</style>']
    lines.append('<rect width="100%" height="100%" fill="white"/>')
    lines.append(f'<text x="8" y="20">{escape(metric)}: seeds, mean and standard deviation</text>')
    for value in (low, (low + high) / 2, high):
        lines.append(f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="32" y2="{height - 24}"/>')
        lines.append(f'<text x="{x(value):.1f}" y="{height - 8}" text-anchor="middle">{value:.4f}</text>')
    for row, (label, seeds) in enumerate(values.items()):
        lines += [f'<text x="8" y="{MARGIN + ROW * row + 9}">{escape(label)}</text>']
        lines += _candidate(MARGIN + ROW * row + 4, [x(value) for value in seeds])
    return "\n".join([*lines, "</svg>\n"])


def _candidate(y: float, places: Sequence[float]) -> Iterator[str]:
    """Yields the marks of one candidate at pixel positions."""
    for place in places:
        yield f'<circle class="seed" cx="{place:.1f}" cy="{y}" r="4"/>'
    mean, spread = fmean(places), stdev(places) if len(places) > 1 else 0.0
    yield f'<line class="mean" x1="{mean - spread:.1f}" x2="{mean + spread:.1f}" y1="{y}" y2="{y}"/>'
    yield f'<line class="mean" x1="{mean:.1f}" x2="{mean:.1f}" y1="{y - 9}" y2="{y + 9}"/>'
