"""BitFit: biases alone.

Formula     ``b' = b + d``; the weight stays.
Start       ``d = 0``: the unchanged model.
Parameters  ``m`` for each layer with a bias, norms too; layers without one have nothing to train and are left out.
Cost        one sum over the output.
Export      ``diff_b (m)`` beside ``diff = [0]``: ComfyUI and Forge read ``diff_b`` by itself, A1111 and LyCORIS want a ``diff``,
            which they spread over the weight. On norms ``w_norm = 0``, ``b_norm``.
Use         tone and contrast with next to no numbers; too little for a new subject.
Source      BitFit arXiv 2106.10199.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from morelora import adapter, ways
from morelora.adapter import Adapter, Tensors, need
from morelora.dense import dense_tensors
from morelora.errors import AdapterError
from morelora.site import NormSite, Site


class BitFit(Adapter):
    """``b + d``; see the module's docstring."""

    name = "bitfit"
    leaves = frozenset({"diff_b"})
    decomposes = False
    undecomposed = "which leaves the weight alone"
    limits_norm = False
    thick = ("a change of biases alone", "train with adapter.algorithm = 'lora'")
    notice = "bitfit trains biases: layers without one (the attention's q, k, v) are left out, and norms are trained too"

    def __init__(self, site: Site, options: adapter.Options, generator: Generator | None = None) -> None:
        super().__init__(site, options)
        if not site.has_bias:
            raise AdapterError("bitfit trains biases, and this layer has none")
        self.shift = nn.Parameter(torch.zeros(site.m))

    @classmethod
    def suits(cls, site: Site) -> bool:
        return site.has_bias

    def delta(self, weight: Tensor) -> Tensor:
        return torch.zeros_like(weight)

    def bias_delta(self, bias: Tensor | None) -> Tensor:
        return self.shift

    def forward(self, x: Tensor, base: nn.Module, strength: float = 1.0, gain: Tensor | None = None) -> Tensor:
        y = base(x)
        return y + self.site.along_output(ways.scaled(self.shift, strength), y)

    def tensors(self, alpha: float) -> Tensors:
        return {"diff": torch.zeros_like(self.shift[:1]), "diff_b": self.shift}

    def file_tensors(self, base: nn.Module, alpha: float) -> Tensors:
        return dense_tensors(self, base) if isinstance(self.site, NormSite) else self.tensors(alpha)

    @classmethod
    def reads(cls, tensors: Tensors) -> bool:
        alone = tensors.keys() <= {"diff", "diff_b", "alpha"}
        return alone and "diff_b" in tensors and ("diff" not in tensors or tensors["diff"].dim() < 2)

    @classmethod
    def from_tensors(cls, site: Site, tensors: Tensors) -> BitFit:
        if "diff" in tensors and need(tensors, "diff", (1,)).any():
            raise AdapterError("diff holds one number that is not zero: it is no difference of this layer's weight")
        self = cls(site, cls.Options())
        with torch.no_grad():
            self.shift.copy_(need(tensors, "diff_b", (site.m,)))
        return self
