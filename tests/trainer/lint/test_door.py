"""``--lint`` from a folder to an exit code, and the lint of a run."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from bench.lint.pictures import draw
from trainer import cli, settings
from trainer.lint import survey
from trainer.presets import ROOT

SET = ("--set", "data.resolution=128", "--set", "data.bucket_step=16", "--set", "train.batch_size=3")


@pytest.fixture
def folder(tmp_path):
    """Three clean pictures with captions."""
    place = tmp_path / "pictures"
    place.mkdir()
    for kind in ("leaves", "portrait", "landscape"):
        Image.fromarray(draw(kind, 1, (160, 160))).save(place / f"{kind}.png")
        (place / f"{kind}.txt").write_text(f"mystyle, {kind} of mine")
    return place


def lint(folder, *more):
    return cli.main(["--lint", str(folder), "--trigger", "mystyle", *SET, *more])


def test_a_clean_folder(folder, capsys, tmp_path):
    file = tmp_path / "findings.json"
    assert lint(folder, "--json", str(file)) == 0
    assert capsys.readouterr().out.strip() == "no fault found"
    assert json.loads(file.read_text()) == {"findings": [], "notes": []}


def test_remarks_alone_are_no_faults(folder, capsys):
    assert lint(folder, "--set", "train.batch_size=4") == 0
    assert "1 remark" in capsys.readouterr().out


def test_every_finding_says_picture_problem_and_fix(folder, capsys, tmp_path):
    (folder / "torn.png").write_bytes((folder / "leaves.png").read_bytes()[:900])
    Image.fromarray(draw("pattern", 1, (160, 160))).save(folder / "bad.png")
    (folder / "bad.txt").write_bytes(b"caf\xe9")
    Image.fromarray(draw("flat", 1, (8, 8))).save(folder / "tiny.png")
    Image.fromarray(draw("leaves", 1, (160, 160))[:, ::-1]).save(folder / "again.jpg", quality=60)
    (folder / "again.txt").write_text("mystlye, <b>leaves</b>")
    (folder / "portrait.txt").write_text("mystyle, " + "word " * 90)
    file = tmp_path / "findings.json"
    assert lint(folder, "--json", str(file)) == 3
    found = {(one["rule"], *one["pictures"]): one for one in json.loads(file.read_text())["findings"]}
    assert set(found) == {
        ("unusable", "torn.png"), ("unusable", "bad.txt"), ("unusable", "tiny.png"),
        ("near-duplicate", "again.jpg", "leaves.png"), ("caption-missing", "bad.png"),
        ("caption-odd", "again.jpg"), ("trigger", "again.jpg"), ("tokens", "portrait.png"),
    }  # fmt: skip
    assert [one["severity"] for one in found.values()][:3] == ["error"] * 3
    assert all(one["problem"] and one["fix"] for one in found.values())
    assert "word word" in found["tokens", "portrait.png"]["problem"]
    assert "3 errors" in capsys.readouterr().out


def test_what_is_not_used_and_which_caption_is_read_is_noted(folder, capsys, tmp_path):
    (folder / "leaves.caption").write_text("another")
    (folder / "orphan.txt").write_text("of no picture")
    (folder / "notes.docx").write_bytes(b"PK")
    (folder / "torn.png").write_bytes((folder / "leaves.png").read_bytes()[:900])
    (folder / "torn.txt").write_text("mystyle, of a picture that is there")
    (folder / "deeper").mkdir()
    shutil.copy(folder / "leaves.png", folder / "deeper")
    file = tmp_path / "findings.json"
    assert lint(folder, "--json", str(file)) == 3
    told = json.loads(file.read_text())
    assert [one["rule"] for one in told["findings"]] == ["unusable"]
    noted = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Note: ")]
    assert noted == [
        "Note: pictures in subfolders are not used (data.recursive is off): 1 in deeper",
        "Note: left out, since not pictures: notes.docx",
        "Note: 1 caption file without a picture of that name: orphan.txt",
        "Note: 1 picture with captions in both .txt and .caption: .txt is used: leaves.png",
    ]
    assert [f"Note: {note}" for note in told["notes"]] == noted


def test_held_out_pictures_are_those_of_the_validation(folder, tmp_path):
    held = tmp_path / "held"
    held.mkdir()
    (held / "x.png").write_bytes((folder / "leaves.png").read_bytes())
    file = tmp_path / "findings.json"
    assert lint(folder, "--json", str(file), "--set", f"validation.folder={held}") == 3
    (leak,) = [one for one in json.loads(file.read_text())["findings"] if one["rule"] == "leak"]
    assert "x.png" in leak["problem"] and "leaves.png" in leak["problem"]


def test_no_folder_is_an_input_error(tmp_path, capsys):
    assert lint(tmp_path / "none") == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "trigger"), [("blueprint", "blueprint style"), ("duotone", "duo style"), ("ink", "ink style")])
def test_the_shipped_sets_are_clean_at_their_resolution(name, trigger):
    data = {"images": str(ROOT / "assets/styles" / name / "train"), "trigger": trigger, "resolution": 64, "bucket_step": 8}
    found, _ = survey.lint_folder(settings.parse({"data": data, "train": {"batch_size": 12}}, "test"))
    assert not [finding for finding in found if finding.is_fault]


def test_lint_stands_alone(capsys):
    assert cli.main(["--lint", "x", "--dry-run"]) == 2
    assert cli.main(["--resume", "x", "--lint", "y"]) == 2
