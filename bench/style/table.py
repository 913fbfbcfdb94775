"""The ranked table and the scatter plot of all results, for ``docs/``."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.report import BENCHMARKS, write_part
from bench.style.trial import BOUNDS, Result

PART = "bench.style"
PLOT = BENCHMARKS.parent / "style-scatter.svg"
AIM = 0.6
"""Share of held-out pictures that must be called the new style, mean over the seeds, in every style."""
Get = Callable[[Result], float]


@dataclass(frozen=True)
class Entry:
    """A preset's results in all styles and seeds."""

    what: str
    results: tuple[Result, ...]

    @property
    def styles(self) -> list[str]:
        return sorted({result.style for result in self.results})

    @property
    def seeds(self) -> int:
        """Of the style that has fewest."""
        return min(len(self.of(style, _both)) for style in self.styles)

    def of(self, style: str, get: Get) -> list[float]:
        return [get(result) for result in self.results if result.style == style]

    def mean(self, get: Get) -> float:
        """Over the seeds, then over the styles: every style weighs alike."""
        return statistics.mean(statistics.mean(self.of(style, get)) for style in self.styles)

    def spread(self, get: Get) -> float:
        """Standard deviation over the seeds, mean of the styles; 0 where there is one seed."""
        return statistics.mean(statistics.stdev(v) if len(v := self.of(style, get)) > 1 else 0.0 for style in self.styles)

    @property
    def misses(self) -> list[str]:
        """Styles in which it stays below the aim."""
        return [style for style in self.styles if statistics.mean(self.of(style, _called)) < AIM]


def _both(result: Result) -> float:
    return result.scores.both


def _called(result: Result) -> float:
    return result.scores.called_style


def _kept(result: Result) -> float:
    return result.scores.concept_top5


def _distance(result: Result) -> float:
    return result.scores.distance


def ranked(results: Sequence[Result]) -> list[Entry]:
    """Best first, by the share of pictures that have both the style and the concept; only what has been tried in every style."""
    styles = {result.style for result in results}
    by_name = defaultdict(list)
    for result in results:
        if result.what not in BOUNDS:
            by_name[result.what].append(result)
    entries = [Entry(what, tuple(found)) for what, found in by_name.items()]
    return sorted((entry for entry in entries if set(entry.styles) == styles), key=lambda entry: -entry.mean(_both))


def line(result: Result) -> str:
    """One trial, for the terminal."""
    s = result.scores
    shares = f"style {s.called_style:4.0%}  concept {s.concept_top5:4.0%}  both {s.both:4.0%}  distance {s.distance:.3f}"
    cost = f"{result.parameters:,} parameters, {result.file_bytes / 1024:.0f} KiB, {result.seconds:.0f} s"
    return f"{result.style:<10} {result.what:<22} seed {result.seed}  {shares}  {cost}"


def tables(results: Sequence[Result]) -> str:
    """Markdown: the presets ranked, then each style's bounds."""
    entries = ranked(results)
    styles = sorted({result.style for result in results})
    head = ["", "preset", "both", *(f"style: {style}" for style in styles), "concept kept", "distance"]
    lines = _row([*head, "parameters", "file, KiB", "CPU s a step", "seeds"])
    lines += "|---" * (len(head) + 4) + "|\n"
    for place, entry in enumerate(entries, 1):
        called = [_spread(entry.of(style, _called)) for style in styles]
        first = entry.results[0]
        lines += _row([
            str(place), f"`{entry.what}`", f"{entry.mean(_both):.0%} ± {entry.spread(_both):.0%}", *called,
            f"{entry.mean(_kept):.0%}", f"{entry.mean(_distance):.3f}", f"{first.parameters:,}", f"{first.file_bytes / 1024:.0f}",
            f"{min(result.step_seconds for result in entry.results):.2f}", str(entry.seeds),
        ])  # fmt: skip
    return f"{lines}\n{_bounds(results, styles)}\n{_misses(entries)}"


def _bounds(results: Sequence[Result], styles: list[str]) -> str:
    lines = _row(["bound", *(f"{style}: style / concept / distance" for style in styles)]) + "|---" * (len(styles) + 1) + "|\n"
    found = {(result.what, result.style): result.scores for result in results if result.what in BOUNDS}
    for what in BOUNDS:
        scores = [found[what, style] for style in styles]
        lines += _row([what, *(f"{s.called_style:.0%} / {s.concept_top5:.0%} / {s.distance:.3f}" for s in scores)])
    return lines


def _misses(entries: list[Entry]) -> str:
    missed = [f"`{entry.what}` ({', '.join(entry.misses)})" for entry in entries if entry.misses]
    told = ", ".join(missed) if missed else "none"
    return f"Below {AIM:.0%} called the new style, mean over the seeds: {told}.\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.0%}" + (f" ± {statistics.stdev(values):.0%}" if len(values) > 1 else "")


def write_report(results: Sequence[Result]) -> None:
    """The tables into ``docs/benchmarks.md``, the plot beside it."""
    if entries := ranked(results):
        write_part(PART, tables(results))
        plot(entries, PLOT)


def plot(entries: Sequence[Entry], file: Path) -> None:
    """Style against concept, and both against the file's size; a dot for each preset, bars the spread over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams |= {"font.size": 9, "svg.hashsalt": "style", "axes.spines.top": False, "axes.spines.right": False}
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5.5), layout="constrained")
    for place, entry in enumerate(entries, 1):
        colour = f"C{place % 10}"
        label = f"{place} {entry.what.removeprefix('pocket-')}"
        bars = {"fmt": "o", "ms": 5, "color": colour, "elinewidth": 0.7, "alpha": 0.9}
        kept, called, both = (100 * entry.mean(get) for get in (_kept, _called, _both))
        left.errorbar(kept, called, 100 * entry.spread(_called), 100 * entry.spread(_kept), **bars)
        right.errorbar(entry.results[0].file_bytes / 1024, both, 100 * entry.spread(_both), **bars, label=label)
        left.annotate(str(place), (kept, called), (4, 4), textcoords="offset points", fontsize=8)
        right.annotate(str(place), (entry.results[0].file_bytes / 1024, both), (4, 4), textcoords="offset points", fontsize=8)
    left.set(xlabel="concept kept, % of held-out pictures", ylabel="called the new style, %", title="Style against concept")
    right.set(xlabel="file, KiB", ylabel="style and concept, %", xscale="log", title="Both against the size of the file")
    figure.legend(*right.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
