"""What the exact forms of ``y = (W + delta) x`` cost, and which one is taken: the one place that chooses.

branch  the frozen operation, and the change applied to ``x`` by its factors; the factors' gradients from ``x`` and ``grad y``
sum     one operation with ``W + delta``; gradients as in the branch
dense   one operation with ``W + delta``; the gradient of ``delta`` as ``(m, c)``, and from it the factors' gradients

Counted are operations of products, forward and backward, beside the frozen layer's own, and numbers that go through memory, of
which each is worth ``BALANCE`` operations. In half precision, where ``W + delta`` would round a small change away, there is no
sum, and dense applies ``W`` and ``delta`` one after the other. ``positions`` is ``N``, rows of ``y``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from morelora.site import Site

Form = Literal["branch", "sum", "dense"]

BALANCE = 32
"""Operations of a product that take as long as one number through memory: of one core in float32, see ``bench/LOG.md``."""


@dataclass(frozen=True)
class Work:
    """Operations of one way with its factors, a multiplication and a sum counted as two."""

    forward: int
    """Of the factors on one position."""
    backward: int
    """The same for all gradients."""
    again: int
    """What backward does besides for a position where forward took the sum and kept nothing."""
    summed: int
    """To make ``W + delta`` for the sum."""
    build: int
    """To make ``delta``; its gradient takes twice as many."""
    rank: int | None
    """Of the factors ``up`` and ``down`` that the change is a product of; None where there are none."""
    has_branch: bool = True
    """Whether the change can be applied by factors at all."""
    has_sum: bool = True
    """Whether the factors' gradients are to be had without what the branch keeps."""
    keeps_input: bool = True
    """Whether the factors' gradients take ``x``; if not, the branch is taken whatever it costs, and keeps no input."""


def positions(x: Tensor, site: Site) -> int:
    """Rows of the output for an input ``x``."""
    return x.numel() // (site.n * site.groups * site.stride[0] * site.stride[1])


def is_exact(dtype: torch.dtype) -> bool:
    """Whether a small change is still there after it was added to a weight of this dtype."""
    return dtype in (torch.float32, torch.float64)


def choose(work: Work, site: Site, rows: int, can_add: bool = True, can_sum: bool = True) -> Form:
    """The form that takes the least time for ``rows`` positions; remembered but while compiling, which runs it once as it is.

    Args:
        work: of the way.
        site: the layer.
        rows: positions.
        can_add: whether ``W + delta`` may be made: the layer's operation is known, and its dtype exact.
        can_sum: whether backward is the way's own, and not that of the operations which forward took.
    """
    pick = _least if torch.compiler.is_compiling() else _remembered
    return pick(work, site, rows, can_add, can_sum)


def _least(work: Work, site: Site, rows: int, can_add: bool, can_sum: bool) -> Form:
    possible = forms(work, can_add and can_sum)
    times = [time(work, site, rows, form, can_add) for form in possible]
    return possible[times.index(min(times))]


_remembered = lru_cache(maxsize=4096)(_least)


def forms(work: Work, can_sum: bool = True) -> list[Form]:
    """The forms that there are."""
    has_sum = work.has_branch and work.has_sum and work.keeps_input and can_sum
    possible: dict[Form, bool] = {"branch": work.has_branch, "sum": has_sum, "dense": work.keeps_input}
    return [form for form, is_possible in possible.items() if is_possible]


def operations(work: Work, site: Site, rows: int, form: Form, can_add: bool = True) -> int:
    """Of products in a step, beside those of the frozen layer and of the gradient of its input."""
    if form == "branch":
        return rows * (work.forward + work.backward)
    if form == "sum":
        return work.summed + rows * (work.backward + work.again)
    return 4 * work.build + 2 * rows * site.m * site.c * (1 if can_add else 3)


def moved(site: Site, rows: int, form: Form, can_add: bool = True) -> int:
    """Numbers that go through memory in a step, beside those of the frozen layer; what has the rank for a size left out."""
    inputs, outputs, weights = rows * site.n, rows * site.m, site.m * site.c
    by_factors = 3 * inputs + 2 * outputs
    if form == "branch":
        return inputs + 2 * outputs + by_factors
    if form == "sum":
        return 4 * weights + by_factors
    return 9 * weights + inputs + outputs + (0 if can_add else 3 * inputs + 3 * outputs)


def time(work: Work, site: Site, rows: int, form: Form, can_add: bool = True) -> int:
    """In operations of a product."""
    return operations(work, site, rows, form, can_add) + BALANCE * moved(site, rows, form, can_add)


def prefers_gram(work: Work, site: Site) -> bool:
    """Whether norms of ``W + delta`` along an axis come cheaper from Gram matrices of the factors than from the sum itself."""
    if work.rank is None:
        return False
    weights, rank = site.m * site.c, work.rank
    by_factors = 2 * rank * weights + 2 * rank**2 * (site.m + site.c) + BALANCE * weights
    return by_factors < work.build + BALANCE * 4 * weights


def prefers_turned_weight(site: Site, rows: int, stages: int, block: int) -> bool:
    """Whether to rotate the weight, ``(m, c)``, rather than the output, ``(N, m)``, in stages of blocks.

    A stage costs three products with its blocks and moves each number some ten times; about the output stand two changes of
    layout more each way, about the weight its gradient.
    """
    stage = 6 * block + BALANCE * 10
    by_output = rows * site.m * (stages * stage + BALANCE * 8)
    by_weight = site.m * site.c * (stages * stage + BALANCE * 4) + 2 * rows * site.m * site.c
    return by_weight < by_output
