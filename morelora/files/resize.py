"""An adapter at another rank: each layer's nearest product, of a rank, or of the rank that a share of the change asks for."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from morelora.adapted import Adapted
from morelora.errors import FormatError
from morelora.files.changes import dense, low_rank, shortened
from morelora.files.checkpoint import Checkpoint
from morelora.files.opened import Opened, Outline, adapter_set, change_of, known, shift_of
from morelora.files.progress import progress
from morelora.files.writing import Output, Report, kept_metadata, write_adapter
from morelora.lowrank import Cut, Spectrum
from morelora.site import NormSite
from morelora.weight_decompose import WeightDecomposed


def resize(opened: Opened, output: Output, cut: Cut, base: Checkpoint | None = None) -> Report:
    """Write the nearest LoRA of another rank; weight decomposition keeps its magnitudes, norms and biases stay.

    Raises:
        FormatError: a part of the file is not understood, or is no change of weights.
    """
    layers, resized, before, kept = opened.whole().adapters.layers, {}, [], 0
    for name, layer in progress(layers.items(), "resizing"):
        factors = layer.adapter.plain.factors()
        before += [] if factors is None else [factors[0].shape[1]]
        resized[name], stays = _resized(name, layer, cut, base)
        kept += stays
    decomposed = [name for name, layer in layers.items() if isinstance(layer.adapter, WeightDecomposed)]
    notes = [f"Ranks before: {min(before)} to {max(before)}, {sum(before) / len(before):.3g} on average"] if before else []
    if decomposed and base is None:
        notes += ["The errors are those of the change inside the weight decomposition, whose magnitudes stay"]
    notes += [f"{kept} layers change a norm or a bias and stay as they are"] if kept else []

    def expected(name: str) -> Tensor:
        return change_of(layers[name])

    metadata = kept_metadata([opened], "resize", **{key: value for key, value in vars(cut).items() if value is not None})
    report = write_adapter(adapter_set(resized, opened.family), output, metadata, expected, base)
    return replace(report, notes=[*report.notes, *notes])


@torch.no_grad()
def _resized(name: str, layer: Adapted, cut: Cut, base: Checkpoint | None) -> tuple[Adapted, bool]:
    """One layer, and whether it stays as it is."""
    outline = Outline(name, layer.site, base)
    if not layer.adapter.mergeable:
        raise FormatError(f"{name} holds a {layer.adapter.name} adapter, which is no change of the weights and has no rank")
    shift = shift_of(layer)
    if shift is not None or isinstance(layer.site, NormSite):
        return dense(outline, change_of(layer), shift), True
    factors = layer.adapter.plain.factors()
    scale = layer.adapter.tensors(1.0).get("dora_scale")
    if factors is not None:
        return low_rank(outline, shortened(factors, cut)[0], scale), False
    spectrum = Spectrum.of(known(layer, layer.adapter.plain.delta(layer.base.weight)))
    return low_rank(outline, spectrum.cut(cut.rank_of(spectrum.values)), scale), False
