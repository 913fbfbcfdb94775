"""The diffusers form: PEFT's tensors under diffusers' own module names, for pipelines only; web UIs do not read it.

``unet.<path>.lora_A.weight``, ``.lora_B.weight`` with the scale folded in, no alpha; weight decomposition along the output
axis as ``.lora_magnitude_vector``, ``(m,)`` or ``(1, m, 1, 1)``.
"""

from __future__ import annotations

from torch import Tensor

from morelora.errors import FormatError
from morelora.formats.names import TEXT_ENCODERS, dotted
from morelora.formats.plain import low_rank_factors, up_tensor
from morelora.inject import AdapterSet
from morelora.weight_decompose import WeightDecomposed


def encode(adapters: AdapterSet) -> dict[str, Tensor]:
    """All tensors of the file in float32, by key.

    Raises:
        FormatError: an adapter is not low-rank, or holds weight decomposition that diffusers would drop.
    """
    out = {}
    factors = low_rank_factors(adapters)
    for name, adapter in adapters:
        key, (up, down) = dotted(name), factors[name]
        out[f"{key}.lora_A.weight"] = adapter.site.kernel_of(down)
        out[f"{key}.lora_B.weight"] = up_tensor(up, adapter.site.is_conv)
        if isinstance(adapter, WeightDecomposed):
            out[f"{key}.lora_magnitude_vector"] = _magnitude(name, adapter)
    return out


def _magnitude(name: str, adapter: WeightDecomposed) -> Tensor:
    if adapter.axis == "input":
        raise FormatError(
            f"{name}: diffusers knows weight decomposition along the output axis only: write the 'webui' form, or train with "
            "decompose_axis = 'output'"
        )
    if name.partition(".")[0] in TEXT_ENCODERS:
        raise FormatError(
            f"{name}: diffusers drops weight decomposition in the text encoder without an error: write the 'webui' form, or "
            "train with text_encoder = false"
        )
    return adapter.magnitude.view(1, -1, 1, 1) if adapter.site.is_conv else adapter.magnitude
