"""How much rank a form makes of how many numbers: parameter count and bound in closed form, and a random change to measure.

=============  ==========================================  =============  ==================
form           change ``(m, n)``                           parameters     bound of the rank
=============  ==========================================  =============  ==================
lora           ``U V^T``                                   ``r (m + n)``  ``r``
additive       ``U[i, j mod r] + V[j, i mod r]``           ``r (m + n)``  ``2 r``
hadamard       ``(*)_i U_i V_i^T``, ``r`` in ``k`` parts   ``r (m + n)``  ``prod r_i <= (r/k)^k``
tanh           ``(*)_i tanh(U_i V_i^T)``                   ``r (m + n)``  none
kronecker      ``C (x) B A``, ``C`` of the side ``k``      see below      ``rank(C) r``
=============  ==========================================  =============  ==================

No bound is above ``min(m, n)``. Kronecker: ``p q + r (m/p + n/q)`` with the divisors ``p``, ``q`` nearest to ``k``.
Source: the design notes of MoreLoRA, 2023.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from morelora.factors import divisors_near
from morelora.lowrank import effective_rank, numerical_rank


@dataclass(frozen=True)
class Shape:
    """One form at one size."""

    m: int
    n: int
    r: int
    k: int = 1
    """Factors of the product; of Kronecker the side of the small matrix."""

    @property
    def chunks(self) -> list[int]:
        """``r`` in ``k`` parts as even as can be."""
        return [self.r // self.k + (i < self.r % self.k) for i in range(self.k)]

    @property
    def split(self) -> tuple[int, int]:
        """``p`` and ``q``."""
        return divisors_near(self.m, self.k)[0], divisors_near(self.n, self.k)[0]


@dataclass(frozen=True)
class Form:
    """A form's closed formulas and a random change of it."""

    parameters: Callable[[Shape], int]
    bound: Callable[[Shape], int]
    """Of the rank, before ``min(m, n)``."""
    sample: Callable[[Shape, Generator], Tensor]
    """In float64, from factors of independent standard normal numbers."""


@dataclass(frozen=True)
class Measured:
    """What a form makes of its numbers."""

    parameters: int
    share: float
    """Of the ``m n`` numbers of the weight."""
    bound: int
    rank: int
    effective: float


def measure(name: str, shape: Shape, seed: int = 0) -> Measured:
    """The rank of one random change beside the bound."""
    form = FORMS[name]
    change = form.sample(shape, Generator().manual_seed(seed))
    values = torch.linalg.svdvals(change)
    parameters = form.parameters(shape)
    bound = min(form.bound(shape), shape.m, shape.n)
    rank = numerical_rank(values, max(shape.m, shape.n))
    return Measured(parameters, parameters / (shape.m * shape.n), bound, rank, effective_rank(values))


def _normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _products(shape: Shape, generator: Generator) -> list[Tensor]:
    """``U_i V_i^T`` for each chunk."""
    u, v = _normal(generator, shape.m, shape.r), _normal(generator, shape.n, shape.r)
    return [a @ b.T for a, b in zip(u.split(shape.chunks, 1), v.split(shape.chunks, 1), strict=True)]


def _hadamard(shape: Shape, generator: Generator) -> Tensor:
    return torch.stack(_products(shape, generator)).prod(0)


def _tanh(shape: Shape, generator: Generator) -> Tensor:
    return torch.stack(_products(shape, generator)).tanh().prod(0)


def _additive(shape: Shape, generator: Generator) -> Tensor:
    u, v = _normal(generator, shape.m, shape.r), _normal(generator, shape.n, shape.r)
    return u[:, torch.arange(shape.n) % shape.r] + v[:, torch.arange(shape.m) % shape.r].T


def _kronecker(shape: Shape, generator: Generator) -> Tensor:
    p, q = shape.split
    block = _normal(generator, shape.m // p, shape.r) @ _normal(generator, shape.r, shape.n // q)
    return torch.kron(_normal(generator, p, q), block)


def _linear(shape: Shape) -> int:
    return shape.r * (shape.m + shape.n)


FORMS: dict[str, Form] = {
    "lora": Form(_linear, lambda s: s.r, lambda s, g: _products(Shape(s.m, s.n, s.r), g)[0]),
    "additive": Form(_linear, lambda s: 2 * s.r, _additive),
    "hadamard": Form(_linear, lambda s: math.prod(s.chunks), _hadamard),
    "tanh": Form(_linear, lambda s: min(s.m, s.n), _tanh),
    "kronecker": Form(
        lambda s: math.prod(s.split) + s.r * (s.m // s.split[0] + s.n // s.split[1]),
        lambda s: min(s.split) * min(s.r, s.m // s.split[0], s.n // s.split[1]),
        _kronecker,
    ),
}

SEEDS: tuple[tuple[str, Shape], ...] = (
    ("additive", Shape(100, 100, 20)),
    ("hadamard", Shape(100, 100, 15, 3)),
    ("hadamard", Shape(768, 1024, 16, 4)),
    ("tanh", Shape(100, 100, 3, 1)),
)
"""The cases of the design notes."""
