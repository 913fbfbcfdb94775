"""The shipped pocket assets are complete, small, and what the recipe says they are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.judge import Judge
from bench.pocket.captions import Captions, plain_caption
from bench.pocket.concepts import all_concepts
from bench.pocket.export import folder_bytes
from bench.pocket.judging import style_names
from bench.pocket.looks import LOOKS, STYLES
from bench.pocket.pictures import load_atlas
from bench.pocket.styles import SETS, TRAINED

ASSETS = Path(__file__).parents[2] / "assets"
NAMES = [concept.name for concept in all_concepts()]


def test_enough_different_concepts_and_looks():
    assert len(set(NAMES)) == len(NAMES) >= 240
    assert len(LOOKS) >= 4
    assert not set(STYLES) & set(LOOKS)


def test_every_look_paints_every_source_within_range():
    atlas = load_atlas()
    for look in (LOOKS | STYLES).values():
        image = look.paint(atlas[look.source][3])
        assert image.shape == (64, 64, 3)
        assert image.min() >= -0.01 and image.max() <= 1.01


def test_captions_repeat_by_seed_and_vary():
    first, second = Captions(1), Captions(1)
    drawn = [first.draw(5, "flat on blue") for _ in range(300)]
    assert drawn == [second.draw(5, "flat on blue") for _ in range(300)]
    assert 0.04 < drawn.count("") / len(drawn) < 0.18
    assert plain_caption(NAMES.index("fox"), "flat on blue") == "fox, flat look, on blue"


@pytest.mark.parametrize("style", SETS)
def test_style_folder_is_complete_and_split(style: str):
    train, truth = (sorted((ASSETS / "styles" / style / part).glob("*.png")) for part in ("train", "truth"))
    assert len(train) == len(TRAINED) == 12
    assert len(truth) >= 60
    assert not {p.stem for p in train} & {p.stem for p in truth}
    assert {p.stem.replace("_", " ") for p in truth} <= set(NAMES)
    for picture in (*train, *truth):
        caption = picture.with_suffix(".txt").read_text(encoding="utf-8").strip()
        assert caption == f"{SETS[style].trigger}, {picture.stem.replace('_', ' ')}"
    assert Image.open(truth[0]).size == (64, 64)


def test_judge_names_true_pictures():
    judge, atlas = Judge.load(), load_atlas()
    assert judge.concepts == NAMES
    assert judge.styles == style_names()
    images = np.stack([STYLES["duotone"].paint(p) for p in atlas["noto"]]).transpose(0, 3, 1, 2)
    pictures = torch.from_numpy(images.copy())
    ranks = judge.concept_ranks(pictures, torch.arange(len(NAMES)))
    assert (ranks <= 5).float().mean() > 0.9
    assert judge.style_probs(pictures)["duotone"].mean() > 0.9
    assert judge.distance(pictures, pictures).max() == 0


def test_the_base_and_all_assets_are_small():
    assert sum(f.stat().st_size for f in (ASSETS / "pocket").rglob("*.safetensors")) < 30e6
    assert sum(folder_bytes(ASSETS / part) for part in ("pocket", "judge", "styles")) < 30e6
    assert (ASSETS / "pocket" / "tokenizer" / "merges.txt").exists()
