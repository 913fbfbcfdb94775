"""The grid that the contract is held over: layers x options x weight decomposition, and closed forms written out apart."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from morelora.adapted import Adapted
from morelora.adapter import Adapter
from morelora.registry import ALGORITHMS
from morelora.site import Site
from morelora.weight_decompose import WeightDecomposed


def make_layers() -> dict[str, nn.Module]:
    """One of every kind of layer, in float64, from a fixed seed."""
    torch.manual_seed(0)
    layers = {
        "linear": nn.Linear(12, 8),
        "odd linear without bias": nn.Linear(7, 5, bias=False),
        "wide linear": nn.Linear(8, 24),
        "conv 1x1": nn.Conv2d(6, 8, 1),
        "conv 3x3 stride 2": nn.Conv2d(8, 6, 3, stride=2, padding=1),
        "dilated conv without bias": nn.Conv2d(6, 4, 3, padding=2, dilation=2, bias=False),
        "grouped conv": nn.Conv2d(8, 4, 3, padding=1, groups=2),
        "oblong conv, padding same": nn.Conv2d(4, 8, (1, 3), padding="same"),
    }
    return {name: layer.double() for name, layer in layers.items()}


def make_norms() -> dict[str, nn.Module]:
    """The two kinds of norm, in float64, with weights and biases of their own."""
    torch.manual_seed(1)
    norms: dict[str, Any] = {"layer norm": nn.LayerNorm(6), "group norm": nn.GroupNorm(2, 6, eps=1e-3)}
    for norm in norms.values():
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return {name: norm.double() for name, norm in norms.items()}


LAYERS = make_layers()
"""What has a matrix or a kernel."""
EVERY = LAYERS | make_norms()

OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "lora": ({"rank": 3, "alpha": 1.5}, {"rank": 2, "alpha": 3.0, "rs": True}, {"rank": 3, "alpha": 1.0, "tucker": True}),
    "loha": ({"rank": 2, "alpha": 1.0}, {"rank": 3, "alpha": 2.0, "rs": True}, {"rank": 2, "alpha": 3.0, "tucker": True}),
    "lokr": (
        {"rank": 1, "alpha": 0.5, "factor": 2},
        {"rank": 1, "alpha": 2.0, "factor": -1, "rs": True},
        {"rank": 1, "factor": 4, "full_matrix": True},
        {"rank": 1, "alpha": 0.5, "factor": 8, "decompose_both": True},
        {"rank": 1, "alpha": 0.5, "factor": 8, "decompose_both": True, "full_matrix": True},
    ),
    "full": ({"bias": False}, {}),
    "bitfit": ({},),
    "ssf": ({},),
    "norm": ({},),
    "ia3": ({}, {"on_input": False}),
    "oft": ({"block_size": 2}, {"block_size": 4, "constraint": 0.1, "rescale": True}),
    "boft": ({"block_size": 2}, {"block_size": 4, "constraint": 0.1, "rescale": True}),
    "serial": (),
    "adalora": ({"rank": 3, "alpha": 1.5}, {"rank": 2, "alpha": 3.0, "rs": True}),
    "sora": ({"rank": 3, "alpha": 1.5}, {"rank": 2, "alpha": 3.0, "rs": True}),
    "dylora": ({"rank": 3, "alpha": 1.5}, {"rank": 2, "alpha": 3.0, "rs": True, "mode": "frozen"}),
    "tlora": ({"rank": 3, "alpha": 1.5}, {"rank": 2, "alpha": 3.0, "rs": True, "singular": "principal"}),
}
"""Options by algorithm; a new algorithm without a line here fails the grid. What is no change of weights has tests of its own."""

AXES = (None, "input", "output")


@dataclass(frozen=True)
class Case:
    """One cell of the grid."""

    layer: str
    algorithm: str
    options: tuple[tuple[str, Any], ...]
    axis: str | None

    def __str__(self) -> str:
        shown = " ".join(f"{key}={value}" for key, value in self.options)
        return f"{self.layer} | {self.algorithm} {shown} | {self.axis or 'plain'}"

    @property
    def refusal(self) -> str:
        """Why the layer cannot be adapted so; empty where it can."""
        is_grouped = EVERY[self.layer].__dict__.get("groups", 1) != 1
        mixes = self.algorithm in ("oft", "boft", "tlora") or (
            self.algorithm == "ia3" and dict(self.options).get("on_input", True)
        )
        if is_grouped and mixes:
            return "convolution with groups"
        if self.axis and not ALGORITHMS[self.algorithm].decomposes:
            return f"no meaning around {self.algorithm}"
        return "convolution with groups" if is_grouped and self.axis == "input" else ""

    def frozen(self) -> nn.Module:
        return copy.deepcopy(EVERY[self.layer]).requires_grad_(False)

    def adapter(self, trained: bool) -> Adapter:
        """A fresh adapter in float64; ``trained``: every tensor random instead."""
        layer = EVERY[self.layer]
        kind = ALGORITHMS[self.algorithm]
        generator = torch.Generator().manual_seed(1)
        adapter = kind(Site.of(layer), kind.Options(**dict(self.options)), generator)
        if self.axis:
            adapter = WeightDecomposed(adapter, layer.weight, self.axis)
        adapter = adapter.double()
        return randomise(adapter) if trained else adapter

    def adapted(self, trained: bool) -> Adapted:
        return Adapted(self.frozen(), self.adapter(trained))


def all_cases() -> Iterator[Case]:
    for layer in EVERY:
        for algorithm, kind in ALGORITHMS.items():
            for options in OPTIONS[algorithm] if kind.suits(Site.of(EVERY[layer])) else ():
                for axis in AXES:
                    yield Case(layer, algorithm, tuple(options.items()), axis)


CASES = [case for case in all_cases() if not case.refusal]
REFUSED = [case for case in all_cases() if case.refusal]


@torch.no_grad()
def randomise(adapter: Adapter, seed: int = 2) -> Adapter:
    """Random values in every trainable tensor, as after training; magnitudes stay positive."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in adapter.named_parameters():
        noise = 0.6 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.copy_(parameter * (1 + 0.5 * noise.clamp(-1, 1)) if name == "magnitude" else noise)
    return adapter


