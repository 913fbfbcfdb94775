"""Rotations of a layer's outputs in small blocks: what diag-OFT and BOFT share.

A block ``B`` stands for the rotation ``R = (I + Q)(I - Q)^-1`` with ``Q = B - B^T`` (Cayley). Everything is done with
``R - I = 2 (I - Q)^-1 Q``, which is exactly zero at the start and keeps small angles in half precision.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from morelora import adapter, ways
from morelora.adapter import Adapter, Tensors, alpha_of, need, need_any
from morelora.dense import dense_tensors
from morelora.errors import AdapterError
from morelora.site import Site

IDLE_ALPHA = 1e4
"""The constraint in a file, where it is folded into the blocks: too large to act, above zero, and a float16."""


class RotationOptions(adapter.Options):
    """Settings of diag-OFT and BOFT."""

    block_size: int = Field(
        8,
        ge=2,
        le=256,
        description="Size of the blocks that are rotated: larger, more capacity. The nearest one that fits the layer is taken.",
    )
    constraint: float | None = Field(
        None, gt=0, description="COFT: the norm of a layer's angles stays below this times its outputs; empty: free."
    )
    rescale: bool = Field(False, description="Also learn a scale of each output.")


class Rotation(Adapter):
    """``W' = s * (R W)``; the bias stays. A subclass gives the blocks' shape and how they ``turn`` features."""

    leaves = frozenset({"oft_blocks"})
    block_axes: int
    """Axes of the tensor of blocks, by which files tell the two."""
    holds_magnitudes = False
    limits_norm = False
    options: RotationOptions

    Options = RotationOptions

    def __init__(
        self, site: Site, options: RotationOptions, generator: Generator | None = None, shape: tuple[int, ...] | None = None
    ) -> None:
        super().__init__(site, options)
        if site.groups != 1:
            raise AdapterError(f"{self.name} is not defined for a convolution with groups, whose outputs see different inputs")
        self.oft_blocks = nn.Parameter(torch.zeros(shape or self.shape_for(site, options.block_size)))
        self.rescale_diff = nn.Parameter(torch.zeros(site.m)) if options.rescale else None

    @classmethod
    def shape_for(cls, site: Site, block_size: int) -> tuple[int, ...]:
        """Shape of the blocks on a layer. Raises ``AdapterError`` where none fit."""
        raise NotImplementedError

    @staticmethod
    def turn(z: Tensor, turns: Tensor) -> Tensor:
        """What the rotations ``I + turns`` add to features ``z`` on the last axis."""
        raise NotImplementedError

    def skew(self) -> Tensor:
        """``Q`` of every block, within the constraint, in float32 at least."""
        blocks = self.oft_blocks.to(torch.promote_types(self.oft_blocks.dtype, torch.float32))
        skew = blocks - blocks.mT
        if self.options.constraint is None:
            return skew
        limit = self.options.constraint * self.site.m
        return skew * (limit / skew.norm().clamp_min(limit))

    def change(self, z: Tensor, axis: int) -> Tensor:
        """``(s R - 1) z`` for features on an axis."""
        skew = self.skew()
        eye = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
        turns = torch.linalg.solve_ex(eye - skew, 2 * skew).result  # I - Q is never singular; solve() would wait for the device
        z = z.movedim(axis, -1)
        added = self.turn(z, turns.to(z.dtype))
        if self.rescale_diff is not None:
            added = added + self.rescale_diff.to(z.dtype) * (z + added)
        return added.movedim(-1, axis)

    def delta(self, weight: Tensor) -> Tensor:
        return self.change(weight, 0)

    def forward(self, x: Tensor, base: nn.Module, strength: float = 1.0, gain: Tensor | None = None) -> Tensor:
        y = base(x if gain is None else x * self.site.along_input(gain.to(x.dtype)))
        without = y if base.bias is None else y - self.site.along_output(base.bias, y)
        return y + ways.scaled(self.change(without, self.site.input_axis), strength)

    def tensors(self, alpha: float) -> Tensors:
        tensors = {"oft_blocks": self.skew() / 2, "alpha": torch.tensor(IDLE_ALPHA)}
        if self.rescale_diff is None:
            return tensors
        return tensors | {"rescale": (1 + self.rescale_diff).view(-1, *(1 for _ in self.site.weight_shape[1:]))}

    @classmethod
    def reads(cls, tensors: Tensors) -> bool:
        return "oft_blocks" in tensors and tensors["oft_blocks"].dim() == cls.block_axes

    @classmethod
    def from_tensors(cls, site: Site, tensors: Tensors) -> Any:
        shape = tuple(need_any(tensors, "oft_blocks").shape)
        if shape[-1] != shape[-2] or shape[-3] * shape[-2] != site.m:
            raise AdapterError(f"oft_blocks has shape {shape}, but this layer has {site.m} outputs")
        alpha = alpha_of(tensors, 0)
        options = cls.Options(block_size=shape[-1], constraint=alpha or None, rescale="rescale" in tensors)
        self = cls(site, options, shape=shape)
        with torch.no_grad():
            self.oft_blocks.copy_(tensors["oft_blocks"])
            if self.rescale_diff is not None:
                self.rescale_diff.copy_(need(tensors, "rescale", (site.m, *(1 for _ in site.weight_shape[1:]))).flatten() - 1)
        return self

    def dense_where_scaled(self, base: nn.Module, alpha: float) -> Tensors:
        """Dense differences where there is a scale, for programs that read the blocks and not the scale."""
        return self.tensors(alpha) if self.rescale_diff is None else dense_tensors(self, base)
