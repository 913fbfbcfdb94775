"""Words: distances, slips, what is shown of what is cut, and the caption file that is not read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.lint.scene import clean, view
from trainer.data.captions import FILE_NAME, NO_TRIGGER
from trainer.lint import captions, sizes


@pytest.mark.parametrize(
    ("one", "other", "letters"),
    [("", "", 0), ("abc", "abc", 0), ("abc", "ab", 1), ("ab", "ba", 1), ("kitten", "sitting", 3), ("ca", "abc", 3)],
)
def test_distance(one, other, letters):
    assert captions.distance(one, other) == captions.distance(other, one) == letters


@pytest.mark.parametrize(
    ("caption", "slip"),
    [
        ("mystlye, fox", "mystlye"),
        ("a fox in my style", "my style"),
        ("a fox, mystyle", ""),
        ("MyStyle fox", ""),
        ("a mystery, fox", ""),
        ("freestyle fox", ""),
        ("", ""),
    ],
)
def test_misspelling(caption, slip):
    assert captions.misspelling(caption, "mystyle") == slip


def test_the_words_that_are_cut_are_shown_with_the_trigger_counted():
    lacking = replace(clean()[0], captions=("one two three four",), remarks=frozenset((NO_TRIGGER,)))
    seen = view([lacking], overflow=lambda text: " ".join(text.split()[4:]))
    (finding,) = captions.tokens(seen)
    assert finding.pictures == (lacking.name,) and "'four'" in finding.problem
    assert not list(captions.tokens(view([replace(lacking, remarks=frozenset())], overflow=seen.overflow)))


@pytest.mark.parametrize("stranger", ["fox.png.txt", "fox.tags", "fox.txt.txt", "fox_caption.txt", "FOX.text"])
def test_the_file_that_was_meant_is_named(stranger):
    lacking = replace(clean()[0], name="fox.png", source=FILE_NAME)
    seen = view([*clean()[1:], lacking], strangers=("other.txt", "deeper/fox.txt", stranger))
    (finding,) = captions.caption_missing(seen)
    assert finding.fix == f"rename {stranger} to fox.txt"


def test_only_file_names_is_a_remark():
    named = [replace(clean()[i], name=f"{name}.png", source=FILE_NAME) for i, name in enumerate(("fox", "red boat"))]
    (finding,) = captions.caption_missing(view(named))
    assert not finding.is_fault and not finding.pictures


def test_repeats_fill_a_batch():
    few = [replace(picture, repeats=4) for picture in clean()[:3]]
    assert not list(sizes.remainder(view(few, batch_size=12)))
    (finding,) = sizes.remainder(view(few, batch_size=13))
    assert not finding.is_fault, "all pictures are in the one bucket"
