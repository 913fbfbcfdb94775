"""ReLoRA's finished cycles: the sum of their changes in every form, the base's own bits, a file of the stacked factors."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from morelora.adapted import Adapted
from morelora.adapter import Adapter
from morelora.algorithms.dylora import DyLoRA
from morelora.algorithms.loha import LoHa
from morelora.algorithms.lokr import LoKr
from morelora.algorithms.lora import LoRA
from morelora.errors import AdapterError
from morelora.inject import AdapterSet
from morelora.load import adapter_from
from morelora.residual import started
from morelora.restarted import Restarted
from morelora.site import Site
from morelora.weight_decompose import WeightDecomposed
from tests.morelora.closed import closed_delta
from tests.morelora.grid import LAYERS, example, operate, randomise

KEEP = pytest.mark.parametrize("fold", [False, True], ids=["stack", "merge"])
NAMES = ["linear", "conv 3x3 stride 2", "grouped conv"]
CYCLES = 3


def lora(layer: nn.Module, **options) -> LoRA:  # noqa: ANN003
    return LoRA(Site.of(layer), LoRA.Options(**{"rank": 2, "alpha": 1.0} | options)).double()


def restarted(layer: nn.Module, inner: Adapter, fold: bool) -> tuple[Adapted, list[Tensor]]:
    """After three cycles of random values, and the change of each by the closed form."""
    adapted = Adapted(layer, Restarted(inner)).train()
    deltas = []
    for cycle in range(CYCLES):
        randomise(inner, seed=cycle + 2)
        deltas.append(closed_delta(inner, layer.weight).detach().clone())
        if cycle < CYCLES - 1:
            adapted.adapter.restart(layer, torch.Generator().manual_seed(cycle), fold)
    return adapted, deltas


@KEEP
@pytest.mark.parametrize("name", NAMES)
def test_it_acts_as_the_sum_of_all_cycles_at_every_strength(name: str, fold: bool) -> None:
    layer, x = copy.deepcopy(LAYERS[name]).requires_grad_(False), example(LAYERS[name])
    before = layer.weight.clone()
    adapted, deltas = restarted(layer, lora(layer), fold)
    assert torch.equal(layer.weight, before) != fold
    for strength in (1.0, 0.0, 0.6, -0.5):
        adapted.strength = strength
        expected = before + strength * sum(deltas)
        torch.testing.assert_close(adapted(x), operate(layer, x, expected), rtol=0, atol=1e-10)
        torch.testing.assert_close(adapted.weight, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(adapted.adapter.delta(layer.weight), sum(deltas), rtol=0, atol=1e-10)


@KEEP
def test_a_restart_changes_nothing_at_first_and_only_the_new_cycle_learns(fold: bool) -> None:
    layer, x = copy.deepcopy(LAYERS["linear"]).requires_grad_(False), example(LAYERS["linear"])
    inner = randomise(lora(layer))
    adapted = Adapted(layer, Restarted(inner)).train()
    before, ids = adapted(x), [id(p) for p in adapted.adapter.parameters()]
    adapted.adapter.restart(layer, torch.Generator().manual_seed(7), fold)
    torch.testing.assert_close(adapted(x), before, rtol=0, atol=1e-12)
    assert [id(p) for p in adapted.adapter.parameters()] == ids, "the optimiser keeps its parameters"
    fresh = LoRA(inner.site, inner.options, torch.Generator().manual_seed(7))
    torch.testing.assert_close(inner.down.float(), fresh.down) and not inner.up.any()
    weight = (layer.weight if fold else layer.weight + adapted.adapter.delta(layer.weight)).detach()
    (found,) = torch.autograd.grad(adapted(x).square().sum(), [inner.up])
    y = operate(layer, x, weight + closed_delta(inner, weight))
    (expected,) = torch.autograd.grad(y.square().sum(), [inner.up])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@KEEP
@pytest.mark.parametrize("inner", [LoRA, LoHa, LoKr])
def test_the_file_is_the_stacked_lora_on_the_weight_as_it_was(inner: type[Adapter], fold: bool) -> None:
    layer = copy.deepcopy(LAYERS["linear"]).requires_grad_(False)
    options = {"factor": 2} if inner is LoKr else {"alpha": 1.5}
    adapted, deltas = restarted(layer, inner(Site.of(layer), inner.Options(rank=1, **options)).double(), fold)
    tensors = {leaf: tensor.detach() for leaf, tensor in adapted.adapter.tensors(alpha=1.25).items()}
    again = adapter_from(layer, tensors)
    assert again.name == "lora" and len(tensors["lora_down.weight"]) == adapted.adapter.file_rank
    assert adapted.adapter.file_rank == CYCLES * len(adapted.adapter.inner.factors()[1])
    torch.testing.assert_close(again.delta(layer.weight).double(), sum(deltas), rtol=0, atol=1e-6)


@KEEP
@pytest.mark.parametrize("start", ["residual", "pissa", "olora"])
def test_cycles_with_a_start_taken_off_again_begin_on_the_weight_as_it_then_is(start: str, fold: bool) -> None:
    layer, x = copy.deepcopy(LAYERS["linear"]).requires_grad_(False), example(LAYERS["linear"])
    before = layer.weight.clone()
    inner = started(lora(layer, start=start), layer.weight, torch.Generator().manual_seed(1)).double()
    adapted = Adapted(layer, Restarted(inner)).train()
    randomise(inner, 2)
    first = inner.delta(layer.weight).detach().clone()
    adapted.adapter.restart(layer, torch.Generator().manual_seed(3), fold)
    assert not inner.delta(before).any() and inner.inner.up.any(), "no change, of a start that is not zero"
    torch.testing.assert_close(adapted(x), operate(layer, x, before + first), rtol=0, atol=1e-10)
    made = inner.origin.delta(before)
    if start == "pissa":
        u, values, v = torch.linalg.svd(before + first)
        torch.testing.assert_close(made, u[:, :2] * values[:2] @ v[:2], rtol=0, atol=1e-6)
    elif start == "olora":
        q, r = torch.linalg.qr(before + first)
        torch.testing.assert_close(made, 0.5 * q[:, :2] @ r[:2], rtol=0, atol=1e-6)  # s = alpha / rank
    randomise(inner, 4)
    second = inner.delta(before).detach()
    again = adapter_from(layer, {leaf: tensor.detach() for leaf, tensor in adapted.adapter.tensors(alpha=1.25).items()})
    torch.testing.assert_close(again.delta(before).double(), first + second, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["linear", "conv 3x3 stride 2"])
def test_more_cycles_than_the_layer_has_ranks_are_a_file_of_its_smaller_side(name: str) -> None:
    layer = copy.deepcopy(LAYERS[name]).requires_grad_(False)
    inner = lora(layer)
    adapted, deltas = Adapted(layer, Restarted(inner)), []
    for cycle in range(1 + min(inner.site.m, inner.site.c) // 2):
        adapted.adapter.restart(layer, torch.Generator().manual_seed(cycle), fold=False)
        deltas.append(closed_delta(randomise(inner, cycle), layer.weight).detach().clone())
    tensors = {leaf: tensor.detach() for leaf, tensor in adapted.adapter.tensors(alpha=1.25).items()}
    again = adapter_from(layer, tensors)
    assert again.options.rank == adapted.adapter.file_rank == min(inner.site.m, inner.site.c)
    torch.testing.assert_close(again.delta(layer.weight).double(), sum(deltas), rtol=0, atol=1e-6)


def test_merged_cycles_leave_the_base_with_its_own_bits() -> None:
    layer = copy.deepcopy(LAYERS["linear"]).requires_grad_(False)
    before, model = layer.weight.clone(), nn.ModuleDict({"layer": layer})
    adapted, deltas = restarted(layer, lora(layer), fold=True)
    model["layer"] = adapted
    adapters = AdapterSet({"unet": model}, {"unet.layer": adapted})
    adapters.merge()
    torch.testing.assert_close(layer.weight, before + sum(deltas), rtol=0, atol=1e-10)
    adapters.remove()
    assert torch.equal(model["layer"].weight, before)


@KEEP
def test_resumed_cycles_are_the_same_bits(fold: bool) -> None:
    """In float32, where sums of other order differ."""
    layers = [copy.deepcopy(LAYERS["linear"]).float().requires_grad_(False) for _ in range(2)]
    inner = LoRA(Site.of(layers[0]), LoRA.Options(rank=2))
    one = Restarted(inner)
    for cycle in range(3):
        randomise(inner, cycle)
        one.restart(layers[0], torch.Generator().manual_seed(cycle), fold)
    other = Restarted(copy.deepcopy(inner))
    other.restart(layers[1], torch.Generator(), fold)  # what a probe left behind
    stack = tuple(part.clone() for part in one.stack)
    other.resume(layers[1], (stack[0], stack[1]), fold)
    assert torch.equal(layers[0].weight, layers[1].weight)
    x = example(layers[0], dtype=torch.float32)
    assert torch.equal(one(x, layers[0]), other(x, layers[1]))
    other.resume(layers[1], None, fold)
    assert torch.equal(layers[1].weight, LAYERS["linear"].weight.float()) and other.stack is None


@KEEP
def test_dropouts_are_of_the_cycle_that_trains(fold: bool) -> None:
    layer, x = copy.deepcopy(LAYERS["linear"]).requires_grad_(False), example(LAYERS["linear"])
    before = layer.weight.clone()
    adapted, deltas = restarted(layer, lora(layer, module_dropout=0.999), fold)
    expected = operate(layer, x, before + sum(deltas[:-1]))
    torch.testing.assert_close(adapted(x), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(adapted.eval()(x), operate(layer, x, before + sum(deltas)), rtol=0, atol=1e-10)


def test_what_cannot_be_stacked_is_refused() -> None:
    layer = LAYERS["linear"]
    dora = WeightDecomposed(lora(layer), layer.weight)
    whole = LoKr(Site.of(layer), LoKr.Options(factor=2, full_matrix=True))
    for inner, words in (
        (dora, "magnitudes"),
        (whole, "not low-rank here"),
        (DyLoRA(Site.of(layer), DyLoRA.Options()), "course"),
    ):
        with pytest.raises(AdapterError, match=words):
            Restarted(inner)
