"""Captions: encodings, file names and the trigger word, by tables."""

import unicodedata
from pathlib import Path

import pytest

from trainer.data import captions
from trainer.data.problems import Unusable


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a red fox", "a red fox"),
        (b"\xef\xbb\xbfa red fox", "a red fox"),
        ("füchse im schnee 🦊".encode(), "füchse im schnee 🦊"),
        ("赤い狐".encode(), "赤い狐"),
        ("ثعلب أحمر".encode(), "ثعلب أحمر"),
        (unicodedata.normalize("NFD", "é").encode(), "é"),
        (b"", ""),
        (b"one\r\ntwo", "one\r\ntwo"),
    ],
)
def test_text_is_read_as_utf8(tmp_path, data, text):
    file = tmp_path / "a.txt"
    file.write_bytes(data)
    assert captions.read(file) == text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"caf\xe9 in paris", "is not UTF-8: byte 3 is 0xe9"),
        (b"\xef\xbb\xbfcaf\xe9", "is not UTF-8: byte 6 is 0xe9"),  # the place in the file, mark and all
        ("fox".encode("utf-16"), r"is UTF-16 \(byte 0\): save it as UTF-8"),
        ("fox".encode("utf-16-be"), "has a zero at byte 0, as UTF-16 has"),
        ("fox".encode("utf-16-le"), "has a zero at byte 1, as UTF-16 has"),
        (b"x" * 1_000_000, "has 1,000,000 bytes, which is no caption"),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(tmp_path, data, reason):
    file = tmp_path / "a.txt"
    file.write_bytes(data)
    with pytest.raises(Unusable, match=reason):
        captions.read(file)


@pytest.mark.parametrize(
    ("stem", "text"),
    [
        ("red_fox_03", "red fox"),
        ("red fox (3)", "red fox"),
        ("001_red_fox", "red fox"),
        ("red_fox03", "red fox"),
        ("red-fox-03", "red-fox"),
        ("formula_1_car", "formula 1 car"),
        ("r2d2", "r2d2"),
        ("赤い狐_2", "赤い狐"),
        ("0001", ""),
        ("broken\udce9name", "broken name"),
        ("plain", "plain"),
    ],
)
def test_file_names_become_words(stem, text):
    assert captions.from_name(stem) == text


@pytest.mark.parametrize(
    ("caption", "trigger", "text"),
    [
        ("a red fox", "duo style", "duo style, a red fox"),
        ("a red fox, Duo  Style", "duo style", "a red fox, Duo  Style"),
        ("duo styles of fox", "duo style", "duo style, duo styles of fox"),
        ("a red fox", "", "a red fox"),
        ("a red fox", "   ", "a red fox"),
        ("", "duo style", "duo style"),
        ("", "", ""),
        ("c++ fox", "c++", "c++ fox"),
        ("café fox", unicodedata.normalize("NFD", "café"), "café fox"),
    ],
)
def test_the_trigger_is_in_every_caption_once(caption, trigger, text):
    assert captions.with_trigger(caption, trigger) == text


def files_of(folder: Path) -> dict:
    return {(captions.stem_key(file), file.suffix.lower()): file for file in folder.iterdir()}


def caption_of(folder: Path, name: str, trigger: str = "") -> captions.Caption:
    picture = folder / name
    return captions.caption(picture, captions.locate(picture, files_of(folder)), trigger)


def test_txt_goes_before_caption_goes_before_the_name(tmp_path):
    (tmp_path / "a.txt").write_text("from txt")
    (tmp_path / "a.caption").write_text("from caption")
    (tmp_path / "b.caption").write_text("from caption")
    assert caption_of(tmp_path, "a.png") == captions.Caption("from txt", ".txt", frozenset({captions.BOTH_FILES}))
    assert caption_of(tmp_path, "b.png") == captions.Caption("from caption", ".caption", frozenset())
    assert caption_of(tmp_path, "c_d.png") == captions.Caption("c d", "file name", frozenset())


def test_composed_and_decomposed_names_and_endings_in_capitals_meet(tmp_path):
    (tmp_path / f"{unicodedata.normalize('NFD', 'é')}.TXT").write_text("accent")
    assert caption_of(tmp_path, "é.png").text == "accent"


def test_several_lines_are_joined_and_empty_ones_are_said(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one,\r\n\r\n  two\n")
    (tmp_path / "b.txt").write_bytes(b" \n")
    assert caption_of(tmp_path, "a.png", "one") == captions.Caption("one, two", ".txt", frozenset({captions.SEVERAL_LINES}))
    assert caption_of(tmp_path, "b.png", "trig") == captions.Caption("trig", ".txt", frozenset({captions.EMPTY}))
    (tmp_path / "c.txt").write_text("fox")
    assert caption_of(tmp_path, "c.png", "trig") == captions.Caption("trig, fox", ".txt", frozenset({captions.NO_TRIGGER}))


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("sks, a red fox", "a red fox"),
        ("a red fox, SKS", "a red fox"),
        ("a red fox, sks, in snow", "a red fox, in snow"),
        ("sks, sks, fox", "fox"),
        ("a photo of sks dog", "a photo of dog"),
        ("sks", ""),
        ("asks nobody", "asks nobody"),
        ("no  word", "no  word"),
    ],
)
def test_a_caption_without_its_trigger(caption, text):
    assert captions.without_trigger(caption, "sks") == text
