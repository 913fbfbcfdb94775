"""Adapters from changes of weights: factors or differences become the tensors of a file, and these an adapter."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from morelora.adapted import Adapted
from morelora.adapter import Tensors
from morelora.dense import leaf_names
from morelora.files.opened import Outline
from morelora.formats.plain import up_tensor
from morelora.load import adapter_from
from morelora.lowrank import Cut, Factors, Spectrum


def low_rank(outline: Outline, factors: Factors, dora_scale: Tensor | None = None) -> Adapted:
    """A layer changed by ``up @ down``, with weight decomposition where a ``dora_scale`` is given."""
    up, down = factors
    tensors: Tensors = {
        "lora_up.weight": up_tensor(up, outline.site.is_conv),
        "lora_down.weight": outline.site.kernel_of(down),
        "alpha": torch.tensor(float(up.shape[1])),
    }
    if dora_scale is not None:
        tensors["dora_scale"] = dora_scale
    return built(outline, tensors)


def dense(outline: Outline, change: Tensor, shift: Tensor | None) -> Adapted:
    """A layer changed by a difference of its weight, and of its bias where one is given."""
    of_weight, of_bias = leaf_names(outline.site)
    outline.site = replace(outline.site, has_bias=shift is not None)
    return built(outline, {of_weight: change} | ({} if shift is None else {of_bias: shift}))


def built(outline: Outline, tensors: Tensors) -> Adapted:
    """A layer with the adapter of these tensors; the caller's random numbers stay as they are."""
    with torch.random.fork_rng(devices=[]):
        return Adapted(outline, adapter_from(outline, tensors).eval())


def shortened(factors: Factors, cut: Cut | None) -> tuple[Factors, float]:
    """The nearest factors of the rank that ``cut`` asks for, and the relative error. Without one they stay exact, and are made
    no thicker than the matrix."""
    up, down = factors
    thick = up.shape[1] > min(up.shape[0], down.shape[1])
    if cut is None and not thick:
        return factors, 0.0
    spectrum = Spectrum.of_factors(up, down)
    rank = (cut or Cut()).rank_of(spectrum.values)
    return spectrum.cut(rank), spectrum.error(rank) if cut else 0.0
