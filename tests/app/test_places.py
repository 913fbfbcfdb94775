"""What a page may lead to where others reach it: its own folders, the program's, and those that were shared."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.desk import Refused
from app.places import Places
from app.studio import Studio
from tests.trainer import tiny
from trainer.presets import ROOT


@pytest.fixture
def places(tmp_path) -> Places:
    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").touch()
    (tmp_path / "open" / "link").symlink_to(tmp_path / "closed")
    return Places([tmp_path / "open"])


@pytest.mark.parametrize("text", ["open", "open/a.png", "open/new", "open/../open/a.png", "nothing-there"])
def test_what_is_open(places, tmp_path, text):
    assert places.closed({"data": {"images": str(tmp_path / text)}}) == ""


@pytest.mark.parametrize("text", ["closed", "closed/a.png", "open/link", "open/link/a.png", "open/../closed", "."])
@pytest.mark.parametrize(
    "shape", [lambda x: x, lambda x: {"data": {"sources": [{"path": x}]}}, lambda x: ({x: "caption"},), Path]
)
def test_what_is_closed_wherever_it_stands(places, tmp_path, text, shape):
    told = places.closed(shape(str(tmp_path / text)))
    assert str(tmp_path / text) in told and "--folder" in told
    assert Places().closed(shape(str(tmp_path / text))) == "", "its only user may read everything"


@pytest.mark.parametrize("text", ["/etc", "/etc/passwd", "~", "~root", "../" * 30 + "etc/passwd", "/proc/self/environ"])
def test_the_machine_is_closed(places, text):
    assert text in places.closed(text)


@pytest.mark.parametrize(
    "text", ["a fox, my style", "", "pocket", "\0", "x" * 10_000, "assets/styles", str(ROOT / "assets"), 3, None]
)
def test_words_and_the_programs_own_are_open(places, text):
    assert places.closed([text]) == ""


def test_no_page_opens_a_folder_that_is_not_shared(tmp_path):
    pictures = tiny.save_pictures(tmp_path / "private")
    studio = Studio(tmp_path / "served" / "runs", folders=[])
    try:
        studio.draft.put({"data.images": str(pictures)})
        for ask in (studio.pictures.album, studio.rehearse, lambda: studio.pictures.write({str(pictures / "0.png"): "mine"})):
            with pytest.raises(Refused, match="lies outside of what this page may read"):
                ask()
        assert "outside" in studio.judge()["problem"] and studio.start_draft() == "" and not studio.queue.jobs()
        assert (pictures / "0.txt").read_text() == "my style, fox"
    finally:
        studio.close()
