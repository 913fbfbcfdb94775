"""``torch.compile`` takes every adapted layer as one graph, and it computes the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from morelora.adapted import Adapted
from tests.morelora.grid import CASES, EVERY, REFUSED, Case, example, usual


def of_every_algorithm() -> list[Case]:
    """A layer that the algorithm is meant for, with its small options: decomposed by input where that is defined, else plain."""
    found: dict[str, Case] = {}
    for case in CASES:
        is_usual = dict(case.options) == usual(case.algorithm) and case.axis != "output"
        if is_usual and (case.algorithm not in found or (case.axis and not found[case.algorithm].axis)):
            found[case.algorithm] = case
    return list(found.values())


def step(adapted: Adapted, x: Tensor) -> list[Tensor]:
    """Output and gradients."""
    y = adapted(x)
    return [y, *torch.autograd.grad(y.square().sum(), [x, *adapted.adapter.parameters()])]


def test_every_algorithm_is_here() -> None:
    assert {case.algorithm for case in of_every_algorithm()} == {case.algorithm for case in (*CASES, *REFUSED)}


@pytest.mark.parametrize("case", of_every_algorithm(), ids=str)
@pytest.mark.filterwarnings("error:.*lru_cache")
def test_an_adapted_layer_compiles_whole_and_computes_the_same(case: Case) -> None:
    adapted, x = case.adapted(trained=True), example(EVERY[case.layer]).requires_grad_()
    expected = step(adapted, x)
    torch._dynamo.reset()
    adapted.compile(backend="aot_eager", fullgraph=True)
    for have, want in zip(step(adapted, x), expected, strict=True):
        torch.testing.assert_close(have, want, rtol=1e-9, atol=1e-9)
