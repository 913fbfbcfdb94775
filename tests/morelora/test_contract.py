"""What every adapter promises, over the whole grid of layers, options and decompositions, in float64."""

from __future__ import annotations

import math

import pytest
import torch

from morelora.adapted import Adapted
from morelora.adapter import Adapter
from morelora.errors import AdapterError
from morelora.registry import ALGORITHMS
from tests.morelora.grid import CASES, LAYERS, OPTIONS, REFUSED, Case, closed_delta, example, operate

GRID = pytest.mark.parametrize("case", CASES, ids=str)
CLOSE = 1e-10


def test_every_algorithm_is_in_the_grid() -> None:
    assert set(OPTIONS) == set(ALGORITHMS)


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_decomposition_without_meaning_is_refused_by_name(case: Case) -> None:
    with pytest.raises(AdapterError, match="no meaning around full" if case.algorithm == "full" else "groups"):
        case.adapter(trained=False)


@GRID
def test_starts_as_the_unchanged_model(case: Case) -> None:
    adapted, x = case.adapted(trained=False), example(LAYERS[case.layer])
    torch.testing.assert_close(adapted(x), adapted.base(x), rtol=0, atol=1e-12 if case.axis else 0)
    torch.testing.assert_close(adapted.weight, adapted.base.weight, rtol=0, atol=1e-12 if case.axis else 0)


@GRID
def test_delta_is_the_closed_form(case: Case) -> None:
    adapter, weight = case.adapter(trained=True), LAYERS[case.layer].weight
    delta = adapter.delta(weight)
    assert delta.shape == weight.shape and delta.abs().max() > 0.02
    torch.testing.assert_close(delta, closed_delta(adapter, weight), rtol=0, atol=CLOSE)


@GRID
@pytest.mark.parametrize("training", [True, False])
def test_forward_is_the_operation_with_the_changed_weight(case: Case, training: bool) -> None:
    adapted, x = case.adapted(trained=True).train(training), example(LAYERS[case.layer])
    weight = adapted.base.weight
    expected = operate(adapted.base, x, weight + closed_delta(adapted.adapter, weight))
    torch.testing.assert_close(adapted(x), expected, rtol=0, atol=CLOSE)


@GRID
def test_strength_moves_from_the_base_to_the_changed_weight(case: Case) -> None:
    adapted, x = case.adapted(trained=True), example(LAYERS[case.layer])
    weight = adapted.base.weight
    for strength in (0.5, -0.7, 2.0):
        adapted.strength = strength
        expected = weight + strength * closed_delta(adapted.adapter, weight)
        torch.testing.assert_close(adapted(x), operate(adapted.base, x, expected), rtol=0, atol=CLOSE)
        torch.testing.assert_close(adapted.weight, expected, rtol=0, atol=CLOSE)
    adapted.strength = 0.0
    assert torch.equal(adapted(x), adapted.base(x)) and torch.equal(adapted.weight, weight)


@GRID
def test_merge_equals_forward_and_unmerge_restores_every_bit(case: Case) -> None:
    adapted, x = case.adapted(trained=True), example(LAYERS[case.layer])
    adapted.strength = 0.8
    expected, before = adapted(x), adapted.base.weight.clone()
    adapted.merge()
    assert not torch.equal(adapted.base.weight, before)
    torch.testing.assert_close(adapted(x), expected, rtol=0, atol=CLOSE)
    adapted.unmerge()
    assert torch.equal(adapted.base.weight, before)
    torch.testing.assert_close(adapted(x), expected, rtol=0, atol=0)


@GRID
def test_gradients_equal_autograd_of_the_closed_form(case: Case) -> None:
    adapted, x = case.adapted(trained=True), example(LAYERS[case.layer]).requires_grad_()
    weight = adapted.base.weight
    inputs = [x, *adapted.adapter.parameters()]
    grad = torch.randn(adapted(x).shape, dtype=x.dtype, generator=torch.Generator().manual_seed(5))
    found = torch.autograd.grad(adapted(x), inputs, grad)
    expected = torch.autograd.grad(operate(adapted.base, x, weight + closed_delta(adapted.adapter, weight)), inputs, grad)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@GRID
