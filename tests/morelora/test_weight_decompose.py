"""Weight decomposition: its own corners. Values over the grid stand in test_contract.py, peers in test_oracles.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from morelora.adapted import Adapted
from morelora.algorithms.lora import LoRA
from morelora.errors import AdapterError
from morelora.factors import added_squares
from morelora.site import Site
from morelora.weight_decompose import WeightDecomposed
from tests.morelora.closed import closed_delta
from tests.morelora.grid import example, randomise


def decomposed(layer: nn.Module, axis: str, seed: int = 2) -> WeightDecomposed:
    inner = LoRA(Site.of(layer), LoRA.Options(rank=2, alpha=1.0)).double()
    return randomise(WeightDecomposed(inner, layer.weight, axis).double(), seed)


def test_added_squares() -> None:
    weight, up, down = (torch.randn(shape, dtype=torch.float64) for shape in ((9, 14), (9, 3), (3, 14)))
    expected = (weight + up @ down).square().sum(0) - weight.square().sum(0)
    torch.testing.assert_close(added_squares(weight, up, down), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("axis", ["input", "output"])
def test_norm_of_the_changed_weight_is_the_magnitude(axis: str) -> None:
    layer = nn.Conv2d(5, 7, 3).double()
    adapter = decomposed(layer, axis)
    changed = layer.weight + adapter.delta(layer.weight)
    norms = changed.transpose(0, 1).flatten(1).norm(dim=1) if axis == "input" else changed.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, adapter.magnitude, rtol=1e-10, atol=0)


@pytest.mark.parametrize("axis", ["input", "output"])
def test_an_all_zero_feature_stays_zero_and_finite(axis: str) -> None:
    layer = nn.Linear(6, 4).double()
    with torch.no_grad():
        (layer.weight[:, 2] if axis == "input" else layer.weight[2]).zero_()
    lora = LoRA(Site.of(layer), LoRA.Options(rank=2))
    adapted = Adapted(layer, WeightDecomposed(lora, layer.weight, axis).double())
    x = example(layer)
    torch.testing.assert_close(adapted(x), layer(x), rtol=0, atol=1e-12)
    adapted(x).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in adapted.adapter.parameters())
    assert adapted.adapter.magnitude.grad[2] == 0 and adapted.adapter.magnitude.grad.count_nonzero() >= 3


@pytest.mark.parametrize("axis", ["input", "output"])
def test_max_norm_limits_the_additive_part_and_leaves_the_magnitude(axis: str) -> None:
    layer = nn.Linear(6, 4).double()
    adapter = decomposed(layer, axis)
    magnitude, before = adapter.magnitude.clone(), closed_delta(adapter.inner, layer.weight).detach()
    adapter.limit_norm(0.5 * before.norm().item())
    torch.testing.assert_close(closed_delta(adapter.inner, layer.weight), 0.5 * before, rtol=1e-9, atol=1e-9)
    assert torch.equal(adapter.magnitude, magnitude)


def test_shapes_of_dora_scale_name_the_axis() -> None:
    layer = nn.Conv2d(5, 7, 3)
    inner = LoRA(Site.of(layer), LoRA.Options())
    for shape, axis in (((1, 5, 1, 1), "input"), ((7, 1, 1, 1), "output"), ((7,), "output")):
        values = torch.rand(shape) + 0.5
        adapter = WeightDecomposed.around(inner, layer.weight, values)
        assert adapter.axis == axis and torch.equal(adapter.magnitude, values.flatten())
    for shape in ((5, 1, 1, 1), (1, 7, 1, 1), (7, 5), (6,)):
        with pytest.raises(AdapterError, match="dora_scale has shape"):
            WeightDecomposed.around(inner, layer.weight, torch.rand(shape))


@pytest.mark.parametrize("axis", ["input", "output"])
def test_norms_follow_the_adapter_below(axis: str) -> None:
    """A decomposition over another adapter sees that one's present strength, not the one at the time of its making."""
    base = nn.Linear(6, 4).double()
    below = Adapted(base, randomise(LoRA(Site.of(base), LoRA.Options(rank=2)).double()))
    outer = Adapted(below, decomposed(below, axis, seed=5))
    below.strength = 0.3
    weight = base.weight + 0.3 * closed_delta(below.adapter, base.weight)
    expected = weight + closed_delta(outer.adapter, weight)
    x = example(base)
    torch.testing.assert_close(outer(x), nn.functional.linear(x, expected, base.bias), rtol=0, atol=1e-10)
    below.merge()
    torch.testing.assert_close(outer(x), nn.functional.linear(x, expected, base.bias), rtol=0, atol=1e-10)
