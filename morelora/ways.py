"""How ``y = (W + delta) (gain * x) + b`` is computed: frozen layer and change in one node of the graph.

A *way* knows one shape of ``delta``: ``LowRank`` here, LyCORIS' Kronecker product beside its algorithm. Two forms of forward
are exact, and ``prefers_sum`` is the one place that chooses between them:

* the sum: one operation with ``W + delta``, whatever the number of positions ``N`` is;
* the branch: the frozen operation, and the change applied to ``x`` factor by factor.

Backward never needs the dense gradient of the weight; for low rank ``grad_up = g^T (x down^T)`` and
``grad_down = (g up)^T x``. Kept for backward are ``x``, the factors, and at most ``N`` times the rank numbers.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from morelora.site import Site

Tensors = tuple[Tensor, ...]
Grads = tuple[Tensor | None, ...]


class Way(Protocol):
    """One shape of ``delta``, given by ``parts``: the factors in the dtype of ``x``, scale included."""

    site: Site
    is_dense: bool
    """Whether ``delta`` is made as a whole in either form, so that the sum costs no more than the frozen operation."""
    keeps_input: bool
    """Whether ``backward`` reads ``x``; if not, the branch is taken, and ``x`` is not kept for it."""

    def summed(self, weight: Tensor, *parts: Tensor) -> Tensor:
        """``W + delta`` as a new tensor of the weight's shape."""

    def branch(self, x: Tensor, *parts: Tensor, rank_dropout: float = 0.0) -> Tensor:
        """``delta x`` in plain differentiable operations."""

    def add(self, y: Tensor, x: Tensor, *parts: Tensor) -> Tensors:
        """Add ``delta x`` to ``y`` in place; what is returned is kept for ``backward``."""

    def backward(self, step: Backward) -> Grads:
        """The gradients of the parts; where ``step.grad_x`` is not None the branch's share is added to it."""


class Backward:
    """What a way's backward gets: ``grad`` of the output, ``x`` before the ``gain``, and what forward left."""

    __slots__ = ("grad", "x", "gain", "parts", "kept", "grad_x")

    def __init__(self, grad: Tensor, x: Tensor, gain: Tensor | None, parts: Tensors, kept: Tensors) -> None:
        self.grad, self.x, self.gain, self.parts, self.kept = grad, x, gain, parts, kept
        self.grad_x: Tensor | None = None


def prefers_sum(x: Tensor, site: Site, is_dense: bool = False) -> bool:
    """Whether building ``W + delta`` (``4 m c`` numbers moved) is cheaper than the branch (``N (c + 2 m)``).

    Never in half precision: there a small change would be rounded away against the weight. Convolutions take the branch, but
    where ``delta`` is made as a whole anyway.
    """
    if x.dtype not in (torch.float32, torch.float64):
        return False
    if is_dense or site.is_conv:
        return is_dense
    return x.numel() // site.n * (site.c + 2 * site.m) > 4 * site.m * site.c


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype that the layer's own operation would use for ``x``: autocast's where it is on."""
    return torch.get_autocast_dtype(x.device.type) if _is_autocast(x) else x.dtype


def _is_autocast(x: Tensor) -> bool:
    """Shapes alone, on the meta device, know no autocast."""
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)


def is_plain(base: nn.Module) -> bool:
    """A layer whose operation is known exactly, so that its weight may enter a fused function."""
    return type(base) in (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.GroupNorm) and "forward" not in vars(base)


def scaled(tensor: Tensor, factor: float) -> Tensor:
    """``tensor * factor``, without an operation where the factor is 1."""
    return tensor if factor == 1.0 else tensor * factor


def run(way: Way, x: Tensor, base: nn.Module, parts: Tensors, gain: Tensor | None = None) -> Tensor:
    """``y = (W + delta) (gain * x) + b``. Under ``torch.compile`` by plain operations, which it fuses itself.

    Args:
        way: the shape of ``delta``.
        x: ``(..., n)``, or ``(B, n, H, W)`` for a convolution.
        base: the frozen layer. Of a class other than ``nn.Linear`` and ``nn.Conv2d`` it runs its own forward.
        parts: the factors.
        gain: ``(n,)``, the input scaling of weight decomposition.
    """
    if _is_autocast(x):
        dtype = compute_dtype(x)
        with torch.autocast(x.device.type, enabled=False):
            return run(way, x.to(dtype), base, parts, gain)
    parts = tuple(part.to(x.dtype) for part in parts)
    gain = None if gain is None else gain.to(x.dtype)
    if is_plain(base) and way.site.groups == 1 and not torch.compiler.is_compiling():
        return Fused.apply(way, x, base.weight, base.bias, gain, *parts)
    x = x if gain is None else x * way.site.along_input(gain)
    return _frozen(way.site, x, base) + way.branch(x, *parts)


def _frozen(site: Site, x: Tensor, base: nn.Module) -> Tensor:
    """The frozen layer's output in the dtype of ``x``."""
    if not is_plain(base):
        return base(x)
    return site.apply(x, base.weight.to(x.dtype), None if base.bias is None else base.bias.to(x.dtype))


