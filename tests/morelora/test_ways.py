"""The hand-written autograd functions against plain autograd, in float64, and which way is taken when."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from morelora import ways
from morelora.adapted import Adapted
from morelora.site import Site
from tests.morelora.closed import closed_delta
from tests.morelora.grid import CASES, LAYERS, Case, example, operate

PLAIN_LAYERS = [name for name in LAYERS if name != "grouped conv"]


def parts(name: str, rank: int = 2, gained: bool = True) -> tuple[nn.Module, Site, Tensor, Tensor, Tensor | None]:
    layer = copy.deepcopy(LAYERS[name]).requires_grad_(False)
    site = Site.of(layer)
    generator = torch.Generator().manual_seed(11)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    return layer, site, random(site.m, rank), random(rank, site.c), random(site.n) if gained else None


def small_example(layer: nn.Module) -> Tensor:
    x = example(layer)
    return x[:1, :, :4, :4].clone() if x.dim() == 4 else x[:, :2].clone()


def test_a_change_too_small_for_bfloat16_weights_still_acts() -> None:
    """A thousandth of the weight would be rounded away in ``W + delta``."""
    layer = nn.Linear(2, 2, bias=False).to(torch.bfloat16)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    up, down = torch.full((2, 1), 1e-3), torch.tensor([[1.0, -1.0]])
    x = torch.tensor([[8.0, -8.0]], dtype=torch.bfloat16).repeat(128, 1)
    assert torch.equal(layer.weight + (up @ down).to(torch.bfloat16), layer.weight) and not layer(x).any()
    y = ways.run(ways.LowRank(Site.of(layer)), x, layer, (up, down))
    torch.testing.assert_close(y.float(), torch.full((128, 2), 0.016), rtol=1e-2, atol=0)


@pytest.mark.parametrize("gained", [True, False])
@pytest.mark.parametrize("name", PLAIN_LAYERS)
@pytest.mark.parametrize("needs_x", [True, False])
def test_gradcheck(name: str, gained: bool, needs_x: bool, form: str) -> None:
    layer, site, up, down, gain = parts(name, gained=gained)
    x = small_example(layer).requires_grad_(needs_x)
    inputs = (x, up, down) if gain is None else (x, up, down, gain)

    def run(x: Tensor, up: Tensor, down: Tensor, gain: Tensor | None = None) -> Tensor:
        return ways.run(ways.LowRank(site), x, layer, (up, down), gain)

    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("name", PLAIN_LAYERS)
@pytest.mark.parametrize("gained", [True, False])
def test_output_equals_the_operation_with_the_summed_weight(name: str, gained: bool, form: str) -> None:
    layer, site, up, down, gain = parts(name, gained=gained)
    x = example(layer)
    changed = layer.weight + (up @ down).reshape(site.weight_shape)
    if gain is not None:
        changed = changed * gain.reshape(1, -1, *(1 for _ in site.kernel or ()))
    torch.testing.assert_close(
        ways.run(ways.LowRank(site), x, layer, (up, down), gain), operate(layer, x, changed), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("case", [c for c in CASES if c.algorithm == "lokr" and c.axis is None], ids=str)
def test_kronecker_gradcheck(case: Case, form: str) -> None:
    adapted = case.adapted(trained=True)
    x = small_example(adapted.base).requires_grad_()
    names, values = zip(*adapted.adapter.named_parameters(), strict=True)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(
            adapted, {f"adapter.{name}": value for name, value in zip(names, values, strict=True)}, (x,)
        )

    assert torch.autograd.gradcheck(run, (x, *values))
    assert torch.autograd.gradcheck(lambda *given: run(x.detach(), *given), values)


class Doubled(nn.Linear):
    """A layer of another class: its operation is unknown to the package."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize("axis", [None, "input"])
@pytest.mark.parametrize("algorithm", ["lora", "loha", "lokr"])
def test_a_layer_of_unknown_class_runs_its_own_forward(algorithm: str, axis: str | None) -> None:
    case = next(c for c in CASES if c.layer == "linear" and c.algorithm == algorithm and c.axis == axis)
    plain = case.adapted(trained=True)
    layer = Doubled(12, 8).double()
    layer.load_state_dict(plain.base.state_dict())
    x = example(layer)
    changed = layer.weight + closed_delta(plain.adapter, layer.weight)
    gain = 1.0
    if axis:
        inner = layer.weight + closed_delta(plain.adapter.inner, layer.weight)
        gain = (changed / inner)[0]
        changed = inner
    expected = 2 * operate(layer, x * gain, layer.weight) + nn.functional.linear(x * gain, changed - layer.weight)
    torch.testing.assert_close(Adapted(layer, plain.adapter)(x), expected, rtol=0, atol=1e-9)


def kept_beside_parameters(adapted: Adapted, x: Tensor) -> int:
    """Bytes that autograd keeps, in storages that belong to no parameter and not to ``x`` itself."""
    own = {p.untyped_storage().data_ptr() for p in adapted.parameters()} | {x.untyped_storage().data_ptr()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = adapted(x)
    del result
    return sum(kept.values())


@pytest.mark.parametrize("layer", [nn.Linear(96, 64), nn.Conv2d(96, 64, 3, padding=1)], ids=["linear", "conv"])
@pytest.mark.parametrize("axis", [None, "input"])
@pytest.mark.parametrize("algorithm", ["lora", "loha", "lokr", "glora"])
def test_backward_keeps_the_input_and_nothing_else_of_its_size(layer: nn.Module, algorithm: str, axis: str | None) -> None:
    from morelora.registry import ALGORITHMS
    from morelora.weight_decompose import WeightDecomposed

    if algorithm == "lokr" and axis:
        pytest.skip("the scaled input is kept there: the Kronecker branch takes no gain")
    adapter = ALGORITHMS[algorithm](Site.of(layer), ALGORITHMS[algorithm].Options(rank=2))
    adapted = Adapted(layer, WeightDecomposed(adapter, layer.weight, axis) if axis else adapter)
    x = torch.randn((8, 512, 96) if isinstance(layer, nn.Linear) else (8, 96, 24, 24), requires_grad=True)
    assert kept_beside_parameters(adapted, x) < 0.15 * x.nbytes