def example(layer: nn.Module, seed: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    """An input that fits: ``(2, 5, n)`` or ``(2, channels, 6, 6)``."""
    generator = torch.Generator().manual_seed(seed)
    channels = getattr(layer, "in_channels", None) or getattr(layer, "num_channels", None)
    shape = (2, channels, 6, 6) if channels else (2, 5, getattr(layer, "in_features", None) or layer.normalized_shape[0])
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def operate(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The layer's own operation with another weight, and another bias if one is given, by torch's own module code."""
    bias = layer.bias if bias is None else bias
    if isinstance(layer, nn.Conv2d):
        return layer._conv_forward(x, weight, bias)
    if isinstance(layer, nn.GroupNorm):
        return nn.functional.group_norm(x, layer.num_groups, weight, bias, layer.eps)
    if isinstance(layer, nn.LayerNorm):
        return nn.functional.layer_norm(x, layer.normalized_shape, weight, bias, layer.eps)
    return nn.functional.linear(x, weight, bias)


def expected_output(adapter: Adapter, base: nn.Module, x: Tensor, strength: float = 1.0) -> Tensor:
    """What the adapted layer has to give, by the closed forms."""
    weight = base.weight + strength * closed_delta(adapter, base.weight)
    shift = closed_shift(adapter, base.bias)
    return operate(base, x, weight, None if shift is None else base.bias + strength * shift)


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
    options, site = adapter.options, adapter.site
    if adapter.name in CHANGED:
        return CHANGED[adapter.name](adapter, weight) - weight
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


CLOSED = {
    "lora": lambda a, s: s * _product(a.up, a.down, a.mid),
    "loha": lambda a, s: s * _product(a.w1_a, a.w1_b, a.t1) * _product(a.w2_a, a.w2_b, a.t2),
    "lokr": _lokr,
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
}
"""``W'`` of the algorithms that have no rank."""
