"""A scene: a clean set with faults put into it on purpose, and what the rules must say of it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from bench.lint.pictures import KINDS, Pixels, draw
from trainer.lint.measures import measure
from trainer.lint.view import Picture, View
from trainer.presets import ROOT

SIDE = 320
FIRST_SEED = 2000
"""The rules' thresholds were set on pictures of other seeds, from 0."""
STYLES = ROOT / "assets" / "styles"
THINGS = (
    "a red fox in the snow", "two boats by the pier", "an old clock on a wall", "a girl with a blue umbrella", "bread and cheese",
    "a lighthouse at night", "the market in the rain", "a cat asleep on books", "three birds on a wire", "a bridge over a river",
    "a garden with a stone path", "an empty train station",
)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """``faults`` are the pictures (for rules of the whole set: the words) that ``rule`` must name; others it must not.

    ``beside`` are rules that may speak of them too, since the fault is theirs as well.
    """

    rule: str
    strength: str
    view: View
    faults: frozenset[str]
    beside: frozenset[str] = field(default_factory=frozenset)


def picture(name: str, pixels: Pixels, caption: str = "", trigger: str = "mystyle") -> Picture:
    """A picture as the lint sees it, of pixels that never were a file."""
    size = pixels.shape[1], pixels.shape[0]
    digest = hashlib.sha256(repr(size).encode() + pixels.tobytes()).hexdigest()
    return Picture(name, Path(name), size, size, digest, frozenset(), (caption,), ".txt", measure(pixels, size), trigger)


@cache
def pixels_of(kind: str, seed: int) -> Pixels:
    """Drawn once a process."""
    return draw(kind, FIRST_SEED + seed, (SIDE, SIDE))


@cache
def clean(count: int = 4) -> tuple[Picture, ...]:
    """``count`` pictures of each kind, with captions that no rule complains of."""
    names = [(kind, seed) for seed in range(count) for kind in KINDS]
    return tuple(
        picture(
            f"{kind}-{seed}.png",
            pixels_of(kind, seed),
            f"mystyle, {THINGS[index % len(THINGS)]} {index // len(THINGS) or ''}".strip(),
        )
        for index, (kind, seed) in enumerate(names)
    )


@cache
def style(name: str) -> tuple[Picture, ...]:
    """A shipped style's twelve training pictures with their captions."""
    files = sorted((STYLES / name / "train").glob("*.png"))
    captions = [file.with_suffix(".txt").read_text(encoding="utf-8").strip() for file in files]
    trigger = captions[0].partition(",")[0]
    pixels = [np.array(Image.open(file).convert("RGB")) for file in files]
    return tuple(picture(file.name, *rest, trigger) for file, *rest in zip(files, pixels, captions, strict=True))


def view(pictures: Iterable[Picture], **more: object) -> View:
    """The view of a set of such pictures."""
    settings: dict[str, object] = {"resolution": SIDE, "bucket_step": 64, "batch_size": 1}
    return View(tuple(pictures), **(settings | more))  # type: ignore[arg-type]


def spoilt(rule: str, strength: str, change: Callable[[Pixels], Pixels], beside: Iterable[str] = ()) -> Scene:
    """One picture of each kind, those of the last seed, replaced by what ``change`` makes of it."""
    pictures = list(clean())
    faults = []
    for index in range(len(pictures) - len(KINDS), len(pictures)):
        kind, _, seed = pictures[index].name.removesuffix(".png").partition("-")
        changed = picture(pictures[index].name, change(pixels_of(kind, int(seed))), pictures[index].caption)
        pictures[index] = changed
        faults.append(changed.name)
    return Scene(rule, strength, view(pictures), frozenset(faults), frozenset(beside))


def captioned(rule: str, strength: str, texts: Iterable[str], **changes: object) -> Scene:
    """The first pictures with other captions; ``changes`` are other fields of these pictures."""
    pictures = list(clean())
    faults = []
    for index, text in enumerate(texts):
        pictures[index] = replace(pictures[index], captions=(text,), **changes)  # type: ignore[arg-type]
        faults.append(pictures[index].name)
    return Scene(rule, strength, view(pictures), frozenset(faults))


def jpeg(pixels: Pixels, quality: int) -> Pixels:
    """Saved as JPEG and read back."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return np.array(Image.open(stream).convert("RGB"))
