"""The grid that the contract is held over: layers x algorithms x options x weight decomposition, whatever the registry holds."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from morelora.adapted import Adapted
from morelora.adapter import Adapter
from morelora.errors import AdapterError
from morelora.inject import build
from morelora.registry import ALGORITHMS
from morelora.site import Site
from morelora.targets import Target
from morelora.weight_decompose import Axis


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


def make_squares() -> dict[str, nn.Module]:
    """Layers of as many outputs as inputs, in float64, for the algorithms that need them."""
    torch.manual_seed(2)
    squares = {"square linear": nn.Linear(6, 6), "square conv 1x1": nn.Conv2d(4, 4, 1)}
    return {name: layer.double() for name, layer in squares.items()}


SQUARES = make_squares()
LAYERS = make_layers()
"""What has a matrix or a kernel."""
EVERY = LAYERS | make_norms() | SQUARES

EXTRA: dict[str, tuple[dict[str, Any], ...]] = {
    "lora": (
        {"rank": 2, "alpha": 3.0, "rs": True},
        {"rank": 3, "alpha": 1.0, "tucker": True},
        {"rank": 3, "alpha": 1.5, "freeze_down": True},
        {"rank": 2, "tucker": True, "freeze_down": True},
        {"rank": 2, "alpha": 3.0, "tucker": True, "start": "residual"},
        {"rank": 3, "alpha": 1.5, "start": "pissa"},
        {"rank": 2, "alpha": 3.0, "rs": True, "start": "olora"},
    ),
    "loha": (
        {"rank": 2, "alpha": 1.0},
        {"rank": 3, "alpha": 2.0, "rs": True},
        {"rank": 2, "alpha": 3.0, "tucker": True},
        {"rank": 2, "start": "residual"},
    ),
    "lokr": (
        {"rank": 1, "alpha": 0.5, "factor": 2},
        {"rank": 1, "alpha": 2.0, "factor": -1, "rs": True},
        {"rank": 1, "factor": 4, "full_matrix": True},
        {"rank": 1, "alpha": 0.5, "factor": 8, "decompose_both": True},
        {"rank": 1, "alpha": 0.5, "factor": 8, "decompose_both": True, "full_matrix": True},
        {"rank": 1, "alpha": 0.5, "factor": 2, "start": "residual"},
        {"rank": 1, "factor": 4, "full_matrix": True, "start": "residual"},
    ),
    "krona": ({"factor": 4, "scale": 0.7}, {"factor": 2, "scale": 0.7, "start": "residual"}),
    "krona_res": ({"factor": 2, "scale": 0.7}, {"factor": 2, "scale": 0.7, "start": "residual"}),
    "hadamard": (
        {"rank": 7, "alpha": 3.0, "rs": True},
        {"rank": 4, "alpha": 1.0, "k": 2, "nonlinear": "tanh"},
        {"rank": 3, "alpha": 9.0, "nonlinear": "sigmoid"},
        {"rank": 4, "alpha": 2.0, "k": 2, "start": "residual"},
        {"rank": 4, "alpha": 1.0, "k": 2, "nonlinear": "tanh", "start": "residual"},
    ),
    "full": ({"bias": False},),
    "ia3": ({"on_input": False},),
    "oft": ({"block_size": 4, "constraint": 0.1, "rescale": True},),
    "boft": ({"block_size": 4, "constraint": 0.1, "rescale": True},),
    "adalora": (
        {"rank": 2, "alpha": 3.0, "rs": True},
        {"rank": 2, "alpha": 3.0, "start": "residual"},
        {"rank": 2, "alpha": 3.0, "start": "pissa"},
    ),
    "sora": ({"rank": 2, "alpha": 3.0, "rs": True}, {"rank": 2, "alpha": 3.0, "rs": True, "start": "olora"}),
    "dylora": (
        {"rank": 2, "alpha": 3.0, "rs": True, "mode": "frozen"},
        {"rank": 2, "alpha": 3.0, "start": "residual"},
        {"rank": 2, "alpha": 3.0, "rs": True, "start": "pissa"},
    ),
    "glora": ({"rank": 2, "alpha": 3.0, "rs": True}, {"rank": 2, "alpha": 3.0, "start": "residual"}),
    "tlora": ({"rank": 2, "alpha": 3.0, "rs": True, "singular": "principal"},),
    "vera": ({"rank": 2, "d_initial": 0.7},),
    "tied": (
        {"rank": 2, "freeze_up": True, "freeze_down": True},
        {"rank": 2, "freeze_up": True, "freeze_v": True, "tie": "down"},
        {"rank": 2, "freeze_up": True, "freeze_u": True, "freeze_v": True},
        {"rank": 2, "freeze_u": True, "freeze_v": True, "freeze_down": True, "tie": "up"},
    ),
}
"""Options that are worth cases of their own, by algorithm. Every algorithm of the registry is there without them."""
SMALL = {"rank": 3, "alpha": 1.5, "block_size": 2}
"""Options of every algorithm that has them, so that it fits the small layers."""

AXES: tuple[Axis | None, ...] = (None, "input", "output")


@dataclass(frozen=True)
class Case:
    """One cell of the grid."""

    layer: str
    algorithm: str
    options: tuple[tuple[str, Any], ...]
    axis: Axis | None

    def __str__(self) -> str:
        shown = " ".join(f"{key}={value}" for key, value in self.options)
        return f"{self.layer} | {self.algorithm} {shown} | {self.axis or 'plain'}"

    @cached_property
    def refusal(self) -> str:
        """Why the layer cannot be adapted so, in the words of the package; empty where it can."""
        try:
            self.adapter(trained=False)
        except AdapterError as error:
            return str(error)
        return ""

    @property
    def starts_by_itself(self) -> bool:
        """Whether nothing is taken off its change."""
        return "start" not in dict(self.options)

    def frozen(self) -> nn.Module:
        return copy.deepcopy(EVERY[self.layer]).requires_grad_(False)

    def adapter(self, trained: bool) -> Adapter:
        """A fresh adapter in float64; ``trained``: every tensor random instead."""
        options = ALGORITHMS[self.algorithm].Options(**dict(self.options))
        target = Target(f"unet.{self.layer}", self.algorithm, options, self.axis)
        adapter = build(target, EVERY[self.layer], torch.Generator().manual_seed(1)).double()
        return randomise(adapter) if trained else adapter

    def adapted(self, trained: bool) -> Adapted:
        return Adapted(self.frozen(), self.adapter(trained))


def usual(algorithm: str) -> dict[str, Any]:
    """The small options, of those that the algorithm has."""
    return {name: value for name, value in SMALL.items() if name in ALGORITHMS[algorithm].Options.model_fields}


def needs_square(algorithm: str) -> bool:
    """Whether the algorithm refuses a layer for not being square."""
    return "only a square layer" in Case("linear", algorithm, tuple(usual(algorithm).items()), None).refusal


NEED_SQUARES = {name for name in ALGORITHMS if needs_square(name)}


def all_cases() -> Iterator[Case]:
    """Of all algorithms that are a change of weights; the others have tests of their own."""
    for layer in EVERY:
        for algorithm, kind in ALGORITHMS.items():
            is_meant = layer not in SQUARES or algorithm in NEED_SQUARES
            if is_meant and kind.mergeable and kind.suits(Site.of(EVERY[layer])):
                for options in (usual(algorithm), *EXTRA.get(algorithm, ())):
                    yield from (Case(layer, algorithm, tuple(options.items()), axis) for axis in AXES)


EVERY_CASE = list(all_cases())
CASES = [case for case in EVERY_CASE if not case.refusal]
REFUSED = [case for case in EVERY_CASE if case.refusal]


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
    """What the adapted layer has to give, by the definition of its change."""
    shift = adapter.bias_delta(base.bias)
    bias = None if shift is None else base.bias + strength * shift
    return operate(base, x, base.weight + strength * adapter.delta(base.weight), bias)
