"""A low-rank change of a layer's inputs, seen through its weight, and one beside it: the forms of ``W a1 a2 + b1 b2``.

Shapes are ``a1 (n, r)``, ``a2 (r, n)``, ``b1 (m, r)``, ``b2 (r, c)``; ``seen = W a1`` is ``(m, r taps)``, at each tap alike.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from morelora import cost, fused, ways
from morelora.factors import kron


def through_weight(weight: Tensor, a1: Tensor) -> Tensor:
    """``W a1`` as ``(m, r taps)``, at each tap alike."""
    return torch.einsum("mnt,nr->mrt", weight.reshape(*weight.shape[:2], -1), a1).flatten(1)


def through_layer(layer: nn.Module, a1: Tensor) -> Tensor:
    """``W a1`` of a frozen layer in the dtype of ``a1``, where the weight itself is not kept for backward."""
    if torch.compiler.is_compiling():
        return through_weight(layer.weight.to(a1.dtype), a1)
    return _Through.apply(a1, layer)


class _Through(torch.autograd.Function):
    """Asks for the weight again in backward: a quantised layer makes it anew wherever it is used."""

    @staticmethod
    def forward(ctx: Any, a1: Tensor, layer: nn.Module) -> Tensor:
        ctx.layer = layer
        return through_weight(layer.weight.to(a1.dtype), a1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        weight = ctx.layer.weight.to(grad.dtype)
        m, n = weight.shape[:2]
        taps = weight[0, 0].numel()
        return torch.einsum("mnt,mrt->nr", weight.reshape(m, n, taps), grad.view(m, -1, taps)), None


def joined(seen: Tensor, a2: Tensor, b1: Tensor, b2: Tensor) -> tuple[Tensor, Tensor]:
    """``up (m, R)`` and ``down (R, c)`` of the whole change."""
    taps = b2.shape[1] // a2.shape[1]
    right = a2 if taps == 1 else kron(a2, torch.eye(taps, dtype=a2.dtype, device=a2.device))
    return torch.cat((seen, b1), 1), torch.cat((right, b2))


def change(seen: Tensor, a2: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
    """``W a1 a2 + b1 b2`` as ``(m, c)``."""
    return torch.einsum("mrt,rn->mnt", seen.view(len(seen), len(a2), -1), a2).flatten(1) + b1 @ b2


class OnKernel(ways.Way):
    """The way on kernels larger than 1x1. Parts are ``W a1 (m, r taps)``, ``a2 (r, n)``, ``b1 (m, r)``, ``b2 (r, c)``: both
    changes have ``r`` channels between two convolutions, the one with the layer's taps after them, the other before."""

    def work(self, *parts: Tensor) -> cost.Work:
        forward = 2 * sum(part.numel() for part in parts)
        build = 4 * len(parts[1]) * self.site.m * self.site.c
        return cost.Work(forward, 3 * forward, 0, build, build, None)

    def change(self, *parts: Tensor) -> Tensor:
        return change(*parts)

    def branch(self, x: Tensor, *parts: Tensor, rank_dropout: float = 0.0) -> Tensor:
        (seen, a2, b1, b2), site = parts, self.site
        narrow = replace(site, n=len(a2))
        inputs = ways.drop_ranks(site.mix(x, a2), rank_dropout, 1)
        beside = ways.drop_ranks(site.apply(x, site.kernel_of(b2)), rank_dropout, 1)
        return narrow.apply(inputs, narrow.kernel_of(seen)) + site.mix(beside, b1)

    def backward(self, step: fused.Backward) -> fused.Grads:
        return ways.again(self.branch, step, self.site)
