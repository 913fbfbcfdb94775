"""The page of pictures: uploads, edits, faults that a button mends, and the way back."""

from __future__ import annotations

import shutil

import gradio as gr
import pytest

from app import pictures
from app.pages import dataset
from app.pages.dataset import DatasetPage
from app.studio import Studio
from trainer.presets import ROOT

INK = ROOT / "assets" / "styles" / "ink" / "train"


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    studio = Studio(tmp_path_factory.mktemp("here") / "runs")
    yield studio
    studio.close()


@pytest.fixture
def page(studio, tmp_path):
    shutil.rmtree(studio.pictures.folder, ignore_errors=True)
    with gr.Blocks() as site:
        page = DatasetPage(studio, site)
    files = [str(INK / name) for name in ("car.png", "car.txt", "key.png")]
    shutil.copy(INK / "car.png", tmp_path / "twin.png")
    (tmp_path / "run.exe").touch()
    page.take_upload([*files, str(tmp_path / "twin.png"), str(tmp_path / "run.exe")], "../My set")
    return page


def album_of(updates: list) -> dict:
    return updates[6]


def captions(page: DatasetPage) -> dict[str, str]:
    return {picture["name"]: picture["caption"] for picture in album_of(page.show())["pictures"]}


def test_an_upload_is_a_set_of_its_own(page, studio):
    folder = studio.pictures.folder / "My set"
    assert sorted(file.name for file in folder.iterdir()) == ["car.png", "car.txt", "key.png", "twin.png"]
    data = studio.draft.values["data"]
    assert (data["images"], data["trigger"], studio.draft.values["run"]["name"]) == (str(folder), "My set style", "My set")


def test_a_caption_is_saved_and_taken_back(page):
    album = album_of(page.show())
    place = next(i for i, picture in enumerate(album["pictures"]) if picture["name"] == "key.png")
    shown = page.save_caption(album, place, " a golden key ")
    assert captions(page)["key.png"] == "a golden key" and shown[8] == "a golden key" and "tokens" in shown[9]
    page.take_back()
    assert captions(page)["key.png"] == "key"


def test_all_captions_at_once(page):
    page.add_tag(album_of(page.show()), "black")
    assert all(caption.endswith(", black") for caption in captions(page).values())
    page.replace_tag(album_of(page.show()), "black", "white")
    page.remove_tag(album_of(page.show()), "ink style")
    assert captions(page)["car.png"] == "car, white"
    for _ in range(3):
        page.take_back()
    assert captions(page)["car.png"] == "ink style, car"


def test_faults_are_mended_at_one_press(page, studio):
    album = album_of(page.show())
    finding = next(each for each in album["findings"] if each["rule"] == "duplicate")
    page._mending(album, finding)()
    assert len(captions(page)) == 2, "one of the two stays"
    missing = next(each for each in album_of(page.show())["findings"] if each["rule"] == "caption-missing")
    page._mending(album_of(page.show()), missing)()
    assert (studio.pictures.folder / "My set" / "key.txt").read_text() == "My set style, key"
    page.take_back()
    page.take_back()
    assert len(captions(page)) == 3


def test_what_only_a_person_can_mend_has_no_button(page):
    album = album_of(page.show())
    assert page._mending(album, {"rule": "remainder", "pictures": ["car.png"]}) is None
    assert page._mending(album, {"rule": "blurred", "pictures": []}) is None


def test_a_folder_that_is_not_there_is_told(page):
    shown = page.take_folder("/no/such/<folder>")
    assert "does not exist" in shown[2] and "<folder>" not in shown[2]
    assert "Drop 10 to 30 pictures" in page.take_folder("")[2]


@pytest.mark.parametrize(
    ("caption", "trigger", "expected"),
    [("ink style, a car", "ink style", "a car"), ("a car", "ink style", "a car"), ("ink", "ink", "ink"), ("a car", "", "a car")],
)
def test_the_trigger_word_takes_no_room_below_a_small_picture(caption, trigger, expected):
    assert dataset.brief(caption, trigger) == expected


def test_pictures_that_ship_stay_as_they_are_and_a_copy_is_edited(page, studio, monkeypatch, tmp_path):
    shipped = tmp_path / "assets" / "ink"
    shipped.mkdir(parents=True)
    for name in ("car.png", "car.txt", "key.png"):
        shutil.copy(INK / name, shipped)
    monkeypatch.setattr(pictures, "SHIPPED", tmp_path / "assets")
    shown = page.take_folder(str(shipped))
    assert "ship with the program" in shown[2] and shown[10]["visible"] and len(album_of(shown)["pictures"]) == 2
    shown = page.take_copy("mine")
    assert "ship with the program" not in shown[2] and not shown[10]["visible"]
    copy = studio.pictures.folder / "mine"
    data = studio.draft.values["data"]
    assert (data["images"], data["trigger"]) == (str(copy), "My set style")
    page.save_caption(album_of(shown), 0, "a car")
    assert (copy / "car.txt").read_text() == "a car" and (shipped / "car.txt").read_bytes() == (INK / "car.txt").read_bytes()
    page.take_folder(str(shipped))
    page.take_copy("mine")
    assert sorted(file.name for file in (studio.pictures.folder / "mine-2").iterdir()) == ["car.png", "car.txt", "key.png"]


def test_an_edit_of_pictures_that_ship_is_refused_with_the_way_out(page, studio, monkeypatch):
    told = []
    monkeypatch.setattr(gr, "Warning", told.append)
    before = {file.name: file.read_bytes() for file in INK.iterdir()}
    album = album_of(page.take_folder(str(INK)))
    page.save_caption(album, 0, "changed")
    page.add_tag(album, "changed")
    page._after(lambda: studio.pictures.leave_out([album["pictures"][0]["file"]]))
    assert len(told) == 3 and all("ships with the program" in text and "copy" in text for text in told)
    assert {file.name: file.read_bytes() for file in INK.iterdir()} == before


def test_text_from_elsewhere_is_escaped():
    fault = {"severity": "error", "pictures": ["<a>"], "problem": "<b>", "fix": "<i>"}
    picture = {"name": "<a>", "size": [1, 2], "source": "<b>", "tokens": 80, "cut": "<i>"}
    text = dataset.fault(fault) + dataset.tokens(picture, 75) + dataset.tag_list([("<u>", 1)])
    assert not any(word in text for word in ("<a>", "<b>:", "<i>", "<u>"))


def test_every_rule_that_a_button_mends_exists():
    from trainer.lint.registry import RULES

    assert set(dataset.FIXES) <= set(RULES)
