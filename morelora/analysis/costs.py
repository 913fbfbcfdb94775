"""What every algorithm costs on one layer: numbers to train, rank, operations beside the frozen layer's, numbers in the file.

Nothing is written down here: parameters, rank and file are those of a fresh adapter, operations are counted while it runs.
"""

from __future__ import annotations

import inspect
import math
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from morelora.adapted import Adapted
from morelora.adapter import Adapter, Options
from morelora.inject import inject
from morelora.registry import ALGORITHMS
from morelora.site import Site
from morelora.targets import Target


def _product(into: Any, a: Any, b: Any, **rest: Any) -> int:
    """Operations of ``into += a @ b``, from shapes."""
    return 2 * math.prod(a) * b[-1]


IN_PLACE: dict[Any, Any] = {torch.ops.aten.addmm_: _product, torch.ops.aten.baddbmm_: _product}
"""Products that torch's own counter does not know."""


@dataclass(frozen=True)
class Place:
    """A layer to measure on, and an input for it."""

    name: str
    layer: nn.Module
    x: Tensor


def linear_place(width: int = 640, tokens: int = 1024) -> Place:
    """A linear layer of the middle resolution of SD 1.5."""
    return Place(f"linear {width} -> {width}, {tokens} tokens", nn.Linear(width, width), torch.randn(1, tokens, width))


def norm_place(width: int = 640, tokens: int = 1024) -> Place:
    """A LayerNorm beside it, for what trains norms alone."""
    return Place(f"norm of {width}, {tokens} tokens", nn.LayerNorm(width), torch.randn(1, tokens, width))


def cost_table(place: Place | None = None, rank: int | None = 8) -> list[dict[str, Any]]:
    """A row for each algorithm, at ``rank`` where it has one (None: its default) and with its other settings as they come."""
    place = place or linear_place()
    rows = []
    for name, kind in ALGORITHMS.items():
        own = place if kind.suits(Site.of(place.layer)) else norm_place()
        options = kind.Options() if rank is None or "rank" not in kind.Options.model_fields else kind.Options(rank=rank)
        rows.append({"algorithm": name} | cost(own, name, options))
    return rows


def cost(place: Place, name: str, options: Options) -> dict[str, Any]:
    """An algorithm's row: operations as shares of the frozen layer's."""
    model = nn.ModuleDict({"layer": place.layer.requires_grad_(False)})
    adapters = inject({"unet": model}, [Target("unet.layer", name, options)], Generator().manual_seed(0))
    layer = adapters.layers["unet.layer"]
    randomise(layer.adapter)
    factors = layer.adapter.factors_of(layer.base.weight)
    base, adapted = (_operations(place, made) for made in (place.layer, layer))
    adapters.remove()
    return {
        "rank": getattr(options, "rank", None),
        "parameters": sum(p.numel() for p in layer.adapter.parameters() if p.requires_grad),
        "rank of the change": None if factors is None else factors[0].shape[1],
        "forward": _beside(adapted[0], base[0]),
        "training": _beside(sum(adapted), sum(base)),
        "file": _numbers(layer),
    }


@torch.no_grad()
def randomise(adapter: Adapter) -> None:
    """Small random values in every trainable tensor, as after training."""
    generator = Generator().manual_seed(1)
    for parameter in adapter.parameters():
        parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))


def _beside(adapted: float, base: float) -> float:
    """Operations more, as a share of the frozen layer's; of a layer without products 0."""
    return (adapted - base) / base if base else 0.0


def _operations(place: Place, layer: nn.Module) -> tuple[int, int]:
    """Of products and convolutions, forward and backward to the input and to what trains."""
    x = place.x.clone().requires_grad_()
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as forward:
        y = layer(x)
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as backward:
        y.sum().backward()
    return forward.get_total_flops(), backward.get_total_flops()


def _numbers(layer: Adapted) -> int | None:
    """In a file for web UIs; None where there is none."""
    if not layer.adapter.mergeable:
        return None
    return sum(tensor.numel() for tensor in layer.adapter.file_tensors(layer.base, 1.0).values())


def described(kind: type[Adapter]) -> dict[str, str]:
    """An algorithm's formula, parameter count and so on: the fields of its docstring by name, in their order."""
    told: dict[str, str] = {}
    current = ""
    for line in (inspect.getdoc(sys.modules[kind.__module__]) or "").splitlines():
        head = line.split("  ", 1)[0].strip()
        if line[:1].strip() and "  " in line:
            current = head
            told[current] = line.split("  ", 1)[1].strip()
        elif line.strip() and current and line.startswith(" "):
            told[current] += f" {line.strip()}"
        else:
            current = ""
    return told


def title(kind: type[Adapter]) -> str:
    """The first line of an algorithm's docstring, without its full stop."""
    return (inspect.getdoc(sys.modules[kind.__module__]) or "").partition("\n")[0].rstrip(".")
