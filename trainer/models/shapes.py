"""A single file's configs: the family's, with every size that shows in the tensors taken from them.

So a full-size model, a fine-tune with other sizes and a miniature load on one path. What does not show in a shape (kinds of
blocks, activations, groups of a norm, the scale of latents) is the family's, from ``assets/clip``. Heads are not seen either:
Stable Diffusion 1's UNet has 8 a layer; everything else has one for every 64 channels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from morelora.formats.original import UNET, VAE
from trainer.models.clip import ASSETS

Shapes = Mapping[str, tuple[int, ...]]
Config = dict[str, Any]

FOLDERS = {"sd1": "sd15", "sd2": "sd21", "sdxl": "sdxl"}
HEAD = 64
"""Channels of one attention head."""
OPEN_CLIP_LAYERS = 23
"""Layers of Stable Diffusion 2's text encoder that are used: OpenCLIP's last one is left out."""


def shipped(family: str, part: str) -> Config:
    """The family's own config of a part."""
    file = "scheduler_config.json" if part == "scheduler" else "config.json"
    loaded: Config = json.loads((ASSETS / FOLDERS[family] / part / file).read_text(encoding="utf-8"))
    return loaded


def configs(family: str, shapes: Shapes) -> dict[str, Config]:
    """Every part's config by name; ``shapes`` are those of the file by its original keys."""
    found = {"unet": unet(shipped(family, "unet"), shapes), "vae": vae(shipped(family, "vae"), shapes)}
    if family == "sd1":
        return found | {"text_encoder": _clip(family, "text_encoder", shapes, "cond_stage_model.transformer.text_model.")}
    if family == "sd2":
        return found | {"text_encoder": _open_clip(family, "text_encoder", shapes, "cond_stage_model.model.")}
    first = _clip(family, "text_encoder", shapes, "conditioner.embedders.0.transformer.text_model.")
    second = _open_clip(family, "text_encoder_2", shapes, "conditioner.embedders.1.model.")
    added = found["unet"]["projection_class_embeddings_input_dim"]
    found["unet"]["addition_time_embed_dim"] = (added - second["projection_dim"]) // 6
    return found | {"text_encoder": first, "text_encoder_2": second}


