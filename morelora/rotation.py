"""Rotations of a layer's outputs in small blocks: what diag-OFT and BOFT share.

A block ``B`` stands for the rotation ``R = (I + Q)(I - Q)^-1`` with ``Q = B - B^T`` (Cayley). Everything is done with
``R - I = 2 (I - Q)^-1 Q``, which is exactly zero at the start and keeps small angles in half precision.

A rotation is undone by its transpose, so that backward needs no inputs of any stage: it has the result, which what comes next
keeps as a rule anyway, and turns it back stage by stage; see ``Turned``. What is rotated is the layer's output, ``N m`` numbers,
or its weight, ``m c``, whichever ``cost`` finds cheaper.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.autograd.function import once_differentiable

from morelora import adapter, cost, ways
from morelora.adapter import Adapter, Tensors, alpha_of, need, need_any
from morelora.dense import dense_tensors
from morelora.errors import AdapterError
from morelora.site import Site

IDLE_ALPHA = 1e4
"""The constraint in a file, where it is folded into the blocks: too large to act, above zero, and a float16."""


@dataclass(frozen=True)
class Stages:
    """Blocks ``R - I (S, k, b, b)`` that rotate features ``(m, N)`` one stage after the other.

    Those of a block of stage ``i`` lie ``strides[i]`` pairs apart, or together where that is 0.
    """

    turns: Tensor
    strides: tuple[int, ...]

    def gathered(self, z: Tensor, index: int) -> Tensor:
        """Features by block, ``(k, b, N)``."""
        stride = self.strides[index]
        z = exchanged(z, 2, stride) if stride else z
        return z.unflatten(0, self.turns.shape[1:3])

    def spread(self, blocks: Tensor, index: int) -> Tensor:
        """Back in their places, ``(m, N)``."""
        z, stride = blocks.flatten(0, 1), self.strides[index]
        return exchanged(z, stride, 2) if stride else z

    def rotated(self, z: Tensor) -> Tensor:
        """``R z``."""
        for index, turn in enumerate(self.turns):
            blocks = self.gathered(z, index)
            z = self.spread(torch.baddbmm(blocks, turn, blocks), index)
        return z

    def added(self, z: Tensor) -> Tensor:
        """``R z - z``, exact to rounding of its own size and not that of ``z``."""
        added = torch.zeros_like(z)
        for index, turn in enumerate(self.turns):
            added = added + self.spread(turn @ self.gathered(z + added, index), index)
        return added


def exchanged(z: Tensor, first: int, second: int) -> Tensor:
    """The first axis as ``(..., first, second)`` with the two exchanged."""
    return z.unflatten(0, (-1, first, second)).transpose(1, 2).flatten(0, 2)


def rotated(y: Tensor, bias: Tensor | None, axis: int, stages: Stages) -> Tensor:
    """``R z + b`` for features ``z = y - b`` on an axis, in plain operations; ``y`` itself where nothing is rotated."""
    z = features_first(y if bias is None else y - bias, axis, stages.turns.dtype)
    with unrounded(z):
        turned = stages.rotated(z)
    return as_before(turned, y, axis) if bias is None else y + as_before(turned - z, y, axis)


class Turned(torch.autograd.Function):
    """``rotated`` as one node of the graph, for ``Stages(turns, strides)``.

    Kept for backward is the result alone; who changes it in place before backward gets torch's error. The stages' inputs are had
    from it: ``z = R^T (R z)``.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, bias: Tensor | None, axis: int, strides: tuple[int, ...], turns: Tensor) -> Tensor:
        out = rotated(y, bias, axis, Stages(turns, strides))
        ctx.axis, ctx.strides = axis, strides
        ctx.save_for_backward(out, bias, turns)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        out, bias, turns = ctx.saved_tensors
        z = features_first(out if bias is None else out - bias, ctx.axis, turns.dtype)
        g = features_first(grad, ctx.axis, turns.dtype)
        with unrounded(g):
            g, grad_turns = _undone(z, g, Stages(turns, ctx.strides), ctx.needs_input_grad[0])
        return as_before(g, grad, ctx.axis) if ctx.needs_input_grad[0] else None, None, None, None, grad_turns


