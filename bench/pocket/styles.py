"""Writes the held-out styles: 12 captioned training pictures and 100 true pictures of other concepts each."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .concepts import Concept, all_concepts
from .looks import STYLES
from .pictures import SIZE, icon_set, load_atlas, render, svg

TRAIN_SIZE = 256
TRUTH = 100
# Common things of many kinds: an animal's face, a whole animal, fruit, a plant, a vehicle, a tool, clothes ...
TRAINED = (
    "lion", "fish", "apple", "tulip", "car", "rocket", "house", "guitar", "umbrella", "key", "burger", "robot",
)  # fmt: skip


@dataclass(frozen=True)
class Style:
    """`trigger` opens every caption of the set; `about` goes into its README."""

    trigger: str
    about: str


SETS: dict[str, Style] = {
    "duotone": Style("duo style", "a two-ink print (indigo, coral, cream paper) computed from the base's own look"),
    "ink": Style("ink style", "Fluent high contrast: black ink drawings, other shapes than the base's"),
    "blueprint": Style("blueprint style", "white drawing on navy, computed from the base's own look: the ground changes"),
}


def truth_concepts() -> list[Concept]:
    """The concepts measured: an even choice among those that no style set trains on."""
    rest = [concept for concept in all_concepts() if concept.name not in TRAINED]
    return [rest[i * len(rest) // TRUTH] for i in range(TRUTH)]


def write_styles(work: Path, out: Path) -> None:
    """Write every style folder anew. The large training pictures are rendered from the sets, so npm is needed."""
    concepts, atlas = all_concepts(), load_atlas()
    names = [concept.name for concept in concepts]
    for style, text in SETS.items():
        folder, look = out / style, STYLES[style]
        shutil.rmtree(folder, ignore_errors=True)
        icons = icon_set(look.source, work / "npm")
        for name in TRAINED:
            large = render(svg(icons, concepts[names.index(name)].icon), TRAIN_SIZE)
            _write(folder / "train" / name, look.paint(large), f"{text.trigger}, {name}")
        for concept in truth_concepts():
            image = look.paint(atlas[look.source][names.index(concept.name)])
            _write(folder / "truth" / concept.name.replace(" ", "_"), image, f"{text.trigger}, {concept.name}")
        (folder / "README.txt").write_text(_readme(style, text), encoding="utf-8")


def _write(stem: Path, image: np.ndarray, caption: str) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    data = (image.clip(0, 1) * 255).round().astype(np.uint8)
    Image.fromarray(data).save(stem.with_name(stem.name + ".png"), optimize=True)
    stem.with_name(stem.name + ".txt").write_text(caption + "\n", encoding="utf-8")


def _readme(style: str, text: Style) -> str:
    return (
        f"{style}: {text.about}.\n\n"
        f'Trigger: "{text.trigger}", then a comma, then the concept: "{text.trigger}, fox".\n'
        f"train/  {len(TRAINED)} pictures of {TRAIN_SIZE} px with captions, for training an adapter.\n"
        f"truth/  {TRUTH} pictures of {SIZE} px of other concepts, for measurement only: never train on them.\n"
        "The pocket base has seen none of these pictures, nor any other picture in this style.\n"
    )
