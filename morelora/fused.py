"""Frozen layer and change in one node of the graph, with a hand-written backward: ``Fused`` by factors, ``Summed`` by the whole.

Kept for backward are ``x``, the factors, and at most ``N`` times the rank numbers. By factors, the gradient of the weight is
never made; for low rank ``grad_up = g^T (x down^T)`` and ``grad_down = (g up)^T x``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from morelora import cost
from morelora.site import Site

if TYPE_CHECKING:
    from morelora.ways import Way

Tensors = tuple[Tensor, ...]
Grads = tuple[Tensor | None, ...]


class Backward:
    """What a way's backward gets: ``grad`` of the output, ``x`` before the ``gain``, and what forward left."""

    __slots__ = ("grad", "x", "gain", "parts", "kept", "grad_x")

    def __init__(self, grad: Tensor, x: Tensor, gain: Tensor | None, parts: Tensors, kept: Tensors) -> None:
        self.grad, self.x, self.gain, self.parts, self.kept = grad, x, gain, parts, kept
        self.grad_x: Tensor | None = None


class Fused(torch.autograd.Function):
    """``y = (W + delta) (gain * x) + b`` in one of the forms of ``cost``."""

    @staticmethod
    def forward(
        ctx: Any, way: Way, x: Tensor, weight: Tensor, bias: Tensor | None, gain: Tensor | None, *parts: Tensor
    ) -> Tensor:
        site, can_add = way.site, cost.is_exact(x.dtype)
        work = way.work(*parts)
        form = cost.choose(work, site, cost.positions(x, site), can_add)
        kept: Tensors = ()
        bias, frozen = None if bias is None else bias.to(x.dtype), weight.to(x.dtype)
        if form != "branch" and can_add:
            changed = way.summed(frozen, *parts) if form == "sum" else frozen + site.kernel_of(way.change(*parts))
            y = site.apply(x, changed if gain is None else changed.mul_(site.along_input(gain)), bias)
        else:
            inside = x if gain is None else x * site.along_input(gain)
            y = site.apply(inside, frozen, bias)
            if form == "branch":
                kept = way.add(y, inside, *parts)
            else:
                y.add_(site.apply(inside, site.kernel_of(way.change(*parts))))
        ctx.way, ctx.form, ctx.count = way, form, len(parts)
        keeps_input = work.keeps_input or gain is not None
        ctx.save_for_backward(x if keeps_input else _shape_of(x), weight, gain, *parts, *kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, gain, *rest = ctx.saved_tensors
        site: Site = ctx.way.site
        step = Backward(grad, x, gain, tuple(rest[: ctx.count]), tuple(rest[ctx.count :]))
        needs_x, needs_gain = ctx.needs_input_grad[1], ctx.needs_input_grad[4]
        frozen, wants_x = weight.to(x.dtype), needs_x or needs_gain
        if ctx.form == "dense":
            grads = _backward_dense(ctx.way, step, frozen, wants_x)
        else:
            step.grad_x = through(site, grad, x, frozen) if wants_x else None
            grads = ctx.way.backward(step)
        grad_x, grad_gain = step.grad_x, None
        if gain is not None and grad_x is not None:
            if needs_gain:
                product = grad_x * x
                grad_gain = product.sum((0, 2, 3)) if site.is_conv else product.reshape(-1, site.n).sum(0)
            grad_x = grad_x.mul_(site.along_input(gain))
        return None, grad_x if needs_x else None, None, None, grad_gain, *grads


class Summed(torch.autograd.Function):
    """``y = (W + D) x + b`` where ``D`` of the weight's shape trains, and perhaps ``b``.

    The sum is made again for backward and kept nowhere: that is a read of the weight, where keeping it is a second weight.
    """

    @staticmethod
    def forward(ctx: Any, site: Site, x: Tensor, weight: Tensor, bias: Tensor | None, diff: Tensor) -> Tensor:
        ctx.site = site
        ctx.save_for_backward(x, weight, diff)
        return site.apply(x, weight + diff, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, diff = ctx.saved_tensors
        site: Site = ctx.site
        _, needs_x, _, needs_bias, needs_diff = ctx.needs_input_grad
        grad_x = through(site, grad, x, weight + diff) if needs_x else None
        grad_bias = grad.movedim(site.input_axis, -1).flatten(0, -2).sum(0) if needs_bias else None
        grad_diff = _of_weight(site, grad, x, weight).view(diff.shape) if needs_diff else None
        return None, grad_x, None, grad_bias, grad_diff


def _backward_dense(way: Way, step: Backward, frozen: Tensor, wants_x: bool) -> Grads:
    """The gradients of the parts from that of ``delta``; ``step.grad_x`` by one operation with ``W + delta`` where exact."""
    site = way.site
    with torch.enable_grad():
        parts = tuple(part.detach().requires_grad_(part.requires_grad) for part in step.parts)
        change = way.change(*parts)
    value = site.kernel_of(change.detach())
    if wants_x and cost.is_exact(frozen.dtype):
        step.grad_x = through(site, step.grad, step.x, frozen + value)
    elif wants_x:
        step.grad_x = through(site, step.grad, step.x, frozen).add_(through(site, step.grad, step.x, value))
    grad = _of_weight(site, step.grad, step.x, frozen)
    if step.gain is not None:
        grad.view(site.m, site.n, -1).mul_(step.gain[:, None])
    wanted = [part for part in parts if part.requires_grad]
    found = iter(torch.autograd.grad(change, wanted, grad))
    return tuple(next(found) if part.requires_grad else None for part in parts)


def _shape_of(x: Tensor) -> Tensor:
    """A tensor of one number that has the shape of ``x``."""
    return x.new_zeros(()).expand(x.shape)


def through(site: Site, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the input of the layer's operation with ``weight``."""
    if site.is_conv:
        return convolution_backward(grad, x, weight, site, (True, False))[0]
    return (grad.reshape(-1, site.m) @ weight).view(x.shape)


def _of_weight(site: Site, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the weight of the layer's operation as ``(m, c)``."""
    if site.is_conv:
        return convolution_backward(grad, x, weight, site, (False, True))[1].flatten(1)
    return grad.reshape(-1, site.m).T @ x.reshape(-1, site.n)


def convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, site: Site, wants: tuple[bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input and weight of a convolution of the site's geometry, as wanted."""
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, site.stride, site.padding, site.dilation, False, (0, 0), site.groups, (*wants, False)
    )
