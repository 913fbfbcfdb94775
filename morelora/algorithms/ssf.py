"""SSF: scale and shift of each output feature.

Formula     ``y = g * (W x + b) + d``, so ``W' = g * W``, ``b' = g * b + d``; without a bias there is no ``d``. The trained
            scale is ``g - 1``, so that weight decay pulls towards the base model.
Start       ``g = 1``, ``d = 0``: the unchanged model.
Parameters  ``2 m`` for each layer, norms too.
Cost        two operations over the output.
Export      dense ``diff = (g - 1) W`` and ``diff_b = (g - 1) b + d`` (norms: ``w_norm``, ``b_norm``), exact wherever ``full`` is
            and as large; the sidecar form keeps the two vectors.
Use         as bitfit, with a gain beside each shift; the file is dense.
Source      Scaling & Shifting Your Features, arXiv 2210.08823.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from morelora import adapter, ways
from morelora.adapter import Adapter, Tensors, need
from morelora.dense import dense_tensors
from morelora.errors import AdapterError
from morelora.site import Site


class SSF(Adapter):
    """``g * (W x + b) + d``; see the module's docstring."""

    name = "ssf"
    leaves = frozenset({"ssf_scale", "ssf_shift"})
    decomposes = False
    undecomposed = "which scales the weight's rows already"
    limits_norm = False
    thick = ("a scale of whole rows", "train with adapter.algorithm = 'lora'")

    def __init__(self, site: Site, options: adapter.Options, generator: Generator | None = None) -> None:
        super().__init__(site, options)
        self.scale_diff = nn.Parameter(torch.zeros(site.m))
        self.shift = nn.Parameter(torch.zeros(site.m)) if site.has_bias else None

    @classmethod
    def suits(cls, site: Site) -> bool:
        return True

    def delta(self, weight: Tensor) -> Tensor:
        return self.scale_diff.view(-1, *(1 for _ in weight.shape[1:])) * weight

    def bias_delta(self, bias: Tensor | None) -> Tensor | None:
        return None if self.shift is None or bias is None else self.scale_diff * bias + self.shift

    def forward(self, x: Tensor, base: nn.Module, strength: float = 1.0, gain: Tensor | None = None) -> Tensor:
        y = base(x)
        change = y * self.site.along_output(ways.scaled(self.scale_diff, strength), y)
        if self.shift is not None:
            change = change + self.site.along_output(ways.scaled(self.shift, strength), y)
        return y + change

    def tensors(self, alpha: float) -> Tensors:
        scale = {"ssf_scale": 1 + self.scale_diff}
        return scale if self.shift is None else scale | {"ssf_shift": self.shift}

    def file_tensors(self, base: nn.Module, alpha: float) -> Tensors:
        return dense_tensors(self, base)

    @classmethod
    def from_tensors(cls, site: Site, tensors: Tensors) -> SSF:
        if "ssf_shift" in tensors and not site.has_bias:
            raise AdapterError("ssf_shift stands in a file for a layer that has no bias")
        self = cls(site, cls.Options())
        with torch.no_grad():
            self.scale_diff.copy_(need(tensors, "ssf_scale", (site.m,)) - 1)
            if self.shift is not None:
                self.shift.copy_(need(tensors, "ssf_shift", (site.m,)))
        return self
