"""The plain-LoRA form: every adapter as ``lora_up``, ``lora_down`` and one alpha, which all clients read, diffusers included.

Exact for LoRA and LoCon (Tucker folded in, same rank), LoHa (rank ``r^2``) and LoKr with a low-rank block (rank
``min(p, q) * r``). Weight decomposition, full-matrix LoKr and full differences are no thin products and are refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from torch import Tensor

from morelora.as_lora import plain_tensors
from morelora.errors import FormatError
from morelora.formats.names import is_sdxl, kohya
from morelora.formats.sidecar import refuse_unmergeable
from morelora.inject import AdapterSet
from morelora.weight_decompose import WeightDecomposed

Factors = tuple[Tensor, Tensor]


def encode(adapters: AdapterSet) -> dict[str, Tensor]:
    """All tensors of the file in float32, by key.

    Raises:
        FormatError: an adapter is not low-rank; the message names the layer and the way out.
    """
    decomposed = [name for name, adapter in adapters if isinstance(adapter, WeightDecomposed)]
    if decomposed:
        raise FormatError(
            f"{decomposed[0]} ({len(decomposed)} such layers) holds weight decomposition (DoRA), which is not low-rank and has "
            "no plain-LoRA form: write the 'webui' form, or 'diffusers' with the output axis"
        )
    return lora_tensors(adapters, low_rank_factors(adapters))


def lora_tensors(adapters: AdapterSet, factors: Mapping[str, Factors]) -> dict[str, Tensor]:
    """``up``, ``down`` of each layer as LoRA tensors with one alpha: that of the most frequent rank, whose factors stay."""
    sdxl = is_sdxl(adapters.models)
    alpha = float(Counter(up.shape[1] for up, _ in factors.values()).most_common(1)[0][0])
    out: dict[str, Tensor] = {}
    for name, (up, down) in factors.items():
        written = plain_tensors(adapters.layers[name].site, up, down, alpha)
        out |= {f"{kohya(name, sdxl)}.{leaf}": tensor for leaf, tensor in written.items()}
    return out


def low_rank_factors(adapters: AdapterSet) -> dict[str, Factors]:
    """Exact ``up (m, R)`` and ``down (R, c)`` of each layer's additive part, scale included.

    Raises:
        FormatError: an adapter has none; the message names the layers.
    """
    refuse_unmergeable(adapters)
    found, without = {}, {}
    for name, adapter in adapters:
        layer = adapters.layers[name]
        factors = None if layer.changes_bias else adapter.plain.factors_of(layer.base.weight)
        if factors is None:
            without[name] = adapter.plain
        else:
            found[name] = factors
    if without:
        more = f" (and {len(without) - 1} more layers)" if len(without) > 1 else ""
        name, adapter = next(iter(without.items()))
        what, instead = adapter.thick
        raise FormatError(f"{name}{more} holds {what}, which has no thin factors: write the 'webui' form, or {instead}")
    return found


def up_tensor(up: Tensor, is_conv: bool) -> Tensor:
    """``(m, R)``, with two axes of size 1 more for a convolution."""
    return up[:, :, None, None] if is_conv else up
