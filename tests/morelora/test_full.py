"""The full difference: its bias, its file, and LyCORIS' own module for both."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from morelora.adapted import Adapted
from morelora.algorithms.full import Full
from morelora.errors import AdapterError, FormatError
from morelora.formats import FORMS
from morelora.inject import inject
from morelora.load import load
from morelora.site import Site
from morelora.targets import AdapterConfig, resolve
from tests.morelora.grid import LAYERS, example, operate, randomise
from tests.morelora.model import TinyUNet

WITH_BIAS = [name for name, layer in LAYERS.items() if layer.bias is not None]


def adapted(name: str) -> Adapted:
    layer = copy.deepcopy(LAYERS[name])
    return Adapted(layer, randomise(Full(Site.of(layer), Full.Options()).double()))


def expected(layer: Adapted, x: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
    """torch's own module code on a copy with changed weight and bias."""
    changed = copy.deepcopy(layer.base)
    with torch.no_grad():
        changed.weight += strength * layer.adapter.diff.view_as(changed.weight)
        changed.bias += strength * layer.adapter.diff_b
    return operate(changed, x, changed.weight)


@pytest.mark.parametrize("name", WITH_BIAS)
def test_bias_in_forward_strength_merge_and_back(name: str) -> None:
    layer, x = adapted(name), example(LAYERS[name])
    before = copy.deepcopy(layer.base)
    for strength in (1.0, 0.3, -0.5):
        layer.strength = strength
        torch.testing.assert_close(layer(x), expected(layer, x, strength), rtol=0, atol=1e-10)
        torch.testing.assert_close(layer.bias, before.bias + strength * layer.adapter.diff_b, rtol=0, atol=1e-12)
    wanted = layer(x)
    layer.merge()
    torch.testing.assert_close(layer.base(x), wanted, rtol=0, atol=1e-10)
    layer.unmerge()
    assert torch.equal(layer.base.weight, before.weight) and torch.equal(layer.base.bias, before.bias)
    layer.strength = 0.0
    assert torch.equal(layer(x), before(x))


@pytest.mark.parametrize("name", WITH_BIAS)
def test_the_branch_of_half_precision_is_the_sum(name: str) -> None:
    layer, x = adapted(name).float(), example(LAYERS[name], dtype=torch.float32)
    exact = expected(copy.deepcopy(layer).double(), x.double())
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, rtol=0.03, atol=0.1)


@pytest.mark.acts("adapter.bias")
def test_no_bias_where_the_layer_has_none_or_it_is_off() -> None:
    assert Full(Site.of(nn.Linear(3, 2, bias=False)), Full.Options()).diff_b is None
    assert Full(Site.of(nn.Linear(3, 2)), Full.Options(bias=False)).diff_b is None
    with pytest.raises(AdapterError, match="no bias"):
        Full.from_tensors(Site.of(nn.Linear(3, 2, bias=False)), {"diff": torch.zeros(2, 3), "diff_b": torch.zeros(2)})


@pytest.mark.parametrize("name", WITH_BIAS)
def test_the_file_is_lycoris_own(name: str) -> None:
    modules = pytest.importorskip("lycoris.modules")
    layer, x = adapted(name).float(), example(LAYERS[name], dtype=torch.float32)
    if LAYERS[name].__dict__.get("padding") == "same" or LAYERS[name].__dict__.get("groups", 1) != 1:
        pytest.skip("LyCORIS pads and groups otherwise")
    tensors = {f"k.{leaf}": tensor.detach() for leaf, tensor in layer.adapter.tensors(1.0).items()}
    kind, parameters = modules.get_module(tensors, "k")
    theirs = modules.make_module(kind, parameters, "k", copy.deepcopy(layer.base)).eval()
    torch.testing.assert_close(theirs(x), layer(x), rtol=0, atol=1e-5)


@pytest.fixture
def trained():
    model = TinyUNet()
    config = AdapterConfig(algorithm="full", rules=[{"match": "conv_in"}])
    adapters = inject({"unet": model}, resolve({"unet": model}, config))
    for _, adapter in adapters:
        randomise(adapter)
    return adapters


def test_a_web_ui_file_gives_weights_and_biases_back(trained, tmp_path) -> None:
    from morelora.formats.container import write

    tensors = {key: tensor.detach().clone() for key, tensor in FORMS["webui"](trained).items()}
    assert {key.rpartition(".")[2] for key in tensors} == {"diff", "diff_b"}
    write(tmp_path / "full.safetensors", tensors, {})
    fresh = TinyUNet()
    loaded = load({"unet": fresh}, tmp_path / "full.safetensors")
    assert loaded.layers.keys() == trained.layers.keys()
    for name, layer in loaded.layers.items():
        own = trained.layers[name]
        torch.testing.assert_close(layer.weight, own.weight, rtol=0, atol=1e-6)
        if own.bias is not None:
            torch.testing.assert_close(layer.bias, own.bias, rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", ["lora", "diffusers"])
def test_thin_forms_refuse_it_with_the_way_out(trained, form) -> None:
    with pytest.raises(FormatError, match="a full difference, which has no thin factors.*'webui'.*algorithm = 'lora'"):
        FORMS[form](trained)
