"""The cards of the algorithms: what each would be in the recipe, counted bit by bit, and what is not known."""

from __future__ import annotations

import pytest

from morelora import ALGORITHMS
from trainer import presets
from trainer.cards import cards
from trainer.errors import InputError
from trainer.models.registry import POCKET


@pytest.fixture(scope="module")
def found():
    return cards(presets.load("pocket-lora"), "pocket-lora")


def test_every_algorithm_has_its_card(found):
    cards_, is_whole = found
    assert list(cards_) == list(ALGORITHMS) and is_whole
    assert all(card["numbers"] > 0 and card["time"] > 0 and not card["problem"] for card in cards_.values())
    assert cards_["lora"]["time"] == 1 and cards_["boft"]["time"] > 2 > cards_["bitfit"]["time"]


def test_numbers_and_size_are_those_of_the_demo(found):
    """The demo's own run trains 558,720 numbers, and its file has 1145 KiB (docs/benchmarks.md)."""
    lora = found[0]["lora"]
    assert lora["numbers"] == 558_720 and lora["bytes"] / 1024 == pytest.approx(1145, rel=0.02)
    assert found[0]["full"]["bytes"] / 1024 == pytest.approx(2 * found[0]["full"]["numbers"] / 1024, rel=0.02)


def test_the_size_of_what_is_pruned_or_written_otherwise_is_not_known(found):
    assert found[0]["adalora"]["bytes"] is None is found[0]["sora"]["bytes"]
    values = presets.load("pocket-lora") | {"export": {"format": "svd"}}
    assert cards(values, "pocket-lora", 0)[0]["lora"]["bytes"] is None


def test_the_recipes_own_algorithm_is_as_it_stands_and_others_as_they_would_be():
    values = presets.load("pocket-lora")
    values["adapter"]["rank"] = 16
    changed, _ = cards(values, "pocket-lora", 0)
    assert changed["lora"]["numbers"] == 2 * 558_720
    assert changed["loha"] == cards(presets.load("pocket-loha"), "pocket-loha", 0)[0]["loha"] | {"time": changed["loha"]["time"]}


def test_steps_are_counted_as_far_as_there_is_time_and_remembered():
    values = presets.load("pocket-lora")
    values["data"]["resolution"] = 96
    first, is_whole = cards(values, "pocket-lora", 0)
    assert not is_whole and all(card["time"] is None and card["numbers"] for card in first.values())
    while not is_whole:
        last, is_whole = cards(values, "pocket-lora", 0.5)
    assert all(card["time"] for card in last.values())
    assert cards(values, "pocket-lora", 0) == (last, True)


def test_without_the_unet_no_step_is_compared():
    values = presets.load("pocket-lora")
    values["train"]["unet"] = False
    found, is_whole = cards(values, "pocket-lora")
    assert is_whole and found["lora"]["numbers"] > 0 and {card["time"] for card in found.values()} == {None}
    assert "nothing would be trained" in found["norm"]["problem"]


def test_an_algorithm_that_the_recipe_does_not_fit_says_why():
    found, _ = cards({"model": {"base": str(POCKET)}, "adapter": {"rank": 8}}, "", 0)
    assert "square" in found["krona_res"]["problem"] and found["krona_res"]["numbers"] is None
    wrong = cards({"adapter": {"rank": 4096}}, "", 0)[0]["lora"]
    assert "lower it" in wrong["problem"] and wrong["bytes"] is None


@pytest.mark.parametrize("values", [{"model": {"base": ""}}, {"model": {"base": "nowhere"}}, {"train": {"steps": -3}}])
def test_what_cannot_be_used_is_refused(values):
    with pytest.raises(InputError):
        cards(values, "")
