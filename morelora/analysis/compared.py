"""Two adapters' subspaces layer by layer, and one adapter's directions against the weights that it changes."""

from __future__ import annotations

from typing import Any

import torch

from morelora.adapted import Adapted
from morelora.analysis.subspaces import amplification, grassmann_distance, similarity
from morelora.errors import FormatError
from morelora.files.checkpoint import Checkpoint
from morelora.files.opened import Opened, change_of
from morelora.files.progress import progress
from morelora.lowrank import Spectrum, numerical_rank
from morelora.site import NormSite

Row = dict[str, Any]


@torch.no_grad()
def spectrum_of(layer: Adapted) -> Spectrum:
    """Of a layer's whole change. Raises ``FormatError`` where it depends on a base that is not there."""
    factors = layer.adapter.factors()
    return Spectrum.of(change_of(layer)) if factors is None else Spectrum.of_factors(*factors)


def compared(first: Opened, second: Opened, vectors: int) -> list[Row]:
    """``phi`` and Grassmann distance of the first right singular vectors of every layer that both change; then the mean.

    As many vectors as ``vectors``, or as the thinner change has. ``chance`` is what two random subspaces would share.
    """
    names = [name for name, layer in first.adapters.layers.items() if _has_spectrum(layer) and name in second.adapters.layers]
    if not names:
        raise FormatError(f"{first.path} and {second.path} have no layer in common")
    rows = []
    for name in progress(names, "comparing"):
        one, two = (spectrum_of(opened.adapters.layers[name]) for opened in (first, second))
        if one.right.shape[1] != two.right.shape[1]:
            raise FormatError(f"{name} has {one.right.shape[1]} columns in one file and {two.right.shape[1]} in the other")
        k = min(vectors, max(numerical_rank(one.values), 1), max(numerical_rank(two.values), 1))
        phi, chance = similarity(one, two, k, k), k / one.right.shape[1]
        rows.append({"layer": name, "vectors": k, "phi": phi, "chance": chance, "grassmann": grassmann_distance(one, two, k)})
    return [*rows, _mean(rows)]


def amplified(opened: Opened, base: Checkpoint, vectors: int) -> list[Row]:
    """``||D||``, ``||W||``, ``||U^T W V||`` and the amplification factor of every layer; then the mean."""
    rows = []
    layers = {name: layer for name, layer in opened.adapters.layers.items() if _has_spectrum(layer)}
    for name, layer in progress(layers.items(), "measuring"):
        spectrum, weight = spectrum_of(layer), base.weight(name)
        r = min(vectors, max(numerical_rank(spectrum.values), 1))
        factor = amplification(spectrum, weight, r)
        change = float(spectrum.values[:r].norm())
        rows.append(
            {"layer": name, "vectors": r, "change": change, "weight": float(weight.norm())}
            | {"projected": change / factor if factor else 0.0, "amplification": factor}
        )
    return [*rows, _mean(rows)]


def _has_spectrum(layer: Adapted) -> bool:
    return layer.adapter.mergeable and not isinstance(layer.site, NormSite)


def _mean(rows: list[Row]) -> Row:
    keys = [key for key in rows[0] if key != "layer"]
    return {"layer": "mean"} | {key: sum(row[key] for row in rows) / len(rows) for key in keys}
