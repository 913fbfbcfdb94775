"""Full: a free difference of the weight, and of the bias where there is one.

Formula     ``W' = W + D``, ``b' = b + d``; no rank, no scale, no alpha.
Start       ``D = 0``, ``d = 0``: the unchanged model. Weight decay pulls towards the base model.
Parameters  ``m c``, and ``m`` for the bias.
Cost        in float32 none beside the sum ``W + D``; in half precision, where the sum would round a small change away, the
            frozen operation once more. The optimiser's state is the heavy part: ``optimizer.galore_rank`` lowers it.
Export      ``diff`` of the weight's shape, ``diff_b (m)``, as LyCORIS. Exact there, in A1111, Forge, ComfyUI and InvokeAI; no
            plain-LoRA form.
Use         where nothing shall be out of reach and neither memory nor the file matters; what the others are measured by.
Source      LyCORIS arXiv 2309.14859 (native fine-tuning).
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from morelora import adapter, ways
from morelora.adapter import Adapter, Tensors, need
from morelora.errors import AdapterError
from morelora.site import Site


class Full(Adapter):
    """``W + D`` and ``b + d``; see the module's docstring."""

    name = "full"
    leaves = frozenset({"diff"})
    decomposes = False
    thick = ("a full difference", "train with adapter.algorithm = 'lora'")

    class Options(adapter.Options):
        """Settings of the full difference."""

        bias: bool = Field(True, description="Also train the layer's bias, where it has one.")

    def __init__(self, site: Site, options: Options, generator: Generator | None = None) -> None:
        super().__init__(site, options)
        self.diff = nn.Parameter(torch.zeros(site.m, site.c))
        self.diff_b = nn.Parameter(torch.zeros(site.m)) if options.bias and site.has_bias else None

    def delta(self, weight: Tensor) -> Tensor:
        return self.diff.view(self.site.weight_shape)

    def bias_delta(self, bias: Tensor | None) -> Tensor | None:
        return self.diff_b

    def forward(self, x: Tensor, base: nn.Module, strength: float = 1.0, gain: Tensor | None = None) -> Tensor:
        diff = ways.scaled(self.site.kernel_of(self.diff), strength)
        shift = None if self.diff_b is None else ways.scaled(self.diff_b, strength)
        return ways.run_dense(self.site, x, base, diff, shift)

    def norm(self) -> Tensor:
        return self.diff.norm()

    def scaled_factors(self) -> list[nn.Parameter]:
        return [self.diff]

    def tensors(self, alpha: float) -> Tensors:
        weight = {"diff": self.diff.view(self.site.weight_shape)}
        return weight if self.diff_b is None else weight | {"diff_b": self.diff_b}

    @classmethod
    def reads(cls, tensors: Tensors) -> bool:
        return "diff" in tensors and tensors["diff"].dim() > 1

    @classmethod
    def from_tensors(cls, site: Site, tensors: Tensors) -> Full:
        has_bias = "diff_b" in tensors
        if has_bias and not site.has_bias:
            raise AdapterError("diff_b stands in a file for a layer that has no bias")
        self = cls(site, cls.Options(bias=has_bias))
        with torch.no_grad():
            self.diff.copy_(need(tensors, "diff", site.weight_shape).flatten(1))
            if self.diff_b is not None:
                self.diff_b.copy_(need(tensors, "diff_b", (site.m,)))
        return self
