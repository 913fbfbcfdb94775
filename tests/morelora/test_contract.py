"""What every adapter promises, over the whole registry and the grid of layers, options and decompositions, in float64.

No algorithm is named here: that a change is what its paper says is held by ``test_closed_forms.py``.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch

from morelora.adapted import Adapted
from morelora.load import adapter_from
from morelora.registry import ALGORITHMS
from morelora.site import Site
from tests.morelora.grid import (
    AXES,
    CASES,
    EVERY,
    EVERY_CASE,
    EXTRA,
    NEED_SQUARES,
    REFUSED,
    SQUARES,
    Case,
    example,
    expected_output,
    operate,
)

GRID = pytest.mark.parametrize("case", CASES, ids=str)
CLOSE = 1e-10


@pytest.mark.parametrize("algorithm", [name for name, kind in ALGORITHMS.items() if kind.mergeable])
def test_every_algorithm_is_in_the_grid_on_whatever_layer_suits_it(algorithm: str) -> None:
    """Refused are only convolutions with groups, layers that are not square, and what does not bear weight decomposition."""
    kind = ALGORITHMS[algorithm]
    meant = SQUARES if algorithm in NEED_SQUARES else EVERY.keys() - SQUARES.keys()
    suited = {name for name in meant if kind.suits(Site.of(EVERY[name]))}
    grouped = {name for name in suited if Site.of(EVERY[name]).groups > 1}
    assert suited - grouped and set(EXTRA) <= set(ALGORITHMS)
    for options in {case.options for case in EVERY_CASE if case.algorithm == algorithm}:
        for axis in AXES if kind.decomposes else (None,):
            there = {case.layer for case in CASES if (case.algorithm, case.options, case.axis) == (algorithm, options, axis)}
            assert suited - grouped <= there, (options, axis)


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_has_no_meaning_is_refused_by_name(case: Case) -> None:
    site = Site.of(EVERY[case.layer])
    why = f"no meaning around {case.algorithm}"
    if site.groups > 1 and "groups" in case.refusal:
        why = "convolution with groups"
    if site.m != site.c and "square" in case.refusal:
        why = "only a square layer"
    assert f"unet.{case.layer}: " in case.refusal and why in case.refusal


@GRID
def test_starts_as_the_unchanged_model(case: Case) -> None:
    adapted, x = case.adapted(trained=False), example(EVERY[case.layer])
    torch.testing.assert_close(adapted(x), adapted.base(x), rtol=0, atol=1e-12 if case.axis else 0)
    torch.testing.assert_close(adapted.weight, adapted.base.weight, rtol=0, atol=1e-12 if case.axis else 0)


@GRID
@pytest.mark.parametrize("training", [True, False])
def test_forward_is_the_operation_with_the_changed_weight(case: Case, training: bool) -> None:
    adapted, x = case.adapted(trained=True).train(training), example(EVERY[case.layer])
    torch.testing.assert_close(adapted(x), expected_output(adapted.adapter, adapted.base, x), rtol=0, atol=CLOSE)


@GRID
def test_strength_moves_from_the_base_to_the_changed_weight(case: Case) -> None:
    adapted, x = case.adapted(trained=True), example(EVERY[case.layer])
    weight = adapted.base.weight
    for strength in (0.5, -0.7, 2.0):
        adapted.strength = strength
        expected = expected_output(adapted.adapter, adapted.base, x, strength)
        torch.testing.assert_close(adapted(x), expected, rtol=0, atol=CLOSE)
        torch.testing.assert_close(operate(adapted.base, x, adapted.weight, adapted.bias), expected, rtol=0, atol=CLOSE)
    adapted.strength = 0.0
    assert torch.equal(adapted(x), adapted.base(x)) and torch.equal(adapted.weight, weight)


@GRID
def test_merge_equals_forward_and_unmerge_restores_every_bit(case: Case) -> None:
    adapted, x = case.adapted(trained=True), example(EVERY[case.layer])
    adapted.strength = 0.8
    expected, before = adapted(x), copy.deepcopy(adapted.base.state_dict())
    adapted.merge()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in adapted.base.state_dict().items())
    torch.testing.assert_close(adapted(x), expected, rtol=0, atol=CLOSE)
    adapted.unmerge()
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapted.base.state_dict().items())
    torch.testing.assert_close(adapted(x), expected, rtol=0, atol=0)


@GRID
def test_gradients_equal_autograd_of_the_definition(case: Case) -> None:
    adapted, x = case.adapted(trained=True), example(EVERY[case.layer]).requires_grad_()
    inputs = [x, *adapted.adapter.parameters()]
    grad = torch.randn(adapted(x).shape, dtype=x.dtype, generator=torch.Generator().manual_seed(5))
    found = torch.autograd.grad(adapted(x), inputs, grad)
    expected = torch.autograd.grad(expected_output(adapted.adapter, adapted.base, x), inputs, grad)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@GRID
def test_every_tensor_gets_a_gradient_within_three_steps_and_the_base_none(case: Case) -> None:
    adapted, x = case.adapted(trained=False), example(EVERY[case.layer])
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


@GRID
def test_zero_factors_alone_start_at_zero(case: Case) -> None:
    """Those that LoRA+ tells from the others; an algorithm whose every tensor starts at zero has none."""
    adapter = case.adapter(trained=False)
    every = dict(adapter.named_parameters())
    zeros = {name for name, p in every.items() if not p.any()}
    raised = {name for name, p in adapter.named_parameters() if any(p is factor for factor in adapter.zero_factors())}
    alone = {name for name in every if name != "magnitude"} == zeros
    assert raised == (set() if alone else zeros) and (raised or alone or not zeros)


@GRID
def test_norm_is_the_frobenius_norm_and_max_norm_only_shortens(case: Case) -> None:
    adapter, weight = case.adapter(trained=True), EVERY[case.layer].weight
    if not adapter.limits_norm:
        pytest.skip("refused with its reason: test_targets.py")
    additive = adapter.plain
    before = additive.delta(weight).detach().clone()
    norm = before.norm().item()
    assert adapter.norm().item() == pytest.approx(norm, rel=1e-9)
    if not adapter.options.is_homogeneous:
        return
    adapter.limit_norm(norm * 1.01)
    torch.testing.assert_close(additive.delta(weight), before, rtol=1e-12, atol=1e-12)
    adapter.limit_norm(norm * 0.3)
    torch.testing.assert_close(additive.delta(weight), 0.3 * before, rtol=1e-9, atol=1e-9)
    assert math.isclose(adapter.norm().item(), 0.3 * norm, rel_tol=1e-9)


@GRID
def test_exact_factors_multiply_to_the_change(case: Case) -> None:
    adapter, weight = case.adapter(trained=True), EVERY[case.layer].weight
    factors = adapter.factors()
    if factors is None:
        assert all(adapter.plain.thick)  # the words of a refusal of the plain form
        return
    up, down = factors
    delta = adapter.delta(weight)
    torch.testing.assert_close((up @ down).reshape(weight.shape), delta, rtol=0, atol=CLOSE)
    assert up.shape == (adapter.site.m, down.shape[0]) and down.shape[1] == adapter.site.c


@GRID
def test_file_tensors_give_the_same_change_back(case: Case) -> None:
    adapter, weight = case.adapter(trained=True), EVERY[case.layer].weight
    tensors = {leaf: tensor.detach() for leaf, tensor in adapter.tensors(alpha=1.25).items()}
    again = adapter_from(EVERY[case.layer], tensors).double()
    inner = getattr(adapter.plain, "inner", adapter)
    assert again.name in (adapter.name, adapter.filed_as, inner.filed_as)
    torch.testing.assert_close(again.delta(weight), adapter.delta(weight), rtol=0, atol=2e-6)
    shift, same = adapter.bias_delta(EVERY[case.layer].bias), again.bias_delta(EVERY[case.layer].bias)
    assert shift is None and same is None or torch.allclose(shift, same, rtol=0, atol=1e-6)


@GRID
@torch.no_grad()
def test_a_web_ui_file_gives_the_same_change_back(case: Case) -> None:
    adapter, base = case.adapter(trained=True), case.frozen()
    tensors = {leaf: tensor.detach() for leaf, tensor in adapter.file_tensors(base, alpha=1.25).items()}
    again, x = adapter_from(base, tensors).double(), example(base)
    torch.testing.assert_close(again(x, base), expected_output(adapter, base, x), rtol=0, atol=2e-5)


def test_an_input_of_one_row_or_with_strides_is_no_special_case() -> None:
    case = next(c for c in CASES if c.layer == "linear" and c.axis == "input")
    adapted: Adapted = case.adapted(trained=True)
    changed = adapted.base.weight + adapted.adapter.delta(adapted.base.weight)
    wide = torch.randn(3, 12, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    for x in (wide[0, :, 0], wide[..., 0], wide.transpose(1, 2), wide.transpose(1, 2)[:, ::2]):
        torch.testing.assert_close(adapted(x), operate(adapted.base, x, changed), rtol=0, atol=CLOSE)
