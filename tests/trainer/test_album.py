"""Pictures and captions as a browser edits them: what is shown, and that every edit can be undone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from trainer import album, presets, settings
from trainer.errors import InputError

INK = presets.ROOT / "assets" / "styles" / "ink" / "train"


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("car", "key"):
        shutil.copy(INK / f"{name}.png", folder)
    shutil.copy(INK / "car.txt", folder)
    return folder


@pytest.fixture
def values(folder) -> dict:
    return settings.apply(presets.load("pocket-lora"), [f"data.images={folder}", "data.trigger=inkwash"])


def files(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text("utf-8", "replace") for file in folder.rglob("*") if file.is_file()}


def test_pictures_come_with_captions_tokens_and_faults(values, folder, tmp_path):
    found = album.album(values, str(tmp_path / "thumbs"))
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(found))
    car, key = found["pictures"]
    assert (car["caption"], car["source"], key["caption"], key["source"]) == ("ink style, car", ".txt", "key", "file name")
    assert key["read"] == "inkwash, key" and key["tokens"] > 2 and key["cut"] == ""
    assert Image.open(car["thumb"]).size == (256, 256) and Path(car["thumb"]).parent == tmp_path / "thumbs"
    assert ("ink style", 1) in found["tags"] and found["most_tokens"] == 75
    assert "caption-missing" in {finding["rule"] for finding in found["findings"]}


def test_the_base_may_still_be_open(values, tmp_path):
    values = settings.apply(values, ["model.base=''"])
    assert len(album.album(values, str(tmp_path / "thumbs"))["pictures"]) == 2


def test_a_long_caption_shows_what_is_cut(values, folder, tmp_path):
    (folder / "key.txt").write_text("word " * 80 + "zebra")
    key = album.album(values, str(tmp_path / "thumbs"))["pictures"][1]
    assert key["tokens"] > 75 and key["cut"].endswith("zebra")


def test_captions_are_written_and_undone(values, folder):
    before = files(folder)
    car, key = str(folder / "car.png"), str(folder / "key.png")
    undo = album.write_captions(values, {car: "new, ü", key: "a key"})
    assert files(folder)["car.txt"] == "new, ü" and files(folder)["key.txt"] == "a key"
    assert album.write_captions(values, undo) == {car: "new, ü", key: "a key"}
    assert files(folder) == before


def test_left_out_pictures_go_with_their_captions_and_come_back(values, folder, tmp_path):
    before = files(folder)
    back = album.leave_out(values, [str(folder / "car.png")])
    assert set(files(folder)) == {"key.png", ".left-out/car.png", ".left-out/car.txt"}
    assert [each["name"] for each in album.album(values, str(tmp_path / "thumbs"))["pictures"]] == ["key.png"]
    album.move(back)
    assert files(folder) == before


def test_a_broken_picture_can_be_left_out(values, folder, tmp_path):
    (folder / "torn.png").write_bytes((INK / "key.png").read_bytes()[:200])
    found = album.album(values, str(tmp_path / "thumbs"))
    assert [name for _, name in found["unusable"]] == ["torn.png"] and len(found["pictures"]) == 2
    album.leave_out(values, [found["unusable"][0][0]])
    assert album.album(values, str(tmp_path / "thumbs"))["unusable"] == []


def test_other_files_are_not_touched(values, folder, tmp_path):
    other = tmp_path / "other.png"
    shutil.copy(INK / "key.png", other)
    for name in (str(other), str(folder / ".." / "other.png"), "/etc/passwd"):
        with pytest.raises(InputError, match="is no picture of"):
            album.write_captions(values, {name: "x"})
        with pytest.raises(InputError, match="is no picture of"):
            album.leave_out(values, [name])
    with pytest.raises(InputError, match="too long"):
        album.write_captions(values, {str(folder / "car.png"): "x" * 100_000})
    assert not other.with_suffix(".txt").exists()


def test_nothing_is_overwritten_on_the_way_back(values, folder):
    back = album.leave_out(values, [str(folder / "key.png")])
    (folder / "key.png").write_bytes(b"new")
    with pytest.raises(Exception, match="a file of that name"):
        album.move(back)
    assert (folder / "key.png").read_bytes() == b"new" and (folder / ".left-out" / "key.png").is_file()
