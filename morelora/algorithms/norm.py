"""Norm: a free difference of the weight and bias of LayerNorms and GroupNorms.

Formula     ``y = (w + u) * normalised(x) + b + v``.
Start       ``u = v = 0``: the unchanged model.
Parameters  ``2 m`` for each norm.
Cost        none beside the norm itself; in half precision the norm once more, so that a small change is not rounded away.
Export      ``w_norm (m)``, ``b_norm (m)``, as LyCORIS. Exact there, in A1111, Forge, ComfyUI and InvokeAI for the UNet; ComfyUI
            and Forge have no place for norms of text encoders, which are left out unless a rule names them.
Use         the fewest numbers: a look as a whole, or a rule beside another algorithm.
Source      LyCORIS arXiv 2309.14859 (``train_norm``).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from morelora import adapter, ways
from morelora.adapter import Adapter, Tensors, need
from morelora.errors import AdapterError
from morelora.site import NormSite, Site


class Norm(Adapter):
    """``w + u`` and ``b + v``; see the module's docstring."""

    name = "norm"
    leaves = frozenset({"w_norm"})
    decomposes = False
    undecomposed = "whose weight is a vector"
    thick = ("differences of norms", "train with adapter.algorithm = 'lora'")
    notice = "norm trains the UNet's norms; ComfyUI and Forge do not read those of text encoders, which only a rule can name"

    def __init__(self, site: Site, options: adapter.Options, generator: Generator | None = None) -> None:
        super().__init__(site, options)
        if not self.suits(site):
            raise AdapterError("norm trains LayerNorm and GroupNorm, and this layer is neither")
        self.w_norm = nn.Parameter(torch.zeros(site.m))
        self.b_norm = nn.Parameter(torch.zeros(site.m)) if site.has_bias else None

    @classmethod
    def suits(cls, site: Site) -> bool:
        return isinstance(site, NormSite)

    def delta(self, weight: Tensor) -> Tensor:
        return self.w_norm

    def bias_delta(self, bias: Tensor | None) -> Tensor | None:
        return self.b_norm

    def forward(self, x: Tensor, base: nn.Module, strength: float = 1.0, gain: Tensor | None = None) -> Tensor:
        shift = None if self.b_norm is None else ways.scaled(self.b_norm, strength)
        return ways.run_dense(self.site, x, base, ways.scaled(self.w_norm, strength), shift)

    def norm(self) -> Tensor:
        return self.w_norm.norm()

    def scaled_factors(self) -> list[nn.Parameter]:
        return [self.w_norm]

    def tensors(self, alpha: float) -> Tensors:
        return dict(self.named_parameters())

    @classmethod
    def from_tensors(cls, site: Site, tensors: Tensors) -> Norm:
        self = cls(site, cls.Options())
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(need(tensors, name, (site.m,)))
        return self
