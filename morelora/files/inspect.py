"""What an adapter file holds: algorithms, ranks, norms by block, spectra, tensors that are dead or not finite, and its text."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from morelora.adapted import Adapted
from morelora.adapter import RankOptions
from morelora.blocks import block_of
from morelora.errors import FormatError
from morelora.files.checkpoint import Checkpoint
from morelora.files.opened import known, open_adapter
from morelora.files.progress import progress
from morelora.formats.container import data_hash, read
from morelora.formats.readers import READERS, kinds, unread
from morelora.formats.reading import naming
from morelora.lowrank import Cut, Spectrum, effective_rank, numerical_rank
from morelora.site import NormSite
from morelora.weight_decompose import WeightDecomposed

RECIPE = "morelora"
ENERGY = 0.9
TOP = 8
"""Singular values that are told of a layer, the largest first."""


def inspect(path: Path, base: Checkpoint | None = None, top: int = TOP) -> dict[str, Any]:
    """Everything about a file, as plain JSON values; of each layer the ``top`` largest singular values.

    Raises:
        FormatError: it is damaged, or no adapter.
    """
    path = Path(path)
    opened = open_adapter(path, base, finite=False)
    tensors, metadata = read(path, finite=False)
    not_finite = [key for key, tensor in tensors.items() if not torch.isfinite(tensor.float()).all()]
    layers = [_layer(name, layer, base, top) for name, layer in progress(opened.adapters.layers.items(), "inspecting")]
    found = kinds({key: tensor for key, tensor in tensors.items() if not key.startswith("bundle_emb.")})
    refusing = unread(found, READERS)
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "hash": data_hash(path),
        "family": opened.family,
        "base": _base(metadata),
        "precision": dict(Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())),
        "numbers": sum(tensor.numel() for tensor in tensors.values()),
        "layers": layers,
        "algorithms": dict(Counter(layer["algorithm"] for layer in layers)),
        "names": naming(tensors),
        "kinds": sorted(found),
        "read_by": [reader for reader in READERS if reader not in refusing],
        "ranks": _counted(layer["rank"] for layer in layers),
        "alphas": _counted(float(tensor) for key, tensor in tensors.items() if key.endswith(".alpha") and tensor.numel() == 1),
        "blocks": _blocks(layers),
        "dead": [layer["name"] for layer in layers if layer["norm"] == 0],
        "not_finite": not_finite,
        "unread": opened.unread,
        "words": list(opened.words),
        "recipe": _json(metadata, RECIPE),
        "metadata": {key: value for key, value in metadata.items() if key != RECIPE},
    }


def _counted(values: Any) -> dict[str, int]:
    return {f"{value:g}": count for value, count in sorted(Counter(v for v in values if v is not None).items())}


def _json(metadata: Mapping[str, str], key: str) -> Any:
    try:
        return json.loads(metadata[key]) if key in metadata else None
    except (ValueError, RecursionError):
        return metadata[key]


def _base(metadata: Mapping[str, str]) -> str:
    recipe = _json(metadata, RECIPE)
    told = recipe.get("base") if isinstance(recipe, dict) else None
    name = told.get("name") if isinstance(told, dict) else None
    return str(name or metadata.get("ss_sd_model_name", ""))


@torch.no_grad()
def _layer(name: str, layer: Adapted, base: Checkpoint | None, top: int) -> dict[str, Any]:
    """One layer. The figures are those of the additive part where weight decomposition stands around it."""
    adapter = layer.adapter.plain
    options = adapter.options
    told: dict[str, Any] = {
        "name": name,
        "block": _block(name),
        "algorithm": adapter.name + ("+dora" if isinstance(layer.adapter, WeightDecomposed) else ""),
        "shape": list(layer.site.weight_shape),
        "rank": options.rank if isinstance(options, RankOptions) else None,
        "scale": adapter.scale if isinstance(options, RankOptions) else None,
        "norm": None,
    }
    try:
        spectrum = _spectrum(layer)
    except FormatError:
        return told
    told["norm"] = float(spectrum.norm()) if isinstance(spectrum, Tensor) else float(spectrum.values.norm())
    if base is not None and base.layers[name].weight_shape == layer.site.weight_shape:
        told["share"] = told["norm"] / max(float(base.weight(name).norm()), 1e-30)
    if isinstance(spectrum, Spectrum):
        values = spectrum.values
        told |= {
            "numerical_rank": numerical_rank(values, max(layer.site.m, layer.site.c)),
            "effective_rank": effective_rank(values),
            "rank_of_energy": Cut(energy=ENERGY).rank_of(values),
            "singular_values": [float(value) for value in values[:top]],
        }
    return told


def _spectrum(layer: Adapted) -> Spectrum | Tensor:
    """The spectrum of the additive change; of a norm, or of a bias alone, the change itself. Raises ``FormatError``."""
    plain = layer.adapter.plain
    if not plain.mergeable:
        raise FormatError(f"{plain.name} is no change of weights")
    factors = plain.factors()
    if factors is not None:
        known(layer, factors[0] * factors[1].sum())
        return Spectrum.of_factors(*factors)
    change = known(layer, plain.delta(layer.base.weight))
    shift = plain.bias_delta(layer.base.bias)
    if isinstance(layer.site, NormSite) or (shift is not None and not change.any()):
        return torch.cat([change.flatten(), change.new_zeros(0) if shift is None else known(layer, shift)])
    return Spectrum.of(change)


def _block(name: str) -> str:
    component = name.partition(".")[0]
    return (block_of(name) or "other") if component == "unet" else component


def _blocks(layers: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Layers and ``sqrt(sum ||D||^2)`` of each block, in the model's order."""
    found: dict[str, list[float]] = {}
    for layer in layers:
        found.setdefault(layer["block"], []).append(layer["norm"] or 0.0)
    return {
        name: {"layers": len(found[name]), "norm": sum(norm**2 for norm in found[name]) ** 0.5}
        for name in sorted(found, key=_place)
    }


