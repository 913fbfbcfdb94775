"""(IA)^3: a learnt scale of each input or output feature.

Formula     input: ``W' = W diag(1 + l)``; output: ``W' = diag(1 + l) W``. The bias stays.
Start       ``l = 0``: the unchanged model.
Parameters  ``n``, or ``m``.
Cost        one operation over the input, or two over the output.
Export      input: a LoRA of zeros with ``dora_scale = (1 + l) * ||W||`` by column, which A1111, Forge, ComfyUI and InvokeAI
            read exactly, of ``m + 2 n`` numbers, since InvokeAI takes such a scale beside a LoRA alone; output: dense ``diff``,
            which they read too. Own tensors (sidecar form, and LyCORIS' files): ``weight``, ``on_input``, which ComfyUI and Forge
            do not read.
Use         very few pictures: features of the base are made stronger or weaker, none is new.
Source      Few-Shot Parameter-Efficient Fine-Tuning, arXiv 2205.05638.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from morelora import adapter, ways
from morelora.adapter import Adapter, Tensors, need_any
from morelora.dense import dense_tensors
from morelora.errors import AdapterError
from morelora.site import Site


class IA3(Adapter):
    """``W diag(1 + l)`` or ``diag(1 + l) W``; see the module's docstring."""

    name = "ia3"
    leaves = frozenset({"on_input"})
    decomposes = False
    undecomposed = "which scales the weight's features already"
    limits_norm = False
    thick = ("a scale of whole features", "train with adapter.algorithm = 'lora'")

    class Options(adapter.Options):
        """Settings of (IA)^3."""

        on_input: bool = Field(True, description="Scale the layer's inputs (small files); off: its outputs (dense files).")

    def __init__(self, site: Site, options: Options, generator: Generator | None = None) -> None:
        super().__init__(site, options)
        if options.on_input and site.groups != 1:
            raise AdapterError("ia3 on the input is not defined for a convolution with groups: set on_input = false")
        self.scale_diff = nn.Parameter(torch.zeros(site.n if options.on_input else site.m))

    def _shape(self, vector: Tensor) -> Tensor:
        """``vector`` shaped to multiply the weight."""
        lead = (1, -1) if self.options.on_input else (-1, 1)
        return vector.view(*lead, *(1 for _ in self.site.kernel or ()))

    def delta(self, weight: Tensor) -> Tensor:
        return self._shape(self.scale_diff) * weight

    def forward(self, x: Tensor, base: nn.Module, strength: float = 1.0, gain: Tensor | None = None) -> Tensor:
        scale = ways.scaled(self.scale_diff, strength)
        if self.options.on_input:
            return base(x * (1 + self.site.along_input(scale)).to(x.dtype))
        y = base(x)
        without = y if base.bias is None else y - self.site.along_output(base.bias, y)
        return y + without * self.site.along_output(scale, y)

    def tensors(self, alpha: float) -> Tensors:
        shape = (1, -1, 1, 1) if self.site.is_conv else (-1,)
        return {"weight": self.scale_diff.view(shape), "on_input": torch.tensor(float(self.options.on_input))}

    def file_tensors(self, base: nn.Module, alpha: float) -> Tensors:
        if not self.options.on_input:
            return dense_tensors(self, base)
        weight = base.weight.detach().float()
        up = weight.new_zeros(self.site.m, 1, *(1 for _ in self.site.kernel or ()))
        down = weight.new_zeros(1, *self.site.weight_shape[1:])
        norms = weight.square().sum([axis for axis in range(weight.dim()) if axis != 1], keepdim=True).sqrt()
        scale = self._shape(1 + self.scale_diff) * norms
        return {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(alpha), "dora_scale": scale}

    @classmethod
    def from_tensors(cls, site: Site, tensors: Tensors) -> IA3:
        weight, on_input = need_any(tensors, "weight"), bool(need_any(tensors, "on_input"))
        self = cls(site, cls.Options(on_input=on_input))
        if weight.numel() != self.scale_diff.numel():
            raise AdapterError(f"weight has shape {tuple(weight.shape)}, but this layer needs {self.scale_diff.numel()} numbers")
        with torch.no_grad():
            self.scale_diff.copy_(weight.flatten())
        return self
