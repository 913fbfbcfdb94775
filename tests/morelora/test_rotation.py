"""Rotations applied to the layer's output and to its weight: the same values and gradients, and what is kept for backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from morelora import cost
from morelora.algorithms.boft import BOFT
from morelora.algorithms.oft import OFT
from morelora.rotation import Rotation
from morelora.site import Site
from tests.morelora.grid import EVERY, example, expected_output, randomise

KINDS = [OFT, BOFT]
PLACES = [pytest.param(False, id="output"), pytest.param(True, id="weight")]


def turns_weight(monkeypatch: pytest.MonkeyPatch, whether: bool) -> None:
    monkeypatch.setattr(cost, "prefers_turned_weight", lambda *given: whether)


@pytest.mark.parametrize("options", [{}, {"rescale": True}, {"constraint": 0.02}], ids=str)
@pytest.mark.parametrize("strength", [1.0, 0.3])
@pytest.mark.parametrize("layer", ["linear", "wide linear", "conv 3x3 stride 2", "dilated conv without bias"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight", PLACES)
def test_values_and_gradients_are_those_of_the_changed_weight(
    monkeypatch: pytest.MonkeyPatch, weight: bool, kind: type[Rotation], layer: str, strength: float, options: dict[str, Any]
) -> None:
    """The oracle is torch's own operation with ``W + strength delta`` and torch's own gradients."""
    turns_weight(monkeypatch, weight)
    base, x = EVERY[layer], example(EVERY[layer]).requires_grad_()
    adapter = randomise(kind(Site.of(base), kind.Options(block_size=2, **options)).double())
    wanted = [x, *adapter.parameters()]

    def gradients(y: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum(), wanted)

    ours = adapter(x, base, strength)
    truth = expected_output(adapter, base, x, strength)
    torch.testing.assert_close(ours, truth)
    torch.testing.assert_close(gradients(ours), gradients(truth))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight", PLACES)
def test_backward_keeps_the_result_and_not_the_stages(
    monkeypatch: pytest.MonkeyPatch, weight: bool, kind: type[Rotation]
) -> None:
    turns_weight(monkeypatch, weight)
    base, x = nn.Linear(64, 64), torch.randn(96, 64, requires_grad=True)
    adapter = randomise(kind(Site.of(base), kind.Options(block_size=4)))
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    for part in adapter.parameters():
        part.requires_grad_(False)
    adapter.oft_blocks.requires_grad_()
    frozen = base.requires_grad_(False)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        adapter(x, frozen)
    own = {tensor.data_ptr() for tensor in (x, frozen.weight, frozen.bias)}
    of_blocks = 8 * adapter.oft_blocks.numel() * 4
    result = frozen.weight.numel() * 4 if weight else x.numel() * 4
    assert sum(size for storage, size in kept.items() if storage not in own) <= result + of_blocks


def test_the_cheaper_one_is_turned() -> None:
    """A weight of few inputs under many positions is; one of many inputs under few is not."""
    narrow, wide = Site.of(nn.Linear(128, 128)), Site.of(nn.Linear(2048, 2048))
    assert cost.prefers_turned_weight(narrow, 4096, stages=6, block=4)
    assert not cost.prefers_turned_weight(wide, 16, stages=6, block=4)
