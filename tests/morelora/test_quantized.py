"""A layer whose weight is packed takes adapters as a plain layer with its dequantised weight does."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from morelora.adapted import Adapted
from morelora.errors import AdapterError
from morelora.inject import build, inject
from morelora.quantized import QuantizedLinear
from morelora.registry import ALGORITHMS as REGISTRY
from morelora.site import Site
from morelora.targets import AdapterConfig, Target, resolve
from tests.morelora.grid import randomise
from tests.morelora.model import TinyUNet

ALGORITHMS = {"lora": {"rank": 2}, "loha": {"rank": 2}, "lokr": {"rank": 1, "factor": 2}, "glora": {"rank": 2}}


class Coarse(QuantizedLinear):
    """The simplest packing: multiples of 1/16 in 8 bits."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        self.register_buffer("packed", (layer.weight.detach() * 16).round().to(torch.int8))

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        return self.packed.to(dtype) / 16


def pair(bias: bool = True) -> tuple[Coarse, nn.Linear]:
    """A packed layer, and a plain one with the same dequantised weight."""
    torch.manual_seed(0)
    plain = nn.Linear(12, 8, bias=bias).double()
    packed = Coarse(plain)
    twin = copy.deepcopy(plain).requires_grad_(False)
    twin.weight.copy_(packed.packed.double() / 16)
    return packed, twin


def adapted(layer: nn.Module, algorithm: str, axis: str | None) -> Adapted:
    options = REGISTRY[algorithm].Options(**ALGORITHMS[algorithm])
    adapter = build(Target("unet.layer", algorithm, options, axis), layer, torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    return Adapted(layer, randomise(adapter.double(), 3))


@pytest.mark.parametrize("axis", [None, "input", "output"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_output_and_gradients_are_those_of_the_dequantised_layer(algorithm, axis):
    packed, plain = pair()
    x = torch.randn(3, 5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = []
    for layer in (packed, plain):
        inputs, model = x.clone().requires_grad_(), adapted(layer, algorithm, axis)
        model.strength = 0.7
        y = model(inputs)
        y.square().sum().backward()
        found.append([y.detach(), inputs.grad, model.weight.detach(), *(p.grad for p in model.adapter.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_it_is_found_and_has_the_site_of_its_layer():
    packed, plain = pair()
    assert Site.of(packed) == Site.of(plain)
    model = nn.ModuleDict({"to_q": packed})
    assert [target.name for target in resolve({"unet": nn.ModuleDict({"attn1": model})}, AdapterConfig())] == ["unet.attn1.to_q"]


@pytest.mark.parametrize("bias", [True, False])
def test_nothing_of_the_weights_size_is_kept_for_backward(bias):
    packed, _ = pair(bias)
    kept: list[Tensor] = []
    x = torch.randn(3, 12, dtype=torch.float64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        packed(x).sum().backward()
    assert not kept and x.grad is not None


def test_an_adapter_that_asks_for_the_weight_does_not_keep_it_either():
    packed, _ = pair()
    kept: list[Tensor] = []
    model = adapted(packed, "glora", None)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        model(torch.randn(3, 12, dtype=torch.float64, requires_grad=True)).sum().backward()
    assert kept and all(tensor.shape != (8, 12) for tensor in kept) and model.adapter.a1.grad.any()


def test_a_cast_keeps_the_bits():
    packed, _ = pair()
    before = packed.packed.clone()
    half = copy.deepcopy(packed).half()
    assert torch.equal(half.packed, before) and half.weight.dtype == torch.float16 and half.bias.dtype == torch.float16
    assert torch.equal(half.double().weight, packed.weight)
    assert half(torch.zeros(2, 12)).dtype == torch.float32


def test_autocast_decides_the_dtype():
    packed, plain = pair()
    packed, x = packed.float(), torch.randn(3, 12, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = packed(x)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16 and x.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), plain.float()(x), rtol=0.02, atol=0.02)


def test_a_merge_is_refused_before_anything_is_changed_and_removal_gives_the_layer_back():
    model = TinyUNet()
    attention = model.block.transformer_blocks[0].attn1
    attention.to_q = packed = Coarse(attention.to_q)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapters = inject({"unet": model}, resolve({"unet": model}, AdapterConfig(layers="all")))
    for _, adapter in adapters:
        randomise(adapter, 1)
    with pytest.raises(
        AdapterError, match=r"attn1\.to_q: a quantised layer cannot hold a merged weight: load the base unquantised"
    ):
        adapters.merge()
    assert not any(layer.is_merged for layer in adapters.layers.values())
    adapters.remove()
    assert attention.to_q is packed
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
