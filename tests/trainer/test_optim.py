"""Schedules, parameter groups, optimiser state without pickle, and the average."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from morelora import AdapterConfig, inject, resolve
from trainer.config import OptimizerConfig
from trainer.optim import OPTIMIZERS, Ema, build_schedule, pack_optimizer, parameter_groups, unpack_optimizer


def rates(schedule: str, warmup: int, steps: int = 10) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    course = build_schedule(optimizer, OptimizerConfig(schedule=schedule, warmup=warmup), steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        course.step()
    return found


def test_constant_after_warm_up():
    assert rates("constant", 4) == pytest.approx([0.5, 1.0, 1.5, 2.0] + [2.0] * 6)


def test_linear_falls_to_the_last_step():
    assert rates("linear", 0) == pytest.approx([2 * (1 - i / 10) for i in range(10)])


def test_cosine_is_half_at_the_middle():
    found = rates("cosine", 2, 12)
    assert found[2:] == pytest.approx([1 + math.cos(math.pi * i / 10) for i in range(10)])


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn1 = nn.ModuleDict({"to_q": nn.Linear(4, 6), "to_k": nn.Linear(4, 6)})
        self.layers = nn.ModuleList([nn.ModuleDict({"mlp": nn.ModuleDict({"fc1": nn.Linear(4, 6)})})])


def test_groups_by_component_and_rule():
    unet, text = Model(), Model()
    config = AdapterConfig.model_validate({"rank": 2, "rules": [{"match": "to_k", "lr": 0.5}]})
    targets = resolve({"unet": unet, "text_encoder": text}, config)
    adapters = inject({"unet": unet, "text_encoder": text}, targets)
    groups = parameter_groups(adapters, targets, OptimizerConfig(lr=0.1, text_encoder_lr=0.2))
    of = {group["lr"]: sum(p.numel() for p in group["params"]) for group in groups}
    one = 2 * (4 + 6)
    assert of == {0.1: one, 0.5: 2 * one, 0.2: one}


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_state_survives_json_and_tensors_bit_for_bit(name):
    def make() -> tuple[nn.Parameter, torch.optim.Optimizer]:
        torch.manual_seed(0)
        parameter = nn.Parameter(torch.randn(5, 3))
        return parameter, OPTIMIZERS[name]([{"params": [parameter], "lr": 0.1}], OptimizerConfig(name=name, lr=0.1))

    def step(parameter: nn.Parameter, optimizer: torch.optim.Optimizer, i: int) -> None:
        parameter.grad = torch.randn(5, 3, generator=torch.Generator().manual_seed(i))
        optimizer.step()

    parameter, optimizer = make()
    for i in range(3):
        step(parameter, optimizer, i)
    tensors, values = pack_optimizer(optimizer)
    tensors = {key: tensor.clone() for key, tensor in tensors.items()}
    other, fresh = make()
    other.data.copy_(parameter.data)
    unpack_optimizer(fresh, tensors, json.loads(json.dumps(values)))
    for i in range(3, 8):
        step(parameter, optimizer, i)
        step(other, fresh, i)
    assert torch.equal(parameter, other)
    assert not torch.equal(parameter, make()[0])


def test_ema_closed_form_and_swap():
    parameter = nn.Parameter(torch.zeros(2))
    ema = Ema([parameter], 0.5)
    with torch.no_grad():
        for step, value in ((1, 1.0), (2, 2.0)):
            parameter.fill_(value)
            ema.update(step)
    first = 0.0 + (1 - 2 / 11) * 1.0
    second = first + (1 - 3 / 12) * (2.0 - first)
    assert ema.average[0].tolist() == pytest.approx([second] * 2)
    ema.swap()
    assert parameter.tolist() == pytest.approx([second] * 2) and ema.average[0].tolist() == [2.0, 2.0]
    ema.swap()
    assert parameter.tolist() == [2.0, 2.0]


def test_ema_reaches_its_full_decay():
    parameter = nn.Parameter(torch.ones(1))
    ema = Ema([parameter], 0.9)
    ema.average[0].zero_()
    ema.update(10_000)
    assert ema.average[0].item() == pytest.approx(0.1)
