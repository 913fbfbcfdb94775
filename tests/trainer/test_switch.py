"""Another algorithm: adapter and rates of the sister preset, or rates that stay."""

from __future__ import annotations

import pytest

from morelora import ALGORITHMS
from trainer import presets, settings
from trainer.models.registry import POCKET
from trainer.switch import with_algorithm


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("preset", ["pocket-hadamard", "sd15-lora"])
def test_another_algorithm_gives_a_recipe_that_can_be_used(preset, algorithm):
    values = presets.load(preset)
    changed, _ = with_algorithm(values, preset, algorithm)
    config = settings.parse(changed, "x")
    assert config.adapter.algorithm == algorithm
    assert [changed.get(name) for name in ("data", "model", "train")] == [values.get(name) for name in ("data", "model", "train")]


def test_the_sister_preset_gives_adapter_and_rate():
    changed, name = with_algorithm(presets.load("pocket-lora"), "pocket-lora", "oft")
    sister = presets.load("pocket-oft")
    assert changed["adapter"] == sister["adapter"] and changed["optimizer"]["lr"] == sister["optimizer"]["lr"]
    assert name == "pocket-oft"


@pytest.mark.parametrize(
    ("model", "sister"),
    [
        ({"base": "pocket"}, "pocket-loha"),
        ({"base": str(POCKET)}, "sd15-loha"),
        ({"base": "not here yet", "family": "sdxl"}, "sdxl-loha"),
        ({"base": "not here"}, ""),
        ({"base": ""}, ""),
    ],
)
def test_a_recipe_from_elsewhere_has_the_sisters_of_its_base_models_family(model, sister):
    changed, name = with_algorithm({"model": model, "optimizer": {"lr": 0.5}, "adapter": {"rank": 3}}, "mine", "loha")
    rate = presets.load(sister)["optimizer"].get("lr") if sister else 0.5
    assert (name, changed["optimizer"].get("lr"), changed["model"]) == (sister, rate, model)
    assert changed["adapter"] == (presets.load(sister)["adapter"] if sister else {"algorithm": "loha", "rank": 3})


def test_where_no_preset_has_the_algorithm_the_rates_stay():
    values = presets.load("sd15-lora")
    changed, name = with_algorithm(values, "sd15-lora", "boft")
    assert name == "" and changed["optimizer"] == values["optimizer"]
