"""Blocks by short names against the original models' own numbering."""

from __future__ import annotations

import re

import pytest

from morelora.blocks import block_of
from morelora.errors import AdapterError
from morelora.formats.names import ldm_path
from morelora.targets import AdapterConfig, Target, adaptable_layers, resolve
from tests.morelora.formats import sd

KINDS = {"input_blocks": "IN", "output_blocks": "OUT"}


@pytest.fixture(scope="module")
def models():
    return {"sd1": sd.sd15(), "sdxl": sd.sdxl()}


def expected(name: str) -> str | None:
    """The block that the original model's key says."""
    path = ldm_path(name.removeprefix("unet."))
    if path.startswith("middle_block."):
        return "MID"
    match = re.match(r"(input_blocks|output_blocks)\.(\d+)\.", path)
    return f"{KINDS[match[1]]}{int(match[2]):02d}" if match and name.startswith("unet.") else None


@pytest.mark.parametrize(("family", "count"), [("sd1", 12), ("sdxl", 9)])
def test_every_layer_lies_where_the_original_key_says(models, family, count):
    names = list(adaptable_layers(models[family]))
    assert {name: block_of(name) for name in names} == {name: expected(name) for name in names}
    numbers = [f"{i:02d}" for i in range(count)]
    every = {"MID"} | {f"{kind}{number}" for kind in ("IN", "OUT") for number in numbers}
    assert {block_of(name) for name in names} - {None} == every


def targets(models, **settings) -> list[Target]:  # noqa: ANN003
    return resolve(models, AdapterConfig.model_validate(settings))


@pytest.mark.acts("adapter.rules.blocks", "adapter.rules.lr")
def test_a_blocks_rank_and_rate_are_its_own_and_the_chosen_layers_stay(models):
    plain = targets(models["sd1"], layers="attention", rank=4)
    found = targets(models["sd1"], layers="attention", rank=4, rules=[{"blocks": ["IN04", "MID"], "rank": 9, "lr": 0.5}])
    assert [target.name for target in found] == [target.name for target in plain]
    inside = {target.name for target in found if target.options.rank == 9}
    assert inside == {target.name for target in plain if block_of(target.name) in ("IN04", "MID")} and inside
    assert all((target.lr == 0.5) == (target.name in inside) for target in found)


def test_match_and_blocks_together_narrow_each_other(models):
    found = targets(models["sd1"], layers="attention", rules=[{"match": "resnets", "blocks": ["OUT03"], "rank": 2}])
    extra = [target.name for target in found if "resnets" in target.name]
    assert extra and all(block_of(name) == "OUT03" for name in extra)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"blocks": ["IN12"]}, "'IN12' is no block"),
        ({"blocks": ["in04"]}, "write IN00 to IN11"),
        ({"rank": 3}, "needs match or blocks"),
    ],
)
def test_what_names_no_place_is_refused(rule, words):
    with pytest.raises(ValueError, match=words):
        AdapterConfig.model_validate({"rules": [rule]})


def test_a_block_without_chosen_layers_is_refused(models):
    with pytest.raises(AdapterError, match=r"rules\[0\] \(blocks = IN11\) matches no layer"):
        targets(models["sdxl"], layers="attention", rules=[{"blocks": ["IN11"], "rank": 2}])
