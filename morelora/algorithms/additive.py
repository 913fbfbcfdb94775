"""Additive LoRA: MoreLoRA's sum in the place of the product.

Formula     ``W'[i, j] = W[i, j] + s * (u[i, j mod r] + v[i mod r, j])``, ``u (m, r)``, ``v (r, c)``, ``s = alpha / r``; on
            convolutions ``j`` counts the columns of ``(m, n kh kw)``. Each entry sees one number of each factor whatever ``r``
            is, so the default is ``alpha = r``, a scale of 1.
Rank        ``2 r``: exactly a LoRA with ``up = [u, J_m^T]``, ``down = [J_n; v]``, ``J[a, j] = 1`` where ``j mod r = a``, else 0.
Start       ``u = v = 0``: the unchanged model. The change is linear in both, so both have a gradient in the first step; for the
            same reason another start would be of no effect.
Parameters  ``r (m + c)``, of which ``r^2`` are idle: what every block adds to ``u`` can be taken from ``v``.
Cost        linear layers: ``2 N r (m + c) + N (m + c)`` more in the forward pass, by sums over blocks of ``r`` features and no
            product with ``J``; convolutions: as a LoRA of rank ``2 r``.
Export      plain LoRA of rank ``2 r``; exact, and the zeros and ones of ``J`` are so in every precision.
Use         twice LoRA's rank for its numbers, half of the factors being fixed; the cheapest step of the forms with a rank.
Source      MoreLoRA (2023). The ``u`` half is MiSS, arXiv 2409.15371.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import pad

from morelora import cost, fused, ways
from morelora.adapter import Factored, RankOptions, Tensors, alpha_of, check_rank, need, need_any
from morelora.as_lora import plain_tensors
from morelora.site import Site


class Additive(Factored):
    """``W + s * (u J_n + J_m^T v)``; see the module's docstring."""

    name = "additive"
    leaves = frozenset({"additive_u", "additive_v"})
    filed_as = "lora"

    class Options(RankOptions):
        """Settings of additive LoRA."""

        meaningless = {
            "start": "would train the same: the change is linear in both factors, so that of a start, taken off again, nothing "
            "is left. Remove it, or use algorithm = 'lora'"
        }

    def __init__(self, site: Site, options: Options, generator: Generator | None = None) -> None:
        super().__init__(site, options)
        check_rank(site, options.rank, times=2)
        self.way = BlockSums(site)
        self.u = nn.Parameter(torch.zeros(site.m, options.rank))
        self.v = nn.Parameter(torch.zeros(options.rank, site.c))

    @property
    def file_rank(self) -> int:
        return 2 * self.options.rank

    def parts(self, strength: float) -> tuple[Tensor, ...]:
        factor = self.options.scale * strength
        return ways.scaled(self.u, factor), ways.scaled(self.v, factor)

    def factors(self) -> tuple[Tensor, Tensor]:
        return joined(*self.parts(1.0))

    def delta(self, weight: Tensor) -> Tensor:
        return self.way.change(*self.parts(1.0)).view(self.site.weight_shape)

    def rescale(self, factor: Tensor | float) -> None:
        self.u.mul_(factor)
        self.v.mul_(factor)

    def limit_norm(self, maximum: float) -> None:
        with torch.no_grad():
            self.rescale(maximum / self.norm().clamp_min(maximum))

    def tensors(self, alpha: float) -> Tensors:
        return {"additive_u": self.u, "additive_v": self.v, "alpha": torch.tensor(self.options.scale * self.options.rank)}

    def file_tensors(self, base: nn.Module, alpha: float) -> Tensors:
        return plain_tensors(self.site, *self.factors(), alpha)

    @classmethod
    def from_tensors(cls, site: Site, tensors: Tensors) -> Additive:
        rank = need_any(tensors, "additive_v").shape[0]
        self = cls(site, cls.Options(rank=rank, alpha=alpha_of(tensors, rank)))
        with torch.no_grad():
            self.u.copy_(need(tensors, "additive_u", tuple(self.u.shape)))
            self.v.copy_(need(tensors, "additive_v", tuple(self.v.shape)))
        return self


def tiled(x: Tensor, width: int) -> Tensor:
    """``x J``: the ``r`` columns of ``x`` again and again, to ``width`` of them."""
    return x.repeat(*(1 for _ in x.shape[1:]), -(-width // x.shape[-1]))[..., :width]


def block_sum(x: Tensor, rank: int) -> Tensor:
    """``x J^T``: the sum over all blocks of ``rank`` columns."""
    return pad(x, (0, -x.shape[-1] % rank)).unflatten(-1, (-1, rank)).sum(-2)


def joined(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """``up (m, 2 r)`` and ``down (2 r, c)`` with ``u J_n + J_m^T v`` for their product."""
    one = torch.eye(u.shape[1], dtype=u.dtype, device=u.device)
    return torch.cat((u, tiled(one, len(u)).T), 1), torch.cat((tiled(one, v.shape[1]), v))


class BlockSums(ways.LowRank):
    """Parts are ``u`` and ``v``, scale included."""

    def work(self, *parts: Tensor) -> cost.Work:
        (u, v), site = parts, self.site
        if site.is_conv:
            return ways.low_rank_work(site, 2 * v.shape[0])
        product = 2 * (u.numel() + v.numel())
        return cost.Work(product, 2 * product, 0, 0, 0, 2 * v.shape[0])

    def change(self, *parts: Tensor) -> Tensor:
        u, v = parts
        return tiled(u, self.site.c) + tiled(v.T, self.site.m).T

    def summed(self, weight: Tensor, *parts: Tensor) -> Tensor:
        u, v = parts
        return (weight.flatten(1) + tiled(u, self.site.c)).add_(tiled(v.T, self.site.m).T).view(weight.shape)

    def branch(self, x: Tensor, *parts: Tensor, rank_dropout: float = 0.0) -> Tensor:
        if self.site.is_conv or rank_dropout:
            return super().branch(x, *joined(*parts), rank_dropout=rank_dropout)
        u, v = parts
        return block_sum(x, v.shape[0]) @ u.T + tiled(x @ v.T, self.site.m)

    def add(self, y: Tensor, x: Tensor, *parts: Tensor) -> fused.Tensors:
        if self.site.is_conv:
            return super().add(y, x, *joined(*parts))
        y.add_(self.branch(x, *parts))
        return ()

    def backward(self, step: fused.Backward) -> fused.Grads:
        rank = step.parts[1].shape[0]
        if self.site.is_conv:
            step.parts = joined(*step.parts)
            grad_up, grad_down = super().backward(step)
            return grad_up[:, :rank], grad_down[rank:]
        (u, v), g, x = step.parts, step.grad.reshape(-1, self.site.m), step.x.reshape(-1, self.site.n)
        x = x if step.gain is None else x * step.gain
        g_sum = block_sum(g, rank)
        if step.grad_x is not None:
            step.grad_x.view(-1, self.site.n).addmm_(g_sum, v).add_(tiled(g @ u, self.site.n))
        return (block_sum(x, rank).T @ g).T, g_sum.T @ x
