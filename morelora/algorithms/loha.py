"""LoHa: the Hadamard product of two low-rank products, ``hadamard`` with ``k = 2`` in the field's own convention and file.

Formula     ``W' = W + s * (w1_a @ w1_b) * (w2_a @ w2_b)``, ``w*_a (m, r)``, ``w*_b (r, c)``, ``s = alpha / r``.
Tucker      ``w*_b`` becomes ``sum_b t[a, b, k] * core[b, i]`` for kernels larger than 1x1.
Rank        at most ``r^2``: exactly ``up = KR(w1_a^T, w2_a^T)^T``, ``down = KR(w1_b, w2_b)`` with the Khatri-Rao product
            ``KR``, so that it runs and exports as a LoRA of rank ``r^2``, where
            that is not above both sides of the layer.
Start       LyCORIS' own, so that its learning rates carry over: ``w1_b, w2_b ~ N(0, 1)``, ``w1_a ~ N(0, 0.1)``, ``w2_a = 0``.
            Only ``w2_a`` has a gradient in the first step.
Parameters  ``2 r (m + c)``.
Cost        ``2 N r^2 (m + c)`` more in the forward pass; where that is more than the layer itself, ``4 m c r`` for the whole
            change, which is made again for backward.
Export      ``hada_w1_a, hada_w1_b, hada_w2_a, hada_w2_b`` (Tucker: ``hada_t1, hada_t2`` and transposed ``hada_w*_a``) with
            ``alpha = r`` and ``s`` folded into ``w1_a``; exact also as plain LoRA.
Use         more rank for LoRA's numbers, where a LoRA's rank is what limits it; the field's own file for it.
Sources     FedPara arXiv 2108.06098; LyCORIS arXiv 2309.14859; the factorisation: arXiv 2505.14238.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from morelora import ways
from morelora.adapter import Tensors, alpha_of, need, need_any
from morelora.factors import tucker_down
from morelora.products import ProductAdapter, Products
from morelora.residual import StartOptions
from morelora.site import Site


class LoHa(ProductAdapter):
    """``W + s * (w1_a w1_b) * (w2_a w2_b)``; see the module's docstring."""

    name = "loha"
    leaves = frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"})

    class Options(StartOptions):
        """Settings of LoHa."""

        rank: int = Field(
            4,
            ge=1,
            le=256,
            description="Rank of each of the two products; the change has up to rank squared.",
            json_schema_extra={"level": "basic"},
        )
        tucker: bool = Field(False, description="Tucker factors for kernels larger than 1x1: fewer parameters at the same rank.")

    def __init__(self, site: Site, options: Options, generator: Generator | None = None) -> None:
        super().__init__(site, options)
        self.total = options.rank**2
        self.way = Products(site, 2)
        self.thick = f"a LoHa of {self.total} ranks, more than the layer has", "lower adapter.rank"
        rank, tucker = options.rank, options.tucker and site.is_spatial

        def normal(*shape: int, std: float = 1.0) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator) * std)

        columns = site.n if tucker else site.c
        self.w1_a, self.w1_b = normal(site.m, rank, std=0.1), normal(rank, columns)
        self.w2_a, self.w2_b = nn.Parameter(torch.zeros(site.m, rank)), normal(rank, columns)
        self.t1 = normal(rank, rank, *site.kernel, std=0.1) if tucker else None
        self.t2 = normal(rank, rank, *site.kernel, std=0.1) if tucker else None

    def parts(self, strength: float) -> tuple[Tensor, ...]:
        down1 = self.w1_b if self.t1 is None else tucker_down(self.t1, self.w1_b)
        down2 = self.w2_b if self.t2 is None else tucker_down(self.t2, self.w2_b)
        return ways.scaled(self.w1_a, self.options.scale * strength), self.w2_a, down1, down2

    def zero_factors(self) -> list[nn.Parameter]:
        return [self.w2_a]

    def tensors(self, alpha: float) -> Tensors:
        parts = {"w1_a": self.w1_a * self.options.scale, "w1_b": self.w1_b, "w2_a": self.w2_a, "w2_b": self.w2_b}
        if self.t1 is not None:
            parts |= {"t1": self.t1, "t2": self.t2, "w1_a": parts["w1_a"].T, "w2_a": self.w2_a.T}
        return {f"hada_{leaf}": part for leaf, part in parts.items()} | {"alpha": torch.tensor(float(self.options.rank))}

    @classmethod
    def from_tensors(cls, site: Site, tensors: Tensors) -> LoHa:
        rank = need_any(tensors, "hada_w1_b").shape[0]
        tucker = "hada_t1" in tensors
        self = cls(site, cls.Options(rank=rank, alpha=alpha_of(tensors, rank), tucker=tucker))
        left = (rank, site.m) if tucker else (site.m, rank)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                is_left = name.endswith("_a")
                tensor = need(tensors, f"hada_{name}", left if is_left else tuple(parameter.shape))
                parameter.copy_(tensor.T if tucker and is_left else tensor)
        return self
