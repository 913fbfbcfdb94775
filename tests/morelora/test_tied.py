"""Tied-LoRA: what it is with parts frozen (LoRA, VeRA), what layers share and how that learns, its start and gradients."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from morelora.adapted import Adapted
from morelora.algorithms.lora import LoRA
from morelora.algorithms.tied import Tied
from morelora.algorithms.vera import VeRA
from morelora.inject import AdapterSet, inject
from morelora.site import Site
from morelora.targets import Target
from tests.morelora.grid import LAYERS, example, operate, randomise

NAMES = ("up", "down", "u", "v")
COMBINATIONS = [frozen for count in range(4) for frozen in itertools.combinations(NAMES, count)]


def tied(layer: nn.Module, *frozen: str, **options: Any) -> Tied:
    chosen = Tied.Options(rank=3, **{f"freeze_{name}": True for name in frozen}, **options)
    return Tied(Site.of(layer), chosen, torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("frozen", COMBINATIONS, ids=lambda names: " ".join(names) or "none")
def test_every_combination_starts_as_the_unchanged_model_and_trains_the_rest(frozen: tuple[str, ...]) -> None:
    layer, x = copy.deepcopy(LAYERS["linear"]), example(LAYERS["linear"])
    adapted = Adapted(layer, tied(layer, *frozen))
    assert {name for name, _ in adapted.adapter.named_parameters()} == set(NAMES) - set(frozen)
    assert torch.equal(adapted(x), layer(x))
    before = {name: getattr(adapted.adapter, name).clone() for name in NAMES}
    optimizer = torch.optim.SGD(adapted.adapter.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (adapted(x) - 1).square().mean().backward()
        optimizer.step()
    assert {name for name, start in before.items() if torch.equal(getattr(adapted.adapter, name), start)} == set(frozen)


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="leave nothing to train"):
        tied(LAYERS["linear"], *NAMES)


def learnt(layer: nn.Module, adapter: Any, steps: int = 4) -> Tensor:
    """The change after some steps of plain descent."""
    adapted, x = Adapted(copy.deepcopy(layer), adapter), example(layer)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        (adapted(x) - 1).square().mean().backward()
        optimizer.step()
    return adapter.delta(layer.weight).detach()


@pytest.mark.parametrize("name", ["linear", "conv 3x3 stride 2"])
def test_with_frozen_vectors_a_layer_by_itself_learns_as_lora(name: str) -> None:
    ours, lora = tied(LAYERS[name], "u", "v"), LoRA(Site.of(LAYERS[name]), LoRA.Options(rank=3)).double()
    with torch.no_grad():
        lora.down.copy_(ours.down)
    found = learnt(LAYERS[name], ours)
    assert found.abs().max() > 1e-3
    torch.testing.assert_close(found, learnt(LAYERS[name], lora), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["linear", "conv 3x3 stride 2"])
def test_with_frozen_factors_it_learns_as_vera(name: str) -> None:
    ours, vera = tied(LAYERS[name], "up", "down"), VeRA(Site.of(LAYERS[name]), VeRA.Options(rank=3, d_initial=1.0)).double()
    vera.up.copy_(ours.up)
    vera.down.copy_(ours.down)
    found = learnt(LAYERS[name], ours)
    assert found.abs().max() > 1e-3
    torch.testing.assert_close(found, learnt(LAYERS[name], vera), rtol=0, atol=1e-12)


def pair(**options: Any) -> AdapterSet:
    """Two layers of one shape."""
    torch.manual_seed(4)
    model = nn.ModuleDict({name: nn.Linear(7, 5).double() for name in ("one", "two")})
    targets = [Target(f"unet.{name}", "tied", Tied.Options(rank=3, **options)) for name in model]
    adapters = inject({"unet": model}, targets, torch.Generator().manual_seed(3))
    for _, adapter in adapters:
        adapter.double()
    return adapters


@pytest.mark.acts("adapter.tie")
@pytest.mark.parametrize(("tie", "common"), [("both", {"up", "down"}), ("up", {"up"}), ("down", {"down"})])
def test_layers_share_what_is_asked_for(tie: str, common: set[str]) -> None:
    one, two = (adapter for _, adapter in pair(tie=tie))
    assert {name for name in NAMES if getattr(one, name) is getattr(two, name)} == common
    sizes = {"up": 5 * 3, "down": 3 * 7, "u": 3, "v": 5}
    assert sum(p.numel() for p in pair(tie=tie).parameters()) == sum(size * (2 - (n in common)) for n, size in sizes.items())


def test_a_shared_factor_learns_from_every_layer() -> None:
    """Its gradient is the sum of what the layers would give it, written out by the formula."""
    adapters = pair()
    for number, (_, adapter) in enumerate(adapters):
        randomise(adapter, seed=number)
    x = torch.randn(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    sum(layer(x).square().sum() for layer in adapters.layers.values()).backward()
    first = adapters.layers["unet.one"].adapter
    factors = [getattr(first, name).detach().clone().requires_grad_() for name in ("up", "down")]
    total = torch.zeros((), dtype=torch.float64)
    for layer in adapters.layers.values():
        change = torch.diag(layer.adapter.v.detach()) @ factors[0] @ torch.diag(layer.adapter.u.detach()) @ factors[1]
        total = total + operate(layer.base, x, layer.base.weight + change).square().sum()
    for found, expected in zip((first.up.grad, first.down.grad), torch.autograd.grad(total, factors), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_max_norm_shortens_a_layer_and_leaves_the_other_alone() -> None:
    adapters = pair()
    for number, (_, adapter) in enumerate(adapters):
        randomise(adapter, seed=number)
    before = [change for _, change in adapters.deltas()]
    adapters.layers["unet.one"].adapter.limit_norm(0.5 * before[0].norm().item())
    after = [change for _, change in adapters.deltas()]
    torch.testing.assert_close(after[0], 0.5 * before[0], rtol=1e-6, atol=1e-8)
    assert torch.equal(after[1], before[1])


@pytest.mark.parametrize("frozen", [(), ("down",), ("up", "down"), ("u", "v")], ids=str)
@pytest.mark.parametrize("name", ["linear", "conv 3x3 stride 2"])
def test_gradcheck(name: str, frozen: tuple[str, ...]) -> None:
    adapted, x = Adapted(LAYERS[name], randomise(tied(LAYERS[name], *frozen))), example(LAYERS[name])[:1].requires_grad_()
    leaves = [f"adapter.{leaf}" for leaf, _ in adapted.adapter.named_parameters()]

    def run(x: Tensor, *values: Tensor) -> Any:
        return functional_call(adapted, dict(zip(leaves, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *adapted.adapter.parameters()), fast_mode=True)
