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


LAYERS = make_layers()

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
    "full": ({"bias": False},),
}
"""Options by algorithm; a new algorithm without a line here fails the grid. The bias of ``full`` has tests of its own."""

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
    def is_refused(self) -> bool:
        without_meaning = self.axis is not None and not ALGORITHMS[self.algorithm].decomposes
        return without_meaning or (self.axis == "input" and LAYERS[self.layer].__dict__.get("groups", 1) != 1)

    def frozen(self) -> nn.Module:
        return copy.deepcopy(LAYERS[self.layer]).requires_grad_(False)

    def adapter(self, trained: bool) -> Adapter:
        """A fresh adapter in float64; ``trained``: every tensor random instead."""
        layer = LAYERS[self.layer]
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
    for layer in LAYERS:
        for algorithm in ALGORITHMS:
            for options in OPTIONS[algorithm]:
                for axis in AXES:
                    yield Case(layer, algorithm, tuple(options.items()), axis)


CASES = [case for case in all_cases() if not case.is_refused]
REFUSED = [case for case in all_cases() if case.is_refused]


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
    shape = (2, layer.in_channels, 6, 6) if isinstance(layer, nn.Conv2d) else (2, 5, layer.in_features)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def operate(layer: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """The layer's own operation with another weight, by torch's own module code."""
    if isinstance(layer, nn.Conv2d):
        return layer._conv_forward(x, weight, layer.bias)
    return nn.functional.linear(x, weight, layer.bias)


def closed_delta(adapter: Adapter, weight: Tensor) -> Tensor:
    """``W' - W`` written out from the papers' formulas, with none of the package's algebra."""
    if isinstance(adapter, WeightDecomposed):
        changed = weight + closed_delta(adapter.inner, weight)
        axes = [a for a in range(weight.dim()) if a != (1 if adapter.axis == "input" else 0)]
        norm = changed.detach().square().sum(axes, keepdim=True).sqrt()
        return adapter.magnitude.reshape(norm.shape) * changed / norm - weight
    options, site = adapter.options, adapter.site
    if adapter.name == "full":
        return 1.0 * adapter.diff.reshape(site.weight_shape)
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
}
