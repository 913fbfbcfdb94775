"""AdaLoRA's allocation beside peft's, step by step; its penalty; what a file is spared; a state that goes on bit for bit."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from morelora.algorithms.adalora import AdaLoRA
from morelora.budget import Budget
from morelora.errors import AdapterError
from morelora.procedure import Procedures, Stepped
from morelora.site import Site

STEPS = 20
SIZES = ((6, 5, 4), (8, 3, 4), (5, 7, 3))
"""``m, c, rank`` of the layers."""
PRUNE = {"prune_from": 0.2, "prune_until": 0.7, "prune_every": 3}


def adapters(**options: Any) -> dict[str, AdaLoRA]:
    """Small layers with random values, in float64."""
    generator = torch.Generator().manual_seed(3)
    made = {}
    for i, (m, c, rank) in enumerate(SIZES):
        layer = nn.Linear(c, m)
        adapter = AdaLoRA(Site.of(layer), AdaLoRA.Options(rank=rank, target_rank=2, **PRUNE | options), generator).double()
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        made[f"unet.layer{i}"] = adapter
    return made


def walk(layers: dict[str, AdaLoRA], step: int) -> None:
    """The values and gradients of one step, the same for everybody."""
    generator = torch.Generator().manual_seed(100 + step)
    with torch.no_grad():
        for adapter in layers.values():
            for parameter in adapter.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(parameter.grad, alpha=-0.05)


def peft_allocator(layers: dict[str, AdaLoRA]) -> tuple[Any, nn.Module]:
    """peft's allocator over a copy of these layers, by its own names and shapes."""
    layer = pytest.importorskip("peft.tuners.adalora.layer")
    model = nn.Module()
    for name, adapter in layers.items():
        holder = nn.Module()
        for theirs, value in (("lora_A", adapter.down), ("lora_E", adapter.gate[:, None]), ("lora_B", adapter.up)):
            holder.add_module(theirs, nn.ParameterDict({"default": nn.Parameter(value.detach().clone())}))
        model.add_module(name.rpartition(".")[2], holder)
    until = round(PRUNE["prune_until"] * STEPS)
    schedule = {"tinit": round(PRUNE["prune_from"] * STEPS), "tfinal": STEPS - until, "total_step": STEPS, "deltaT": 3}
    config = SimpleNamespace(beta1=0.85, beta2=0.85, target_r=2, **schedule)
    return layer.RankAllocator(model, config, "default"), model


def give(model: nn.Module, layers: dict[str, AdaLoRA], with_values: bool) -> None:
    """Our gradients, and what the step did to our values, to peft's copy."""
    for name, adapter in layers.items():
        holder = getattr(model, name.rpartition(".")[2])
        for theirs, ours in (("lora_A", adapter.down), ("lora_E", adapter.gate), ("lora_B", adapter.up)):
            parameter = getattr(holder, theirs)["default"]
            parameter.grad = ours.grad.reshape(parameter.shape).clone()
            if with_values:
                parameter.data.add_(parameter.grad, alpha=-0.05)


@pytest.mark.acts(
    "adapter.target_rank", "adapter.prune_from", "adapter.prune_until", "adapter.prune_every"
)  # fmt: skip
def test_the_allocation_is_pefts_at_every_step() -> None:
    layers = adapters()
    allocator, theirs = peft_allocator(layers)
    ours = Procedures({"adalora": Budget(layers, STEPS)})
    kept = []
    for step in range(1, STEPS + 1):
        walk(layers, step)
        give(theirs, layers, with_values=True)
        ours.stepped(Stepped(step, dict))
        budget, _ = allocator.update_and_allocate(theirs, step)
        assert budget == ours.parts["adalora"].budget(step)
        for name, adapter in layers.items():
            gate = getattr(theirs, name.rpartition(".")[2]).lora_E["default"].flatten()
            torch.testing.assert_close(adapter.gate, gate, rtol=1e-12, atol=1e-12)
        kept.append(sum(int(adapter.gate.count_nonzero()) for adapter in layers.values()))
    assert kept[3] == 11 and kept[-1] == 6 and 6 < kept[5] < 11
    ranks = {int(adapter.gate.count_nonzero()) for adapter in layers.values()}
    assert len(ranks) > 1, "the layers keep different ranks"


