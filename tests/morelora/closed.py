"""Every algorithm's change written out from the papers' formulas, with none of the package's algebra."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from morelora.adapter import Adapter
from morelora.anchored import Anchored
from morelora.residual import Residual
from morelora.weight_decompose import WeightDecomposed


def closed_shift(adapter: Any, bias: Tensor | None) -> Tensor | None:
    """``b' - b`` from the papers' formulas."""
    if adapter.name == "ssf" and bias is not None:
        return (1 + adapter.scale_diff) * bias + adapter.shift - bias
    leaf = {"full": "diff_b", "bitfit": "shift", "norm": "b_norm"}.get(adapter.name)
    return None if leaf is None else getattr(adapter, leaf)


def closed_delta(adapter: Adapter, weight: Tensor) -> Tensor:
    """``W' - W`` written out from the papers' formulas, with none of the package's algebra."""
    if isinstance(adapter, WeightDecomposed):
        changed = weight + closed_delta(adapter.inner, weight)
        axes = [a for a in range(weight.dim()) if a != (1 if adapter.axis == "input" else 0)]
        norm = changed.detach().square().sum(axes, keepdim=True).sqrt()
        return adapter.magnitude.reshape(norm.shape) * changed / norm - weight
    if isinstance(adapter, Residual):
        return closed_delta(adapter.inner, weight) - closed_delta(adapter.origin, weight)
    if isinstance(adapter, Anchored) and adapter.is_anchored:
        return _closed(adapter, weight) - _closed(_at_start(adapter), weight)
    return _closed(adapter, weight)


def _at_start(adapter: Any) -> Any:
    """The adapter with the factors that it began with; what has no copy, such as a gate, is as it is."""
    twin = copy.deepcopy(adapter)
    with torch.no_grad():
        for name in adapter.anchors:
            getattr(twin, name).copy_(getattr(adapter, f"{name}0"))
    return twin


def _closed(adapter: Any, weight: Tensor) -> Tensor:
    """Of the tensors that train."""
    options, site = adapter.options, adapter.site
    if adapter.name in CHANGED:
        return CHANGED[adapter.name](adapter, weight) - weight
    if adapter.name in UNRANKED:
        return UNRANKED[adapter.name](adapter).reshape(site.weight_shape)
    alpha = options.rank if options.alpha is None else options.alpha
    scale = alpha / (options.rank**0.5 if options.rs else options.rank)
    return CLOSED[adapter.name](adapter, scale).reshape(site.weight_shape)


def _product(up: Tensor, down: Tensor, core: Tensor | None) -> Tensor:
    if core is None:
        return torch.einsum("mr,rc->mc", up, down)
    return torch.einsum("ma,abkl,bn->mnkl", up, core, down)


def _lokr(adapter: Any, scale: float) -> Tensor:
    small = adapter.w1 if adapter.w1 is not None else adapter.w1_a @ adapter.w1_b
    block = adapter.w2 if adapter.w2 is not None else adapter.w2_a @ adapter.w2_b
    both_full = adapter.w1 is not None and adapter.w2 is not None
    return (1.0 if both_full else scale) * torch.einsum("ij,kl->ikjl", small, block)


def _krona(adapter: Any) -> Tensor:
    return adapter.options.scale * torch.einsum("ij,kl->ikjl", adapter.w1, adapter.w2)


def _glora(adapter: Any, weight: Tensor) -> Tensor:
    """``W + s (W a1 a2 + b1 b2)``, tap by tap."""
    options = adapter.options
    alpha = options.rank if options.alpha is None else options.alpha
    scale = alpha / (options.rank**0.5 if options.rs else options.rank)
    through = torch.einsum("mn...,nr,rk->mk...", weight, adapter.a1, adapter.a2)
    return weight + scale * (through + (adapter.b1 @ adapter.b2).reshape(weight.shape))


def _hadamard(adapter: Any, scale: float) -> Tensor:
    function = {"none": lambda z: z, "tanh": torch.tanh, "sigmoid": lambda z: 2 * torch.sigmoid(z) - 1}[adapter.options.nonlinear]
    product = scale
    for index in range(1, adapter.options.k + 1):
        product = product * function(_product(getattr(adapter, f"u{index}"), getattr(adapter, f"v{index}"), None))
    return product


