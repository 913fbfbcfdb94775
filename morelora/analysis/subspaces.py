"""Directions of changes compared: with each other, and with the weight that they change.

phi           ``phi(A, B, i, j) = ||V_A[:i] V_B[:j]^T||_F^2 / min(i, j)`` with the first ``i`` and ``j`` right singular vectors:
              the share of the smaller subspace that lies in the other, 1 for equal ones, 0 for orthogonal ones.
Grassmann     ``d = ||theta||_2`` with the principal angles ``theta``, ``cos theta`` the singular values of ``V_A[:k] V_B[:k]^T``.
Amplification ``||D||_F / ||U^T W V||_F`` with the singular vectors ``U``, ``V`` of ``D``: how much more the change makes of its
              own directions than the weight did.
Source        LoRA arXiv 2106.09685, sections 7.2, 7.3 and appendix G.
"""

from __future__ import annotations

import torch
from torch import Tensor

from morelora.lowrank import Spectrum, numerical_rank


def similarity(first: Spectrum, second: Spectrum, i: int, j: int) -> float:
    """``phi(first, second, i, j)``, from 0 to 1. ``i`` and ``j`` are at most the numbers of vectors that there are."""
    return float((first.right[:i] @ second.right[:j].T).square().sum()) / min(i, j)


def similarities(first: Spectrum, second: Spectrum, i: int, j: int) -> Tensor:
    """``phi`` for all ``1 .. i`` and ``1 .. j``, ``(i, j)``: the paper's figure 3."""
    sums = (first.right[:i] @ second.right[:j].T).square().cumsum(0).cumsum(1)
    rows, columns = torch.arange(1, sums.shape[0] + 1), torch.arange(1, sums.shape[1] + 1)
    return sums / torch.minimum(rows[:, None], columns)


def principal_angles(first: Spectrum, second: Spectrum, k: int) -> Tensor:
    """Between the first ``k`` right singular vectors of both, in radians, falling; 0 for a shared direction.

    By sines where they are small, since the cosine of a small angle is lost in rounding.
    """
    a, b = first.right[:k], second.right[:k]
    left, cosines, right = torch.linalg.svd(a @ b.T)
    sines = (right @ b - (right @ b @ a.T) @ a).norm(dim=1).clamp(max=1)
    angles = torch.where(cosines.square() < 0.5, torch.arccos(cosines.clamp(-1, 1)), torch.arcsin(sines))
    return angles.sort(descending=True).values


def grassmann_distance(first: Spectrum, second: Spectrum, k: int) -> float:
    """The length of the shortest path between the subspaces of the first ``k`` vectors; at most ``sqrt(k) pi / 2``."""
    return float(principal_angles(first, second, k).norm())


def amplification(change: Spectrum, weight: Tensor, rank: int | None = None) -> float:
    """``||D_r|| / ||U^T W V||`` for the first ``rank`` directions of the change (default: all that are above rounding).

    Args:
        change: the spectrum of ``D``.
        weight: ``W``; a kernel is taken as ``(m, c)``.
        rank: how many directions.
    """
    r = rank or max(numerical_rank(change.values), 1)
    projected = change.left[:, :r].T @ weight.flatten(1) @ change.right[:r].T
    return float(change.values[:r].norm() / projected.norm())
