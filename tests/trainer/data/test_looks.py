"""What is remembered of pictures between two starts, and what makes it forgotten."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer.data.pictures import save, settings
from trainer.data import images, looks, scan
from trainer.data.looks import Known, Watch


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """Files made by a test count as old."""
    monkeypatch.setattr(looks, "RACE", -3600.0)


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the pictures that were decoded."""
    names: list[str] = []
    real = images.decode

    def decode(path: Path, background: tuple[int, int, int]) -> images.Decoded:
        names.append(path.name)
        return real(path, background)

    monkeypatch.setattr(images, "decode", decode)
    return names


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / "pictures", name, caption="x")
    Image.fromarray(np.full((64, 64), 99, np.uint8)).save(tmp_path / "pictures" / "c.mask.png")
    return tmp_path / "pictures"


def start(folder: Path, **more: object):  # noqa: ANN201
    """One start of a run: reads what the last one kept, and keeps its own."""
    file = folder.parent / "looks.json"
    known = Known.read(file)
    dataset = scan(settings(folder, mask="files", **more), known=known)
    known.write(file)
    return dataset


def test_a_second_start_decodes_nothing_and_finds_the_same(folder, decoded):
    first = start(folder)
    assert sorted(decoded) == ["a.png", "b.png", "c.mask.png", "c.png"]
    decoded.clear()
    assert start(folder) == first and decoded == []


def rewritten_with_its_times(folder):
    """The old size and time of writing: only the time of the change tells."""
    file, before = folder / "a.png", (folder / "a.png").stat()
    file.write_bytes(file.read_bytes())
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    return {}


def other_pixels(folder):
    save(folder, "a.png", seed=1)
    return {}


def another_mask(folder):
    Image.fromarray(np.full((64, 64), 98, np.uint8)).save(folder / "c.mask.png")
    return {}


def another_background(folder):
    return {"background": "black"}


def other_place(folder):
    (folder / "a.png").rename(folder / "d.png")
    (folder / "a.txt").rename(folder / "d.txt")
    return {}


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (rewritten_with_its_times, ["a.png"]),
        (other_pixels, ["a.png"]),
        (another_mask, ["c.mask.png", "c.png"]),
        (another_background, ["a.png", "b.png", "c.mask.png", "c.png"]),
        (other_place, ["d.png"]),
    ],
)
def test_exactly_what_changed_is_decoded_again(folder, decoded, change, again):
    start(folder)
    more = change(folder)
    decoded.clear()
    kept = start(folder, **more)
    assert sorted(decoded) == again
    assert kept.fingerprint == scan(settings(folder, mask="files", **more)).fingerprint


def test_a_file_that_was_just_written_is_not_remembered(folder, decoded, monkeypatch):
    monkeypatch.setattr(looks, "RACE", 3.0)
    start(folder)
    decoded.clear()
    start(folder)
    assert len(decoded) == 4


@pytest.mark.parametrize("damage", ["", "{", '{"decoder": 3}', '{"decoder": "1", "looks": [{"path": 3}]}', "[]"])
def test_a_damaged_memory_is_no_memory(folder, decoded, damage):
    start(folder)
    (folder.parent / "looks.json").write_text(damage)
    decoded.clear()
    start(folder)
    assert len(decoded) == 4


def test_another_decoder_looks_again(folder, decoded, monkeypatch):
    start(folder)
    monkeypatch.setattr(looks, "DECODER", "2, Pillow 99")
    decoded.clear()
    start(folder)
    assert len(decoded) == 4


def test_ctrl_c_does_not_wait_for_the_other_pictures(tmp_path, decoded):
    for index in range(40):
        save(tmp_path, f"{index}.png")

    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(settings(tmp_path), watch=Watch(progress=interrupted))
    assert len(decoded) < 40


def test_rows_say_what_each_picture_is_trained_with(folder):
    (folder / "b.txt").unlink()
    rows = list(start(folder, repeats=3).rows())
    assert [row["picture"] for row in rows] == ["a.png", "b.png", "c.png"]
    assert [row["caption_source"] for row in rows] == [".txt", "file name", ".txt"]
    assert [row["caption_file"] for row in rows] == ["a.txt", None, "c.txt"]
    assert rows[2] | {"sha256": ""} == {
        "picture": "c.png",
        "captions": ("x",),
        "caption_source": ".txt",
        "caption_file": "c.txt",
        "size": (64, 64),
        "buckets": ((64, 64),),
        "repeats": 3,
        "mask": "c.mask.png",
        "regularization": False,
        "held_out": False,
        "sha256": "",
    }
