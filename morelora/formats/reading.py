"""From a file's keys to each layer's tensors, whatever program wrote them. Nothing is skipped: what fits nowhere is listed.

Read are kohya's and LyCORIS' names (``lora_unet_``, ``lora_te_``, ``lora_te1_``, ``lora_te2_``, ``lycoris_``; diffusers' or
LDM module names), PEFT's (``unet.….lora_A.weight``) and diffusers' two older ones (``unet.….lora.up.weight``,
``….processor.to_q_lora.up.weight``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from morelora.adapter import Tensors
from morelora.errors import FormatError
from morelora.formats.names import spellings

DOTTED = (
    (r"\.lora_A\.(default\.)?weight", "lora_down.weight"),
    (r"\.lora_B\.(default\.)?weight", "lora_up.weight"),
    (r"\.lora_magnitude_vector(\.default)?(\.weight)?", "dora_scale"),
    (r"\.(lora|lora_linear_layer)\.down\.weight", "lora_down.weight"),
    (r"\.(lora|lora_linear_layer)\.up\.weight", "lora_up.weight"),
    (r"_lora\.down\.weight", "lora_down.weight"),
    (r"_lora\.up\.weight", "lora_up.weight"),
    (r"\.alpha", "alpha"),
)
"""Endings of diffusers' and PEFT's keys -> leaf names."""
STYLES = ((r"lora_", "kohya"), (r"lycoris_", "LyCORIS"), (r".*\.lora_([AB]|magnitude)", "PEFT"), (r".*lora", "diffusers"))
"""How a key of an adapter looks, the first that fits -> the program whose names they are."""
OLD_ATTENTION = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
PEFT_METADATA = "lora_adapter_metadata"


@dataclass(frozen=True)
class Contents:
    """What a file holds for a model."""

    layers: dict[str, Tensors]
    """Tensors by leaf name, by layer name."""
    unknown: list[str]
    """Keys that belong to none of the model's layers."""


def sort_keys(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], layer_names: Iterable[str]) -> Contents:
    """Give each tensor to its layer.

    Args:
        tensors: a file's tensors by key.
        metadata: the file's text entries; PEFT's own carry scales.
        layer_names: the model's layers, ``unet.…`` and ``text_encoder.…``.

    Raises:
        FormatError: two keys mean the same tensor of one layer.
    """
    table = spellings(layer_names)
    layers: dict[str, Tensors] = {}
    unknown = []
    for key, tensor in tensors.items():
        spelling, leaf = split(key)
        name = table.get(spelling)
        if name is None:
            unknown.append(key)
        elif leaf in layers.setdefault(name, {}):
            raise FormatError(f"{key} is the second {leaf} for {name}: the file mixes naming styles")
        else:
            layers[name][leaf] = _magnitude(tensor) if "lora_magnitude_vector" in key else tensor
    _take_peft_scales(layers, metadata)
    return Contents(layers, unknown)


def naming(keys: Iterable[str]) -> list[str]:
    """Whose names a file's keys are; more than one where it mixes them."""
    found = {next((style for pattern, style in STYLES if re.match(pattern, key)), "other") for key in keys}
    return sorted(found)


def split(key: str) -> tuple[str, str]:
    """A key as the spelling of its layer and the leaf name: ``lora_unet_x.lora_up.weight -> lora_unet_x, lora_up.weight``."""
    head, _, tail = key.partition(".")
    if head.startswith(("lora_", "lycoris_")):
        return head, tail
    for pattern, leaf in DOTTED:
        match = re.search(pattern + "$", key)
        if match:
            return _modern(key[: match.start()]), leaf
    return key, ""


def _modern(path: str) -> str:
    """Module paths of older diffusers files in today's spelling."""
    path = path.replace(".processor.", ".")
    parent, _, last = path.rpartition(".")
    if last in OLD_ATTENTION and parent.endswith("self_attn"):
        return f"{parent}.{OLD_ATTENTION[last]}"
    return f"{path}.0" if last == "to_out" else path


def _magnitude(tensor: Tensor) -> Tensor:
    """PEFT's ``(m,)`` or ``(1, m, 1, 1)`` as the output axis of a ``dora_scale``: ``(m, 1, …)``."""
    flat = tensor.flatten()
    return flat.view(-1, 1) if tensor.dim() == 1 else flat.view(-1, *[1] * (tensor.dim() - 1))


def _take_peft_scales(layers: dict[str, Tensors], metadata: Mapping[str, str]) -> None:
    """PEFT files may carry their scales as JSON instead of alpha tensors: put them where the others have theirs."""
    if PEFT_METADATA not in metadata:
        return
    try:
        settings: dict[str, Any] = json.loads(metadata[PEFT_METADATA])
        for name, tensors in layers.items():
            if "lora_down.weight" in tensors and "alpha" not in tensors:
                rank = tensors["lora_down.weight"].shape[0]
                alpha = _peft_alpha(settings, name, rank)
                tensors["alpha"] = tensors["lora_down.weight"].new_tensor(alpha).float()
    except (ValueError, TypeError, AttributeError, RecursionError, re.error) as error:
        raise FormatError(f"the metadata entry {PEFT_METADATA} is damaged ({error}): save the adapter again") from error


def _peft_alpha(settings: Mapping[str, Any], name: str, rank: int) -> float:
    """``alpha`` with ``alpha / rank`` equal to the scale that PEFT gives this layer."""
    component, _, path = name.partition(".")
    own = {key.partition(".")[2]: value for key, value in settings.items() if key.startswith(f"{component}.")}
    patterns: dict[str, float] = own.get("alpha_pattern") or {}
    # PEFT takes the first pattern that the whole module path ends with.
    matching = (value for pattern, value in patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", path))
    alpha = float(next(matching, own.get("lora_alpha") or rank))
    return alpha * rank**0.5 if own.get("use_rslora") else alpha
