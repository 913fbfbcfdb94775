"""Signatures: hashes against their definitions, groups of copies, and the largest is kept."""

from __future__ import annotations

import numpy as np

from bench.lint.faults import COPIES
from bench.lint.scene import clean, picture, pixels_of, view
from trainer.lint import duplicates
from trainer.lint.grey import grey, resized


def test_the_hashes_are_what_they_are_called():
    pixels = pixels_of("leaves", 0)
    first, second = duplicates.measure(pixels).hashes
    means = grey(resized(pixels, (9, 8)))
    assert first == int("".join(str(int(means[y, x + 1] > means[y, x])) for y in range(8) for x in range(8)), 2)
    small = grey(resized(pixels, (32, 32))).astype(np.float64)
    angle = np.pi * (2 * np.arange(32) + 1) / 64
    terms = np.array([
        [(small * np.outer(np.cos(v * angle), np.cos(u * angle))).sum() for u in range(8)] for v in range(8)
    ])  # fmt: skip
    assert second == int("".join(str(int(term > np.median(terms))) for term in terms.ravel()), 2)


def test_a_mirrored_picture_has_the_mirrored_hashes():
    signature = duplicates.measure(pixels_of("leaves", 0))
    assert duplicates.measure(pixels_of("leaves", 0)[:, ::-1]).hashes == signature.mirrored != signature.hashes


def test_copies_of_copies_are_one_finding_and_the_largest_is_kept():
    pixels = pixels_of("portrait", 1)
    copies = [picture(f"{i}.png", COPIES[how](pixels)) for i, how in enumerate(("half the size", "mirrored", "JPEG 30"))]
    (finding,) = duplicates.near_duplicate(view([*clean(), *copies]))
    assert finding.pictures == ("portrait-1.png", "0.png", "1.png", "2.png")
    assert "mirrored" in finding.problem and "portrait-1.png" in finding.fix


def test_a_bar_does_not_hide_a_copy():
    barred = np.pad(pixels_of("leaves", 0), ((60, 60), (0, 0), (0, 0)))
    (finding,) = duplicates.near_duplicate(view([*clean(), picture("barred.png", barred)]))
    assert finding.pictures == ("leaves-0.png", "barred.png") and "mirrored" not in finding.problem


def test_even_pictures_agree_only_in_their_colour():
    even = [picture(name, np.full((64, 64, 3), level, np.uint8)) for name, level in (("a", 10), ("b", 11), ("c", 200))]
    (finding,) = duplicates.near_duplicate(view(even))
    assert finding.pictures == ("a", "b")
