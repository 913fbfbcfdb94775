"""The cards of the algorithms: each has its sentence in every language, and says what is known and what is not."""

from __future__ import annotations

import pytest

from app.parts import algorithms
from app.text import catalogue, languages
from morelora import ALGORITHMS


def found(**more: object) -> dict[str, object]:
    return {"numbers": 558720, "bytes": 1166462, "time": 1.0, "problem": ""} | more


def plain(text: str) -> str:
    return text.replace(algorithms.HARD, " ")


@pytest.mark.parametrize("language", languages())
def test_every_algorithm_has_a_sentence(language):
    told = {key.removeprefix("algorithm."): text for key, text in catalogue(language).items() if key.startswith("algorithm.")}
    lacking = ALGORITHMS.keys() - told.keys()
    assert not lacking, f"write a plain sentence on {', '.join(lacking)} under [algorithm] in app/text/{language}.toml"
    assert told.keys() <= ALGORITHMS.keys()
    assert all(text.endswith(".") and "\n" not in text and len(text) <= 120 for text in told.values())


def test_a_card_has_name_sentence_and_numbers_a_line_each():
    name, sentence, numbers = plain(algorithms.card("lora", found())).splitlines()
    assert name == "lora" and sentence.startswith("The one to begin with")
    assert numbers == "558,720 numbers, file 1.1 MiB, step as fast as lora's"


def test_what_is_not_known_is_said_to_be():
    assert "not known yet" in algorithms.card("lora", None)
    shown = plain(algorithms.card("adalora", found(bytes=None, time=None)))
    assert "file size known after training, speed not known yet" in shown
    assert "Not in this recipe: too large" in algorithms.card("lora", found(problem="too large", numbers=None))


@pytest.mark.parametrize(
    ("times", "told"), [(1.04, "as fast as"), (1.06, "1.1 ×"), (0.83, "0.83 ×"), (5.046, "5 ×"), (12.3, "12 ×")]
)
def test_a_step_is_told_beside_loras(times, told):
    assert told in algorithms.time(times)


@pytest.mark.parametrize(
    ("count", "told"),
    [(93184, "91 KiB"), (1166462, "1.1 MiB"), (704385536, "672 MiB"), (4417492992, "4.1 GiB"), (5000, "4.9 KiB")],
)
def test_sizes_have_two_figures_and_their_unit(count, told):
    assert algorithms.size_of(count) == told


def test_an_algorithm_without_a_sentence_still_has_a_card():
    assert algorithms.card("brand_new", None).splitlines()[0] == "brand_new"