def _undone(z: Tensor, g: Tensor, stages: Stages, needs_input: bool) -> tuple[Tensor, Tensor]:
    """From the result and its gradient: the gradient of the input, where it is needed, and that of the blocks."""
    grad_turns = torch.empty_like(stages.turns)
    for index in reversed(range(len(stages.turns))):
        back, after, g_after = stages.turns[index].mT, stages.gathered(z, index), stages.gathered(g, index)
        before = torch.baddbmm(after, back, after)
        torch.bmm(g_after, before.mT, out=grad_turns[index])
        if index:
            z = stages.spread(before, index)
        if index or needs_input:
            g = stages.spread(torch.baddbmm(g_after, back, g_after), index)
    return g, grad_turns


def unrounded(z: Tensor) -> AbstractContextManager[Any]:
    """Without autocast, which would take the products in half precision."""
    return torch.autocast(z.device.type, enabled=False) if ways.is_autocast(z) else nullcontext()


def features_first(z: Tensor, axis: int, dtype: torch.dtype) -> Tensor:
    """``(m, N)``."""
    return z.movedim(axis, 0).flatten(1).to(dtype)


def as_before(features: Tensor, like: Tensor, axis: int) -> Tensor:
    """The layout and dtype of a tensor again, as a new one."""
    moved = features.unflatten(1, like.movedim(axis, 0).shape[1:]).movedim(0, axis)
    return torch.empty_like(like).copy_(moved)


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
    def stages(turns: Tensor) -> Stages:
        """Of ``R - I`` in the parameter's shape."""
        raise NotImplementedError

    def skew(self) -> Tensor:
        """``Q`` of every block, within the constraint, in float32 at least."""
        blocks = self.oft_blocks.to(torch.promote_types(self.oft_blocks.dtype, torch.float32))
        skew = blocks - blocks.mT
        if self.options.constraint is None:
            return skew
        limit = self.options.constraint * self.site.m
        return skew * (limit / skew.norm().clamp_min(limit))

    def turns(self) -> Tensor:
        """``R - I`` of every block."""
        skew = self.skew()
        eye = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
        return torch.linalg.solve_ex(eye - skew, 2 * skew).result  # I - Q is never singular; solve() would wait for the device

    def delta(self, weight: Tensor) -> Tensor:
        z = weight.flatten(1)
        added = self.stages(self.turns().to(z.dtype)).added(z)
        if self.rescale_diff is not None:
            added = added + self.rescale_diff.to(z.dtype)[:, None] * (z + added)
        return added.view(weight.shape)

    def forward(self, x: Tensor, base: nn.Module, strength: float = 1.0, gain: Tensor | None = None) -> Tensor:
        x = x if gain is None else x * self.site.along_input(gain.to(x.dtype))
        if self._turns_weight(x, base):
            return self.site.apply(x, self._changed(base.weight, None, 0, strength), base.bias)
        y = base(x)
        bias = None if base.bias is None else self.site.along_output(base.bias, y)
        return self._changed(y, bias, self.site.input_axis, strength)

    def _turns_weight(self, x: Tensor, base: nn.Module) -> bool:
        """Whether the weight is rotated, and not the output."""
        if not (ways.is_plain(base) and cost.is_exact(ways.compute_dtype(x)) and base.weight.dtype == x.dtype):
            return False
        stages, _, block, _ = self.oft_blocks.view(-1, *self.oft_blocks.shape[-3:]).shape
        return cost.prefers_turned_weight(self.site, cost.positions(x, self.site), stages, block)

    def _changed(self, y: Tensor, bias: Tensor | None, axis: int, strength: float) -> Tensor:
        """``y + strength (s R z - z)`` for features ``z = y - b`` on an axis."""
        stages = self.stages(self.turns().to(torch.promote_types(y.dtype, torch.float32)))
        if torch.compiler.is_compiling():
            changed = rotated(y, bias, axis, stages)
        else:
            changed = Turned.apply(y, bias, axis, stages.strides, stages.turns)
        if self.rescale_diff is not None:
            scale = self.rescale_diff.to(y.dtype).view(-1, *(1 for _ in y.movedim(axis, 0).shape[1:])).movedim(0, axis)
            changed = changed + scale * (changed if bias is None else changed - bias)
        return changed if strength == 1.0 else torch.lerp(y, changed, strength)

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