@pytest.mark.acts("adapter.importance", "adapter.beta1", "adapter.beta2")
@pytest.mark.parametrize("importance", ["magnitude", "sensitivity", "smoothed"])
def test_importance_is_its_formula(importance: str) -> None:
    betas = {"beta1": 0.6, "beta2": 0.3} if importance == "smoothed" else {}
    layers = adapters(importance=importance, **betas)
    budget = Budget(layers, STEPS)
    averages: dict[int, tuple[Any, Any]] = {}
    for step in (1, 2, 3):
        walk(layers, step)
        with torch.no_grad():
            budget.stepped(Stepped(step, dict))
        for adapter in layers.values():
            for p in adapter.parameters():
                mean, spread = averages.get(id(p), (0.0, 0.0))
                now = (p * p.grad).abs().detach()
                mean = 0.6 * mean + 0.4 * now
                averages[id(p)] = mean, 0.3 * spread + 0.7 * (now - mean).abs()
    for adapter, found in zip(layers.values(), budget.scores(), strict=True):
        each = {"sensitivity": lambda p: (p * p.grad).abs(), "smoothed": lambda p: averages[id(p)][0] * averages[id(p)][1]}
        if importance == "magnitude":
            wanted = adapter.gate.abs()
        else:
            of = each[importance]
            wanted = of(adapter.gate) + of(adapter.up).mean(0) + of(adapter.down).mean(1)
        torch.testing.assert_close(found, wanted.detach())


@pytest.mark.acts("adapter.orthogonality")
def test_the_penalty_is_pefts_mean_of_norms() -> None:
    layers = adapters(orthogonality=0.5)
    wanted = []
    for adapter in layers.values():
        one = torch.eye(adapter.options.rank, dtype=torch.float64)
        wanted += [(adapter.up.T @ adapter.up - one).norm(), (adapter.down @ adapter.down.T - one).norm()]
    penalty = Procedures({"adalora": Budget(layers, STEPS)}).penalty()
    assert penalty is not None and penalty.item() == pytest.approx(0.5 * torch.stack(wanted).mean().item())
    penalty.backward()
    assert all(adapter.up.grad.any() and adapter.down.grad.any() for adapter in layers.values())
    assert Budget(adapters(orthogonality=0.0), STEPS).penalty() is None


@pytest.mark.parametrize("importance", ["magnitude", "sensitivity", "smoothed"])
@pytest.mark.parametrize("cut", [5, 17], ids=["while it shrinks", "when it stands"])
def test_a_state_goes_on_bit_for_bit(importance: str, cut: int) -> None:
    whole = adapters(importance=importance)
    first = Procedures.of(whole, STEPS)
    for step in range(1, cut + 1):
        walk(whole, step)
        first.stepped(Stepped(step, dict))
    again = copy.deepcopy(whole)
    second = Procedures.of(again, STEPS)
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    for step in range(cut + 1, STEPS + 1):
        for layers, procedures in ((whole, first), (again, second)):
            walk(layers, step)
            procedures.stepped(Stepped(step, dict))
    for ours, theirs in zip(whole.values(), again.values(), strict=True):
        assert torch.equal(ours.gate, theirs.gate)
    assert 0 < sum(int(adapter.gate.count_nonzero()) for adapter in whole.values()) <= 6


def test_a_file_is_spared_the_ranks_that_were_taken_away() -> None:
    adapter = adapters()["unet.layer0"]
    with torch.no_grad():
        adapter.gate[[0, 2]] = 0.0
    whole, thin = adapter.factors(), adapter.thin_factors()
    assert (whole[0].shape[1], thin[0].shape[1], adapter.file_rank) == (4, 2, 2)
    torch.testing.assert_close(thin[0] @ thin[1], whole[0] @ whole[1])
    with torch.no_grad():
        adapter.gate.zero_()
    assert adapter.thin_factors()[0].shape == (6, 1) and not (adapter.thin_factors()[0] @ adapter.thin_factors()[1]).any()


def test_options_that_contradict_each_other_are_refused() -> None:
    for options, words in (
        ({"rank": 2, "target_rank": 3}, "target_rank .3. is above rank .2."),
        ({"prune_from": 0.5, "prune_until": 0.4}, "must be below prune_until"),
        ({"importance": "magnitude", "beta1": 0.5}, "no effect unless importance = 'smoothed'"),
    ):
        with pytest.raises(ValueError, match=words):
            AdaLoRA.Options(**options)
    layers = adapters() | {"unet.other": adapters(prune_every=7)["unet.layer0"]}
    with pytest.raises(AdapterError, match="unet.other: prune_every is one for all layers of adalora, but 3 and 7"):
        Procedures.of(layers, STEPS)
