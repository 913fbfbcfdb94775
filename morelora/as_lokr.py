"""Kronecker products whose file is a LoKr of the same change: what lokr, krona and krona_res share.

``delta = s * small (x) block`` with ``small (p, q)`` and a block ``(m/p, c/q)`` that is whole or a product of two factors.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from morelora import ways
from morelora.adapter import BranchOptions, Options, RankAdapter
from morelora.factors import divisors_near, kron, uniform
from morelora.kronecker import Kronecker
from morelora.residual import StartChoice
from morelora.site import Site


class SplitOptions(Options):
    """How the weight is split in two."""

    factor: int = Field(
        8, ge=-1, description="Size of the small matrix: the divisor nearest to it; -1 means near the square root."
    )


class WholeOptions(SplitOptions, StartChoice):
    """Settings of a product of two whole matrices."""

    scale: float = Field(1.0, gt=0, description="The product is multiplied by this.")


class KroneckerAdapter(RankAdapter):
    """``W + s * kron(small, block)``; a subclass has the factors."""

    way: Kronecker

    def __init__(self, site: Site, options: BranchOptions, split: tuple[int, int]) -> None:
        super().__init__(site, options)
        self.p, self.q = split
        self.way = Kronecker(site, self.p, self.q)

    @property
    def small(self) -> Tensor:
        """``s`` times the small matrix, ``(p, q)``."""
        raise NotImplementedError

    @property
    def block(self) -> Tensor:
        """The large matrix, ``(m/p, c/q)``."""
        raise NotImplementedError

    def delta(self, weight: Tensor) -> Tensor:
        return kron(self.small, self.block).view(self.site.weight_shape)

    def norm(self) -> Tensor:
        return self.small.norm() * self.block.norm()

    def parts(self, strength: float) -> tuple[Tensor, ...]:
        return ways.scaled(self.small, strength), self.block

    def whole_block(self) -> Tensor:
        """The block as a file has it: of a convolution with its taps, ``(m/p, n/q, kh, kw)``."""
        return self.block.view(-1, self.site.n // self.q, *(self.site.kernel or ()))


def split_of(site: Site, factor: int) -> tuple[int, int]:
    """The shape of the small matrix: divisors of ``m`` and ``n``."""
    return divisors_near(site.m, factor)[0], divisors_near(site.n, factor)[0]


class Whole(KroneckerAdapter):
    """``W + s * w1 (x) w2`` with both matrices whole."""

    options: WholeOptions

    def __init__(
        self, site: Site, options: WholeOptions, generator: Generator | None = None, split: tuple[int, int] | None = None
    ) -> None:
        super().__init__(site, options, split or split_of(site, options.factor))
        self.w1 = nn.Parameter(uniform((self.p, self.q), self.q, generator))
        self.w2 = nn.Parameter(torch.zeros(site.m // self.p, site.c // self.q))

    @property
    def small(self) -> Tensor:
        return ways.scaled(self.w1, self.scale)

    @property
    def block(self) -> Tensor:
        return self.w2

    def zero_factors(self) -> list[nn.Parameter]:
        return [self.w2]
