"""Rules ``duplicate``, ``near-duplicate`` and ``leak``: the same picture twice, also mirrored, re-encoded or resized.

Two hashes of 64 bits find candidates: dHash, whether each of 9x8 means is darker than its right neighbour, and pHash, whether
each of the 8x8 lowest cosine terms of a 32x32 reduction lies over their median (Krawetz, "Looks Like It", 2011). Pairs near in
either are the same where their 16x16 colour reductions also agree: correlation at least ``SAME``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data.images import Pixels
from trainer.lint.finding import Finding, Severity
from trainer.lint.grey import grey, resized
from trainer.lint.view import Picture, View

NEAR = 12
"""Bits of 64 that may differ in a candidate."""
SAME = 0.88
SIDE = 16
ROWS = 256
"""Pictures compared with all others at once."""

_FREQUENCY, _PLACE = np.arange(8)[:, None], np.arange(32)
_COSINES = np.cos(np.pi * (2 * _PLACE + 1) * _FREQUENCY / 64)
"""[8, 32]: the lowest rows of the cosine transform of length 32."""


@dataclass(frozen=True)
class Signature:
    """``hashes``: dHash and pHash; ``reduced``: 16x16x3 in 0 .. 255. ``mirrored`` is the same of the mirror picture's hashes."""

    hashes: tuple[int, int]
    mirrored: tuple[int, int]
    reduced: NDArray[np.float32]


def measure(pixels: Pixels) -> Signature:
    """The signature of a picture."""
    small = resized(pixels, (SIDE, SIDE)).astype(np.float32)
    return Signature(_hashes(pixels), _hashes(pixels[:, ::-1]), small)


def duplicate(view: View) -> Iterator[Finding]:
    """Pictures whose pixels are equal."""
    groups: dict[str, list[Picture]] = {}
    for picture in view.pictures:
        groups.setdefault(picture.sha256, []).append(picture)
    for group in groups.values():
        if len(group) > 1:
            problem = f"the same picture {len(group)} times, pixel by pixel: it counts {len(group)} times as much as others"
            fix = f"keep {group[0].name}; to weigh a picture more, use repeats"
            yield Finding("duplicate", Severity.WARNING, tuple(picture.name for picture in group), problem, fix)


def near_duplicate(view: View) -> Iterator[Finding]:
    """Pictures that look the same, though their pixels differ."""
    groups: list[set[int]] = []
    pairs: dict[tuple[int, int], bool] = {}
    for i, j, mirrored in _pairs(view.pictures, view.pictures):
        pairs[i, j] = pairs.get((i, j), True) and mirrored
    for i, j in pairs:
        joined = {i, j}.union(*(group for group in groups if group & {i, j}))
        groups = [group for group in groups if not group & joined] + [joined]
    for group in groups:
        members = [view.pictures[i] for i in sorted(group)]
        largest = max(members, key=lambda picture: picture.size[0] * picture.size[1])
        is_mirrored = any(pairs.get((i, j)) for i in group for j in group)
        problem = f"{len(members)} pictures look the same{', mirrored or not' if is_mirrored else ''}"
        names = tuple(picture.name for picture in members)
        yield Finding(
            "near-duplicate", Severity.WARNING, names, problem, f"keep {largest.name}, the largest, and take the rest out"
        )


def leak(view: View) -> Iterator[Finding]:
    """Held-out pictures that are also trained on: validation would praise what was learnt by heart."""
    seen: set[tuple[int, int]] = set()
    hashes = {picture.sha256: i for i, picture in enumerate(view.pictures)}
    equal = [(hashes[held.sha256], j) for j, held in enumerate(view.held_out) if held.sha256 in hashes]
    for i, j in [*equal, *((i, j) for i, j, _ in _pairs(view.pictures, view.held_out))]:
        if (i, j) not in seen:
            seen.add((i, j))
            names = view.pictures[i].name, view.held_out[j].name
            problem = f"the held-out picture {names[1]} is the training picture {names[0]}"
            yield Finding("leak", Severity.WARNING, names, problem, "take it out of one of the two folders")


def _pairs(first: Sequence[Picture], second: Sequence[Picture]) -> Iterator[tuple[int, int, bool]]:
    """Pairs that look the same and are not equal, and whether one is mirrored; within one set each pair once."""
    if not first or not second:
        return
    plain = np.array([picture.measures.signature.hashes for picture in second], np.uint64)
    for start in range(0, len(first), ROWS):
        block = first[start : start + ROWS]
        for mirrored in (False, True):
            asked = [p.measures.signature.mirrored if mirrored else p.measures.signature.hashes for p in block]
            far = np.bitwise_count(np.array(asked, np.uint64)[:, None] ^ plain[None]).min(-1)
            for row, j in np.argwhere(far <= NEAR).tolist():
                i = start + row
                if (first is second and i >= j) or first[i].sha256 == second[j].sha256:
                    continue
                if _agree(first[i], second[j], mirrored):
                    yield i, j, mirrored


def _agree(one: Picture, other: Picture, mirrored: bool) -> bool:
    """Correlation of the reductions, best of nine small shifts so that a slight crop does not hide it."""
    left, right = one.measures.signature.reduced, other.measures.signature.reduced
    left = left[:, ::-1] if mirrored else left
    inner = right[1:-1, 1:-1]
    size = SIDE - 2
    shifts = [left[y : y + size, x : x + size] for y in range(3) for x in range(3)]
    return max(_correlation(shift, inner) for shift in shifts) >= SAME


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Pearson's over all values of two plain arrays; two even pictures agree where their colour does."""
    a, b = one - one.mean((0, 1)), other - other.mean((0, 1))
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    if scale < a.size:  # deviations below one level
        return float(np.abs(one - other).max() < 4)
    return float((a * b).sum()) / scale


def _hashes(pixels: Pixels) -> tuple[int, int]:
    means = grey(resized(pixels, (9, 8)))
    terms = _COSINES @ grey(resized(pixels, (32, 32))) @ _COSINES.T
    return _bits(means[:, 1:] > means[:, :-1]), _bits(terms > np.median(terms))


def _bits(values: NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(values).tobytes(), "big")
