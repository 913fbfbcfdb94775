"""Rule ``border``: bars above and below, left and right, or a frame, all of one colour and with a straight inner edge.

A plain ground is no border: what stands on it touches it little by little, while a bar ends along its whole length at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data.images import Pixels
from trainer.lint.finding import Finding, Severity
from trainer.lint.grey import within
from trainer.lint.view import View

WORKING = 384
"""Longer side of the picture that is looked at."""
TOLERANCE = 14
"""Levels that a bar's pixels may lie from its colour: JPEG rings at its edge."""
UNIFORM = 0.97
"""Share of a row that must have the bar's colour."""
ABRUPT = 0.6
"""Share of the first row behind a bar that must not."""
THINNEST = 0.008
THICKEST = 0.45


@dataclass(frozen=True)
class Border:
    """Share of the picture that the bars take at the left, top, right and bottom; all 0 where there are none."""

    left: float = 0.0
    top: float = 0.0
    right: float = 0.0
    bottom: float = 0.0
    ground: tuple[int, int, int] | None = None
    """Colour of the whole outline, where it has one."""

    @property
    def sides(self) -> list[str]:
        """The sides that have a bar."""
        return [side for side in ("left", "top", "right", "bottom") if getattr(self, side)]


def measure(pixels: Pixels) -> Border:
    """The border of a picture: bars count in opposite pairs of one colour."""
    small = within(pixels, WORKING).astype(np.int16)
    top, bottom = _pair(small)
    height = small.shape[0]
    inner = small[round(top * height) : height - round(bottom * height)]
    left, right = _pair(inner.transpose(1, 0, 2))
    if not top:  # a frame's upper and lower bars show only once those at the sides are known
        width = small.shape[1]
        top, bottom = _pair(small[:, round(left * width) : width - round(right * width)])
    return Border(left, top, right, bottom, _ground(small))


def inside(pixels: Pixels, found: Border) -> Pixels:
    """What a border encloses."""
    height, width = pixels.shape[:2]
    top, left = round(found.top * height), round(found.left * width)
    return pixels[top : height - round(found.bottom * height), left : width - round(found.right * width)]


def border(view: View) -> Iterator[Finding]:
    """Bars or a frame: the adapter would learn to draw them. Where most pictures stand on the same ground, it is the ground."""
    for picture in view.pictures:
        sides = picture.measures.border.sides
        if sides and not _is_ground(picture.measures.border, view):
            share = max(getattr(picture.measures.border, side) for side in sides)
            what = "a frame" if len(sides) == 4 else f"bars at {' and '.join(sides)}"
            problem = f"{what} of one colour, up to {share:.0%} of the picture: it will be learnt as part of the look"
            yield Finding("border", Severity.WARNING, (picture.name,), problem, "crop the picture to what is inside")


def _is_ground(found: Border, view: View) -> bool:
    """Whether more pictures have this colour all around without a straight inner edge than with one."""
    alike = [p.measures.border for p in view.pictures if _near(found.ground, p.measures.border.ground)]
    return sum(not other.sides for other in alike) > len(alike) / 2


def _near(one: tuple[int, int, int] | None, other: tuple[int, int, int] | None) -> bool:
    return bool(one and other) and max(abs(a - b) for a, b in zip(one or (), other or (), strict=True)) <= 2 * TOLERANCE


def _ground(rows: NDArray[np.int16]) -> tuple[int, int, int] | None:
    """The colour of the outermost pixels, where nearly all have it."""
    outline = np.concatenate([rows[0], rows[-1], rows[:, 0], rows[:, -1]])
    colour = np.median(outline, 0)
    if (np.abs(outline - colour).max(-1) <= TOLERANCE).mean() < 0.8:
        return None
    return int(colour[0]), int(colour[1]), int(colour[2])


def _pair(rows: NDArray[np.int16]) -> tuple[float, float]:
    """Shares of the bars at the first and last rows; both 0 unless both are there in one colour."""
    (first, colour), (last, other) = _bar(rows), _bar(rows[::-1])
    if not first or not last or np.abs(colour - other).max() > 2 * TOLERANCE:
        return 0.0, 0.0
    return first, last


def _bar(rows: NDArray[np.int16]) -> tuple[float, NDArray[np.int16]]:
    """Share of the height that the bar at the first rows takes, 0 where there is none, and its colour."""
    colour = np.median(rows[:2].reshape(-1, 3), 0).astype(np.int16)
    far = np.abs(rows - colour) > TOLERANCE
    differs = (far[..., 0] | far[..., 1] | far[..., 2]).mean(1)
    plain = differs <= 1 - UNIFORM
    depth = int(np.argmin(plain)) if not plain.all() else 0
    share = depth / len(rows)
    behind = differs[depth : depth + 3].max(initial=0)
    is_bar = THINNEST <= share <= THICKEST and depth >= 2 and behind >= ABRUPT
    return (share if is_bar else 0.0), colour
