"""Every form of every change against its definition, and the cost model against operations that torch counts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from morelora import cost
from morelora.adapted import Adapted
from morelora.adapter import Adapter
from morelora.registry import ALGORITHMS
from morelora.site import Site
from tests.morelora.grid import CASES, EVERY, SQUARES, Case, example, expected_output, randomise

LINEAR, CONV = "linear", "conv 3x3 stride 2"


def has_way(case: Case) -> bool:
    adapter = case.adapter(trained=False)
    return hasattr(adapter.plain, "way")


WAYS = [case for case in CASES if case.layer in (LINEAR, CONV, *SQUARES) and case.axis != "output" and has_way(case)]


def gradients(y: Tensor, adapted: Adapted, x: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(y.square().sum(), [x, *adapted.adapter.parameters()]))


@pytest.mark.parametrize("case", WAYS, ids=str)
def test_each_form_is_the_operation_with_the_changed_weight_and_has_its_gradients(case: Case, form: str) -> None:
    adapted, x = case.adapted(trained=True), example(EVERY[case.layer]).requires_grad_()
    y, expected = adapted(x), expected_output(adapted.adapter, adapted.base, x)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)
    for have, want in zip(gradients(y, adapted, x), gradients(expected, adapted, x), strict=True):
        torch.testing.assert_close(have, want, rtol=1e-9, atol=1e-9)


def made(algorithm: str, layer: nn.Module, **options: Any) -> Adapter:
    return randomise(ALGORITHMS[algorithm](Site.of(layer), ALGORITHMS[algorithm].Options(**options)).double()).float()


def of_product_in_place(total: torch.Size, a: torch.Size, b: torch.Size, **others: Any) -> int:
    """Of ``addmm_``, which torch's counter leaves out."""
    return 2 * a[0] * a[1] * b[1]


def counted(layer: nn.Module, x: Tensor) -> int:
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: of_product_in_place}) as counter:
        layer(x).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("lora", {"rank": 4}),
        ("additive", {"rank": 4}),
        ("loha", {"rank": 3}),
        ("hadamard", {"rank": 6, "k": 3}),
        ("hadamard", {"rank": 6, "k": 2, "nonlinear": "tanh"}),
        ("lokr", {"rank": 2, "factor": 4}),
        ("lokr", {"factor": 4, "full_matrix": True}),
    ],
    ids=str,
)
def test_operations_are_those_that_torch_counts(algorithm: str, options: dict[str, Any], form: str) -> None:
    """Of the step of a linear layer less those of the frozen one."""
    base = nn.Linear(48, 32).requires_grad_(False)
    adapter, x = made(algorithm, base, **options), torch.randn(2, 50, 48, requires_grad=True)
    work = adapter.way.work(*adapter.parts(1.0))
    have = counted(Adapted(copy.deepcopy(base), adapter), x) - counted(base, x)
    assert have == pytest.approx(cost.operations(work, adapter.site, 100, form), rel=0.02)


def chosen(algorithm: str, width: int, rows: int, can_add: bool = True, **options: Any) -> str:
    layer = nn.Linear(width, width, device="meta")
    adapter = ALGORITHMS[algorithm](Site.of(layer), ALGORITHMS[algorithm].Options(**options))
    work = adapter.way.work(*adapter.parts(1.0))
    return cost.choose(work, adapter.site, rows, can_add)


def test_few_positions_take_the_branch_and_many_one_operation() -> None:
    assert chosen("lora", 320, 77, rank=8) == "branch"
    assert chosen("lora", 1280, 64, rank=8) == "branch"
    assert chosen("lora", 320, 4096, rank=8) == "sum"
    assert chosen("hadamard", 320, 4096, rank=12, k=3) == "dense"
    assert chosen("hadamard", 320, 77, rank=8, nonlinear="tanh") == "dense"


@pytest.mark.parametrize("algorithm", ["lora", "additive", "lokr", "loha"])
def test_half_precision_has_no_sum(algorithm: str) -> None:
    assert "sum" not in {chosen(algorithm, 320, rows, can_add=False) for rows in (1, 77, 1024, 65536)}


def test_a_form_is_taken_because_it_takes_the_least_time() -> None:
    site, work = Site(64, 64), cost.Work(forward=1000, backward=2000, again=500, summed=10_000, build=5000, rank=8)
    for rows in (1, 10, 100, 1000, 10_000):
        times = {form: cost.time(work, site, rows, form) for form in cost.forms(work)}
        assert times[cost.choose(work, site, rows)] == min(times.values())
    assert len({cost.choose(work, site, rows) for rows in (1, 10, 100, 1000, 10_000)}) > 1


def test_positions_are_rows_of_the_output() -> None:
    assert cost.positions(torch.empty(2, 5, 12), Site(8, 12)) == 10
    assert cost.positions(torch.empty(2, 8, 6, 6), Site(6, 8, (3, 3), (2, 2), (1, 1))) == 2 * 9


def test_gram_matrices_are_for_thin_factors() -> None:
    def work(rank: int | None, build: int) -> cost.Work:
        return cost.Work(0, 0, 0, 0, build, rank)

    site = Site(320, 320)
    assert cost.prefers_gram(work(8, 2 * 8 * 320 * 320), site)
    assert not cost.prefers_gram(work(256, 2 * 32 * 320 * 320), site)
    assert not cost.prefers_gram(work(None, 1), site)
