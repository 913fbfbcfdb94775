"""Entry-wise products of low-rank products, ``f(u_1 v_1) * ... * f(u_k v_k)``: what Hadamard and LoHa share.

Without a nonlinear ``f`` that is one low-rank product of long factors, ``up = KR(u_1^T, ..., u_k^T)^T`` and
``down = KR(v_1, ..., v_k)`` with the Khatri-Rao product ``KR``, of rank ``R = r_1 ... r_k``. It is applied through them, or as
the ``(m, c)`` numbers that it is, whichever costs less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from morelora import ways
from morelora.adapter import RankAdapter, Tensors
from morelora.factors import khatri_rao, product_norm
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
        parts = self.parts(1.0)
        return self.way.change(*parts).norm() if self.way.is_dense else product_norm(*self.way.joined(*parts))


class Products(ways.LowRank):
    """Parts are ``u_1 .. u_k``, ``v_1 .. v_k``, and after a nonlinear ``f`` the scale, a tensor of one number.

    What is longer than the parts is made, and made again for backward: the long factors have ``R / r`` times as many numbers
    as the parameters, and kept in every layer they would outweigh the inputs.
    """

    def __init__(self, site: Site, count: int, nonlinear: Nonlinear = "none", is_dense: bool = False) -> None:
        super().__init__(site)
        self.count, self.function = count, FUNCTIONS[nonlinear]
        self.is_dense = is_dense or nonlinear != "none"

    def joined(self, *parts: Tensor) -> tuple[Tensor, Tensor]:
        """``up (m, R)`` and ``down (R, c)`` with the product of all for their product; without a nonlinear ``f``."""
        lefts, rights = parts[: self.count], parts[self.count :]
        return reduce(khatri_rao, [left.T for left in lefts]).T, reduce(khatri_rao, rights)

    def change(self, *parts: Tensor) -> Tensor:
        """``delta`` as ``(m, c)``."""
        if not self.is_dense:
            up, down = self.joined(*parts)
            return up @ down
        pairs = zip(parts, parts[self.count : 2 * self.count], strict=False)
        product = reduce(torch.mul, [self.function(left @ right) for left, right in pairs])
        return reduce(torch.mul, parts[2 * self.count :], product)

    def summed(self, weight: Tensor, *parts: Tensor) -> Tensor:
        if self.is_dense:
            return weight + self.change(*parts).view(weight.shape)
        return super().summed(weight, *self.joined(*parts))

    def branch(self, x: Tensor, *parts: Tensor, rank_dropout: float = 0.0) -> Tensor:
        if self.is_dense and not rank_dropout:
            return self.site.apply(x, self.site.kernel_of(self.change(*parts)))
        return super().branch(x, *self.joined(*parts), rank_dropout=rank_dropout)

    def add(self, y: Tensor, x: Tensor, *parts: Tensor) -> ways.Tensors:
        if not self.is_dense:
            return super().add(y, x, *self.joined(*parts))
        y.add_(self.branch(x, *parts))
        return ()

    def backward(self, step: ways.Backward) -> ways.Grads:
        if self.is_dense:
            return self._backward_dense(step)
        lefts, rights = step.parts[: self.count], step.parts[self.count :]
        step.parts = self.joined(*step.parts)
        grad_up, grad_down = super().backward(step)
        return *(grad.T for grad in _split(grad_up.T, [left.T for left in lefts])), *_split(grad_down, rights)

    def _backward_dense(self, step: ways.Backward) -> ways.Grads:
        with torch.enable_grad():
            factors = tuple(part.detach().requires_grad_() for part in step.parts[: 2 * self.count])
            change = self.change(*factors, *step.parts[2 * self.count :])
        grad = ways.dense_backward(self.site, step, change.detach())
        return *torch.autograd.grad(change, factors, grad), *(None for _ in step.parts[2 * self.count :])


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


def loha_tensors(lefts: Sequence[Tensor], rights: Sequence[Tensor]) -> Tensors:
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
