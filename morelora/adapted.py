"""A frozen layer with its adapter: what stands in the model in the layer's place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from morelora.adapter import Adapter
from morelora.errors import AdapterError
from morelora.quantized import QuantizedLinear
from morelora.site import Site


class Adapted(nn.Module):
    """``y = (W + strength * delta(W)) x + b + strength * bias_delta(b)``.

    Adapted layers nest: an outer one adapts the inner one's result, ``W -> W + t1 delta1(W) -> ...``, in loading order; what is
    no change of weights stands around those that are.
    Attributes that are not its own are read from the frozen layer.
    """

    def __init__(self, base: nn.Module, adapter: Adapter) -> None:
        super().__init__()
        self.base = base.requires_grad_(False) if not isinstance(base, Adapted) else base
        self.adapter = adapter
        self.strength = 1.0
        self._original: tuple[Tensor, Tensor | None] | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    @property
    def site(self) -> Site:
        return self.adapter.site

    @property
    def bias(self) -> Tensor | None:
        """The bias that this layer acts with."""
        bias, change = self.base.bias, self.adapter.bias_delta(self.base.bias)
        if change is None or self.is_merged or self.strength == 0.0:
            return bias
        return bias + (self.strength * change).to(bias.dtype)

    @property
    def changes_bias(self) -> bool:
        """Whether the algorithm changes this layer's bias."""
        return self.adapter.bias_delta(self.base.bias) is not None

    @property
    def weight(self) -> Tensor:
        """The weight that this layer acts with, ``W + strength * delta(W)``."""
        if self.is_merged:
            return self.base.weight
        weight = self.adapter.unfolded(self.base.weight)
        if self.strength == 0.0 or not self.adapter.mergeable:
            return weight
        return weight + (self.strength * self.adapter.delta(weight)).to(weight.dtype)

    @property
    def is_merged(self) -> bool:
        return self._original is not None

    def forward(self, x: Tensor) -> Tensor:
        if self.is_merged or (self.strength == 0.0 and not self.adapter.is_folded) or self.adapter.is_skipped():
            return self.base(x)
        return self.adapter(x, self.base, self.strength)

    def check_merge(self) -> None:
        """Raise ``AdapterError`` where it cannot be merged now, or at all; the message says why."""
        if not self.adapter.mergeable:
            raise AdapterError(f"{self.adapter.name} is no change of the weights and cannot be merged: keep it as an adapter")
        if self.is_merged:
            raise AdapterError("this adapter is merged already: unmerge it first")
        if isinstance(self.base, Adapted) and not self.base.is_merged:
            raise AdapterError("this adapter stands on another one: merge that one first")
        if isinstance(self.base, QuantizedLinear):
            raise AdapterError("a quantised layer cannot hold a merged weight: load the base unquantised, or do not merge")

    @torch.no_grad()
    def merge(self) -> None:
        """Write the changed weight into the frozen layer, computed in float32 at least; the original is kept for ``unmerge``.

        Raises:
            AdapterError: as ``check_merge``.
        """
        self.check_merge()
        weight = self.base.weight
        precise = self.adapter.unfolded(weight).to(torch.promote_types(weight.dtype, torch.float32))
        merged = precise + self.strength * self.adapter.delta(precise)
        bias = self.base.bias
        change = self.adapter.bias_delta(None if bias is None else bias.to(precise.dtype))
        self._original = weight.detach().clone(), None if change is None else bias.detach().clone()
        weight.copy_(merged)
        if change is not None:
            bias.add_(self.strength * change)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the original weight and bias back, bit for bit."""
        if self._original is not None:
            weight, bias = self._original
            self.base.weight.copy_(weight)
            if bias is not None:
                self.base.bias.copy_(bias)
            self._original = None
