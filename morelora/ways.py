"""The ways to compute ``y = W x + b + up (down x)``, and the one place that chooses between them.

With ``N`` positions, rank ``R``, ``W`` of ``m x c``: two thin products cost ``6 N R (c + m)`` operations for forward and
backward; one operation with ``W + up down`` costs ``6 m R c`` for the sum, whatever ``N`` is. Gradients of the factors never
need the dense gradient of the weight: ``grad_up = g^T (x down^T)`` and ``grad_down = (g up)^T x``.

The autograd function below keeps ``x`` for backward and nothing else of its size, and computes ``down x`` again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from morelora.site import Site

Layer = Callable[[Tensor], Tensor]


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype that the layer's own operation would use for ``x``: autocast's where it is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def is_plain(base: nn.Module) -> bool:
    """A layer whose operation is known exactly, so that its weight may enter a fused function."""
    return type(base) in (nn.Linear, nn.Conv2d)


def low_rank(x: Tensor, base: nn.Module, site: Site, factors: tuple[Tensor, Tensor], gain: Tensor | None = None) -> Tensor:
    """``y = W (gain * x) + b + up (down (gain * x))``.

    Args:
        x: ``(..., n)``, or ``(B, n, H, W)`` for a convolution.
        base: the frozen layer.
        site: its shape.
        factors: ``up (m, R)`` and ``down (R, c)``, scale included.
        gain: ``(n,)``, the input scaling of weight decomposition.
    """
    dtype = compute_dtype(x)
    up, down = factors[0].to(dtype), factors[1].to(dtype)
    gain = None if gain is None else gain.to(dtype)
    if is_plain(base) and site.groups == 1:
        with torch.autocast(x.device.type, enabled=False):
            return LowRank.apply(x.to(dtype), base.weight, base.bias, up, down, gain, site)
    if gain is not None:
        x = x * site.along_input(gain)
    if site.groups == 1:
        return base(x) + site.mix(site.apply(x.to(dtype), site.kernel_of(down)), up)
    return base(x) + site.apply(x.to(dtype), site.kernel_of(up @ down))


class LowRank(torch.autograd.Function):
    """Frozen layer and factors in one node of the graph; see the module's docstring."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, up: Tensor, down: Tensor, gain: Tensor | None, site: Site
    ) -> Tensor:
        ctx.save_for_backward(x, weight, up, down, gain)
        ctx.site = site
        scaled = x if gain is None else x * site.along_input(gain)
        cast_bias = None if bias is None else bias.to(x.dtype)
        y = site.apply(scaled, weight.to(x.dtype), cast_bias)
        if site.is_conv:
            return y.add_(site.mix(site.apply(scaled, site.kernel_of(down)), up))
        flat = scaled.reshape(-1, site.n)
        y.view(-1, site.m).addmm_(flat @ down.T, up.T)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, up, down, gain = ctx.saved_tensors
        site: Site = ctx.site
        scaled = x if gain is None else x * site.along_input(gain)
        back = _conv_backward if site.is_conv else _linear_backward
        grad_x, grad_up, grad_down = back(grad, scaled, weight.to(x.dtype), up, down, site, ctx.needs_input_grad)
        grad_gain = None
        if gain is not None and grad_x is not None:
            if ctx.needs_input_grad[5]:
                grad_gain = _sum_to_features(grad_x * x, site)
            grad_x = grad_x * site.along_input(gain)
        return grad_x, None, None, grad_up, grad_down, grad_gain, None


def _sum_to_features(product: Tensor, site: Site) -> Tensor:
    return product.sum((0, 2, 3)) if site.is_conv else product.reshape(-1, site.n).sum(0)


def _linear_backward(
    grad: Tensor, x: Tensor, weight: Tensor, up: Tensor, down: Tensor, site: Site, needs: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor, Tensor]:
    g, flat = grad.reshape(-1, site.m), x.reshape(-1, site.n)
    g_up = g @ up
    grad_up = g.T @ (flat @ down.T)
    grad_down = g_up.T @ flat
    grad_x = (g @ weight).addmm_(g_up, down).view(x.shape) if needs[0] or needs[5] else None
    return grad_x, grad_up, grad_down


def _conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, up: Tensor, down: Tensor, site: Site, needs: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor, Tensor]:
    kernel = site.kernel_of(down)
    wants_x = needs[0] or needs[5]
    one = Site(site.m, up.shape[1], (1, 1))
    hidden_grad, grad_up, _ = _convolution_backward(
        grad, site.apply(x, kernel), up[:, :, None, None], one, (True, True)
    )
    grad_x, grad_down, _ = _convolution_backward(hidden_grad, x, kernel, site, (wants_x, True))
    if wants_x:
        grad_x = grad_x.add_(_convolution_backward(grad, x, weight, site, (True, False))[0])
    return grad_x, grad_up.flatten(1), grad_down.flatten(1)


def _convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, site: Site, wants: tuple[bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, site.stride, site.padding, site.dilation, False, (0, 0), site.groups, (*wants, False)
    )


def keep_input(branch: Callable[..., Tensor], x: Tensor, *parts: Tensor) -> Tensor:
    """``branch(x, *parts)`` that keeps only ``x`` and ``parts`` for backward and runs the branch again there.

    For branches that are cheap beside their layer but have wide intermediate results.
    """
    with torch.autocast(x.device.type, enabled=False):
        return KeepInput.apply(branch, x, *parts)


class KeepInput(torch.autograd.Function):
    """See ``keep_input``."""

    @staticmethod
    def forward(ctx: Any, branch: Callable[..., Tensor], *inputs: Tensor) -> Tensor:  # type: ignore[override]
        ctx.branch = branch
        ctx.save_for_backward(*inputs)
        return branch(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        wanted = ctx.needs_input_grad[1:]
        inputs = [t.detach().requires_grad_(need) for t, need in zip(ctx.saved_tensors, wanted, strict=True)]
        with torch.enable_grad():
            out = ctx.branch(*inputs)
        found = iter(torch.autograd.grad(out, [t for t in inputs if t.requires_grad], grad))
        return None, *(next(found) if need else None for need in wanted)
