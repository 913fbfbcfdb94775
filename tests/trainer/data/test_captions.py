"""Captions: file names, lines, prefix and suffix, and the trigger word, by tables."""

import unicodedata
from pathlib import Path

import pytest

from trainer.config.data import FolderConfig
from trainer.data import captions
from trainer.data.caption_files import Written
from trainer.data.captions import Caption
from trainer.data.sources import Source


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


def caption_of(*lines: str, trigger: str = "", concept: str = "", regularization: bool = False, **more: object) -> Caption:
    """The caption of ``red_fox_03.png``, for which each of ``lines`` was written in a file of its own."""
    folder = Path("pictures")
    source = Source(folder, "data.images", FolderConfig(trigger=trigger, **more), regularization, concept=concept)
    kinds = (".txt", ".caption", ".json")
    written = [Written(tuple(text.splitlines()), kind, folder / f"a{kind}") for text, kind in zip(lines, kinds, strict=False)]
    return captions.caption(folder / "red_fox_03.png", written, source)


@pytest.mark.acts("data.caption")
def test_a_written_caption_goes_before_the_setting_the_folder_and_the_name():
    assert caption_of("one", caption="two", concept="three").kind == ".txt"
    found = [caption_of(caption="two", concept="three"), caption_of(concept="three"), caption_of()]
    assert [(text.texts, text.kind) for text in found] == [
        (("two",), "data.caption"),
        (("three",), "folder name"),
        (("red fox",), "file name"),
    ]


@pytest.mark.acts("data.caption_lines")
@pytest.mark.parametrize(
    ("way", "texts"),
    [("join", ("one, two",)), ("first", ("one,",)), ("random", ("one,", "two"))],
)
def test_lines_are_joined_or_one_of_them_is_taken(way, texts):
    found = caption_of("one,\r\n\r\n  two\n", caption_lines=way)
    assert found.texts == found.plain == texts and found.remarks == {captions.SEVERAL_LINES}


def test_empty_captions_are_said_and_stay_captions():
    assert caption_of(" \n", caption="other") == Caption(
        ("",), ("",), ".txt", Path("pictures/a.txt"), frozenset({captions.EMPTY})
    )
    assert caption_of("", trigger="trig").texts == ("trig",)
    assert caption_of("", caption_prefix="a drawing").texts == ("a drawing",)


def test_every_alternative_has_the_trigger_and_a_form_without_it():
    found = caption_of("a fox\na Trig dog\ncat, trig", trigger="trig", caption_lines="random")
    assert found.texts == ("trig, a fox", "a Trig dog", "cat, trig")
    assert found.plain == ("a fox", "a dog", "cat")
    assert found.remarks == {captions.SEVERAL_LINES, captions.NO_TRIGGER}


def test_pictures_of_the_class_go_without_the_trigger():
    found = caption_of("a fox", trigger="trig", regularization=True)
    assert found.texts == found.plain == ("a fox",) and not found.remarks


@pytest.mark.acts("data.caption_prefix", "data.caption_suffix")
def test_prefix_and_suffix_stand_around_every_caption():
    found = caption_of(
        "fox\ndog", trigger="trig", caption_lines="random", caption_prefix="a drawing of a", caption_suffix=", ink"
    )
    assert found.plain == ("a drawing of a fox, ink", "a drawing of a dog, ink")
    assert found.texts == ("trig, a drawing of a fox, ink", "trig, a drawing of a dog, ink")
    assert caption_of(caption_prefix="trig:", trigger="trig").texts == ("trig: red fox",)


def test_the_trigger_must_be_in_every_choice():
    assert caption_of("{trig|the trig} fox", trigger="trig").texts == ("{trig|the trig} fox",)
    assert caption_of("{trig|a} fox", trigger="trig").texts == ("trig, {trig|a} fox",)
    assert caption_of("{a|b}" * 20 + " trig", trigger="trig").texts == ("trig, " + "{a|b}" * 20 + " trig",)
    assert caption_of("a {red|blue} fox").remarks == {captions.CHOICES}


def test_another_caption_is_named_only_where_it_differs():
    assert caption_of("a fox", "a  fox", "a dog").rivals == (".json",)
    assert caption_of("a fox", "a fox\n").rivals == ()


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
