"""The nearest product of low rank to a change, and the error that the cut makes.

By Eckart and Young the first ``r`` singular triplets are the nearest matrix of rank ``r``, and what is lost is
``||D - D_r||_F^2 = sum of the other singular values squared``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from morelora.errors import NonFiniteTensorError

Factors = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Cut:
    """How much of a spectrum to keep. ``rank`` caps what the others ask for; without any of them it is the rank itself."""

    rank: int | None = None
    energy: float | None = None
    """Least share of the squared singular values."""
    frobenius: float | None = None
    """Least share of the Frobenius norm, ``sqrt(energy)``."""
    error: float | None = None
    """Largest ``||D - D_r|| / ||D||``, which is ``sqrt(1 - energy)``."""
    ratio: float | None = None
    """Least singular value, as a share of the largest."""

    def rank_of(self, values: Tensor) -> int:
        """The rank for singular values in falling order; 1 at least, and none of those that are rounding alone."""
        squares = values.double().square()
        whole = float(squares.sum())
        if whole == 0:
            return 1
        wanted = [energy for energy in (self.energy, _square(self.frobenius), _rest(self.error)) if energy is not None]
        ranks = [numerical_rank(values)] if self.rank is not None and not wanted and self.ratio is None else []
        if wanted:
            missing = (whole - squares.cumsum(0)) / whole
            ranks.append(int((missing > 1 - max(wanted) + 1e-12).sum()) + 1)
        if self.ratio is not None:
            ranks.append(int((values >= self.ratio * values[0]).sum()))
        rank = max(ranks, default=numerical_rank(values))
        return max(1, min(rank, len(values), self.rank or len(values)))


def _square(share: float | None) -> float | None:
    return None if share is None else share**2


def _rest(error: float | None) -> float | None:
    return None if error is None else 1 - error**2


@dataclass(frozen=True)
class Spectrum:
    """A thin singular value decomposition, ``left (m, k) * values (k) @ right (k, c)``."""

    left: Tensor
    values: Tensor
    right: Tensor

    @classmethod
    def of(cls, change: Tensor) -> Spectrum:
        """Of a dense change; a kernel is taken as ``(m, c)``. A wide one lies down: of tall ones LAPACK takes the QR first."""
        flat = change.flatten(1)
        if flat.shape[0] >= flat.shape[1]:
            return cls(*_svd(flat))
        right, values, left = _svd(flat.T)
        return cls(left.T, values, right.T)

    @classmethod
    def of_factors(cls, up: Tensor, down: Tensor) -> Spectrum:
        """Of ``up @ down`` without the product, in ``O((m + c) R^2)``; where the factors are thick, of the product."""
        if up.shape[1] >= min(up.shape[0], down.shape[1]):
            return cls.of(up @ down)
        (q_up, r_up), (q_down, r_down) = torch.linalg.qr(up), torch.linalg.qr(down.T)
        left, values, right = _svd(r_up @ r_down.T)
        return cls(q_up @ left, values, right @ q_down.T)

    def cut(self, rank: int) -> Factors:
        """``up (m, rank)`` and ``down (rank, c)``, the values shared evenly between them."""
        root = self.values[:rank].sqrt()
        return self.left[:, :rank] * root, root[:, None] * self.right[:rank]

    def error(self, rank: int) -> float:
        """``||D - D_rank|| / ||D||``; 0 for a change of zeros."""
        squares = self.values.double().square()
        whole = float(squares.sum())
        return (float(squares[rank:].sum()) / whole) ** 0.5 if whole else 0.0


def _svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Thin; LAPACK itself does not end on what is not finite."""
    if not matrix.is_meta and not torch.isfinite(matrix).all():
        raise NonFiniteTensorError("a change holds NaN or infinite values and has no singular values")
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return left, values, right


def numerical_rank(values: Tensor, size: int | None = None) -> int:
    """How many singular values stand above the rounding of the largest, as ``torch.linalg.matrix_rank`` counts.

    Args:
        values: in falling order.
        size: the longer side of the matrix; default: the number of values.
    """
    limit = values.max() * (size or len(values)) * torch.finfo(values.dtype).eps
    return int((values > limit).sum())


def effective_rank(values: Tensor) -> float:
    """``exp(H(p))`` with ``p = values^2 / sum values^2``: how many equal values would be as spread.

    Source: Roy, Vetterli 2007.
    """
    squares = values.double().square()
    if not float(squares.sum()):
        return 0.0
    p = squares / squares.sum()
    return float(torch.exp(torch.special.entr(p).sum()))
