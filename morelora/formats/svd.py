"""The approximate form: every change as the nearest plain LoRA of a rank, with the error that this makes.

It holds what no exact compact form does: weight decomposition, rotations, scales, full differences. It is made for one base:
where a change depends on the weight, so does its approximation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from morelora.adapted import Adapted
from morelora.errors import FormatError, NonFiniteTensorError
from morelora.formats.plain import Factors, lora_tensors
from morelora.formats.sidecar import refuse_unmergeable
from morelora.inject import AdapterSet
from morelora.lowrank import Cut, Spectrum
from morelora.site import NormSite


@torch.no_grad()
def encode(adapters: AdapterSet, cut: Cut) -> tuple[dict[str, Tensor], dict[str, float]]:
    """All tensors of the file in float32, and ``||D - D_r|| / ||D||`` by layer.

    Raises:
        FormatError: an adapter changes a norm or a bias, which a LoRA cannot, or is no change of weights.
    """
    refuse(adapters)
    factors: dict[str, Factors] = {}
    errors: dict[str, float] = {}
    for name, layer in adapters.layers.items():
        factors[name], errors[name] = _nearest(name, layer, cut)
    return lora_tensors(adapters, factors), errors


def _nearest(name: str, layer: Adapted, cut: Cut) -> tuple[Factors, float]:
    """A layer's own factors where they are thin enough, else the nearest ones."""
    exact = layer.adapter.factors_of(layer.base.weight)
    if exact is not None and exact[0].shape[1] <= (cut.rank or 0) and cut == Cut(cut.rank):
        return exact, 0.0
    if exact is None:
        weight = layer.base.weight
        change = layer.adapter.delta(weight.to(torch.promote_types(weight.dtype, torch.float32)))
        if not torch.isfinite(change).all():
            raise NonFiniteTensorError(f"{name}: the change holds NaN or infinite values")
        spectrum = Spectrum.of(change)
    else:
        spectrum = Spectrum.of_factors(*exact)
    rank = cut.rank_of(spectrum.values)
    return spectrum.cut(rank), spectrum.error(rank)


def refuse(adapters: AdapterSet) -> None:
    """Raise ``FormatError`` where no LoRA can make such a change, whatever its rank."""
    refuse_unmergeable(adapters)
    vectors = [name for name, layer in adapters.layers.items() if layer.changes_bias or isinstance(layer.site, NormSite)]
    if vectors:
        raise FormatError(
            f"{vectors[0]} ({len(vectors)} such layers) changes a bias or a norm, which no LoRA can: write the 'diff' form"
        )
