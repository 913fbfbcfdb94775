"""Which layers have tensors in common, and that these are trained, counted and saved once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from morelora.inject import AdapterSet, inject
from morelora.registry import ALGORITHMS
from morelora.shared import once
from morelora.site import Site
from morelora.targets import AdapterConfig, resolve
from tests.morelora.formats import sd

PLACE = Site(64, 64)
SHARING = [name for name, kind in ALGORITHMS.items() if kind.suits(PLACE) and kind(PLACE, kind.Options()).shared]
BLOCK = "unet.down_blocks.0.attentions.0.transformer_blocks.0"


def shared(adapters: AdapterSet, name: str) -> list[Tensor]:
    """What a layer has in common with others."""
    own = adapters.layers[name].adapter.plain
    return [getattr(own, leaf) for leaf in own.shared]


def are_same(adapters: AdapterSet, name: str, other: str) -> bool:
    pairs = zip(shared(adapters, name), shared(adapters, other), strict=True)
    found = {one is two for one, two in pairs}
    assert len(found) == 1
    return found.pop()


def made(models: dict[str, nn.Module], algorithm: str, **settings: Any) -> AdapterSet:
    config = AdapterConfig.model_validate({"algorithm": algorithm, "layers": "all", "rank": 3} | settings)
    return inject(models, resolve(models, config), torch.Generator().manual_seed(3))


@pytest.mark.parametrize("algorithm", SHARING)
@pytest.mark.parametrize("decomposed", [False, True])
def test_layers_of_one_shape_and_of_the_same_settings_share(algorithm: str, decomposed: bool) -> None:
    rules = [{"match": "attn1.to_k", "rank": 2}, {"match": "attn1.to_v", "lr": 0.5}]
    adapters = made(sd.small(), algorithm, rules=rules, weight_decompose=decomposed)
    query = f"{BLOCK}.attn1.to_q"
    assert are_same(adapters, query, f"{BLOCK}.attn1.to_out.0") and are_same(adapters, query, f"{BLOCK}.attn2.to_q")
    others = {
        "another rank": f"{BLOCK}.attn1.to_k",
        "another rate": f"{BLOCK}.attn1.to_v",
        "another width": f"{BLOCK}.attn2.to_k",
        "a kernel": "unet.down_blocks.0.attentions.0.proj_in",
    }
    assert not any(are_same(adapters, query, name) for name in others.values())
    assert are_same(adapters, f"{BLOCK}.attn2.to_k", f"{BLOCK}.attn2.to_v")


@pytest.mark.parametrize("algorithm", SHARING)
def test_models_share_nothing_with_each_other(algorithm: str) -> None:
    text = sd.small()["text_encoder"]
    models = {"text_encoder": text, "text_encoder_2": sd.small()["text_encoder"]}
    adapters = made(models, algorithm)
    one, two = (f"{name}.encoder.layers.0.self_attn.q_proj" for name in models)
    assert not are_same(adapters, one, two) and are_same(adapters, one, one.replace("q_proj", "k_proj"))


@pytest.mark.parametrize("algorithm", SHARING)
def test_what_is_shared_trains_once_counts_once_and_is_saved_once(algorithm: str) -> None:
    adapters = made(sd.small(), algorithm)
    every = adapters.parameters()
    assert len({id(parameter) for parameter in every}) == len(every)
    held = adapters.by_layer()
    assert [id(p) for p in every] == [id(p) for parameters in held.values() for p in parameters]
    state = adapters.state()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    assert sum(tensor.numel() for tensor in state.values()) == sum(p.numel() for p in every)


@pytest.mark.parametrize("algorithm", SHARING)
def test_a_state_gives_every_layer_its_change_back(algorithm: str) -> None:
    adapters = made(sd.small(), algorithm)
    with torch.no_grad():
        for number, parameter in enumerate(adapters.parameters()):
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(number))
    expected = dict(adapters.deltas())
    again = made(sd.small(), algorithm)  # a resumed run: the same seed, then the state
    again.load_state({name: tensor.clone() for name, tensor in adapters.state().items()})
    assert len(expected) > 20 and all(change.any() for change in expected.values())
    assert all(torch.equal(change, expected[name]) for name, change in again.deltas())


def test_once_keeps_the_first_name() -> None:
    one, two = torch.zeros(1), torch.zeros(1)
    assert [name for name, _ in once([("a", one), ("b", two), ("c", one)])] == ["a", "b"]
