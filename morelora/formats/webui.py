"""The web-UI form: kohya's names and each algorithm's own tensors, as A1111, Forge, ComfyUI, InvokeAI and LyCORIS read them.

All LoRA layers of a file share one alpha; where a layer's scale differs, its ``lora_up`` is rescaled, because diffusers
gives attention layers the most frequent alpha of the file.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from morelora.adapter import FactorOptions
from morelora.formats.names import is_sdxl, kohya
from morelora.formats.sidecar import refuse_unmergeable
from morelora.inject import AdapterSet


def encode(adapters: AdapterSet) -> dict[str, Tensor]:
    """All tensors of the file in float32, by key. Raises ``FormatError`` where an adapter is no change of weights."""
    refuse_unmergeable(adapters)
    sdxl, alpha = is_sdxl(adapters.models), common_alpha(adapters)
    return {
        f"{kohya(name, sdxl)}.{leaf}": tensor
        for name, layer in adapters.layers.items()
        for leaf, tensor in layer.adapter.file_tensors(layer.base, alpha).items()
    }


def common_alpha(adapters: AdapterSet) -> float:
    """The file's one alpha: the most frequent ``scale * rank`` of its LoRA layers, so that most are written unchanged."""
    found = Counter(
        adapter.options.scale * adapter.options.rank
        for _, adapter in adapters
        if adapter.filed_as == "lora" and isinstance(adapter.options, FactorOptions)
    )
    return float(torch.tensor(found.most_common(1)[0][0] if found else 1.0))
