"""What can be said of an algorithm by counting alone, the same on every machine."""

from __future__ import annotations

import copy
import re
from functools import cache
from typing import Any

import torch
from torch import Generator, Tensor, nn

from bench.fitting import fitting
from bench.memory import file_bytes
from bench.peers import FORMS, Form, ours
from bench.speed import FLOOR
from bench.step import SHAPES, WIDTHS, Step, build, inputs_for
from morelora import ALGORITHMS, inject
from morelora.adapter import Adapter
from morelora.analysis.costs import Place, cost, linear_place, norm_place, randomise
from morelora.analysis.forms import FORMS as SHAPES_OF_CHANGE
from morelora.analysis.forms import Shape
from morelora.inject import build as build_adapter
from morelora.lowrank import effective_rank, numerical_rank
from morelora.site import Site
from morelora.targets import GROUPS, Target

PATHS = GROUPS["transformer"].replace(r"^unet\.", "^")
"""The layers of the UNet that are adapted by default."""
WIDTH = 640
SPECTRUM = Shape(256, 256, 16, 4)
"""Where the spectra of the forms are compared: each of as many numbers, ``16 (256 + 256)``, but Kronecker's, which has fewer."""


def measure(name: str) -> dict[str, Any]:
    """Everything of one algorithm with its default options."""
    layer = _layer(name)
    return {
        "sd15": _count_sd15(name),
        **_on_pocket(name),
        **{key: value for key, value in cost(layer, name, ALGORITHMS[name].Options()).items() if key in ("forward", "training")},
        **_adapter(layer, name),
    }


def _layer(name: str) -> Place:
    """A square layer of the middle resolution of SD 1.5, or a norm for what changes no weight of such a layer."""
    torch.manual_seed(0)
    place = linear_place(WIDTH)
    return place if ALGORITHMS[name].suits(Site.of(place.layer)) else norm_place(WIDTH)


def _count_sd15(name: str) -> int:
    """Trained numbers on SD 1.5's UNet, without memory for any."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(**WIDTHS["sd15"])
        named = {f"unet.{path}": layer for path, layer in unet.named_modules() if re.search(PATHS, path)}
        adapters = inject({"unet": unet}, fitting(named, name, ALGORITHMS[name].Options()))
    return sum(parameter.numel() for parameter in adapters.parameters() if parameter.requires_grad)


@cache
def _pocket() -> tuple[Any, tuple[Tensor, Tensor, Tensor]]:
    frozen = build("pocket")
    return frozen, inputs_for(frozen, *SHAPES["pocket"])


@cache
def floor() -> int:
    """Bytes that the frozen model keeps for backward."""
    return Step(FORMS[FLOOR], *_pocket()).kept()


def _on_pocket(name: str) -> dict[str, int]:
    """Trained numbers on the shipped UNet, what they make a step keep for backward, and their file in fp16."""
    step = Step(Form(name, "morelora", ours(name), PATHS), *_pocket())
    return {"pocket": step.count, "kept": step.kept() - floor(), "file": file_bytes(step)}


def _adapter(place: Place, name: str) -> dict[str, Any]:
    """Its tensors on one layer, trained and written, and the rank of a change by random values."""
    options = ALGORITHMS[name].Options()
    adapter = build_adapter(Target("unet.layer", name, options), place.layer, Generator().manual_seed(0))
    tensors = {leaf: list(parameter.shape) for leaf, parameter in adapter.named_parameters() if parameter.requires_grad}
    randomise(adapter)
    written = adapter.file_tensors(place.layer, 1.0) if adapter.mergeable else adapter.tensors(1.0)
    shapes = {leaf: list(tensor.shape) for leaf, tensor in written.items()}
    return {"trained": tensors, "written": shapes, **_rank(adapter, place.layer)}


def _rank(adapter: Adapter, layer: nn.Module) -> dict[str, Any]:
    """Of the change as a matrix, where it is one."""
    if not adapter.mergeable or layer.weight.dim() < 2:
        return {"rank": None, "effective": 0.0}
    with torch.no_grad():
        values = torch.linalg.svdvals(copy.deepcopy(adapter).double().delta(layer.weight.double()))
    return {"rank": numerical_rank(values) if values.any() else 0, "effective": float(f"{effective_rank(values):.3g}")}


def spectra() -> dict[str, list[float]]:
    """Singular values of a random change of each form, as shares of the largest."""
    found = {}
    for name, form in SHAPES_OF_CHANGE.items():
        values = torch.linalg.svdvals(form.sample(SPECTRUM, Generator().manual_seed(0)))
        found[name] = [float(f"{value:.3g}") for value in (values / values[0]).clamp(min=1e-6)]
    return found
