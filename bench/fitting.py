"""Which of a model's layers an algorithm is put on where no settings say so: those that bear it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from morelora import ALGORITHMS, Target
from morelora.errors import AdapterError
from morelora.site import Site
from morelora.weight_decompose import Axis


def fitting(layers: Mapping[str, nn.Module], algorithm: str, options: Any, axis: Axis | None = None) -> list[Target]:
    """A target for each layer, by dotted name, that has what the algorithm changes, in a place where it stands, and that it does
    not refuse for its shape."""
    return [Target(name, algorithm, options, axis) for name, layer in layers.items() if _bears(name, layer, algorithm, options)]


def _bears(name: str, layer: nn.Module, algorithm: str, options: Any) -> bool:
    kind, site = ALGORITHMS[algorithm], Site.of(layer)
    if not kind.suits(site) or not re.search(kind.places, name):
        return False
    try:
        with torch.device("meta"):
            kind(site, options)
    except AdapterError:
        return False
    return True
