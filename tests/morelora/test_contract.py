"""What every adapter promises, over the whole grid of layers, options and decompositions, in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from morelora.adapted import Adapted
from morelora.adapter import Adapter
from morelora.errors import AdapterError
from morelora.load import adapter_from
from morelora.registry import ALGORITHMS
from morelora.site import Site
from tests.morelora.grid import (
    CASES,
    EVERY,
    OPTIONS,
    REFUSED,
    Case,
    closed_delta,
    closed_shift,
    example,
    expected_output,
    operate,
)

GRID = pytest.mark.parametrize("case", CASES, ids=str)
CLOSE = 1e-10


def test_every_algorithm_is_in_the_grid() -> None:
    assert set(OPTIONS) == set(ALGORITHMS)


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_has_no_meaning_is_refused_by_name(case: Case) -> None:
    with pytest.raises(AdapterError, match=case.refusal):
        case.adapter(trained=False)


@GRID
def test_starts_as_the_unchanged_model(case: Case) -> None:
    adapted, x = case.adapted(trained=False), example(EVERY[case.layer])
    torch.testing.assert_close(adapted(x), adapted.base(x), rtol=0, atol=1e-12 if case.axis else 0)
    torch.testing.assert_close(adapted.weight, adapted.base.weight, rtol=0, atol=1e-12 if case.axis else 0)


@GRID
def test_delta_is_the_closed_form(case: Case) -> None:
    adapter, weight = case.adapter(trained=True), EVERY[case.layer].weight
    delta = adapter.delta(weight)
    assert delta.shape == weight.shape and (delta.abs().max() > 0.02 or case.algorithm == "bitfit")
    torch.testing.assert_close(delta, closed_delta(adapter, weight), rtol=0, atol=CLOSE)


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
def test_gradients_equal_autograd_of_the_closed_form(case: Case) -> None:
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


def _rotation_count(stages: Callable[[int], int]) -> Callable[[Site, dict[str, Any]], int]:
    """Blocks of the size that LyCORIS takes, and a scale of each output."""

    def count(site: Site, options: dict[str, Any]) -> int:
        from lycoris.functional import factorization, power2factorization

        if stages(2) == 1:
            size = max(factorization(site.m, options["block_size"])[0], 2)
        else:
            factors = range(options["block_size"], site.m + 1)
            size = next(found for factor in factors if (found := power2factorization(site.m, factor)[0]))
        return stages(site.m // size) * site.m * size + site.m * options.get("rescale", False)

    return count


COUNTS: dict[str, Callable[[Site, dict[str, Any]], int]] = {
    "full": lambda site, options: site.m * site.c + site.m * (site.has_bias and options.get("bias", True)),
    "bitfit": lambda site, options: site.m,
    "norm": lambda site, options: 2 * site.m,
    "ssf": lambda site, options: site.m * (1 + site.has_bias),
    "ia3": lambda site, options: site.n if options.get("on_input", True) else site.m,
    "oft": _rotation_count(lambda blocks: 1),
    "boft": _rotation_count(lambda blocks: round(math.log2(blocks)) + 1),
}
"""Of the algorithms that have no rank."""


def expected_count(case: Case, adapter: Adapter) -> int:
    """Trainable numbers by the formulas of the docstrings; LoKr's split and its conditions as LyCORIS defines them."""
    from lycoris.functional import factorization

    site, options = adapter.site, dict(case.options)
    m, n, c, taps = site.m, site.n, site.c, site.taps
    extra = {None: 0, "input": n, "output": m}[case.axis]
    if case.algorithm in COUNTS:
        return extra + COUNTS[case.algorithm](site, options)
    r = options["rank"]
    tucker = options.get("tucker", False) and taps > 1
    if case.algorithm == "lora":
        return extra + (r * (m + n) + r * r * taps if tucker else r * (m + c))
    if case.algorithm == "dylora":
        return extra + r * (m + c)
    if case.algorithm in ("adalora", "sora", "tlora"):
        return extra + r * (m + c + 1)
    if case.algorithm == "loha":
        return extra + 2 * (r * (m + n) + r * r * taps if tucker else r * (m + c))
    (p, rows), (q, columns) = factorization(m, options["factor"]), factorization(n, options["factor"])
    both = options.get("decompose_both", False) and r < max(p, q) / 2
    low = not options.get("full_matrix", False) and r < max(rows, columns) / 2
    return extra + (r * (p + q) if both else p * q) + (r * (rows + columns * taps) if low else rows * columns * taps)


@pytest.mark.acts(
    "adapter.rank",
    "adapter.tucker",
    "adapter.factor",
    "adapter.full_matrix",
    "adapter.decompose_both",
    "adapter.bias",
    "adapter.on_input",
    "adapter.block_size",
    "adapter.rescale",
)
@GRID
def test_parameter_count_is_the_formula(case: Case) -> None:
    adapter = case.adapter(trained=False)
    assert sum(p.numel() for p in adapter.parameters()) == expected_count(case, adapter)


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
    adapter, weight = case.adapter(trained=True), EVERY[case.layer].weight
    factors = adapter.factors()
    if factors is None:
        assert case.axis or case.algorithm in COUNTS or getattr(adapter, "w2", None) is not None
        return
    up, down = factors
    delta = closed_delta(adapter, weight)
    torch.testing.assert_close((up @ down).reshape(weight.shape), delta, rtol=0, atol=CLOSE)
    assert up.shape == (adapter.site.m, down.shape[0]) and down.shape[1] == adapter.site.c


@GRID
def test_file_tensors_give_the_same_change_back(case: Case) -> None:
    adapter, weight = case.adapter(trained=True), EVERY[case.layer].weight
    tensors = {leaf: tensor.detach() for leaf, tensor in adapter.tensors(alpha=1.25).items()}
    again = adapter_from(EVERY[case.layer], tensors).double()
    assert again.name == adapter.filed_as
    torch.testing.assert_close(closed_delta(again, weight), closed_delta(adapter, weight), rtol=0, atol=2e-6)
    shift, same = closed_shift(adapter, EVERY[case.layer].bias), closed_shift(again, EVERY[case.layer].bias)
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
    changed = adapted.base.weight + closed_delta(adapted.adapter, adapted.base.weight)
    wide = torch.randn(3, 12, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    for x in (wide[0, :, 0], wide[..., 0], wide.transpose(1, 2), wide.transpose(1, 2)[:, ::2]):
        torch.testing.assert_close(adapted(x), operate(adapted.base, x, changed), rtol=0, atol=CLOSE)
