"""Weight decomposition (DoRA) over any additive adapter.

Formula     ``W' = g * (W + D)``, ``g = magnitude / ||W + D||``. Input axis (default): one magnitude for each of the ``n``
            input features, norms over all else, so that ``W' x = (W + D) (g * x)``. Output axis: one for each output row.
Start       ``magnitude = ||W||``: the unchanged model.
Gradient    the norm counts as a constant, as in the paper (section 4.3).
Parameters  ``n`` (output axis: ``m``) more than the adapter inside.
Cost        ``||(W + D)_j||^2 = ||W_j||^2 + 2 <W_j, D_j> + ||D_j||^2`` by Gram matrices, ``2 m c R`` without a gradient.
Export      ``dora_scale (1, n[, 1, 1])`` beside the adapter's own tensors: A1111, Forge, ComfyUI and InvokeAI read this axis
            exactly and the output axis wrongly; diffusers' own form knows only the output axis.
Source      DoRA arXiv 2402.09353.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from morelora.adapter import Adapter, Tensors
from morelora.errors import AdapterError
from morelora.factors import added_squares

Axis = Literal["input", "output"]


class WeightDecomposed(Adapter):
    """``g * (W + D)`` around an adapter that gives ``D``; see the module's docstring."""

    def __init__(self, inner: Adapter, weight: Tensor, axis: Axis = "input") -> None:
        if not inner.decomposes:
            raise AdapterError(f"weight decomposition has no meaning around {inner.name}, {inner.undecomposed}")
        super().__init__(inner.site, inner.options)
        if axis == "input" and inner.site.groups != 1:
            raise AdapterError("weight decomposition along the input axis is not defined for a convolution with groups")
        self.inner = inner
        self.limits_norm = inner.limits_norm
        self.axis = axis
        self._known: tuple[Any, ...] = ()
        self.magnitude = nn.Parameter(self._squares(weight).sqrt())

    @property
    def name(self) -> str:  # type: ignore[override]
        """The inner algorithm's name."""
        return self.inner.name

    @property
    def filed_as(self) -> str:
        return self.inner.filed_as

    @property
    def file_rank(self) -> int | None:
        return self.inner.file_rank

    @property
    def plain(self) -> Adapter:
        return self.inner

    def _sum(self, weight: Tensor) -> Tensor:
        """Sum over every axis but the decomposed one."""
        kept = 0 if self.axis == "output" else 1
        return weight.sum([axis for axis in range(weight.dim()) if axis != kept])

    def _shape(self, vector: Tensor) -> Tensor:
        """``vector`` shaped to multiply the weight: ``(1, n, 1, 1)`` or ``(m, 1, 1, 1)``, without the last two if linear."""
        lead = (1, -1) if self.axis == "input" else (-1, 1)
        return vector.view(*lead, *(1 for _ in self.site.kernel or ()))

    @torch.no_grad()
    def _squares(self, weight: Tensor) -> Tensor:
        """``||W||^2`` along the axis, kept for as long as the same parameter is asked for and stays unchanged."""
        if not isinstance(weight, nn.Parameter) or torch.compiler.is_compiling() or weight.is_inference():
            return self._sum(_precise(weight).square())
        state = (weight._version, weight.device, weight.dtype)
        if not self._known or self._known[0] is not weight or self._known[1] != state:
            self._known = (weight, state, self._sum(_precise(weight).square()))
        return self._known[2]

    @torch.no_grad()
    def _squared_norms(self, weight: Tensor) -> Tensor:
        """``||W + D||^2`` along the axis."""
        factors = self.inner.norm_factors()
        if factors is None:
            return self._sum(_precise(weight + self.inner.delta(weight)).square())
        up, down, flat = _precise(factors[0]), _precise(factors[1]), weight.flatten(1)
        if self.axis == "output":
            added = added_squares(flat.T, down.T, up.T)
        else:
            added = added_squares(flat, up, down).view(self.site.n, -1).sum(1)
        return (self._squares(weight) + added).clamp_min(0)

    def gain(self, weight: Tensor) -> Tensor:
        """``g``, one number for each feature of the axis; 0 where the weight is all zero."""
        squares = self._squared_norms(weight)
        return self.magnitude * squares.rsqrt().masked_fill(squares == 0, 0.0)

    def delta(self, weight: Tensor) -> Tensor:
        weight = weight.to(self.magnitude.dtype)
        return self._shape(self.gain(weight)) * (weight + self.inner.delta(weight)) - weight

    def forward(self, x: Tensor, base: nn.Module, strength: float = 1.0, gain: Tensor | None = None) -> Tensor:
        if gain is not None:
            raise AdapterError("a weight decomposition cannot stand inside another one")
        gain = self.gain(base.weight).to(x.dtype)
        on_input = self.axis == "input"
        y = self.inner(x, base, gain=gain) if on_input else self._scale_output(self.inner(x, base), gain, base.bias)
        return y if strength == 1.0 else torch.lerp(base(x), y, strength)

    def _scale_output(self, y: Tensor, gain: Tensor, bias: Tensor | None) -> Tensor:
        gain = self.site.along_input(gain)
        if bias is None:
            return y * gain
        bias = self.site.along_input(bias)
        return (y - bias) * gain + bias

    def remark(self) -> str:
        return self.inner.remark()

    def norm(self) -> Tensor:
        return self.inner.norm()

    def zero_factors(self) -> list[nn.Parameter]:
        return self.inner.zero_factors()

    def rescale(self, factor: float) -> None:
        self.inner.rescale(factor)

    def limit_norm(self, maximum: float) -> None:
        self.inner.limit_norm(maximum)

    def tensors(self, alpha: float) -> Tensors:
        return self.inner.tensors(alpha) | {"dora_scale": self._shape(self.magnitude)}

    def file_tensors(self, base: nn.Module, alpha: float) -> Tensors:
        if self.inner.holds_magnitudes:
            return self.inner.file_tensors(base, alpha) | {"dora_scale": self._shape(self.magnitude)}
        return {"diff": self.delta(base.weight)}

    @classmethod
    def around(cls, inner: Adapter, weight: Tensor, dora_scale: Tensor) -> WeightDecomposed:
        """With a file's ``dora_scale``: ``(1, n[, 1, 1])`` is the input axis; ``(m, 1[, 1, 1])`` or ``(m,)`` the output one.

        Raises:
            AdapterError: the shape is of neither axis.
        """
        m, n = inner.site.m, inner.site.n
        shape = tuple(dora_scale.shape)
        if shape[:2] == (1, n) and dora_scale.numel() == n:
            axis: Axis = "input"
        elif shape[:1] == (m,) and dora_scale.numel() == m:
            axis = "output"
        else:
            raise AdapterError(f"dora_scale has shape {shape}, but this layer needs (1, {n}, ...) or ({m}, 1, ...)")
        self = cls(inner, weight, axis)
        with torch.no_grad():
            self.magnitude.copy_(dora_scale.flatten())
        return self


def _precise(tensor: Tensor) -> Tensor:
    """In float32, or float64 where it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
