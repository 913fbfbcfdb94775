"""What adapters count before they are made, against adapters that are made, on a model with two text encoders."""

from __future__ import annotations

import copy

import pytest
import torch

from morelora import ALGORITHMS, AdapterConfig, formats, inject, resolve
from morelora.errors import AdapterError
from tests.trainer import miniatures
from trainer import settings
from trainer.estimate.adapters import Base, Counted, count_layer, extra

PARTS = ("unet", "text_encoder", "text_encoder_2")
VALUES_DECIDE = {"adalora", "sora"}
SQUARE_ALONE = [{"match": r"attn2\.to_(k|v)$|mlp", "algorithm": "none"}]
CASES = [*ALGORITHMS, "dora", "conv_rank"]


@pytest.fixture(scope="module")
def models():
    return {name: copy.deepcopy(miniatures.parts("sdxl")[name]).requires_grad_(False) for name in PARTS}


@pytest.fixture(scope="module")
def base(models):
    return Base({name: copy.deepcopy(model).to("meta") for name, model in models.items()}, 8)


def configured(case: str) -> AdapterConfig:
    if case == "dora":
        return AdapterConfig(weight_decompose=True, layers="all", tucker=True)
    if case == "conv_rank":
        return AdapterConfig(layers="all", conv_rank=2, rules=[{"match": "attn2", "rank": 3}])
    more = {"krona_res": {"rules": SQUARE_ALONE}, "vera": {"rank": 8}}.get(case, {})
    return AdapterConfig(algorithm=case, layers="attention", **more)


def recipe(**values):
    return settings.parse({"data": {"resolution": 64}, **values}, "test")


@pytest.mark.parametrize("case", CASES)
def test_numbers_and_files_are_those_of_adapters_that_are_made(models, base, case):
    config = configured(case)
    adapters = inject(models, resolve(models, config), torch.Generator().manual_seed(0))
    try:
        counted = Counted(base, config, PARTS)
        assert counted.numbers == sum(each.numel() for each in adapters.parameters() if each.requires_grad)
        if case in VALUES_DECIDE:
            assert counted.written is None
            return
        form = "webui" if all(adapter.mergeable for _, adapter in adapters) else "sidecar"
        tensors = formats.encode(adapters, form).tensors
        assert counted.written == (sum(each.numel() for each in tensors.values()), len(tensors))
    finally:
        adapters.remove()


def test_every_algorithm_that_has_layers_is_there(base):
    assert base.algorithms == list(ALGORITHMS)
    without = Base({"text_encoder": base.models["text_encoder"]}, 8)
    assert "norm" not in without.algorithms and "lora" in without.algorithms


def test_what_does_not_fit_is_refused(base):
    with pytest.raises(AdapterError, match="larger than both sides"):
        Counted(base, AdapterConfig(rank=4000), ["unet"])


def test_the_work_of_a_step_is_remembered_by_its_shapes(base):
    counted = Counted(base, AdapterConfig(), ["unet"])
    small, large = recipe(), recipe(train={"batch_size": 4})
    assert not counted.knows_work(small)
    work = counted.work(small)
    assert counted.knows_work(small) and not counted.knows_work(large)
    assert counted.work(small) == work > base.frozen(small)[0]
    assert 2 < counted.work(large) / work < 4


def test_more_rank_is_more_work_and_rotations_of_every_number_are_most(base):
    config = recipe()
    cases = (AdapterConfig(rank=4), AdapterConfig(rank=32), AdapterConfig(algorithm="boft"))
    work = [Counted(base, case, ["unet"]).work(config) for case in cases]
    assert work == sorted(work) and work[0] < work[2]


def test_layers_of_one_kind_are_counted_once(base):
    before = count_layer.cache_info().misses, extra.cache_info().misses
    for _ in range(2):
        Counted(base, AdapterConfig(rank=5), ["unet"]).work(recipe())
    made = count_layer.cache_info().misses - before[0], extra.cache_info().misses - before[1]
    targets = len(resolve({"unet": base.models["unet"]}, AdapterConfig(rank=5)))
    assert 0 < made[0] <= made[1] < targets
