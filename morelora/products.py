"""Entry-wise products of low-rank products, ``f(u_1 v_1) * ... * f(u_k v_k)``: what Hadamard and LoHa share.

Without a nonlinear ``f`` that is one low-rank product of long factors, ``up = KR(u_1^T, ..., u_k^T)^T`` and
``down = KR(v_1, ..., v_k)`` with the Khatri-Rao product ``KR``, of rank ``R = r_1 ... r_k``. It is applied through them, or as
the ``(m, c)`` numbers that it is, whichever costs less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from morelora import adapter, cost, ways
from morelora.adapter import RankAdapter
from morelora.factors import khatri_rao, product_norm
from morelora.fused import Backward, Grads, Tensors
from morelora.site import Site

Nonlinear = Literal["none", "tanh", "sigmoid"]
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda z: z,
    "tanh": torch.tanh,
    "sigmoid": lambda z: torch.tanh(z / 2),
}
"""``f`` by name. ``sigmoid`` is ``2 sigma(z) - 1 = tanh(z / 2)``: ``sigma(0)`` is one half, so that no factor of zeros would
make ``sigma`` itself start at the unchanged model."""

LOHA_RANK = 256
"""The largest that a LoHa is read with."""


class ProductAdapter(RankAdapter):
    """``W + s * f(u_1 v_1) * ... * f(u_k v_k)``; a subclass sets ``way`` and defines ``parts``."""

    way: Products
    total: int
    """Ranks of the long factors."""

    def factors(self) -> tuple[Tensor, Tensor] | None:
        return self.way.joined(*self.parts(1.0)) if self.is_thin else None

    @property
    def is_thin(self) -> bool:
        """Whether the long factors are as thin as those of a LoRA may be."""
        return self.total <= max(self.site.m, self.site.c)

    def delta(self, weight: Tensor) -> Tensor:
        return self.way.change(*self.parts(1.0)).view(self.site.weight_shape)

    def norm(self) -> Tensor:
        factors = self.norm_factors()
        return self.way.change(*self.parts(1.0)).norm() if factors is None else product_norm(*factors)


class Products(ways.LowRank):
    """Parts are ``u_1 .. u_k``, ``v_1 .. v_k``, and after a nonlinear ``f`` the scale, a tensor of one number.

    What is longer than the parts is made, and made again for backward: the long factors have ``R / r`` times as many numbers
    as the parameters, and kept in every layer they would outweigh the inputs. After a nonlinear ``f`` there are none.
    """

    def __init__(self, site: Site, count: int, nonlinear: Nonlinear = "none") -> None:
        super().__init__(site)
        self.count, self.nonlinear = count, nonlinear

    def work(self, *parts: Tensor) -> cost.Work:
        ranks = [right.shape[0] for right in parts[self.count : 2 * self.count]]
        build = 2 * sum(ranks) * self.site.m * self.site.c
        if self.nonlinear != "none":
            return cost.Work(0, 0, 0, 0, build, None, has_branch=False)
        return replace(ways.low_rank_work(self.site, math.prod(ranks)), build=build)

    def joined(self, *parts: Tensor) -> tuple[Tensor, Tensor]:
        """``up (m, R)`` and ``down (R, c)`` with the product of all for their product; without a nonlinear ``f``."""
        lefts, rights = parts[: self.count], parts[self.count :]
        return reduce(khatri_rao, [left.T for left in lefts]).T, reduce(khatri_rao, rights)

    def change(self, *parts: Tensor) -> Tensor:
        function = FUNCTIONS[self.nonlinear]
        pairs = zip(parts[: self.count], parts[self.count : 2 * self.count], strict=True)
        product = reduce(torch.mul, [function(left @ right) for left, right in pairs])
        return reduce(torch.mul, parts[2 * self.count :], product)

    def summed(self, weight: Tensor, *parts: Tensor) -> Tensor:
        return super().summed(weight, *self.joined(*parts))

    def branch(self, x: Tensor, *parts: Tensor, rank_dropout: float = 0.0) -> Tensor:
        if self.nonlinear != "none":
            return ways.Way.branch(self, x, *parts)
        return super().branch(x, *self.joined(*parts), rank_dropout=rank_dropout)

    def add(self, y: Tensor, x: Tensor, *parts: Tensor) -> Tensors:
        return super().add(y, x, *self.joined(*parts))

    def backward(self, step: Backward) -> Grads:
        lefts, rights = step.parts[: self.count], step.parts[self.count :]
        step.parts = self.joined(*step.parts)
        grad_up, grad_down = super().backward(step)
        return *(grad.T for grad in _split(grad_up.T, [left.T for left in lefts])), *_split(grad_down, rights)


def _split(grad: Tensor, factors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The gradients of the factors of a Khatri-Rao product."""
    *before, last = factors
    if not before:
        return (grad,)
    first = reduce(khatri_rao, before)
    parts = grad.reshape(first.shape[0], last.shape[0], -1)
    return *_split((parts * last).sum(1), before), (parts * first[:, None]).sum(0)


def smallest_form(site: Site, ranks: Sequence[int], is_thin: bool) -> tuple[str, int | None]:
    """The algorithm whose file is the smallest that holds a product of these ranks exactly, and its rank there."""
    half, whole = (len(ranks) + 1) // 2, math.prod(ranks)
    folded = max(math.prod(ranks[:half]), math.prod(ranks[half:]))
    sizes: dict[tuple[str, int | None], int] = {}
    if is_thin:
        sizes["lora", whole] = whole * (site.m + site.c)
    if folded <= LOHA_RANK:
        sizes["loha", folded] = 2 * folded * (site.m + site.c)
    sizes["full", None] = site.m * site.c
    return min(sizes, key=lambda form: sizes[form])


def loha_tensors(lefts: Sequence[Tensor], rights: Sequence[Tensor]) -> adapter.Tensors:
    """The product of all as LoHa's tensors: each half folded into one pair of factors, the thinner one filled up with zeros."""
    half = (len(lefts) + 1) // 2
    halves = (slice(0, half), slice(half, None))
    ups = [reduce(khatri_rao, [left.T for left in lefts[part]]).T for part in halves]
    downs = [reduce(khatri_rao, rights[part]) for part in halves]
    rank = max(len(down) for down in downs)
    out = {"alpha": torch.tensor(float(rank))}
    for index, (up, down) in enumerate(zip(ups, downs, strict=True), 1):
        missing = rank - len(down)
        out[f"hada_w{index}_a"] = torch.nn.functional.pad(up, (0, missing))
        out[f"hada_w{index}_b"] = torch.nn.functional.pad(down, (0, 0, 0, missing))
    return out
