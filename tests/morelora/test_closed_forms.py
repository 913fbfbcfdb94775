"""Every algorithm's change and its number of parameters against the papers' formulas, over the whole grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from morelora.adapter import Adapter
from morelora.registry import ALGORITHMS
from morelora.site import Site
from tests.morelora.closed import CHANGED, CLOSED, UNRANKED, closed_delta, closed_shift
from tests.morelora.grid import CASES, EVERY, Case

GRID = pytest.mark.parametrize("case", CASES, ids=str)


def test_every_algorithm_has_a_closed_form() -> None:
    assert {*CLOSED, *UNRANKED, *CHANGED} == {name for name, kind in ALGORITHMS.items() if kind.mergeable}


@GRID
def test_the_change_is_the_closed_form(case: Case) -> None:
    adapter, layer = case.adapter(trained=True), EVERY[case.layer]
    delta, shift = adapter.delta(layer.weight), adapter.bias_delta(layer.bias)
    expected = closed_shift(adapter, layer.bias)
    assert delta.shape == layer.weight.shape and (delta.abs().max() > 1e-3 or expected.abs().max() > 1e-3)
    torch.testing.assert_close(delta, closed_delta(adapter, layer.weight), rtol=0, atol=1e-10)
    assert shift is None and expected is None or torch.allclose(shift, expected, rtol=0, atol=1e-10)


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

    site, options = adapter.site, adapter.options.model_dump()
    m, n, c, taps = site.m, site.n, site.c, site.taps
    extra = {None: 0, "input": n, "output": m}[case.axis]
    if case.algorithm in COUNTS:
        return extra + COUNTS[case.algorithm](site, options)
    r = options.get("rank", 0)
    tucker = options.get("tucker", False) and taps > 1
    if case.algorithm == "lora":
        if options["freeze_down"]:
            return extra + r * m
        return extra + (r * (m + n) + r * r * taps if tucker else r * (m + c))
    if case.algorithm in ("adalora", "sora", "tlora"):
        return extra + r * (m + c + 1)
    if case.algorithm == "vera":
        return extra + r + m
    if case.algorithm == "tied":
        sizes = {"up": m * r, "down": r * c, "u": r, "v": m}
        return extra + sum(size for name, size in sizes.items() if not options[f"freeze_{name}"])
    if case.algorithm in ("hadamard", "additive", "dylora"):
        return extra + r * (m + c)
    if case.algorithm == "glora":
        return extra + r * (2 * n + m + c)
    if case.algorithm == "loha":
        return extra + 2 * (r * (m + n) + r * r * taps if tucker else r * (m + c))
    (p, rows), (q, columns) = factorization(m, options["factor"]), factorization(n, options["factor"])
    if case.algorithm in UNRANKED:
        return extra + p * q + rows * columns * taps + (case.algorithm == "krona_res")
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
    "adapter.freeze_up",
    "adapter.freeze_down",
    "adapter.freeze_u",
    "adapter.freeze_v",
)
@GRID
def test_parameter_count_is_the_formula(case: Case) -> None:
    adapter = case.adapter(trained=False)
    assert sum(p.numel() for p in adapter.parameters()) == expected_count(case, adapter)