def _place(block: str) -> tuple[int, str]:
    """Input blocks first, then the middle, outputs and the rest."""
    return next((i for i, start in enumerate(("IN", "MID", "OUT", "other")) if block.startswith(start)), 9), block


def lines(told: Mapping[str, Any], all_layers: bool = False) -> list[str]:
    """What ``inspect`` found, for people."""
    text = [
        f"{told['file']}: {told['bytes'] / (1 << 20):.2f} MiB, {told['numbers']:,} numbers ({_listed(told['precision'])})",
        f"model       {told['family'] or 'unknown'}{', base ' + told['base'] if told['base'] else ''}",
        f"algorithms  {_listed(told['algorithms'])}",
        f"tensors     {', '.join(told['kinds'])} in {', '.join(told['names'])} names; read by {', '.join(told['read_by'])}",
    ]
    text += [f"ranks       {_listed(told['ranks'])}"] if told["ranks"] else []
    text += [f"alpha       {_listed(told['alphas'])}"] if told["alphas"] else []
    text += [f"hash        {told['hash'][:12]}"]
    text += _spectrum_lines(told["layers"])
    text += ["block         layers  norm of the change"]
    text += [f"  {name:<14}{block['layers']:>4}  {block['norm']:.4g}" for name, block in told["blocks"].items()]
    if all_layers:
        text += ["layer: rank, numerical rank, effective rank, norm"]
        text += [f"  {layer['name']}: {_figures(layer)}" for layer in told["layers"]]
    text += [f"dead        {key} (no change at all)" for key in told["dead"]]
    text += [f"not finite  {key}" for key in told["not_finite"]]
    text += [f"not read    {entry}" for entry in told["unread"]]
    text += [f"embedding   {word}" for word in told["words"]]
    text += [f"metadata    {key} = {_short(value)}" for key, value in sorted(told["metadata"].items())]
    return text + _recipe_lines(told["recipe"])


def _spectrum_lines(layers: list[dict[str, Any]]) -> list[str]:
    measured = [layer for layer in layers if "effective_rank" in layer]
    if not measured:
        return []
    middle = {
        key: statistics.median(layer[key] for layer in measured) for key in ("numerical_rank", "effective_rank", "rank_of_energy")
    }
    return [
        f"spectrum    numerical rank {middle['numerical_rank']:g}, effective rank {middle['effective_rank']:.3g}, "
        f"{middle['rank_of_energy']:g} for {ENERGY:.0%} of the squared norm (medians of {len(measured)} layers)"
    ]


def _figures(layer: Mapping[str, Any]) -> str:
    shown = [layer["rank"], layer.get("numerical_rank"), layer.get("effective_rank"), layer["norm"]]
    return ", ".join("-" if value is None else f"{value:.3g}" for value in shown)


def _recipe_lines(recipe: Any) -> list[str]:
    if not isinstance(recipe, dict):
        return [f"recipe      {_short(recipe)}"] if recipe else []
    config, pictures = (part if isinstance(part := recipe.get(key), dict) else {} for key in ("config", "pictures"))
    values = [(section, part) for section, part in config.items() if isinstance(part, dict)]
    settings = [f"  {section}.{key} = {value}" for section, part in values for key, value in part.items()]
    return [f"recipe      step {recipe.get('step')}, {len(pictures)} pictures", *settings]


def _listed(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{key} ({count})" for key, count in counts.items())


def _short(value: Any, limit: int = 100) -> str:
    text = str(value)
    return text if len(text) <= limit else f"{text[:limit]} …"
