"""The plots of docs/algorithms.md. A picture carries the hash of the figures that it was drawn from."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from PIL import Image

KEY = "Drawn from"
"""Text entry of the picture."""
NUMBERS = ("sd15", "rank", "effective", "training")


def cost_figures(report: dict[str, Any]) -> dict[str, Any]:
    """What the first plot shows, by algorithm."""
    return {name: [row[key] for key in NUMBERS] for name, row in report["algorithms"].items()}


def digest(figures: Any) -> str:
    return hashlib.sha256(json.dumps(figures).encode()).hexdigest()


def drawn_from(file: Path) -> str:
    """The hash that a picture carries."""
    with Image.open(file) as picture:
        return str(picture.info.get(KEY, ""))


def draw_costs(figures: dict[str, Any], file: Path) -> None:
    """Rank and operations of every algorithm over its trained numbers."""
    pyplot = _pyplot()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5.2), layout="constrained")
    for place, (name, (numbers, rank, effective, training)) in enumerate(figures.items(), 1):
        style = {"color": f"C{place % 10}", "marker": "os^Dv"[place % 5], "ms": 6, "alpha": 0.85, "ls": ""}
        for axes, value in ((left, rank), (right, 100 * training)):
            if value:
                axes.plot(numbers, value, label=f"{place} {name}", **style)
        if rank:
            left.plot([numbers, numbers], [effective, rank], color=style["color"], lw=0.7, alpha=0.6)
    _number(left, [(row[0], row[1]) for row in figures.values()])
    _number(right, [(row[0], 100 * row[3]) for row in figures.values()])
    left.set(ylabel="rank on 640 x 640; lines down to the effective one", title="Rank for the numbers")
    right.set(ylabel="products more in a step, % of the frozen layer's", title="Operations for the numbers")
    for axes in (left, right):
        axes.set(xlabel="trained numbers on SD 1.5's UNet", xscale="log", yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        axes.grid(alpha=0.2)
    entries = dict(zip(*reversed(right.get_legend_handles_labels()), strict=True)) | dict(
        zip(*reversed(left.get_legend_handles_labels()), strict=True)
    )
    names = sorted(entries, key=lambda label: int(label.split()[0]))
    figure.legend([entries[name] for name in names], names, loc="outside right upper", frameon=False, fontsize=8)
    _save(figure, file, figures)


def _number(axes: Any, points: list[tuple[float, float | None]]) -> None:
    """Each point's place in the list beside it; those that lie on one another in one label."""
    labels: dict[tuple[float, float], list[int]] = {}
    for place, (x, y) in enumerate(points, 1):
        if y:
            labels.setdefault((round(math.log10(x), 1), round(math.log10(y), 1)), []).append(place)
    for places in labels.values():
        text = ", ".join(str(place) for place in places)
        axes.annotate(text, points[places[0] - 1], (5, 4), textcoords="offset points", fontsize=8)


def draw_spectra(figures: dict[str, list[float]], file: Path) -> None:
    """Singular values of random changes, the largest as 1."""
    figure, axes = _pyplot().subplots(figsize=(8, 4.2), layout="constrained")
    for name, values in figures.items():
        shown = [value for value in values if value > 1e-5]
        axes.plot(range(1, len(shown) + 1), shown, label=name, lw=1.6)
    axes.set(xscale="log", yscale="log", xlabel="singular value", ylabel="size, as a share of the largest")
    axes.grid(alpha=0.2)
    axes.legend(frameon=False)
    _save(figure, file, figures)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    return pyplot


def _save(figure: Any, file: Path, figures: Any) -> None:
    figure.savefig(file, dpi=110, metadata={KEY: digest(figures), "Software": None})
    _pyplot().close(figure)
