"""GaLore against torch's own AdamW in the space that numpy's SVD gives."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainer import settings
from trainer.config import OptimizerConfig
from trainer.errors import InputError
from trainer.optim import check_optimizer, pack_optimizer, unpack_optimizer
from trainer.optim.galore import basis
from trainer.optim.optimizers import make_optimizer

CONFIG = OptimizerConfig(name="adamw", lr=0.05, galore_rank=3, galore_interval=4, galore_scale=0.5, weight_decay=0.0)
SHAPES = {"wide": (6, 10), "tall": (10, 6)}


def make(parameters: list[nn.Parameter], config: OptimizerConfig = CONFIG) -> torch.optim.Optimizer:
    projection = {"rank": config.galore_rank, "interval": config.galore_interval, "scale": config.galore_scale}
    groups = [{"params": parameters[:1], "lr": config.lr} | projection, {"params": parameters[1:], "lr": config.lr}]
    return make_optimizer(groups, config)


def weights(shape: tuple[int, int]) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(size, generator=generator, dtype=torch.float64)) for size in (shape, (4, 4))]


def gradient(parameter: Tensor, i: int) -> Tensor:
    return torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64)


def train(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
    for i in steps:
        for parameter in parameters:
            parameter.grad = gradient(parameter, i)
        optimizer.step()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_it_is_adamw_in_the_space_of_the_gradient(shape, decay):
    """A small AdamW that never loses its moments when the basis changes, its displacement carried back by the basis."""
    parameters = weights(shape)
    whole, plain = (p.detach().clone() for p in parameters)
    small = nn.Parameter(torch.zeros((3, 10) if shape == (6, 10) else (10, 3), dtype=torch.float64))
    inner = torch.optim.AdamW([small], lr=0.05, betas=(0.9, 0.99), weight_decay=0.0)
    for i in range(10):
        g = gradient(whole, i)
        if i % 4 == 0:
            left, _, right = np.linalg.svd(g.numpy(), full_matrices=False)
            p = torch.from_numpy(left[:, :3] if shape == (6, 10) else right[:3].T.copy())
            p = p * torch.sign((p * basis(g, 3)).sum(0))  # a singular vector's sign is free
        before = small.detach().clone()
        small.grad = p.T @ g if shape == (6, 10) else g @ p
        inner.step()
        moved = small.detach() - before
        whole = whole * (1 - 0.05 * decay) + 0.5 * (p @ moved if shape == (6, 10) else moved @ p.T)
    other = nn.Parameter(plain)
    beside = torch.optim.AdamW([other], lr=0.05, betas=(0.9, 0.99), weight_decay=decay)
    train([other], beside, range(10))
    optimizer = make(parameters, CONFIG.model_copy(update={"weight_decay": decay}))
    train(parameters, optimizer, range(10))
    torch.testing.assert_close(parameters[0].detach(), whole, rtol=0, atol=1e-9)
    torch.testing.assert_close(parameters[1], other, rtol=0, atol=1e-12)


def test_its_state_is_small_and_comes_back_bit_for_bit():
    parameters = weights((64, 80))
    optimizer = make(parameters)
    train(parameters, optimizer, range(5))
    tensors, values = pack_optimizer(optimizer)
    sizes = sorted(t.numel() for name, t in tensors.items() if name.startswith("state.0."))
    assert sizes == sorted([1, 64 * 3, 3 * 80, 3 * 80])
    others = [nn.Parameter(p.detach().clone()) for p in parameters]
    fresh = make(others)
    unpack_optimizer(fresh, {k: t.clone() for k, t in tensors.items()}, json.loads(json.dumps(values)))
    train(parameters, optimizer, range(5, 10))
    train(others, fresh, range(5, 10))
    assert all(torch.equal(a, b) for a, b in zip(parameters, others, strict=True))


@pytest.mark.acts("optimizer.galore_rank", "optimizer.galore_interval", "optimizer.galore_scale")
@pytest.mark.parametrize("change", [{"galore_rank": 2}, {"galore_interval": 2}, {"galore_scale": 0.25}])
def test_each_setting_acts(change):
    results = []
    for config in (CONFIG, CONFIG.model_copy(update=change)):
        parameters = weights((6, 10))
        train(parameters, make(parameters, config), range(6))
        results.append(parameters[0].detach())
    assert not torch.equal(*results)


def test_the_rehearsal_projects():
    check_optimizer(CONFIG, torch.device("cpu"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "lion", "galore_rank": 4}, "galore_rank works with optimizer.name = 'adamw' only"),
        ({"galore_scale": 1.0}, "galore_scale has no effect unless"),
        ({"galore_interval": 9}, "galore_interval has no effect unless"),
        ({"name": "prodigy", "lr": 1.0, "lora_plus_ratio": 16}, "remove optimizer.lora_plus_ratio"),
    ],
)
def test_contradictions_are_refused(values, words):
    with pytest.raises(InputError, match=words):
        settings.parse({"optimizer": values}, "test")
