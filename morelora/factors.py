"""Algebra shared by the algorithms: Khatri-Rao products, Kronecker shapes, Tucker kernels, norms of products."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor


def khatri_rao(a: Tensor, b: Tensor) -> Tensor:
    """Khatri-Rao product, the Kronecker product of each pair of columns: ``(r, c), (s, c) -> (r*s, c)``.

    ``(A B) * (C D) = khatri_rao(A.T, C.T).T @ khatri_rao(B, D)`` for the entry-wise product ``*``.
    """
    return (a[:, None] * b).flatten(0, 1)


def divisors_near(dimension: int, factor: int = -1) -> tuple[int, int]:
    """Split ``dimension`` into two divisors, the smaller first, as LyCORIS does for LoKr.

    ``factor > 0`` and a divisor: ``(factor, dimension / factor)`` in ascending order; otherwise the pair closest to
    the square root whose smaller one is at most ``factor`` (``-1``: no bound).
    Source: LyCORIS, arXiv 2309.14859, section 3.2.
    """
    if factor > 0 and dimension % factor == 0:
        return min(factor, dimension // factor), max(factor, dimension // factor)
    bound = math.isqrt(dimension) if factor < 0 else min(factor, math.isqrt(dimension))
    small = max(d for d in range(1, bound + 1) if dimension % d == 0)
    return small, dimension // small


def kron(a: Tensor, b: Tensor) -> Tensor:
    """``torch.kron`` for any strides (torch's own refuses non-contiguous input)."""
    return torch.kron(a.contiguous(), b.contiguous())


def tucker_down(mid: Tensor, down: Tensor) -> Tensor:
    """Fold a Tucker core into the down factor: ``(r, s, kh, kw), (s, n) -> (r, n*kh*kw)``."""
    return torch.einsum("rskl,sn->rnkl", mid, down).flatten(1)


def less(now: tuple[Tensor, Tensor], start: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Factors of ``up @ down - up0 @ down0`` of twice the rank: zero to the last bit where the two are equal.

    ``[up - up0, up0] @ [down; down - down0]``: what is near ``start`` keeps its difference in half precision, of which
    ``[up, -up0] @ [down; down0]`` loses as much as of the start.
    """
    (up, down), (up0, down0) = now, start
    return torch.cat((up - up0, up0), 1), torch.cat((down, down - down0))


def no_thicker(up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """The factors, or where they have more ranks than the matrix, the QR factors of their product."""
    if up.shape[1] <= min(up.shape[0], down.shape[1]):
        return up, down
    q, r = torch.linalg.qr(up @ down)
    return q, r


def product_norm(up: Tensor, down: Tensor) -> Tensor:
    """``||up @ down||_F`` without the product: the square root of ``tr((up^T up)(down down^T))``."""
    return ((up.T @ up) * (down @ down.T)).sum().clamp_min(0).sqrt()


def added_squares(weight: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """``||W_j + (up down)_j||^2 - ||W_j||^2`` for each of the ``c`` columns, in ``O(mcR)`` and without ``up @ down``.

    ``weight`` is ``(m, c)``, ``up (m, R)``, ``down (R, c)``.
    """
    cross = (up.T.to(weight.dtype) @ weight).to(down.dtype)
    return ((2 * cross + (up.T @ up) @ down) * down).sum(0)


def uniform(shape: tuple[int, ...], fan_in: int, generator: Generator | None) -> Tensor:
    """Uniform in ``+-1 / sqrt(fan_in)``: Kaiming's start with ``a = sqrt(5)``, as LoRA's reference code has it."""
    return (torch.rand(shape, generator=generator) * 2 - 1) / math.sqrt(fan_in)
