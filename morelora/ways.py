"""How ``y = (W + delta) (gain * x) + b`` is computed.

A *way* knows one shape of ``delta``: ``LowRank`` here, others beside their algorithms. What it can do is applied in one of the
exact forms of ``cost``, which chooses; ``fused`` is the layer with its change as one node of the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from morelora import cost
from morelora.fused import Backward, Fused, Grads, Summed, Tensors, convolution_backward
from morelora.site import NormSite, Site


class Way:
    """One shape of ``delta``, given by ``parts``: the factors in the dtype of ``x``, scale included."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def work(self, *parts: Tensor) -> cost.Work:
        """What it costs with parts of these shapes."""
        raise NotImplementedError

    def change(self, *parts: Tensor) -> Tensor:
        """``delta`` as ``(m, c)`` in plain differentiable operations."""
        raise NotImplementedError

    def summed(self, weight: Tensor, *parts: Tensor) -> Tensor:
        """``W + delta`` as a new tensor of the weight's shape, for the sum."""
        return weight + self.site.kernel_of(self.change(*parts))

    def branch(self, x: Tensor, *parts: Tensor, rank_dropout: float = 0.0) -> Tensor:
        """``delta x`` in plain differentiable operations, by the factors where there are any."""
        return self.site.apply(x, self.site.kernel_of(self.change(*parts)))

    def add(self, y: Tensor, x: Tensor, *parts: Tensor) -> Tensors:
        """Add ``delta x`` to ``y`` in place by the factors; what is returned is kept for ``backward``."""
        y.add_(self.branch(x, *parts))
        return ()

    def backward(self, step: Backward) -> Grads:
        """The gradients of the parts by the factors; where ``step.grad_x`` is not None the branch's share is added to it."""
        raise NotImplementedError


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype that the layer's own operation would use for ``x``: autocast's where it is on."""
    return torch.get_autocast_dtype(x.device.type) if is_autocast(x) else x.dtype


def is_autocast(x: Tensor) -> bool:
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
    if is_autocast(x):
        dtype = compute_dtype(x)
        with torch.autocast(x.device.type, enabled=False):
            return run(way, x.to(dtype), base, parts, gain)
    parts = tuple(part.to(x.dtype) for part in parts)
    gain = None if gain is None else gain.to(x.dtype)
    is_known = is_plain(base) and way.site.groups == 1
    if is_known and not torch.compiler.is_compiling():
        return Fused.apply(way, x, base.weight, base.bias, gain, *parts)
    x = x if gain is None else x * way.site.along_input(gain)
    can_add = is_known and cost.is_exact(x.dtype)
    form = cost.choose(way.work(*parts), way.site, cost.positions(x, way.site), can_add, can_sum=False)
    if form == "dense" and can_add:
        changed = base.weight.to(x.dtype) + way.site.kernel_of(way.change(*parts))
        return way.site.apply(x, changed, _bias(x, base))
    added = way.branch(x, *parts) if form == "branch" else Way.branch(way, x, *parts)
    return _frozen(way.site, x, base) + added


def _frozen(site: Site, x: Tensor, base: nn.Module) -> Tensor:
    """The frozen layer's output in the dtype of ``x``."""
    return site.apply(x, base.weight.to(x.dtype), _bias(x, base)) if is_plain(base) else base(x)


def _bias(x: Tensor, base: nn.Module) -> Tensor | None:
    return None if base.bias is None else base.bias.to(x.dtype)


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
    if not (cost.is_exact(dtype) and is_plain(base)):
        return base(x) + site.apply(x.to(dtype), diff.to(dtype), None if shift is None else shift.to(dtype))
    weight, bias = base.weight.to(dtype), base.bias if shift is None else base.bias + shift
    if isinstance(site, NormSite) or torch.compiler.is_compiling():
        return site.apply(x, weight + diff, bias)
    return Summed.apply(site, x, weight, bias, diff.to(dtype))


class LowRank(Way):
    """``delta = up @ down`` with ``up (m, R)`` and ``down (R, c)``."""

    def __init__(self, site: Site, keeps_input: bool = True) -> None:
        """``keeps_input`` is False where ``down`` does not train: then the hidden numbers are all that backward needs."""
        super().__init__(site)
        self.keeps_input = keeps_input

    def work(self, *parts: Tensor) -> cost.Work:
        return replace(low_rank_work(self.site, parts[1].shape[0]), keeps_input=self.keeps_input)

    def change(self, *parts: Tensor) -> Tensor:
        return parts[0] @ parts[1]

    def summed(self, weight: Tensor, *parts: Tensor) -> Tensor:
        up, down = parts
        return torch.addmm(weight.flatten(1), up, down).view(weight.shape)

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


def again(branch: Callable[..., Tensor], step: Backward, site: Site) -> Tensors:
    """A way's backward by running ``branch`` once more: on convolutions it is cheap beside the layer."""
    x = step.x if step.gain is None else step.x * site.along_input(step.gain)
    parts = tuple(part.detach().requires_grad_() for part in step.parts)
    x = x.detach().requires_grad_(step.grad_x is not None)
    with torch.enable_grad():
        out = branch(x, *parts)
    if step.grad_x is None:
        return torch.autograd.grad(out, parts, step.grad)
    grad_x, *grads = torch.autograd.grad(out, (x, *parts), step.grad)
    step.grad_x.add_(grad_x)
    return tuple(grads)


def low_rank_work(site: Site, rank: int) -> cost.Work:
    """Of factors of a rank; a convolution keeps what the branch has between them for backward, so that it has no sum."""
    product, build = 2 * rank * (site.m + site.c), 2 * rank * site.m * site.c
    return cost.Work(product, 2 * product, 2 * rank * site.c, build, build, rank, has_sum=not site.is_conv)


def drop_ranks(hidden: Tensor, chance: float, axis: int) -> Tensor:
    """Zero whole ranks of ``hidden`` along ``axis``, drawn for each sample of axis 0; the rest times ``1 / (1 - p)``."""
    return hidden * kept_ranks(hidden, chance, axis) if chance else hidden


def kept_ranks(hidden: Tensor, chance: float, axis: int) -> Tensor:
    """What ``drop_ranks`` multiplies by: 0 or ``1 / (1 - p)`` for each rank of each sample."""
    shape = [1] * hidden.dim()
    shape[0], shape[axis] = hidden.shape[0], hidden.shape[axis]
    keep = torch.rand(shape, device=hidden.device) >= chance
    return keep.to(hidden.dtype) / (1 - chance)
