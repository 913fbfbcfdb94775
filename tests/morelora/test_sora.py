"""SoRA's threshold against its closed form, and the zeros that it leaves out of the file."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from morelora.algorithms.sora import SoRA, soft_threshold
from morelora.procedure import Procedures, Stepped
from morelora.site import Site


def shrunk(x: float, width: float) -> float:
    """The three cases of the paper's equation 9."""
    if x > width:
        return x - width
    return x + width if x <= -width else 0.0


def test_the_soft_threshold_is_the_papers_three_cases() -> None:
    values = [-2.0, -0.51, -0.5, -0.49, -0.0, 0.0, 0.3, 0.5, 0.50001, 7.0]
    found = soft_threshold(torch.tensor(values, dtype=torch.float64), 0.5)
    assert found.tolist() == pytest.approx([shrunk(value, 0.5) for value in values])
    assert torch.equal(soft_threshold(torch.tensor(values), 0.0), torch.tensor(values))


@pytest.mark.acts("adapter.sparsity")
def test_each_step_draws_the_gate_by_sparsity_times_its_own_rate() -> None:
    layers = {
        f"unet.{i}": SoRA(Site.of(nn.Linear(4, 6)), SoRA.Options(rank=3, sparsity=width)) for i, width in enumerate((2.0, 0.5))
    }
    start = torch.tensor([0.3, -0.02, 1.0])
    rates = {adapter.gate: rate for adapter, rate in zip(layers.values(), (0.1, 0.02), strict=True)}
    others = {name: [adapter.up.clone(), adapter.down.clone()] for name, adapter in layers.items()}
    for adapter in layers.values():
        adapter.gate.data.copy_(start)
    Procedures.of(layers, 10).stepped(Stepped(1, lambda: rates))
    for (name, adapter), width in zip(layers.items(), (0.2, 0.01), strict=True):
        assert adapter.gate.tolist() == pytest.approx([shrunk(value, width) for value in start.tolist()])
        assert torch.equal(adapter.up, others[name][0]) and torch.equal(adapter.down, others[name][1])
    assert layers["unet.0"].file_rank == 2 and layers["unet.1"].file_rank == 3


def test_gradient_descent_with_the_threshold_is_the_lasso() -> None:
    """On ``1/2 ||gate - a||^2 + sparsity |gate|`` the steps end at the closed form ``soft_threshold(a, sparsity)``."""
    target = torch.tensor([1.5, -0.7, 0.2, -0.1])
    adapter = SoRA(Site.of(nn.Linear(4, 6)), SoRA.Options(rank=4, sparsity=0.4))
    procedures = Procedures.of({"unet.layer": adapter}, 200)
    for step in range(1, 201):
        adapter.gate.data.add_(adapter.gate.detach() - target, alpha=-0.1)
        procedures.stepped(Stepped(step, lambda: {adapter.gate: 0.1}))
    torch.testing.assert_close(adapter.gate.detach(), torch.tensor([1.1, -0.3, 0.0, 0.0]), rtol=0, atol=1e-6)
    assert adapter.gate.count_nonzero() == 2
