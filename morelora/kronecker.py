"""The way of Kronecker products: ``delta = kron(small, left @ right)`` by reshape, never the product but for the sum.

The features of ``x`` are split into ``(q, n/q)``. With ``P = x right^T`` in each of the ``q`` groups (``P = x`` where the block
is full), ``delta x = (small P) left^T``. Groups come first in memory, ``(q, N, ...)``, so that ``small`` acts in one product.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from morelora.site import Site
from morelora.ways import Backward, Tensors, drop_ranks


class Kronecker:
    """``small (p, q)``, ``left (m/p, r)`` and ``right (r, c/q)``; or without ``right`` the full block ``(m/p, c/q)``."""

    def __init__(self, site: Site, p: int, q: int) -> None:
        self.site, self.p, self.q = site, p, q

    def summed(self, weight: Tensor, small: Tensor, left: Tensor, right: Tensor | None = None) -> Tensor:
        block = left if right is None else left @ right
        parts = weight.view(self.p, block.shape[0], self.q, block.shape[1])
        return torch.addcmul(parts, small[:, None, :, None], block[None, :, None, :]).view(weight.shape)

    def branch(
        self, x: Tensor, small: Tensor, left: Tensor, right: Tensor | None = None, rank_dropout: float = 0.0
    ) -> Tensor:
        site = self.site
        if site.groups != 1:
            zeros = x.new_zeros(site.m, site.c)
            return site.apply(x, site.kernel_of(self.summed(zeros, small, left, right)))
        if site.is_conv:
            return self._branch_conv(x, small, left, right, rank_dropout)
        parts = x.unflatten(-1, (self.q, -1))
        hidden = small @ (parts if right is None else parts @ right.T)
        return (drop_ranks(hidden, rank_dropout, -1) @ left.T).flatten(-2)

    def _branch_conv(
        self, x: Tensor, small: Tensor, left: Tensor, right: Tensor | None, rank_dropout: float
    ) -> Tensor:
        block = left if right is None else right
        parts = x.unflatten(1, (self.q, -1)).flatten(0, 1)
        site = replace(self.site, m=block.shape[0], n=self.site.n // self.q)
        hidden = site.apply(parts, site.kernel_of(block)).unflatten(0, (x.shape[0], self.q))
        mixed = (small @ hidden.flatten(2)).view(x.shape[0], self.p, *hidden.shape[2:])
        if right is not None:
            mixed = drop_ranks(mixed, rank_dropout, 2).flatten(0, 1)
            mixed = conv2d(mixed, left[:, :, None, None]).unflatten(0, (x.shape[0], self.p))
        return mixed.flatten(1, 2)

    def add(self, y: Tensor, x: Tensor, small: Tensor, left: Tensor, right: Tensor | None = None) -> Tensors:
        if self.site.is_conv:
            y.add_(self._branch_conv(x, small, left, right, 0.0))
        else:
            mixed = self._hidden(x, small, right)[1]
            self._grouped(y, self.p).add_(mixed @ left.T)
        return ()

    def _grouped(self, x: Tensor, groups: int) -> Tensor:
        """``(..., groups * k)`` as a view ``(groups, N, k)``."""
        return x.reshape(-1, groups, x.shape[-1] // groups).transpose(0, 1)

    def _hidden(self, x: Tensor, small: Tensor, right: Tensor | None) -> tuple[Tensor, Tensor]:
        """``P (q, N, r)`` and ``small P (p, N, r)``."""
        parts = self._grouped(x, self.q)
        hidden = parts.contiguous() if right is None else parts @ right.T
        return hidden, (small @ hidden.flatten(1)).view(self.p, *hidden.shape[1:])

    def backward(self, step: Backward) -> Tensors:
        x = step.x if step.gain is None else step.x * self.site.along_input(step.gain)
        if self.site.is_conv:
            return self._backward_conv(step, x)
        small, left, *rest = step.parts
        right = rest[0] if rest else None
        hidden, mixed = self._hidden(x, small, right)
        grad = self._grouped(step.grad, self.p)
        g_mixed = grad @ left
        g_hidden = (small.T @ g_mixed.flatten(1)).view(hidden.shape)
        if step.grad_x is not None:
            self._grouped(step.grad_x, self.q).add_(g_hidden if right is None else g_hidden @ right)
        grads = (g_mixed.flatten(1) @ hidden.flatten(1).T, (grad.transpose(1, 2) @ mixed).sum(0))
        return grads if right is None else (*grads, (g_hidden.transpose(1, 2) @ self._grouped(x, self.q)).sum(0))

    def _backward_conv(self, step: Backward, x: Tensor) -> Tensors:
        """By running the branch again: for convolutions it is cheap beside the layer."""
        inputs = [t.detach().requires_grad_() for t in ((x, *step.parts) if step.grad_x is not None else step.parts)]
        with torch.enable_grad():
            out = self._branch_conv(*(inputs if step.grad_x is not None else (x, *inputs)), *self._absent(step), 0.0)
        grads = torch.autograd.grad(out, inputs, step.grad)
        if step.grad_x is not None:
            step.grad_x.add_(grads[0])
            grads = grads[1:]
        return grads

    def _absent(self, step: Backward) -> tuple[None, ...]:
        return (None,) * (3 - len(step.parts))
