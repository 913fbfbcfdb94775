"""Several adapters as one, and adapters into a base model.

Files      ``D = sum w_i D_i`` of each layer, whatever the algorithms are: exactly, by stacking factors, ``up = [w_1 up_1, ...]``,
           ``down = [down_1; ...]``, or dense where one has none; or as the nearest product of a rank.
Base       ``W -> W + w_1 D_1(W) -> ...`` in the order of the files, as loading them one after the other acts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from morelora.adapted import Adapted
from morelora.errors import FormatError
from morelora.files.changes import dense, low_rank, shortened
from morelora.files.checkpoint import Checkpoint
from morelora.files.opened import Opened, Outline, adapter_set, change_of, shift_of
from morelora.files.progress import progress
from morelora.files.writing import Output, Report, kept_metadata, write_adapter
from morelora.inject import AdapterSet
from morelora.lowrank import Cut, Factors, Spectrum
from morelora.site import NormSite

Weighted = tuple[Opened, float]


def merge(files: Sequence[Weighted], output: Output, cut: Cut | None = None, base: Checkpoint | None = None) -> Report:
    """One file of several.

    Args:
        files: with the weight of each.
        output: what to write.
        cut: the rank of the sum; without it the sum is exact, and as thick as its parts together.
        base: the model that they are for, where a change depends on its weights.

    Raises:
        FormatError: the files are for different models, or hold what is no change of weights.
    """
    merged, notes = merged_adapters(files, cut, base)
    weights = [weight for _, weight in files]
    metadata = kept_metadata([opened for opened, _ in files], "merge", weights=weights)

    def expected(name: str) -> Tensor:
        return _sum(_layers(files, name))

    report = write_adapter(merged, output, metadata, expected, base)
    return replace(report, notes=[*report.notes, *notes])


def merged_adapters(files: Sequence[Weighted], cut: Cut | None, base: Checkpoint | None) -> tuple[AdapterSet, list[str]]:
    """The sum as adapters, and what should be known of it."""
    families = {opened.family for opened, _ in files} - {""}
    if len(families) > 1:
        raise FormatError(f"the files are for different models: {', '.join(sorted(families))}")
    for opened, _ in files:
        _refuse_unmergeable(opened.whole())
    names = list(dict.fromkeys(name for opened, _ in files for name in opened.adapters.layers))
    layers, thick, uncut = {}, 0, 0
    for name in progress(names, "merging"):
        parts = _layers(files, name)
        shapes = {layer.site.weight_shape for layer, _ in parts}
        if len(shapes) > 1:
            found = " and ".join(str(shape) for shape in sorted(shapes))
            raise FormatError(f"{name} has shapes {found}: the files are for different models")
        layers[name], is_dense = _merged(name, parts, cut, base)
        thick += is_dense
        uncut += is_dense and cut is not None
    notes = []
    if thick > uncut:
        notes += [f"{thick} of {len(names)} layers are dense: their changes are no products of thin factors"]
    if uncut:
        notes += [f"{uncut} of {len(names)} layers change a norm or a bias and stay as they are: no rank holds them"]
    return adapter_set(layers, next(iter(families), "")), notes


@torch.no_grad()
def _merged(name: str, parts: list[tuple[Adapted, float]], cut: Cut | None, base: Checkpoint | None) -> tuple[Adapted, bool]:
    """One layer, and whether it came out dense."""
    outline = Outline(name, parts[0][0].site, base)
    shift = _shift(parts)
    factors = [layer.adapter.factors() for layer, _ in parts]
    if shift is None and all(factors):
        stacked = _stacked([(up * weight, down) for (up, down), (_, weight) in zip(factors, parts, strict=True)])
        return low_rank(outline, shortened(stacked, cut)[0]), False
    change = _sum(parts)
    if cut is None or shift is not None or isinstance(outline.site, NormSite):
        return dense(outline, change, shift), True
    spectrum = Spectrum.of(change)
    return low_rank(outline, spectrum.cut(cut.rank_of(spectrum.values))), False


def _stacked(factors: Sequence[Factors]) -> Factors:
    return torch.cat([up for up, _ in factors], 1), torch.cat([down for _, down in factors])


def _sum(parts: list[tuple[Adapted, float]]) -> Tensor:
    """``sum w_i D_i``."""
    total = torch.zeros(parts[0][0].site.weight_shape)
    for layer, weight in parts:
        total += weight * change_of(layer)
    return total


def _shift(parts: list[tuple[Adapted, float]]) -> Tensor | None:
    """``sum w_i (b' - b)``; None where no bias changes."""
    shifts = [weight * shift for layer, weight in parts if (shift := shift_of(layer)) is not None]
    return torch.stack(shifts).sum(0) if shifts else None


def _layers(files: Sequence[Weighted], name: str) -> list[tuple[Adapted, float]]:
    return [(opened.adapters.layers[name], weight) for opened, weight in files if name in opened.adapters.layers]


def _refuse_unmergeable(opened: Opened) -> None:
    for name, adapter in opened.adapters:
        if not adapter.mergeable:
            raise FormatError(f"{opened.path}: {name} holds a {adapter.name} adapter, which is no change of the weights")


def merge_into(base: Checkpoint, files: Sequence[Weighted], out: Path) -> list[str]:
    """A copy of a base model with the adapters in it, in the base's own precision.

    Args:
        base: the model.
        files: adapters that were opened with it, with the weight of each.
        out: a new folder where the base is one, else a file.

    Returns:
        What was done, in sentences.

    Raises:
        FormatError: an adapter fits the model nowhere, or is no change of weights.
        OSError: it cannot be written.
    """
    for opened, _ in files:
        _refuse_unmergeable(opened.whole())
    names = list(dict.fromkeys(name for opened, _ in files for name in opened.adapters.layers))

    @torch.no_grad()
    def change(name: str, weight: Tensor, bias: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        for layer, strength in _layers(files, name):
            shift = layer.adapter.bias_delta(bias)
            weight = weight + strength * layer.adapter.delta(weight)
            bias = bias if shift is None or bias is None else bias + strength * shift
        return weight, bias

    told = {"morelora.merged": ", ".join(f"{opened.path.name}={weight:g}" for opened, weight in files)}
    lost = base.write(out, change, list(progress(names, "merging")), told)
    words = [f"The embedding {word!r} is not in the model" for opened, _ in files for word in opened.words]
    return [
        f"Wrote {out}: {len(names)} layers changed",
        f"Relative error of the change: {lost:.2g} at most, by the precision that the base is stored in",
        *words,
    ]
