"""Texts as they are drawn: what stays, what moves, what goes, at which rates; and which texts are known ahead."""

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.config.data import FolderConfig
from trainer.data import Dataset, Item, phrasing
from trainer.data.sources import Source


def item(*captions: str) -> Item:
    return Item(Path("a.png"), captions, captions, ".txt", 64, 64, "hash", (64, 64))


def folder(**settings) -> FolderConfig:
    return FolderConfig(**{"caption_dropout": 0.0} | settings)


def drawn(caption: str | tuple[str, ...], count: int = 300, **settings) -> list[str]:
    one = item(*(caption if isinstance(caption, tuple) else (caption,)))
    return [phrasing.phrase(one, folder(**settings), random.Random(seed)) for seed in range(count)]


def dataset(*captions: str, **settings) -> Dataset:
    return Dataset(
        tuple(item(caption) for caption in captions), (Source(Path("."), "data.images", folder(**settings)),), (0, 0, 0), ()
    )


def near(count: int, total: int, chance: float) -> bool:
    return abs(count / total - chance) < 4 * (chance * (1 - chance) / total) ** 0.5


def test_a_caption_without_settings_stays_as_it_is():
    assert set(drawn("a fox , red,")) == {"a fox , red,"}
    assert set(drawn("my style ||| a fox, red")) == {"my style, a fox, red"}


@pytest.mark.acts("data.shuffle_tags")
def test_shuffle_gives_every_order_alike():
    seen = Counter(drawn("a, b, c", 1200, shuffle_tags=True))
    assert len(seen) == 6 and all(near(number, 1200, 1 / 6) for number in seen.values())


@pytest.mark.acts("data.keep_tags")
def test_the_trigger_the_prefix_the_suffix_and_the_first_tags_stay():
    settings = {"trigger": "my style", "caption_prefix": "a photo of", "caption_suffix": ", at night", "shuffle_tags": True}
    seen = set(drawn("my style, a photo of a fox, red, big, at night", keep_tags=1, **settings))
    assert seen == {"my style, a photo of a fox, red, big, at night", "my style, a photo of a fox, big, red, at night"}
    free = set(drawn("my style, a photo of a fox, red, big, at night", **settings))
    assert len(free) == 6 and all(t.startswith("my style, a photo of ") and t.endswith(", at night") for t in free)


def test_a_word_that_only_begins_like_the_trigger_is_a_tag_like_any_other():
    assert set(drawn("foxes, red", trigger="fox", shuffle_tags=True)) == {"foxes, red", "red, foxes"}


def test_the_mark_says_what_stays_whatever_keep_tags_says():
    assert set(drawn("a, b ||| c, d ||| e", shuffle_tags=True, keep_tags=3)) == {"a, b, c, d, e", "a, b, d, c, e"}


@pytest.mark.acts("data.tag_dropout")
def test_tags_are_dropped_each_by_itself_and_the_trigger_never():
    texts = drawn("a, my style, b, c", 2000, tag_dropout=0.3, trigger="my style")
    assert all("my style" in text for text in texts)
    for tag in "abc":
        assert near(sum(tag in text.split(", ") for text in texts), 2000, 0.7)
    both = sum("a" in text.split(", ") and "b" in text.split(", ") for text in texts)
    assert near(both, 2000, 0.49)
    assert set(drawn("x, a, b", tag_dropout=1.0, keep_tags=1)) == {"x"}
    assert set(drawn("a, b", tag_dropout=1.0)) == {""}


def test_caption_dropout_alternatives_and_choices():
    texts = drawn(("one", "two {a|b}"), 2000, caption_dropout=0.2)
    seen = Counter(texts)
    assert set(seen) == {"", "one", "two a", "two b"}
    assert near(seen[""], 2000, 0.2) and near(seen["one"], 2000, 0.4) and near(seen["two a"], 2000, 0.2)


@given(
    st.lists(st.sampled_from(["fox", "red", "big", "at night", "my style"]), max_size=6), st.integers(0, 4), st.integers(0, 99)
)
def test_shuffling_loses_and_invents_no_tag(tags, keep, seed):
    text = phrasing.moved(", ".join(tags), folder(shuffle_tags=True, keep_tags=keep, trigger="my style"), random.Random(seed))
    assert Counter(tag for tag in text.split(", ") if tag) == Counter(tags)
    start = 1 if tags[:1] == ["my style"] else 0
    assert text.split(", ")[: start + min(keep, len(tags))][: len(tags)] == tags[: start + keep] or not tags


def test_texts_are_known_ahead_unless_tags_move_or_choices_are_many():
    assert phrasing.texts(dataset("a fox", "a {red|blue} key", "a ||| b")) == ("", "a fox", "a red key", "a blue key", "a, b")
    assert phrasing.texts(dataset("a, b", shuffle_tags=True)) is None
    assert phrasing.texts(dataset("a, b", tag_dropout=0.1)) is None
    assert phrasing.texts(dataset(" ".join(["{a|b}"] * 9))) is None


@pytest.mark.parametrize("settings", [{}, {"caption_dropout": 0.4}])
def test_what_is_drawn_is_among_the_known_texts(settings):
    templates = ("a {red|blue|} fox, {big|small}", "x ||| y")
    known = phrasing.texts(dataset(*templates))
    assert {text for template in templates for text in drawn(template, **settings)} <= set(known)


def test_the_plan_says_whether_captions_are_encoded_once():
    assert list(phrasing.notes(dataset("a"), live=True)) == []
    assert "2 texts are encoded once" in next(phrasing.notes(dataset("a"), live=False))
    assert "stays on the device" in next(phrasing.notes(dataset("a", shuffle_tags=True), live=False))