def _additive(adapter: Any, scale: float) -> Tensor:
    """``s * (u[i, j mod r] + v[i mod r, j])``, entry by entry."""
    rank, (m, c) = adapter.options.rank, (adapter.site.m, adapter.site.c)
    rows = [torch.stack([adapter.u[i, j % rank] + adapter.v[i % rank, j] for j in range(c)]) for i in range(m)]
    return scale * torch.stack(rows)


UNRANKED = {
    "krona": _krona,
    "krona_res": lambda a: _krona(a).reshape(a.site.m, -1) + a.gamma * torch.eye(a.site.m, dtype=a.gamma.dtype),
    "vera": lambda a: torch.diag(a.v) @ a.up @ torch.diag(a.u) @ a.down,
    "tied": lambda a: torch.diag(a.v) @ a.up @ torch.diag(a.u) @ a.down,
}
"""What does not depend on the weight and has no scale of ``alpha / rank``."""

CLOSED = {
    "lora": lambda a, s: s * _product(a.up, a.down, a.mid),
    "loha": lambda a, s: s * _product(a.w1_a, a.w1_b, a.t1) * _product(a.w2_a, a.w2_b, a.t2),
    "lokr": _lokr,
    "hadamard": _hadamard,
    "additive": _additive,
    "adalora": lambda a, s: s * a.up @ torch.diag(a.gate) @ a.down,
    "sora": lambda a, s: s * a.up @ torch.diag(a.gate) @ a.down,
    "dylora": lambda a, s: s * a.up @ a.down,
    "tlora": lambda a, s: s * (a.up @ torch.diag(a.values) @ a.down - a.up0 @ torch.diag(a.values0) @ a.down0),
}


def _rows(vector: Tensor, weight: Tensor) -> Tensor:
    return vector.reshape(-1, *(1 for _ in weight.shape[1:]))


def _ia3(adapter: Any, weight: Tensor) -> Tensor:
    return torch.einsum("j,ij...->ij..." if adapter.options.on_input else "i,ij...->ij...", 1 + adapter.scale_diff, weight)


def _rotations(adapter: Any) -> Tensor:
    """``(I + Q)(I - Q)^-1`` of every block."""
    skew, limit = adapter.oft_blocks - adapter.oft_blocks.transpose(-1, -2), adapter.options.constraint
    if limit is not None and skew.norm() > limit * adapter.site.m:
        skew = skew * limit * adapter.site.m / skew.norm()
    one = torch.eye(skew.shape[-1], dtype=skew.dtype)
    return (one + skew) @ torch.linalg.inv(one - skew)


def _scaled(adapter: Any, turned: Tensor) -> Tensor:
    return turned if adapter.rescale_diff is None else _rows(1 + adapter.rescale_diff, turned) * turned


def _oft(adapter: Any, weight: Tensor) -> Tensor:
    whole = torch.block_diag(*_rotations(adapter))
    return _scaled(adapter, torch.einsum("nm,n...->m...", whole, weight))


def _boft(adapter: Any, weight: Tensor) -> Tensor:
    """Stage by stage with whole matrices: rows ``2^i b / 2`` apart are brought side by side, rotated, and put back."""
    for stage, blocks in enumerate(_rotations(adapter)):
        stride = 2**stage * blocks.shape[-1] // 2
        pairs = [(start + k, start + k + stride) for start in range(0, len(weight), 2 * stride) for k in range(stride)]
        order = [row for pair in pairs for row in pair]
        place = torch.eye(len(weight), dtype=weight.dtype)[order]
        weight = torch.einsum("mn,n...->m...", place.T @ torch.block_diag(*blocks) @ place, weight)
    return _scaled(adapter, weight)


CHANGED = {
    "full": lambda a, w: w + a.diff.reshape(w.shape),
    "bitfit": lambda a, w: 1.0 * w,
    "norm": lambda a, w: w + a.w_norm,
    "ssf": lambda a, w: _rows(1 + a.scale_diff, w) * w,
    "ia3": _ia3,
    "oft": _oft,
    "boft": _boft,
    "glora": _glora,
}
"""``W'`` of the algorithms that have no rank, or whose change depends on the weight."""
