"""Rule ``text``: rows of small shapes with strokes of one width, as letters have: captions, signatures, watermarks.

Bright and dark marks are what differs from the mean of its surroundings. Connected marks of a letter's size and slenderness
are strung into rows: neighbours of like height on one line, no farther apart than they are high. A row of at least ``LETTERS``
is text, unless its marks are alike: fences, windows and teeth repeat, letters do not. (After Epshtein, Ofek and Wexler,
"Detecting Text in Natural Scenes with Stroke Width Transform", CVPR 2010, with strokes measured by area and outline.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data.images import Pixels
from trainer.lint.components import Components, components
from trainer.lint.finding import Finding, Severity
from trainer.lint.grey import Grey, grey, within
from trainer.lint.view import View

WORKING = 768
AROUND = 12
"""Half the side, in pixels, of the square whose mean a mark must differ from."""
CONTRAST = 22.0
"""Levels by which it must."""
HEIGHT = (6, 64)
LETTERS = 5
UNLIKE = 0.07
"""Least relative spread of the widths of a row's marks, without the widest and the narrowest."""
FILLED = (0.035, 0.14)
"""Spread of the share of its box that each mark fills: between that of equal marks and that of any shapes at all."""


@dataclass(frozen=True)
class TextLine:
    """A row of letters: its box as shares of the picture, and how many marks it has."""

    left: float
    top: float
    right: float
    bottom: float
    letters: int


def measure(pixels: Pixels) -> tuple[TextLine, ...]:
    """The rows of letters in a picture, bright on dark and dark on bright."""
    picture = grey(within(pixels, WORKING))
    contrast = picture - _mean_around(picture)
    height, width = picture.shape
    lines = []
    for mask in (contrast > CONTRAST, contrast < -CONTRAST):
        marks = _letters(components(mask))
        for row in _rows(marks):
            found = marks.chosen(row)
            box = found.left.min() / width, found.top.min() / height, found.right.max() / width, found.bottom.max() / height
            lines.append(TextLine(*(float(value) for value in box), len(row)))
    return tuple(lines)


def text(view: View) -> Iterator[Finding]:
    """Text in a picture, which the adapter would learn to scribble."""
    for picture in view.pictures:
        lines = picture.measures.text
        if lines:
            letters = sum(line.letters for line in lines)
            where = " and ".join(dict.fromkeys(place(line) for line in lines))
            problem = f"what looks like text at the {where} ({letters} letters or so): it will be learnt as part of the look"
            yield Finding("text", Severity.WARNING, (picture.name,), problem, "crop it away, paint it over, or mask it out")


def place(line: TextLine) -> str:
    """``top left``, ``middle``, ``bottom`` ...: a row that spans most of the width is at no side."""
    vertical = ("top", "middle", "bottom")[min(2, int((line.top + line.bottom) / 2 * 3))]
    if line.right - line.left > 0.5:
        return vertical
    side = ("left", "", "right")[min(2, int((line.left + line.right) / 2 * 3))]
    return f"{vertical} {side}".strip()


def _letters(marks: Components) -> Components:
    """Marks that may be letters: neither specks nor areas, and made of strokes thinner than half their height."""
    stroke = marks.area / np.maximum(marks.runs, 1)
    slender = marks.width / np.maximum(marks.height, 1)
    fill = marks.area / np.maximum(marks.width * marks.height, 1)
    return marks.chosen(
        (marks.height >= HEIGHT[0])
        & (marks.height <= HEIGHT[1])
        & (slender >= 0.08)
        & (slender <= 2.2)
        & (fill >= 0.12)
        & (fill <= 0.95)
        & (stroke <= 0.75 * marks.height)
    )


def _rows(marks: Components) -> Iterator[NDArray[np.int64]]:
    """Rows of marks, left to right: each next one is the nearest that continues the row."""
    order = np.argsort(marks.left, kind="stable")
    marks_in_order = marks.chosen(order)
    used = np.zeros(len(order), bool)
    for first in range(len(order)):
        if used[first]:
            continue
        row = [first]
        while (following := _next(marks_in_order, row[-1], used)) >= 0:
            row.append(following)
        if len(row) >= LETTERS and _is_text(marks_in_order.chosen(np.array(row))):
            used[row] = True
            yield order[row]


def _next(marks: Components, last: int, used: NDArray[np.bool_]) -> int:
    """The mark that goes on from ``last``: like height, on its line, at most a height away; -1 where there is none."""
    height = marks.height[last]
    gap = marks.left - marks.right[last]
    shared = np.minimum(marks.bottom, marks.bottom[last]) - np.maximum(marks.top, marks.top[last])
    fits = (gap >= -0.15 * height) & (gap <= 1.1 * height) & ~used
    fits &= (marks.height <= 1.9 * height) & (height <= 1.9 * marks.height)
    fits &= shared >= 0.55 * np.minimum(marks.height, height)
    fits[last] = False
    fits &= marks.left > marks.left[last]
    found = np.flatnonzero(fits)
    return int(found[np.argmin(gap[found])]) if found.size else -1


def _is_text(row: Components) -> bool:
    """Letters stand on one or two lines, keep their height, and differ in width and shape."""
    height = float(np.median(row.height))
    straight = np.median(np.abs(row.bottom - np.median(row.bottom))) <= 0.2 * height
    usual = np.sort(row.width)[1:-1]
    spread = float(np.std(usual) / np.mean(usual))
    fill = float(np.std(row.area / (row.width * row.height)))
    even = float(np.std(row.height) / height) <= 0.4
    stroke = row.area / row.runs
    return bool(
        straight and even and spread >= UNLIKE and FILLED[0] <= fill <= FILLED[1] and np.std(stroke) <= 0.6 * np.mean(stroke)
    )


def _mean_around(picture: Grey) -> NDArray[np.float64]:
    """Mean of the square of ``2 AROUND + 1`` pixels around each pixel, edges repeated."""
    side = 2 * AROUND + 1
    padded = np.pad(picture.astype(np.float64), ((AROUND + 1, AROUND), (AROUND + 1, AROUND)), mode="edge")
    total = padded.cumsum(0).cumsum(1)
    return (total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]) / side**2
