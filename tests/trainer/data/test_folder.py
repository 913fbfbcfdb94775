"""Layouts of folders: flat, kohya's REPEATS_NAME, and everything below where that is asked for."""

import pytest

from tests.trainer.data.pictures import save, settings
from trainer.data import scan
from trainer.errors import InputError


def refused(config) -> str:
    with pytest.raises(InputError) as caught:
        scan(config)
    return str(caught.value)


def test_folders_called_repeats_and_name_are_sources_of_their_own(tmp_path):
    save(tmp_path / "10_sks dog", "a.png")
    save(tmp_path / "10_sks dog", "b.png", caption="a dog on a sofa")
    save(tmp_path / "2_red_fox", "c.png")
    (tmp_path / "notes").mkdir()
    dataset = scan(settings(tmp_path, repeats=3, flip=True))
    found = [(dataset.name(item.path), item.caption, item.caption_source) for item in dataset.items]
    assert found == [
        ("10_sks dog/a.png", "sks dog", "folder name"),
        ("10_sks dog/b.png", "a dog on a sofa", ".txt"),
        ("2_red_fox/c.png", "red fox", "folder name"),
    ]
    assert dataset.repeats == (30, 30, 6)
    assert [(source.path.name, source.settings.repeats, source.settings.flip) for source in dataset.sources] == [
        ("10_sks dog", 30, True),
        ("2_red_fox", 6, True),
    ]
    assert dataset.notes == (
        "2 folders: 10_sks dog (2 pictures x 30), 2_red_fox (1 picture x 6)",
        "2 captions from the folder's name, such as 10_sks dog/a.png -> 'sks dog'",
    )


def test_a_caption_that_is_set_goes_before_the_folders_name(tmp_path):
    save(tmp_path / "3_dog", "a.png")
    item = scan(settings(tmp_path, caption="a pet")).items[0]
    assert (item.caption, item.caption_source) == ("a pet", "data.caption")


def test_a_folder_with_pictures_of_its_own_is_flat(tmp_path):
    save(tmp_path, "a.png", caption="x")
    save(tmp_path / "10_dog", "b.png")
    dataset = scan(settings(tmp_path))
    assert [item.path.name for item in dataset.items] == ["a.png"]
    assert dataset.notes == ("pictures in subfolders are not used (data.recursive is off): 1 in 10_dog",)


@pytest.mark.parametrize("other", ["photos", "0_cat", "_cat", "10_", "10 cat", "20_dog/deeper"])
def test_one_folder_with_another_name_makes_it_an_error(tmp_path, other):
    save(tmp_path / "10_cat", "a.png")
    save(tmp_path / other, "b.png")
    message = refused(settings(tmp_path))
    assert "2 found in folders below it" in message and "1 in 10_cat" in message and f"1 in {other}" in message
    assert "call all of them REPEATS_NAME (10_cat), or set data.recursive = true" in message


def test_the_folder_above_is_proposed_where_the_layout_lies_deeper(tmp_path):
    save(tmp_path / "img" / "10_cat", "a.png")
    save(tmp_path / "img" / "5_dog", "b.png")
    assert f"set data.images to one of them, such as {tmp_path / 'img'} (2 pictures)" in refused(settings(tmp_path))


def test_a_folder_given_alone_takes_no_repeats_from_its_name_and_says_so(tmp_path):
    save(tmp_path / "10_cat", "a.png", caption="x")
    dataset = scan(settings(tmp_path / "10_cat"))
    assert dataset.repeats == (1,)
    assert dataset.notes == ("the name 10_cat sets no repeats here: for that, give the folder above it",)


def test_repeats_beyond_all_sense_are_refused(tmp_path):
    save(tmp_path / "20240101_trip", "a.png")
    assert "asks by its name for 20240101 repeats; 10000 are the most" in refused(settings(tmp_path))


@pytest.mark.acts("data.recursive")
def test_everything_below_is_taken_where_that_is_asked_for(tmp_path):
    save(tmp_path, "b.png", caption="top")
    save(tmp_path / "a", "b.png", caption="below", seed=1)
    save(tmp_path / "a" / "deep" / "deeper", "c.png", seed=2)
    save(tmp_path / ".hidden", "d.png", seed=3)
    dataset = scan(settings(tmp_path, recursive=True))
    assert [(dataset.name(item.path), item.caption) for item in dataset.items] == [
        ("a/b.png", "below"),
        ("a/deep/deeper/c.png", "c"),
        ("b.png", "top"),
    ]
    assert not [note for note in dataset.notes if "subfolders" in note]


def test_kohyas_layout_is_seen_before_everything_below(tmp_path):
    save(tmp_path / "10_cat" / "more", "a.png")
    dataset = scan(settings(tmp_path, recursive=True))
    assert (dataset.repeats, dataset.items[0].caption) == ((10,), "cat")
