"""``--caption``: which files are written, and what is kept."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.trainer.tagger.models import save_wd14
from trainer import cli


@pytest.fixture
def model(tmp_path):
    """A tagger that always says ``red fox`` (0.9), and ``snow`` with 0.4."""
    chances = np.array([0.9, 0.9, 0.1, 0.4, 0.1, 0.1])
    return save_wd14(tmp_path / "wd14", np.zeros((3, 6)), np.log(chances / (1 - chances)))


@pytest.fixture
def folder(tmp_path):
    """Three pictures; one has a caption in each form that is read."""
    place = tmp_path / "pictures"
    place.mkdir()
    for name in ("a.png", "b.jpg", "c.png"):
        Image.fromarray(np.full((9, 9, 3), 99, np.uint8)).save(place / name)
    (place / "b.caption").write_text("mine")
    (place / "c.txt").write_text("mine too")
    return place


def caption(folder, model, *more):
    return cli.main(["--caption", str(folder), "--captioner", str(model), *more])


def test_captions_that_are_there_stay(folder, model, capsys):
    assert caption(folder, model, "--trigger", "mystyle") == 0
    assert (folder / "a.txt").read_text() == "mystyle, red fox, snow\n"
    assert not (folder / "b.txt").exists() and (folder / "c.txt").read_text() == "mine too"
    shown = capsys.readouterr().out
    assert "1 caption written" in shown and "2 pictures kept" in shown and "--overwrite" in shown


def test_overwrite_and_threshold(folder, model):
    assert caption(folder, model, "--overwrite", "--threshold", "0.5") == 0
    assert [(folder / f"{name}.txt").read_text() for name in "abc"] == ["red fox\n"] * 3
    assert (folder / "b.caption").read_text() == "mine"
    assert sorted(file.suffix for file in folder.iterdir()) == [".caption", ".jpg", ".png", ".png", ".txt", ".txt", ".txt"]


def test_a_broken_picture_is_told_when_the_others_are_done(folder, model, capsys):
    (folder / "0.png").write_bytes((folder / "a.png").read_bytes()[:40])
    assert caption(folder, model) == 2
    assert (folder / "a.txt").read_text() == "red fox, snow\n" and not (folder / "0.txt").exists()
    assert "0.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--caption", "x"], "give --captioner"),
        (["--caption", "x", "--captioner", "y", "--threshold", "2"], "--threshold 2"),
        (["--captioner", "y"], "--captioner has no effect without --caption"),
        (["--overwrite"], "--overwrite has no effect without --caption"),
        (["--threshold", "0.2", "--lint", "x"], "--threshold has no effect without --caption"),
        (["--json", "x"], "--json has no effect without --lint"),
        (["--caption", "x", "--lint", "y"], "not allowed with"),
        (["--resume", "x", "--caption", "y"], "cannot stand beside --resume"),
    ],
)
def test_options_that_would_do_nothing_are_refused(argv, words, capsys):
    assert cli.main(argv) == 2
    assert words in capsys.readouterr().err