def run_with_dropout(
    way: Way, x: Tensor, base: nn.Module, parts: Tensors, gain: Tensor | None, chances: tuple[float, float]
) -> Tensor:
    """``run`` with dropout on the branch's input and dropout of whole ranks, of the two ``chances``."""
    dtype = compute_dtype(x)
    x = x if gain is None else x * way.site.along_input(gain.to(x.dtype))
    inside = nn.functional.dropout(x, chances[0]).to(dtype)
    return base(x) + way.branch(inside, *(part.to(dtype) for part in parts), rank_dropout=chances[1])


def run_dense(site: Site, x: Tensor, base: nn.Module, diff: Tensor, shift: Tensor | None) -> Tensor:
    """``y = (W + diff) x + b + shift`` with a trained ``diff`` of the weight's shape.

    In float32 and float64 the operation with the sums; in half precision, where a sum would round a small change away, the
    frozen operation and that of the change.
    """
    dtype = compute_dtype(x)
    if dtype in (torch.float32, torch.float64) and is_plain(base):
        bias = base.bias if shift is None else base.bias + shift
        return site.apply(x, base.weight.to(dtype) + diff, bias)
    return base(x) + site.apply(x.to(dtype), diff.to(dtype), None if shift is None else shift.to(dtype))


class Fused(torch.autograd.Function):
    """Frozen layer and change in one node of the graph; see the module's docstring."""

    @staticmethod
    def forward(
        ctx: Any, way: Way, x: Tensor, weight: Tensor, bias: Tensor | None, gain: Tensor | None, *parts: Tensor
    ) -> Tensor:
        site = way.site
        kept: Tensors = ()
        bias = None if bias is None else bias.to(x.dtype)
        keeps_input = way.keeps_input or gain is not None
        if keeps_input and prefers_sum(x, site, way.is_dense):
            changed = way.summed(weight.to(x.dtype), *parts)
            y = site.apply(x, changed if gain is None else changed.mul_(site.along_input(gain)), bias)
        else:
            inside = x if gain is None else x * site.along_input(gain)
            y = site.apply(inside, weight.to(x.dtype), bias)
            kept = way.add(y, inside, *parts)
        ctx.way, ctx.count = way, len(parts)
        ctx.save_for_backward(x if keeps_input else _shape_of(x), weight, gain, *parts, *kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, gain, *rest = ctx.saved_tensors
        site: Site = ctx.way.site
        step = Backward(grad, x, gain, tuple(rest[: ctx.count]), tuple(rest[ctx.count :]))
        needs_x, needs_gain = ctx.needs_input_grad[1], ctx.needs_input_grad[4]
        if needs_x or needs_gain:
            step.grad_x = _through(site, grad, x, weight.to(x.dtype))
        grads = ctx.way.backward(step)
        grad_x, grad_gain = step.grad_x, None
        if gain is not None and grad_x is not None:
            if needs_gain:
                product = grad_x * x
                grad_gain = product.sum((0, 2, 3)) if site.is_conv else product.reshape(-1, site.n).sum(0)
            grad_x = grad_x.mul_(site.along_input(gain))
        return None, grad_x if needs_x else None, None, None, grad_gain, *grads


def _shape_of(x: Tensor) -> Tensor:
    """A tensor of one number that has the shape of ``x``."""
    return x.new_zeros(()).expand(x.shape)


def _through(site: Site, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the input through the frozen operation."""
    if site.is_conv:
        return convolution_backward(grad, x, weight, site, (True, False))[0]
    return (grad.reshape(-1, site.m) @ weight).view(x.shape)


def convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, site: Site, wants: tuple[bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input and weight of a convolution of the site's geometry, as wanted."""
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, site.stride, site.padding, site.dilation, False, (0, 0), site.groups, (*wants, False)
    )


def prefers_dense(site: Site, rank: int) -> bool:
    """Whether ``delta`` as a whole (``2 N m c`` for its gradient) is cheaper than factors of ``rank`` (``6 N R (m + c)``)."""
    return 3 * rank * (site.m + site.c) > site.m * site.c


def dense_backward(site: Site, step: Backward, change: Tensor) -> Tensor:
    """The gradient of ``delta`` as ``(m, c)``; the share of ``change``, its value, is added to ``step.grad_x``."""
    inside = step.x if step.gain is None else step.x * site.along_input(step.gain)
    if site.is_conv:
        wants_x = step.grad_x is not None
        grad_x, grad, _ = convolution_backward(step.grad, inside, site.kernel_of(change), site, (wants_x, True))
        if step.grad_x is not None:
            step.grad_x.add_(grad_x)
        return grad.flatten(1)
    g = step.grad.reshape(-1, site.m)
    if step.grad_x is not None:
        step.grad_x.view(-1, site.n).addmm_(g, change)
    return g.T @ inside.reshape(-1, site.n)


class LowRank:
    """``delta = up @ down`` with ``up (m, R)`` and ``down (R, c)``."""

    is_dense = False

    def __init__(self, site: Site, keeps_input: bool = True) -> None:
        """``keeps_input`` is False where ``down`` does not train: then the hidden numbers are all that backward needs."""
        self.site, self.keeps_input = site, keeps_input

    def summed(self, weight: Tensor, *parts: Tensor) -> Tensor:
        return torch.addmm(weight, *parts)

    def branch(self, x: Tensor, *parts: Tensor, rank_dropout: float = 0.0) -> Tensor:
        (up, down), site = parts, self.site
        if site.groups != 1:
            return site.apply(x, site.kernel_of(up @ down))
        hidden = site.apply(x, site.kernel_of(down))
        return site.mix(drop_ranks(hidden, rank_dropout, site.input_axis), up)

    def add(self, y: Tensor, x: Tensor, *parts: Tensor) -> Tensors:
        (up, down), site = parts, self.site
        hidden = site.apply(x, site.kernel_of(down))
        if site.is_conv:
            y.add_(site.mix(hidden, up))
        else:
            y.view(-1, site.m).addmm_(hidden.view(-1, down.shape[0]), up.T)
        return (hidden,)

    def backward(self, step: Backward) -> Grads:
        return self._backward_conv(step) if self.site.is_conv else self._backward_linear(step)

    def _backward_linear(self, step: Backward) -> Grads:
        (up, down), gain, site = step.parts, step.gain, self.site
        g, x = step.grad.reshape(-1, site.m), step.x.reshape(-1, site.n)
        hidden = step.kept[0].view(-1, down.shape[0]) if step.kept else x @ (down if gain is None else down * gain).T
        g_up = g @ up
        if step.grad_x is not None:
            step.grad_x.view(-1, site.n).addmm_(g_up, down)
        # (hidden^T g)^T is two to three times as fast as g^T hidden on a CPU.
        grad_up = (hidden.T @ g).T
        if not self.keeps_input:
            return grad_up, None
        grad_down = g_up.T @ x
        return grad_up, grad_down if gain is None else grad_down.mul_(gain)

    def _backward_conv(self, step: Backward) -> Grads:
        (up, down), site = step.parts, self.site
        kernel, one = site.kernel_of(down), Site(site.m, up.shape[1], (1, 1))
        inside = step.x if step.gain is None else step.x * site.along_input(step.gain)
        g_up, grad_up, _ = convolution_backward(step.grad, step.kept[0], up[:, :, None, None], one, (True, True))
        wants = step.grad_x is not None, self.keeps_input
        grad_x, grad_down, _ = convolution_backward(g_up, inside, kernel, site, wants) if any(wants) else (None, None, None)
        if step.grad_x is not None:
            step.grad_x.add_(grad_x)
        return grad_up.flatten(1), grad_down.flatten(1) if self.keeps_input else None


def drop_ranks(hidden: Tensor, chance: float, axis: int) -> Tensor:
    """Zero whole ranks of ``hidden`` along ``axis``, drawn for each sample of axis 0; the rest times ``1 / (1 - p)``."""
    return hidden * kept_ranks(hidden, chance, axis) if chance else hidden


def kept_ranks(hidden: Tensor, chance: float, axis: int) -> Tensor:
    """What ``drop_ranks`` multiplies by: 0 or ``1 / (1 - p)`` for each rank of each sample."""
    shape = [1] * hidden.dim()
    shape[0], shape[axis] = hidden.shape[0], hidden.shape[axis]
    keep = torch.rand(shape, device=hidden.device) >= chance
    return keep.to(hidden.dtype) / (1 - chance)
