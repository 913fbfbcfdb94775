"""A frozen linear layer whose weight is kept in few bits and made anew wherever it is used.

Formula     ``y = D(q) x + b`` with ``D`` the dequantisation. ``D(q)`` is the layer's weight for everything else too: adapters,
            norms of weight decomposition, the check of a file.
Memory      forward keeps neither ``x`` nor ``D(q)`` for backward, which dequantises again: ``grad_x = g D(q)``.
Source      QLoRA arXiv 2305.14314 (how the bits are chosen is the subclass's subject).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from morelora.ways import compute_dtype


class QuantizedLinear(nn.Linear):
    """Stands in for an ``nn.Linear``. A subclass keeps the packed weight in buffers and defines ``dequantize``.

    ``weight`` is read-only: writing into what it gives changes nothing, so that nothing can be merged into it. Casting the
    module changes the dtype that ``weight`` comes in and leaves the packed bits as they are.
    """

    def __init__(self, layer: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.dtype = layer.weight.dtype
        self.bias = layer.bias
        self.requires_grad_(False).train(layer.training)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The weight ``(m, n)``."""
        raise NotImplementedError

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.dequantize(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return _Through.apply(x.to(compute_dtype(x)), self)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedLinear:
        """Buffers move between devices only; a cast is kept for ``weight``."""
        packed = dict(self._buffers)
        sample = fn(torch.empty(0, dtype=self.dtype, device=next(iter(packed.values())).device))
        self._buffers.clear()
        super()._apply(fn, recurse)
        self._buffers.update({name: buffer.to(sample.device) for name, buffer in packed.items()})
        self.dtype = sample.dtype
        return self


class _Through(torch.autograd.Function):
    """The frozen operation, with the weight dequantised once in each direction."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLinear) -> Tensor:
        ctx.layer = layer
        bias = None if layer.bias is None else layer.bias.to(x.dtype)
        return F.linear(x, layer.dequantize(x.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.layer.dequantize(grad.dtype), None
