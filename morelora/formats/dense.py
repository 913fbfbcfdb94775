"""The dense form: every change by its numbers, ``diff`` and ``diff_b``; of norms ``w_norm`` and ``b_norm``.

Exact at every strength for whatever is a change of weights, in all web UIs and LyCORIS; as large as the layers themselves.
diffusers refuses it.
"""

from __future__ import annotations

from torch import Tensor

from morelora.dense import dense_tensors
from morelora.formats.names import is_sdxl, kohya
from morelora.formats.sidecar import refuse_unmergeable
from morelora.inject import AdapterSet
from morelora.site import NormSite


def encode(adapters: AdapterSet) -> dict[str, Tensor]:
    """All tensors of the file, by key. Raises ``FormatError`` where an adapter is no change of weights."""
    refuse_unmergeable(adapters)
    sdxl = is_sdxl(adapters.models)
    return {
        f"{kohya(name, sdxl)}.{leaf}": tensor
        for name, layer in adapters.layers.items()
        for leaf, tensor in dense_tensors(layer.adapter, layer.base).items()
    }


def size(adapters: AdapterSet) -> int:
    """How many numbers the form holds, without making them."""
    layers = adapters.layers.values()
    return sum(layer.site.m * (layer.site.c + layer.changes_bias) for layer in layers)


def kinds(adapters: AdapterSet) -> set[str]:
    """What its tensors are, as ``formats.readers`` names it, without making them."""
    return {"norm" if isinstance(layer.site, NormSite) else "diff" for layer in adapters.layers.values()}
