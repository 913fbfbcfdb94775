"""The way of Kronecker products: ``delta = kron(small, left @ right)`` by reshape, never the product but for the sum.

The features of ``x`` are split into ``(q, n/q)``. With ``P = x right^T`` in each of the ``q`` groups (``P = x`` where the block
is full), ``delta x = (small P) left^T``. For ``small`` the groups come first in memory, ``(q, N r)``, so that it acts in one
product; for the long thin products with ``left`` and ``right`` they stand in the rows, ``(N q, r)``.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from morelora.cost import Work
from morelora.factors import kron
from morelora.fused import Backward, Tensors
from morelora.site import Site
from morelora.ways import Way, again, drop_ranks


class Kronecker(Way):
    """``small (p, q)``, ``left (m/p, r)`` and ``right (r, c/q)``; or without ``right`` the full block ``(m/p, c/q)``."""

    def __init__(self, site: Site, p: int, q: int) -> None:
        super().__init__(site)
        self.p, self.q = p, q

    def work(self, *parts: Tensor) -> Work:
        small, left, right = three(parts)
        mixing, after = 2 * small.numel() * left.shape[1], 2 * left.numel() * self.p
        if right is None:
            return Work(mixing + after, 3 * mixing + 2 * after, 0, 0, 0, None)
        before, build, rank = 2 * right.numel() * self.q, 2 * left.numel() * right.shape[1], left.shape[1] * min(small.shape)
        return Work(before + mixing + after, 3 * (before + mixing) + 2 * after, 0, build, build, rank)

    def change(self, *parts: Tensor) -> Tensor:
        small, left, right = three(parts)
        return kron(small, left if right is None else left @ right)

    def summed(self, weight: Tensor, *parts: Tensor) -> Tensor:
        small, left, right = three(parts)
        block = left if right is None else left @ right
        blocks = weight.view(self.p, block.shape[0], self.q, block.shape[1])
        return torch.addcmul(blocks, small[:, None, :, None], block[None, :, None, :]).view(weight.shape)

    def branch(self, x: Tensor, *parts: Tensor, rank_dropout: float = 0.0) -> Tensor:
        site, (small, left, right) = self.site, three(parts)
        if site.groups != 1:
            return site.apply(x, site.kernel_of(self.summed(x.new_zeros(site.m, site.c), *parts)))
        if site.is_conv:
            return self._branch_conv(x, *parts, rank_dropout=rank_dropout)
        groups = x.unflatten(-1, (self.q, -1))
        hidden = small @ (groups if right is None else groups @ right.T)
        return (drop_ranks(hidden, rank_dropout, -1) @ left.T).flatten(-2)

    def _branch_conv(self, x: Tensor, *parts: Tensor, rank_dropout: float = 0.0) -> Tensor:
        small, left, right = three(parts)
        block = left if right is None else right
        groups = x.unflatten(1, (self.q, -1)).flatten(0, 1)
        site = replace(self.site, m=block.shape[0], n=self.site.n // self.q)
        hidden = site.apply(groups, site.kernel_of(block)).unflatten(0, (x.shape[0], self.q))
        mixed = (small @ hidden.flatten(2)).view(x.shape[0], self.p, *hidden.shape[2:])
        if right is not None:
            mixed = drop_ranks(mixed, rank_dropout, 2).flatten(0, 1)
            mixed = conv2d(mixed, left[:, :, None, None]).unflatten(0, (x.shape[0], self.p))
        return mixed.flatten(1, 2)

    def add(self, y: Tensor, x: Tensor, *parts: Tensor) -> Tensors:
        small, left, right = three(parts)
        if self.site.is_conv:
            y.add_(self._branch_conv(x, *parts))
        elif right is None:
            mixed = small @ self._groups(x, self.q).flatten(1)
            self._groups(y, self.p).add_(mixed.view(self.p, -1, left.shape[1]) @ left.T)
        else:
            mixed = small @ groups_first(self._rows(x, self.q) @ right.T, self.q)
            self._rows(y, self.p).addmm_(groups_in_rows(mixed, left.shape[1]), left.T)
        return ()

    def _groups(self, x: Tensor, groups: int) -> Tensor:
        """``(..., groups * k)`` as ``(groups, N, k)``, a view."""
        return x.reshape(-1, groups, x.shape[-1] // groups).transpose(0, 1)

    def _rows(self, x: Tensor, groups: int) -> Tensor:
        """``(..., groups * k)`` as ``(N * groups, k)``, a view."""
        return x.reshape(-1, x.shape[-1] // groups)

    def backward(self, step: Backward) -> Tensors:
        if self.site.is_conv:
            return again(self._branch_conv, step, self.site)
        x = step.x if step.gain is None else step.x * self.site.along_input(step.gain)
        return self._backward_full(step, x) if len(step.parts) == 2 else self._backward_low_rank(step, x)

    def _backward_full(self, step: Backward, x: Tensor) -> Tensors:
        small, block = step.parts
        hidden, grad = self._groups(x, self.q).flatten(1), self._groups(step.grad, self.p)
        mixed = (small @ hidden).view(self.p, -1, block.shape[1])
        g_mixed = (grad @ block).flatten(1)
        if step.grad_x is not None:
            self._groups(step.grad_x, self.q).add_((small.T @ g_mixed).view(self.q, -1, block.shape[1]))
        return (hidden @ g_mixed.T).T, (mixed.transpose(1, 2) @ grad).sum(0).T

    def _backward_low_rank(self, step: Backward, x: Tensor) -> Tensors:
        small, left, right = step.parts
        rank, x, grad = left.shape[1], self._rows(x, self.q), self._rows(step.grad, self.p)
        hidden = groups_first(x @ right.T, self.q)
        g_mixed = groups_first(grad @ left, self.p)
        g_hidden = groups_in_rows(small.T @ g_mixed, rank)
        if step.grad_x is not None:
            self._rows(step.grad_x, self.q).addmm_(g_hidden, right)
        mixed = groups_in_rows(small @ hidden, rank)
        return g_mixed @ hidden.T, (mixed.T @ grad).T, g_hidden.T @ x


def three(parts: Tensors) -> tuple[Tensor, Tensor, Tensor | None]:
    """``small, left, right``; None for the ``right`` of a full block."""
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else (parts[0], parts[1], None)


def groups_first(rows: Tensor, groups: int) -> Tensor:
    """``(N * groups, r) -> (groups, N * r)``."""
    return rows.view(-1, groups, rows.shape[1]).transpose(0, 1).reshape(groups, -1)


def groups_in_rows(flat: Tensor, rank: int) -> Tensor:
    """``(groups, N * r) -> (N * groups, r)``."""
    return flat.view(flat.shape[0], -1, rank).transpose(0, 1).reshape(-1, rank)
