"""What an adapter file's metadata tells other programs of the network in it: ``ss_network_*``, as kohya's scripts write them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from morelora.formats import Encoded
from morelora.formats.webui import common_alpha
from morelora.inject import AdapterSet
from morelora.weight_decompose import WeightDecomposed

PLAIN = ("lora", "svd")
"""Forms that hold LoRA tensors alone, whatever was trained."""


def network_metadata(adapters: AdapterSet, encoded: Encoded) -> dict[str, str]:
    """Module, rank, alpha and algorithm. Of a form of LoRA tensors alone those of the tensors, else those of the training."""
    if encoded.form in PLAIN:
        ranks = {len(tensor) for key, tensor in encoded.tensors.items() if key.endswith(".lora_down.weight")}
        alpha = float(next(tensor for key, tensor in encoded.tensors.items() if key.endswith(".alpha")))
        return _entries("networks.lora", ranks, alpha, {})
    names = Counter(adapter.filed_as for _, adapter in adapters)
    decomposed = next((adapter for _, adapter in adapters if isinstance(adapter, WeightDecomposed)), None)
    ranks = {rank for _, adapter in adapters if (rank := adapter.file_rank) is not None}
    if encoded.form == "diff":
        return _entries("lycoris.kohya", ranks, common_alpha(adapters), {"algo": "full"})
    if set(names) == {"lora"} and decomposed is None:
        return _entries("networks.lora", ranks, common_alpha(adapters), {})
    arguments: dict[str, Any] = {"algo": names.most_common(1)[0][0]}
    if decomposed is not None:
        arguments |= {"dora_wd": True, "wd_on_output": decomposed.axis == "output"}
    return _entries("lycoris.kohya", ranks, common_alpha(adapters), arguments)


def _entries(module: str, ranks: set[int], alpha: float, arguments: dict[str, Any]) -> dict[str, str]:
    return {
        "ss_network_module": module,
        "ss_network_dim": str(*ranks) if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": f"{alpha:g}",
        "ss_network_args": json.dumps(arguments),
    }
