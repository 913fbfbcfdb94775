"""How files name a layer: ``unet.down_blocks.0.attentions.0.proj_in`` <-> ``lora_unet_down_blocks_0_attentions_0_proj_in``.

SD 1.x and 2.x use diffusers' names in the UNet; SDXL the original (LDM) ones, since A1111 misreads diffusers' there. Text
encoders keep the ``text_model.`` level that transformers 5 dropped from CLIP's modules: without it web UIs ignore the text
encoder or the whole file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import nn

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
BLOCK = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
MID = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def is_sdxl(models: Mapping[str, nn.Module]) -> bool:
    """Whether the components are SDXL's: two text encoders, or a UNet with its added conditioning."""
    config = getattr(models.get("unet"), "config", None)
    return "text_encoder_2" in models or getattr(config, "addition_embed_type", None) == "text_time"


def dotted(name: str) -> str:
    """A layer's name in diffusers' own files: the module path, with ``text_model.`` in every text encoder."""
    component, _, path = name.partition(".")
    if component in TEXT_ENCODERS and path.startswith(("encoder.", "embeddings.", "final_layer_norm")):
        return f"{component}.text_model.{path}"
    return name


def kohya(name: str, sdxl: bool = False) -> str:
    """A layer's key in web-UI files, without the tensor's own suffix."""
    component, _, path = dotted(name).partition(".")
    if component == "unet":
        return _flat("lora_unet", ldm_path(path) if sdxl else path)
    prefix = ("lora_te1" if sdxl else "lora_te") if component == "text_encoder" else "lora_te2"
    return _flat(prefix, path)


def ldm_path(path: str, lone_upsamplers: Iterable[str] = ()) -> str:
    """A UNet layer's path in the original naming, two resnets a block.

    Args:
        path: diffusers' path.
        lone_upsamplers: the ``up_blocks`` numbers without attention, whose upsampler counts one place earlier (SD 1.x: 0).
    """
    if path in ENDS:
        return ENDS[path]
    middle = MID.fullmatch(path)
    if middle:
        kind, index, rest = middle.groups()
        return f"middle_block.1.{rest}" if kind == "attentions" else f"middle_block.{2 * int(index)}.{RESNET.get(rest, rest)}"
    block = BLOCK.fullmatch(path)
    if not block:
        return path
    side, number, kind, index, rest = block.groups()
    i, j = int(number), int(index)
    if kind == "downsamplers":
        return f"input_blocks.{3 * (i + 1)}.0.op"
    if kind == "upsamplers":
        return f"output_blocks.{3 * i + 2}.{1 if number in lone_upsamplers else 2}.conv"
    place = f"input_blocks.{1 + 3 * i + j}" if side == "down_blocks" else f"output_blocks.{3 * i + j}"
    return f"{place}.1.{rest}" if kind == "attentions" else f"{place}.0.{RESNET.get(rest, rest)}"


def spellings(names: Iterable[str]) -> dict[str, str]:
    """Every way that known files spell these layers -> the layer's name; a spelling that fits two layers is left out."""
    names = list(names)
    with_attention = {match[1] for name in names if (match := re.match(r"unet\.up_blocks\.(\d+)\.attentions\.", name))}
    lone = {match[1] for name in names if (match := re.match(r"unet\.up_blocks\.(\d+)\.", name))} - with_attention
    table: dict[str, str | None] = {}
    for name in names:
        for spelling in _spellings_of(name, lone):
            table[spelling] = name if table.get(spelling, name) == name else None
    return {spelling: name for spelling, name in table.items() if name is not None}


def _spellings_of(name: str, lone_upsamplers: set[str]) -> set[str]:
    component, _, path = name.partition(".")
    prefixes: tuple[str, ...]
    if component == "unet":
        paths, prefixes = {path, ldm_path(path, lone_upsamplers)}, ("lora_unet", "lycoris")
        loose = {name, path}
    else:
        full = dotted(name).partition(".")[2]
        paths = {path, full}
        prefixes = ("lora_te", "lora_te1", "lycoris") if component == "text_encoder" else ("lora_te2", "lycoris")
        loose = {name, dotted(name)}
    return loose | {_flat(prefix, each) for prefix in prefixes for each in paths}


def _flat(prefix: str, path: str) -> str:
    return f"{prefix}_{path.replace('.', '_')}"
