"""Rules ``blurred`` and ``upscaled``: detail that a picture's size promises and its pixels do not hold.

Width of edges. A step blurred by a Gaussian of deviation s has ``sum |gradient|^2 / sum laplacian^2 = 2 s^2`` across it,
whatever its contrast; s is read off in tiles of 16 pixels where the gradient is strongest, and the sharpest of those count,
so that a sharp subject before a soft ground is sharp. It is measured on the picture as training sees it: a large soft
picture that is trained small is as good as a sharp one.

Traces of resampling. Interpolated pixels vary less the farther they lie from the original ones, so the mean size of
differences along rows or columns swings with the period of the enlargement, and its spectrum has one lone line at
1 / factor, or at its alias (Gallagher, "Detection of linear and cubic interpolation in JPEG compressed images", CRV 2005).
Differences of order 1 show even factors, of order 2 the others. JPEG has lines of its own at multiples of 1/8, so a picture
that was enlarged 2 or 4 times and then saved as JPEG shows only as soft.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data import images
from trainer.data.buckets import Size
from trainer.data.images import Pixels
from trainer.lint.finding import Finding, Severity
from trainer.lint.grey import Grey, grey
from trainer.lint.view import Picture, View

TILE = 16
BLURRED = 0.65
"""Deviation of edges, in pixels of the training picture, from which a picture counts as blurred; sharp ones have 0.3 to 0.45."""
SOFT = 0.42
"""The same, from which a trace of resampling is believed."""
TRACE = 5.0
"""Height of the line over the median of the spectrum."""
LONE = 1.5
"""Height of the line over the next one: a fence has many."""
WIDTH_OF_FACTOR = (0.2, 0.6)
"""Edges of a picture enlarged f times are this many times f pixels wide, by the kernel."""
USUAL_WIDTH = 0.36
GRID = 6.0
"""Height of the line at 3/8 in the differences of order 2 from which a picture has been a JPEG at this size."""

_QUANTISED = 1 / 12
"""Variance of rounding to whole levels; the gradient has it once, the Laplacian 4^2 + 4 times."""
_LENGTH = 1024
_FREQUENCIES = np.fft.rfftfreq(_LENGTH)
_LOWEST, _BELOW = 0.22, 0.15
"""Factors up to about 4.5 are looked for; lines down to ``_BELOW`` tell whether a line is alone."""
_JPEG = np.array([0.25, 0.375, 0.5])

Spectrum = NDArray[np.float64]


@dataclass(frozen=True)
class Sharpness:
    """``width``: deviation of edges in pixels of the training picture; ``factor``: of enlargement, 1 where none shows."""

    width: float
    factor: float


def measure(pixels: Pixels, bucket: Size) -> Sharpness:
    """How sharp a picture is once it is ``bucket`` large, and how much it was enlarged before."""
    seen = images.fit(pixels, bucket) if bucket[0] < pixels.shape[1] and bucket[1] < pixels.shape[0] else pixels
    repeated = min(_repeats(pixels), _repeats(pixels.transpose(1, 0, 2)))
    if repeated > 1:
        return Sharpness(edge_width(grey(seen)), repeated)
    width = edge_width(grey(seen))
    return Sharpness(width, enlargement(_middle(grey(pixels))) if width >= SOFT else 1.0)


def edge_width(picture: Grey) -> float:
    """Deviation of the sharpest strong edges in pixels; 0 for a picture without edges."""
    centre = picture[1:-1, 1:-1]
    left, right, up, down = picture[1:-1, :-2], picture[1:-1, 2:], picture[:-2, 1:-1], picture[2:, 1:-1]
    gradient = _tiles(((right - left) / 2) ** 2 + ((down - up) / 2) ** 2) - _QUANTISED
    laplacian = _tiles((left + right + up + down - 4 * centre) ** 2) - 20 * _QUANTISED
    if not gradient.size or gradient.max() < 1:
        return 0.0
    strong = gradient >= max(1.0, float(np.quantile(gradient, 0.9)))
    ratio = gradient[strong] / (2 * np.maximum(laplacian[strong], 0.02 * gradient[strong]))
    return float(np.quantile(np.sqrt(ratio), 0.25))


def enlargement(picture: Grey) -> float:
    """The factor by which interpolation enlarged a picture, from the lone line in its spectra; 1 where there is none."""
    if min(picture.shape) < 4 * TILE:
        return 1.0
    first, second = ((_spectrum(picture, order) + _spectrum(picture.T, order)) / 2 for order in (1, 2))
    reach = 3 / min(picture.shape)
    near = np.abs(_FREQUENCIES[:, None] - _JPEG) < reach
    usable = _FREQUENCIES > _LOWEST
    if second[near[:, 1]].max() >= GRID:
        usable &= ~near.any(1)
    lines = (
        _line(first, usable, reach, LONE),
        _line(second, usable, reach, LONE),
        _line(np.sqrt(first * second), usable, reach, 1),
    )
    height, frequency = max(lines)
    if height < TRACE:
        return 1.0
    expected = edge_width(picture) / USUAL_WIDTH
    return min((1 / frequency, 1 / (1 - frequency)), key=lambda factor: abs(np.log(factor / expected)))


def blurred(view: View) -> Iterator[Finding]:
    """Soft at training size, and no trace of an enlargement explains it."""
    for picture in view.pictures:
        sharpness = picture.measures.sharpness
        if sharpness.width >= BLURRED and not _is_enlarged(picture):
            yield Finding(
                "blurred",
                Severity.WARNING,
                (picture.name,),
                f"edges are {sharpness.width:.1f} pixels wide at training size, sharp ones 0.4: out of focus, moved, or enlarged",
                "take a sharper version, or train at a lower data.resolution",
            )


def upscaled(view: View) -> Iterator[Finding]:
    """Enlarged before it came here, and too little was there before for the size it is trained at."""
    for picture in view.pictures:
        if _is_enlarged(picture):
            factor = picture.measures.sharpness.factor
            was = f"{picture.size[0] / factor:.0f}x{picture.size[1] / factor:.0f}"
            yield Finding(
                "upscaled",
                Severity.WARNING,
                (picture.name,),
                f"enlarged about {factor:.2g} times: it has the detail of {was}, and is trained at {_text(picture.bucket)}",
                "take the original, or train at a lower data.resolution",
            )


def _is_enlarged(picture: Picture) -> bool:
    """Whether the enlargement that was found explains how soft the picture is, and training would see it."""
    sharpness, factor = picture.measures.sharpness, picture.measures.sharpness.factor
    if factor == 1:
        return False
    shrunk = max(1.0, min(picture.size[0] / picture.bucket[0], picture.size[1] / picture.bucket[1]))
    if shrunk >= factor:
        return False
    low, high = WIDTH_OF_FACTOR
    is_whole = sharpness.width < SOFT  # pixels repeated, not interpolated
    return is_whole or low * factor <= sharpness.width * shrunk <= high * factor


def _line(spectrum: Spectrum, usable: NDArray[np.bool_], reach: float, lead: float) -> tuple[float, float]:
    """Height and frequency of the highest usable line; height 0 where it does not stand out from the others and from lower ones.

    What both orders show needs no lead over the lines of the picture's own patterns, which are lower.
    """
    top = int(np.where(usable, spectrum, 0).argmax())
    height, frequency = float(spectrum[top]), float(_FREQUENCIES[top])
    of_it = np.zeros_like(usable)
    for echo in (frequency, 2 * frequency, 1 - 2 * frequency):
        of_it |= np.abs(_FREQUENCIES - echo) < 2 * reach
    rest = float(np.where(usable & ~of_it, spectrum, 0).max())
    lower = float(spectrum[(_FREQUENCIES > _BELOW) & (_FREQUENCIES <= _LOWEST)].max())
    return (height if height > LONE * rest and height > lead * lower else 0.0), frequency


def _spectrum(picture: Grey, order: int) -> Spectrum:
    """Spectrum of how the size of the differences along rows goes from column to column, over its own median."""
    sizes = np.abs(np.diff(picture, n=order, axis=1))
    sizes = np.minimum(sizes, np.quantile(sizes, 0.95) + 1)
    row = np.log(sizes.mean(0) + 0.1)[:_LENGTH]
    row = row - np.median(np.lib.stride_tricks.sliding_window_view(np.pad(row, 4, mode="reflect"), 9), 1)
    spectrum = np.abs(np.fft.rfft(row * np.hanning(len(row)), _LENGTH))
    return spectrum / (np.median(spectrum[_FREQUENCIES > _LOWEST]) + 1e-9)


def _repeats(pixels: Pixels) -> int:
    """How often every column is repeated: the common divisor of the places where a column differs from the one before."""
    changes = np.flatnonzero((pixels[:, 1:] != pixels[:, :-1]).any((0, 2))) + 1
    return int(np.gcd.reduce(changes)) if len(changes) >= TILE else 1


def _tiles(values: Grey) -> Grey:
    height, width = (side // TILE * TILE for side in values.shape)
    return values[:height, :width].reshape(height // TILE, TILE, width // TILE, TILE).mean((1, 3)).ravel()


def _middle(picture: Grey) -> Grey:
    """At most 1024 pixels a side: enough for the lines, and quick for the largest picture."""
    top, left = (max(0, (side - _LENGTH) // 2) for side in picture.shape)
    return picture[top : top + _LENGTH, left : left + _LENGTH]


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
