"""Where the original (LDM, SGM) checkpoints keep each tensor of a model: our key -> their key, and what to do with the tensor.

Two things are not mere renames. OpenCLIP keeps the queries, keys and values of a layer as the three thirds of one matrix, and its
text projection transposed. Some VAEs keep their attention as 1x1 convolutions, which ``Weights.read`` flattens by shape.
Checked key by key, at the full sizes, against diffusers' own conversion (``tests/trainer/models/test_original.py``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from morelora.formats.names import ldm_path

UNET = "model.diffusion_model."
VAE = "first_stage_model."
OLD_CLIP = "cond_stage_model.transformer."
MARKS = {
    "sdxl": "conditioner.embedders.1.model.",
    "sd2": "cond_stage_model.model.",
    "sd1": "cond_stage_model.transformer.",
}
"""Where each family keeps the text encoder that no other has there."""
OPEN_CLIP = {
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding": "positional_embedding",
    "final_layer_norm": "ln_final",
    "text_projection": "text_projection",
}
OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
BARE = ("positional_embedding", "text_projection")
"""Tensors of OpenCLIP whose names have no ``.weight``."""
VAE_ATTENTION = {
    **{"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"},
    **{"query": "q", "key": "k", "value": "v", "proj_attn": "proj_out"},
}
"""Diffusers' names, today's and those of its first releases -> the original ones."""


@dataclass(frozen=True)
class Place:
    """A tensor's place in an original file."""

    key: str
    third: int | None = None
    """Which third of the rows: 0 queries, 1 keys, 2 values."""
    is_transposed: bool = False


Layout = Callable[[Iterable[str]], dict[str, Place]]
"""A model's own keys, as its ``state_dict`` has them -> the place of each."""


def unet(keys: Iterable[str]) -> dict[str, Place]:
    """The UNet's places. An upsampler's number depends on whether its block has attention."""
    keys = list(keys)
    blocks = {match[1] for key in keys if (match := re.match(r"up_blocks\.(\d+)\.", key))}
    lone = blocks - {match[1] for key in keys if (match := re.match(r"up_blocks\.(\d+)\.attentions\.", key))}
    return {key: Place(f"{UNET}{ldm_path(path, lone)}.{leaf}") for key, path, leaf in _split(keys)}


def vae(keys: Iterable[str]) -> dict[str, Place]:
    """The VAE's places. The decoder counts its blocks from the picture inwards."""
    keys = list(keys)
    blocks = 1 + max((int(match[1]) for key in keys if (match := re.match(r"decoder\.up_blocks\.(\d+)\.", key))), default=-1)
    return {key: Place(f"{VAE}{_vae_path(path, blocks)}.{leaf}") for key, path, leaf in _split(keys)}


def clip(prefix: str) -> Layout:
    """A CLIP text encoder in transformers' own names, below ``prefix``."""
    return lambda keys: {key: Place(f"{prefix}{key.removeprefix('text_model.')}") for key in keys}


def open_clip(prefix: str) -> Layout:
    """A CLIP text encoder in OpenCLIP's names, below ``prefix``."""
    return partial(_open_clip, prefix)


def standard_names(keys: Iterable[str]) -> dict[str, str]:
    """Other spellings of the same layout: old merges without ``text_model.``, and ``vae.`` for the VAE."""
    keys = list(keys)
    names = {key: VAE + key.removeprefix("vae.") for key in keys if key.startswith("vae.")}
    old = [
        key
        for key in keys
        if key.startswith(tuple(f"{OLD_CLIP}{part}." for part in ("embeddings", "encoder", "final_layer_norm")))
    ]
    return names | {key: f"{OLD_CLIP}text_model.{key.removeprefix(OLD_CLIP)}" for key in old}


def _split(keys: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Key, its module's path, and the tensor's own name."""
    for key in keys:
        path, _, leaf = key.rpartition(".")
        yield key, path, leaf


def _vae_path(path: str, blocks: int) -> str:
    path = path.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    path = re.sub(r"mid_block\.resnets\.(\d+)", lambda match: f"mid.block_{int(match[1]) + 1}", path)
    path = re.sub(r"mid_block\.attentions\.0\.(.+)", lambda match: f"mid.attn_1.{VAE_ATTENTION[match[1]]}", path)
    path = re.sub(r"down_blocks\.(\d+)\.", r"down.\1.", path)
    path = re.sub(r"up_blocks\.(\d+)\.", lambda match: f"up.{blocks - 1 - int(match[1])}.", path)
    return re.sub(r"(down|up)samplers\.0", r"\1sample", path).replace(".resnets.", ".block.")


def _open_clip(prefix: str, keys: Iterable[str]) -> dict[str, Place]:
    return {key: _open_clip_place(prefix, path.removeprefix("text_model."), leaf) for key, path, leaf in _split(keys)}


def _open_clip_place(prefix: str, path: str, leaf: str) -> Place:
    layer = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", path)
    if not layer:
        name = OPEN_CLIP[path]
        return Place(prefix + (name if name in BARE else f"{name}.{leaf}"), is_transposed=name == "text_projection")
    block, inner = f"{prefix}transformer.resblocks.{layer[1]}", layer[2]
    projection = re.fullmatch(r"self_attn\.([qkv])_proj", inner)
    if projection:
        return Place(f"{block}.attn.in_proj_{leaf}", third="qkv".index(projection[1]))
    return Place(f"{block}.{OPEN_CLIP_LAYER[inner]}.{leaf}")


LAYOUTS: dict[str, dict[str, Layout]] = {
    "sd1": {"unet": unet, "vae": vae, "text_encoder": clip("cond_stage_model.transformer.text_model.")},
    "sd2": {"unet": unet, "vae": vae, "text_encoder": open_clip("cond_stage_model.model.")},
    "sdxl": {
        "unet": unet,
        "vae": vae,
        "text_encoder": clip("conditioner.embedders.0.transformer.text_model."),
        "text_encoder_2": open_clip("conditioner.embedders.1.model."),
    },
}
"""The parts of a single file by family."""
