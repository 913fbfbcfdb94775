"""Where an adapter sits: the shape of the frozen layer and the operation it performs.

Notation used in the whole package: the weight ``W`` is ``(m, n)`` for a linear layer and ``(m, n, kh, kw)`` for a
convolution, with ``n = in_channels / groups``. Flattened, it has ``c = n * kh * kw`` columns. A norm's weight is ``(m,)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from morelora.errors import AdapterError


@dataclass(frozen=True)
class Site:
    """Shape and operation of one frozen ``nn.Linear`` or ``nn.Conv2d``."""

    m: int
    n: int
    kernel: tuple[int, int] | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    has_bias: bool = False

    @classmethod
    def of(cls, layer: nn.Module) -> Site:
        """Read the site from a layer (or from an ``Adapted`` one, which knows its own site).

        Raises:
            AdapterError: the layer is neither linear, 2-D convolution nor norm, or pads other than evenly with zeros.
        """
        known = getattr(layer, "site", None)
        if isinstance(known, Site):
            return known
        if isinstance(layer, nn.Linear):
            return cls(layer.out_features, layer.in_features, has_bias=layer.bias is not None)
        if isinstance(layer, nn.Conv2d):
            return cls(
                layer.out_channels,
                layer.in_channels // layer.groups,
                (layer.kernel_size[0], layer.kernel_size[1]),
                (layer.stride[0], layer.stride[1]),
                _padding(layer),
                (layer.dilation[0], layer.dilation[1]),
                layer.groups,
                layer.bias is not None,
            )
        if isinstance(layer, nn.LayerNorm | nn.GroupNorm):
            return NormSite.of_norm(layer)
        raise AdapterError(f"{type(layer).__name__} cannot be adapted: only Linear, Conv2d, LayerNorm and GroupNorm layers can")

    @property
    def is_conv(self) -> bool:
        return self.kernel is not None

    @property
    def is_spatial(self) -> bool:
        """A convolution that looks further than one position."""
        return self.kernel not in (None, (1, 1))

    @property
    def taps(self) -> int:
        return 1 if self.kernel is None else self.kernel[0] * self.kernel[1]

    @property
    def c(self) -> int:
        return self.n * self.taps

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.m, self.n) if self.kernel is None else (self.m, self.n, *self.kernel)

    @property
    def input_axis(self) -> int:
        """The axis of ``x`` that holds the features."""
        return 1 if self.is_conv else -1

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The layer's own operation with another weight of any number of output rows."""
        if not self.is_conv:
            return F.linear(x, weight, bias)
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def mix(self, x: Tensor, weight: Tensor) -> Tensor:
        """``weight @ x`` over the features only: linear, or a 1x1 convolution. ``weight`` is 2-D."""
        return F.conv2d(x, weight[:, :, None, None]) if self.is_conv else F.linear(x, weight)

    def kernel_of(self, flat: Tensor) -> Tensor:
        """``(rows, c)`` as a weight of this layer: ``(rows, n)`` or ``(rows, n, kh, kw)``."""
        return flat if self.kernel is None else flat.reshape(-1, self.n, *self.kernel)

    def along_input(self, vector: Tensor) -> Tensor:
        """``(n,)`` shaped to multiply ``x``."""
        return vector[:, None, None] if self.is_conv else vector

    def along_output(self, vector: Tensor, y: Tensor) -> Tensor:
        """``(m,)`` shaped to multiply the output ``y``, in its dtype."""
        vector = vector.to(y.dtype)
        return vector[:, None, None] if self.is_conv else vector


@dataclass(frozen=True)
class NormSite(Site):
    """An ``nn.LayerNorm`` over the last axis or an ``nn.GroupNorm``: ``y = W * normalised(x) + b`` with ``W (m,)``."""

    channel_groups: int = 0
    """Groups of channels that are normalised together; 0 for a LayerNorm."""
    eps: float = 1e-5

    @classmethod
    def of_norm(cls, layer: nn.LayerNorm | nn.GroupNorm) -> NormSite:
        """Raises ``AdapterError`` where the norm has no weight, or runs over more than the last axis."""
        if layer.weight is None or layer.weight.dim() != 1:
            raise AdapterError(f"{layer} cannot be adapted: it has no weight of one axis")
        groups = layer.num_groups if isinstance(layer, nn.GroupNorm) else 0
        return cls(layer.weight.numel(), 1, has_bias=layer.bias is not None, channel_groups=groups, eps=layer.eps)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.m,)

    @property
    def input_axis(self) -> int:
        return 1 if self.channel_groups else -1

    def kernel_of(self, flat: Tensor) -> Tensor:
        return flat.flatten()

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.channel_groups:
            return F.group_norm(x, self.channel_groups, weight, bias, self.eps)
        return F.layer_norm(x, (self.m,), weight, bias, self.eps)

    def along_output(self, vector: Tensor, y: Tensor) -> Tensor:
        vector = vector.to(y.dtype)
        return vector.view(-1, *(1 for _ in y.shape[2:])) if self.channel_groups else vector


def _padding(layer: nn.Conv2d) -> tuple[int, int]:
    """The zeros added on each side; ``"same"`` and ``"valid"`` in numbers."""
    if layer.padding_mode != "zeros":
        raise AdapterError(f"a convolution with padding_mode={layer.padding_mode!r} cannot be adapted: only zeros")
    if layer.padding == "valid":
        return 0, 0
    if layer.padding == "same":
        reach = [dilation * (size - 1) for dilation, size in zip(layer.dilation, layer.kernel_size, strict=True)]
        if any(width % 2 for width in reach):
            raise AdapterError(f"a convolution with padding='same' and the even kernel {layer.kernel_size} cannot be adapted")
        return reach[0] // 2, reach[1] // 2
    return layer.padding[0], layer.padding[1]