def test_every_tensor_gets_a_gradient_within_three_steps_and_the_base_none(case: Case) -> None:
    adapted, x = case.adapted(trained=False), example(LAYERS[case.layer])
    target = torch.randn(adapted(x).shape, dtype=x.dtype, generator=torch.Generator().manual_seed(6))
    reached = set()
    optimizer = torch.optim.SGD(adapted.adapter.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (adapted(x) - target).square().mean().backward()
        reached |= {name for name, p in adapted.adapter.named_parameters() if p.grad.abs().max() > 0}
        optimizer.step()
    assert reached == {name for name, _ in adapted.adapter.named_parameters()}
    assert all(p.grad is None and not p.requires_grad for p in adapted.base.parameters())


def expected_count(case: Case, adapter: Adapter) -> int:
    """Trainable numbers by the formulas of the docstrings; LoKr's split and its conditions as LyCORIS defines them."""
    from lycoris.functional import factorization

    site, options = adapter.site, dict(case.options)
    if case.algorithm == "full":
        return site.m * site.c
    m, n, c, taps, r = site.m, site.n, site.c, site.taps, options["rank"]
    tucker = options.get("tucker", False) and taps > 1
    extra = {None: 0, "input": n, "output": m}[case.axis]
    if case.algorithm == "lora":
        return extra + (r * (m + n) + r * r * taps if tucker else r * (m + c))
    if case.algorithm == "loha":
        return extra + 2 * (r * (m + n) + r * r * taps if tucker else r * (m + c))
    (p, rows), (q, columns) = factorization(m, options["factor"]), factorization(n, options["factor"])
    both = options.get("decompose_both", False) and r < max(p, q) / 2
    low = not options.get("full_matrix", False) and r < max(rows, columns) / 2
    return extra + (r * (p + q) if both else p * q) + (r * (rows + columns * taps) if low else rows * columns * taps)


@pytest.mark.acts(
    "adapter.rank", "adapter.tucker", "adapter.factor", "adapter.full_matrix", "adapter.decompose_both", "adapter.bias"
)
@GRID
def test_parameter_count_is_the_formula(case: Case) -> None:
    adapter = case.adapter(trained=False)
    assert sum(p.numel() for p in adapter.parameters()) == expected_count(case, adapter)


@GRID
def test_zero_factors_alone_start_at_zero(case: Case) -> None:
    """Those that LoRA+ tells from the others; an algorithm whose every tensor starts at zero has none."""
    adapter = case.adapter(trained=False)
    zeros = {name for name, p in adapter.named_parameters() if not p.any()}
    raised = {name for name, p in adapter.named_parameters() if any(p is factor for factor in adapter.zero_factors())}
    assert raised == (set() if case.algorithm == "full" else zeros) and (raised or case.algorithm == "full")


@GRID
def test_norm_is_the_frobenius_norm_and_max_norm_only_shortens(case: Case) -> None:
    adapter, weight = case.adapter(trained=True), LAYERS[case.layer].weight
    additive = getattr(adapter, "inner", adapter)
    before = closed_delta(additive, weight).detach()
    norm = before.norm().item()
    assert adapter.norm().item() == pytest.approx(norm, rel=1e-9)
    adapter.limit_norm(norm * 1.01)
    torch.testing.assert_close(closed_delta(additive, weight), before, rtol=1e-12, atol=1e-12)
    adapter.limit_norm(norm * 0.3)
    torch.testing.assert_close(closed_delta(additive, weight), 0.3 * before, rtol=1e-9, atol=1e-9)
    assert math.isclose(adapter.norm().item(), 0.3 * norm, rel_tol=1e-9)


@GRID
def test_exact_factors_multiply_to_the_change(case: Case) -> None:
    adapter, weight = case.adapter(trained=True), LAYERS[case.layer].weight
    factors = adapter.factors()
    if factors is None:
        assert case.axis or case.algorithm == "full" or getattr(adapter, "w2", None) is not None
        return
    up, down = factors
    delta = closed_delta(adapter, weight)
    torch.testing.assert_close((up @ down).reshape(weight.shape), delta, rtol=0, atol=CLOSE)
    assert up.shape == (adapter.site.m, down.shape[0]) and down.shape[1] == adapter.site.c


@GRID
def test_file_tensors_give_the_same_change_back(case: Case) -> None:
    adapter, weight = case.adapter(trained=True), LAYERS[case.layer].weight
    inner = getattr(adapter, "inner", adapter)
    tensors = {leaf: tensor.detach() for leaf, tensor in inner.tensors(alpha=1.25).items()}
    again = type(inner).from_tensors(inner.site, tensors).double()
    torch.testing.assert_close(closed_delta(again, weight), closed_delta(inner, weight), rtol=0, atol=1e-6)


def test_an_input_of_one_row_or_with_strides_is_no_special_case() -> None:
    case = next(c for c in CASES if c.layer == "linear" and c.axis == "input")
    adapted: Adapted = case.adapted(trained=True)
    changed = adapted.base.weight + closed_delta(adapted.adapter, adapted.base.weight)
    wide = torch.randn(3, 12, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    for x in (wide[0, :, 0], wide[..., 0], wide.transpose(1, 2), wide.transpose(1, 2)[:, ::2]):
        torch.testing.assert_close(adapted(x), operate(adapted.base, x, changed), rtol=0, atol=CLOSE)
