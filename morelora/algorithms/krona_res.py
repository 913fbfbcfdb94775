"""KronA with a residual: a Kronecker product of two whole matrices and a multiple of the identity.

Formula     ``W' = W + s * (w1 (x) w2) + gamma * I``, ``w1`` and ``w2`` as in KronA, for square layers: ``m = n``, linear or a 1x1
            convolution of stride 1. ``gamma`` is learnt, as the paper's residual is: a fixed ``+ I`` would change the model
            from the start. Any other layer has no identity and is refused.
Rank        full.
Start       ``w1`` uniform (Kaiming), ``w2 = 0``, ``gamma = 0``: the unchanged model.
            Also ``residual`` (``morelora/residual.py``): all random, less what they make; then its file is dense.
Parameters  ``p q + m n / (p q) + 1``.
Cost        as KronA, and one operation over the input.
Export      dense ``diff``, exact and as large as the weight: the sum of two Kronecker products is no LoKr. The sidecar form keeps
            ``krona_w1``, ``krona_w2``, ``krona_gamma``.
Use         as krona, where a uniform gain of square layers is part of the change; the file is dense.
Source      KronA^B_res of arXiv 2212.10650.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from morelora import fused, ways
from morelora.adapter import Tensors, need, need_any
from morelora.as_lokr import Whole, WholeOptions
from morelora.cost import Work
from morelora.dense import dense_tensors
from morelora.errors import AdapterError
from morelora.kronecker import Kronecker
from morelora.site import Site


class KronARes(Whole):
    """``W + s * kron(w1, w2) + gamma * I``; see the module's docstring."""

    name = "krona_res"
    leaves = frozenset({"krona_gamma"})
    holds_magnitudes = False
    thick = ("a Kronecker product and a multiple of the identity", "train with adapter.algorithm = 'lokr'")

    class Options(WholeOptions):
        """Settings of KronA with a residual."""

    def __init__(
        self, site: Site, options: Options, generator: Generator | None = None, split: tuple[int, int] | None = None
    ) -> None:
        if site.m != site.n or site.is_spatial or (site.stride, site.padding, site.groups) != ((1, 1), (0, 0), 1):
            shape = " x ".join(str(size) for size in site.weight_shape)
            what = f"krona_res adds a multiple of the identity, which only a square layer has and this one of {shape} has not"
            raise AdapterError(f"{what}: give it algorithm = 'krona' in a rule")
        super().__init__(site, options, generator, split)
        self.way = KroneckerAndIdentity(site, self.p, self.q)
        self.gamma = nn.Parameter(torch.zeros(()))

    def delta(self, weight: Tensor) -> Tensor:
        return self.way.change(*self.parts(1.0)).view(self.site.weight_shape)

    def parts(self, strength: float) -> tuple[Tensor, ...]:
        return *super().parts(strength), ways.scaled(self.gamma, strength)

    def zero_factors(self) -> list[nn.Parameter]:
        return [self.w2, self.gamma]

    def norm(self) -> Tensor:
        small, block = self.small, self.block
        within = small.trace() * block.trace()
        return (super().norm().square() + 2 * self.gamma * within + self.gamma.square() * self.site.m).clamp_min(0).sqrt()

    @torch.no_grad()
    def limit_norm(self, maximum: float) -> None:
        shrink = maximum / self.norm().clamp_min(maximum)
        self.w2.mul_(shrink)
        self.gamma.mul_(shrink)

    def tensors(self, alpha: float) -> Tensors:
        return {"krona_w1": self.small, "krona_w2": self.w2, "krona_gamma": self.gamma}

    def file_tensors(self, base: nn.Module, alpha: float) -> Tensors:
        return dense_tensors(self, base)

    @classmethod
    def from_tensors(cls, site: Site, tensors: Tensors) -> KronARes:
        p, q = need_any(tensors, "krona_w1").shape
        if p != q or site.m % p:
            raise AdapterError(f"krona_w1 of {p} x {q} does not split this layer's {site.m} x {site.n} weight in squares")
        self = cls(site, cls.Options(), split=(p, q))
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(need(tensors, f"krona_{name}", tuple(parameter.shape)))
        return self


class KroneckerAndIdentity(Kronecker):
    """The way of Kronecker products with one part more, ``gamma ()``."""

    def work(self, *parts: Tensor) -> Work:
        return super().work(*parts[:-1])

    def change(self, *parts: Tensor) -> Tensor:
        *product, gamma = parts
        return super().change(*product) + gamma * torch.eye(self.site.m, dtype=gamma.dtype, device=gamma.device)

    def summed(self, weight: Tensor, *parts: Tensor) -> Tensor:
        *product, gamma = parts
        changed = super().summed(weight, *product)
        changed.diagonal().add_(gamma)
        return changed

    def branch(self, x: Tensor, *parts: Tensor, rank_dropout: float = 0.0) -> Tensor:
        *product, gamma = parts
        return super().branch(x, *product, rank_dropout=rank_dropout) + gamma * x

    def add(self, y: Tensor, x: Tensor, *parts: Tensor) -> fused.Tensors:
        *product, gamma = parts
        y.addcmul_(x, gamma)
        return super().add(y, x, *product)

    def backward(self, step: fused.Backward) -> fused.Tensors:
        *product, gamma = step.parts
        step.parts = tuple(product)
        inside = step.x if step.gain is None else step.x * self.site.along_input(step.gain)
        if step.grad_x is not None:
            step.grad_x.addcmul_(step.grad, gamma)
        return *super().backward(step), (step.grad * inside).sum()
