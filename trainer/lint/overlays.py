"""Rule ``overlay``: the same thing at the same place of several pictures, such as a logo or a watermark.

The edges of nine patches (corners, sides, middle) are compared between pictures: patches whose gradients correlate by
``SAME`` or more although the pictures differ hold the same overlay. (After Dekel et al., "On the Effectiveness of Visible
Watermarks", CVPR 2017, which finds them as what all gradients share.)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from trainer.data.images import Pixels
from trainer.lint.finding import Finding, Severity
from trainer.lint.grey import grey, within
from trainer.lint.view import View

SHORT = 160
"""Shorter side of the picture that is looked at; patches keep their distance from the edges."""
PATCH = (24, 56)
"""Height and width of a patch."""
PLACES = tuple(f"{y} {x}".strip() for y in ("top", "middle", "bottom") for x in ("left", "", "right"))
SAME = 0.55
FEWEST = 3
"""Pictures that must share an overlay."""
LEAST_EDGES = 0.02
"""Share of a patch's pixels that must lie on edges."""
LEAST_TURN = 0.1
"""Least share of the gradients' energy across their main direction: a single straight edge is no overlay."""

Patches = NDArray[np.float16]
"""[9, values]: gradients of each patch, of unit length; zero where the patch has no edges."""


def measure(pixels: Pixels) -> Patches:
    """The patches of one picture."""
    height, width = pixels.shape[:2]
    light = grey(within(pixels, max(SHORT, round(SHORT * max(height, width) / min(height, width)))))
    slopes = np.stack([np.gradient(light, axis=0), np.gradient(light, axis=1)], -1)
    slopes = np.clip(slopes, -40, 40)
    found = np.zeros((len(PLACES), PATCH[0] * PATCH[1] * 2), np.float32)
    for index, (top, left) in enumerate(_corners(light.shape)):
        patch = slopes[top : top + PATCH[0], left : left + PATCH[1]]
        if patch.shape[:2] == PATCH and _holds_a_shape(patch):
            found[index] = patch.ravel() / np.linalg.norm(patch)
    return found.astype(np.float16)


def overlay(view: View) -> Iterator[Finding]:
    """Overlays that at least three different pictures share."""
    if len(view.pictures) < FEWEST:
        return
    patches = np.stack([picture.measures.patches for picture in view.pictures]).astype(np.float32)
    whole = np.einsum("ipk,jpk->ij", patches, patches) / len(PLACES)
    for index, where in enumerate(PLACES):
        alike = patches[:, index] @ patches[:, index].T
        alike = (alike >= SAME) & (whole < SAME * 0.8)
        np.fill_diagonal(alike, False)
        members = np.flatnonzero(alike.sum(1) >= FEWEST - 1)
        if len(members) >= FEWEST:
            names = tuple(view.pictures[i].name for i in members)
            problem = f"the same thing at the {where} of {len(names)} pictures: a logo, a watermark or a date"
            yield Finding("overlay", Severity.WARNING, names, problem, "crop it away, paint it over, or mask it out")


def _holds_a_shape(patch: NDArray[np.float32]) -> bool:
    """Whether there are edges, and in more than one direction."""
    if (np.hypot(patch[..., 0], patch[..., 1]) > 6).mean() < LEAST_EDGES:
        return False
    energy = np.linalg.eigvalsh(np.einsum("yxi,yxj->ij", patch, patch))
    return bool(energy[0] >= LEAST_TURN * energy[1])


def _corners(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Top and left of each patch: a margin of 2 at the edges, and centred between."""
    tops, lefts = ((2, (side - length) // 2, side - length - 2) for side, length in zip(shape, PATCH, strict=True))
    return [(max(top, 0), max(left, 0)) for top in tops for left in lefts]