def unet(config: Config, shapes: Shapes) -> Config:
    """The UNet's config with widths, depths and condition as the shapes show them."""
    levels = range(len(config["block_out_channels"]))
    widths = [_width(shapes, i, config["block_out_channels"][i]) for i in levels]
    crossed = [i for i in levels if config["down_block_types"][i].startswith("CrossAttn")]
    first = f"{UNET}input_blocks.{1 + 3 * crossed[0]}.1.transformer_blocks.0.attn2.to_k.weight"
    sizes = {
        "block_out_channels": widths,
        "in_channels": _size(shapes, f"{UNET}input_blocks.0.0.weight", 1, config["in_channels"]),
        "out_channels": _size(shapes, f"{UNET}out.2.weight", 0, config["out_channels"]),
        "cross_attention_dim": _size(shapes, first, 1, config["cross_attention_dim"]),
    }
    if isinstance(config["attention_head_dim"], list):
        sizes["attention_head_dim"] = [max(1, width // HEAD) for width in widths]
    if "projection_class_embeddings_input_dim" in config:
        added = config["projection_class_embeddings_input_dim"]
        sizes["projection_class_embeddings_input_dim"] = _size(shapes, f"{UNET}label_emb.0.0.weight", 1, added)
    if "transformer_layers_per_block" in config:
        sizes["transformer_layers_per_block"] = [_depth(shapes, i, len(levels)) if i in crossed else 1 for i in levels]
    return config | sizes


def vae(config: Config, shapes: Shapes) -> Config:
    """The VAE's config with its widths and latent channels."""
    widths = [
        _size(shapes, f"{VAE}encoder.down.{i}.block.0.conv2.weight", 0, width)
        for i, width in enumerate(config["block_out_channels"])
    ]
    latent = _size(shapes, f"{VAE}decoder.conv_in.weight", 1, config["latent_channels"])
    return config | {"block_out_channels": widths, "latent_channels": latent}


def _clip(family: str, part: str, shapes: Shapes, prefix: str) -> Config:
    config = shipped(family, part)
    layers = _count(shapes, rf"{re.escape(prefix)}encoder\.layers\.(\d+)\.") or config["num_hidden_layers"]
    middle = _size(shapes, f"{prefix}encoder.layers.0.mlp.fc1.weight", 0, config["intermediate_size"])
    width = _size(shapes, f"{prefix}embeddings.token_embedding.weight", 1, config["hidden_size"])
    positions = _size(shapes, f"{prefix}embeddings.position_embedding.weight", 0, config["max_position_embeddings"])
    words = _size(shapes, f"{prefix}embeddings.token_embedding.weight", 0, config["vocab_size"])
    sizes = {"num_hidden_layers": layers, "intermediate_size": middle, "max_position_embeddings": positions, "vocab_size": words}
    return config | sizes | _widths(width)


def _open_clip(family: str, part: str, shapes: Shapes, prefix: str) -> Config:
    config = shipped(family, part)
    layers = _count(shapes, rf"{re.escape(prefix)}transformer\.resblocks\.(\d+)\.") or config["num_hidden_layers"]
    if family == "sd2":
        is_whole = f"{prefix}text_projection" in shapes
        layers = layers - 1 if is_whole else min(layers, OPEN_CLIP_LAYERS)
    middle = _size(shapes, f"{prefix}transformer.resblocks.0.mlp.c_fc.weight", 0, config["intermediate_size"])
    width = _size(shapes, f"{prefix}token_embedding.weight", 1, config["hidden_size"])
    sizes = {
        "num_hidden_layers": layers,
        "intermediate_size": middle,
        "max_position_embeddings": _size(shapes, f"{prefix}positional_embedding", 0, config["max_position_embeddings"]),
        "vocab_size": _size(shapes, f"{prefix}token_embedding.weight", 0, config["vocab_size"]),
    }
    if part == "text_encoder_2":
        sizes["projection_dim"] = _size(shapes, f"{prefix}text_projection", 1, config["projection_dim"])
    return config | sizes | _widths(width)


def _widths(width: int) -> Config:
    return {"hidden_size": width, "num_attention_heads": max(1, width // HEAD)}


def _width(shapes: Shapes, level: int, default: int) -> int:
    """Channels of a level, from the first of its two blocks that the file has."""
    first, second = (f"{UNET}input_blocks.{1 + 3 * level + j}.0.out_layers.3.weight" for j in range(2))
    return _size(shapes, first, 0, _size(shapes, second, 0, default))


def _depth(shapes: Shapes, level: int, levels: int) -> int:
    """Transformer blocks of a level: the most that any of its places has, so that a torn file is not taken for a shallow one."""
    places = [f"input_blocks.{1 + 3 * level + j}" for j in range(2)]
    places += [f"output_blocks.{3 * (levels - 1 - level) + j}" for j in range(3)]
    places += ["middle_block"] if level == levels - 1 else []
    pattern = rf"{re.escape(UNET)}({'|'.join(map(re.escape, places))})\.1\.transformer_blocks\.(\d+)\."
    return max(1, _count(shapes, pattern))


def _count(shapes: Shapes, pattern: str) -> int:
    """One more than the largest number that the last group of ``pattern`` takes at the start of a key; 0 without any."""
    matches = (re.match(pattern, key) for key in shapes)
    return max((int(match.groups()[-1]) + 1 for match in matches if match), default=0)


def _size(shapes: Shapes, key: str, axis: int, default: int) -> int:
    """One side of a tensor; the family's where the file lacks it, which loading then reports with all that is missing."""
    shape = shapes.get(key, ())
    return shape[axis] if axis < len(shape) else default
