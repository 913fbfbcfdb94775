"""Curves as SVG text: drawn by the server, coloured by the page's own style sheet, readable on any width."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 34
TICKS = 5
COLOURS = 6
"""Classes ``line-0`` … of the style sheet, taken in turn."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A curve with a name. Points that are not finite are left out."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Axes:
    """Data coordinates to pixels."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, point: Point) -> tuple[float, float]:
        """Where a point stands."""
        across = (point[0] - self.x[0]) / (self.x[1] - self.x[0])
        up = (point[1] - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def chart(series: Sequence[Series], x: str, title: str, marks: Sequence[tuple[float, str]] = (), from_zero: bool = False) -> str:
    """Curves over ``x``; ``marks`` are vertical lines with a word each. '' where no curve has two points."""
    shown = [Series(each.name, [point for point in each.points if all(map(math.isfinite, point))]) for each in series]
    shown = [each for each in shown if len(each.points) > 1]
    if not shown:
        return ""
    axes = _axes(shown, from_zero)
    parts = [*_grid(axes), *_marks(axes, marks)]
    parts += [_curve(axes, each, number) for number, each in enumerate(shown)]
    parts.append(f"<text class='name' x='{WIDTH - RIGHT}' y='{HEIGHT - 4}' text-anchor='end'>{html.escape(x)}</text>")
    names = [html.escape(each.name) for each in shown] if len(shown) > 1 else []
    legend = "".join(f"<span class='key-{i % COLOURS}'>{name}</span>" for i, name in enumerate(names))
    drawn = f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{html.escape(title)}'>{''.join(parts)}</svg>"
    return f"<figure class='chart'><figcaption><b>{html.escape(title)}</b>{legend}</figcaption>{drawn}</figure>"


def ticks(low: float, high: float, least: float = 0.0) -> list[float]:
    """About ``TICKS`` round numbers that cover ``low`` to ``high``, at least ``least`` apart."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = max((high - low) / TICKS, least)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _axes(series: Sequence[Series], from_zero: bool) -> Axes:
    xs = [point[0] for each in series for point in each.points]
    ys = [point[1] for each in series for point in each.points]
    rows = ticks(0.0 if from_zero else min(ys), max(ys))
    return Axes((min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1), (rows[0], rows[-1]))


def _grid(axes: Axes) -> Iterator[str]:
    for value in ticks(*axes.y):
        _, y = axes.at((axes.x[0], value))
        yield f"<line class='grid' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>"
        yield f"<text x='{LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{value:.4g}</text>"
    for value in ticks(*axes.x, least=1.0):
        if axes.x[0] <= value <= axes.x[1]:
            x, _ = axes.at((value, axes.y[0]))
            yield f"<text x='{x:.1f}' y='{HEIGHT - BOTTOM + 16}' text-anchor='middle'>{value:.6g}</text>"


def _marks(axes: Axes, marks: Sequence[tuple[float, str]]) -> Iterator[str]:
    for value, word in marks:
        if axes.x[0] <= value <= axes.x[1]:
            x, _ = axes.at((value, axes.y[0]))
            line = f"<line class='mark' x1='{x:.1f}' x2='{x:.1f}' y1='{TOP}' y2='{HEIGHT - BOTTOM}'/>"
            yield f"<g><title>{html.escape(word)}</title>{line}</g>"


def _curve(axes: Axes, series: Series, number: int) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(axes.at, series.points))
    last = f"{series.name}: {series.points[-1][1]:.5g}"
    return f"<polyline class='line-{number % COLOURS}' points='{points}'><title>{html.escape(last)}</title></polyline>"
