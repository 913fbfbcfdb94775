"""Held-out pictures: always the same ones, never trained on, nothing lost."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.trainer.data import pictures
from trainer.config import ValidationConfig
from trainer.data import Dataset, hold_out, scan
from trainer.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(10):
        pictures.save(tmp_path / "in", f"{i}.png", caption="a", seed=i)
    return tmp_path / "in"


def held(pictures_in: Path, dataset: Dataset | None = None, **validation: object) -> Dataset:
    data = pictures.settings(pictures_in)
    return hold_out(dataset or scan(data), ValidationConfig(**validation), data)


def names(items: tuple) -> list[str]:
    return [item.path.name for item in items]


@pytest.mark.acts("validation.count", "validation.share")
@pytest.mark.parametrize(("validation", "number"), [({"count": 3}, 3), ({"share": 0.2}, 2), ({"share": 0.01}, 1)])
def test_count_and_share_split_the_set(folder, validation, number):
    split = held(folder, **validation)
    assert len(split.held_out) == number
    assert sorted(names(split.items) + names(split.held_out)) == sorted(path.name for path in folder.glob("*.png"))
    assert split.report.pictures == 10 - number and names(split.validation.items) == names(split.held_out)
    assert any(note.startswith("validation") and names(split.held_out)[0] in note for note in split.notes)


def test_the_choice_goes_by_the_pixels_alone(folder, tmp_path):
    before = {item.sha256 for item in held(folder, count=3).held_out}
    moved = shutil.copytree(folder, tmp_path / "moved")
    (moved / "0.png").rename(moved / "zero.png")
    (moved / "0.txt").rename(moved / "zero.txt")
    assert {item.sha256 for item in held(moved, count=3).held_out} == before
    assert {item.sha256 for item in held(folder, count=2).held_out} < before


def test_equal_pictures_stay_together(folder):
    chosen = held(folder, count=1).held_out[0].path
    shutil.copy(chosen, folder / "twin.png")
    split = held(folder, count=1)
    assert sorted(names(split.held_out)) == sorted([chosen.name, "twin.png"])
    assert not {item.sha256 for item in split.items} & {item.sha256 for item in split.held_out}


def test_regularisation_pictures_are_never_held_out(folder):
    dataset = scan(pictures.settings(folder))
    chosen = held(folder, dataset, count=5).held_out
    items = tuple(replace(item, regularization=item.path in {c.path for c in chosen}) for item in dataset.items)
    split = held(folder, replace(dataset, items=items), count=4)
    assert not any(item.regularization for item in split.held_out) and len(split.items) == 6


@pytest.mark.acts("validation.folder")
def test_another_folder_leaves_the_training_pictures_alone(folder, tmp_path):
    pictures.save(tmp_path / "out", "new.png", caption="b", seed=99)
    split = held(folder, folder=str(tmp_path / "out"))
    assert len(split.items) == 10 and names(split.held_out) == ["new.png"]
    assert split.validation.sources[split.held_out[0].source].path == tmp_path / "out"
    assert split.fingerprint == scan(pictures.settings(folder)).fingerprint
    with pytest.raises(InputError, match="validation.folder"):
        held(folder, folder=str(tmp_path / "nowhere"))


def test_something_must_be_left_to_train_on(folder):
    with pytest.raises(InputError, match="none would be left"):
        held(folder, count=10)


def test_without_validation_the_set_is_as_it_was(folder):
    dataset = scan(pictures.settings(folder))
    assert held(folder, dataset) is dataset
