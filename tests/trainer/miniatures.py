"""Stable Diffusion 1.5, 2.1 (v) and XL in miniature: random weights and thin layers in their exact structure and key layouts.

Every block, layer and key of the UNet, VAE and text encoders is there; only widths, text layers and SDXL's transformer depths are
smaller. Widths are not square, so that swapped axes show. Each miniature is written as a diffusers folder and as one original
checkpoint with the same weights.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from morelora.formats.original import LAYOUTS, Place
from trainer.models.clip import ASSETS, build_tokenizer

FAMILIES = ("sd1", "sd2", "sdxl")
SD_BLOCKS = {
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
XL_BLOCKS = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}
UNETS: dict[str, dict[str, Any]] = {
    "sd1": SD_BLOCKS | {"block_out_channels": (32, 64, 96, 96), "cross_attention_dim": 48, "attention_head_dim": 8},
    "sd2": SD_BLOCKS
    | {"block_out_channels": (64, 128, 96, 96), "cross_attention_dim": 72, "attention_head_dim": [1, 2, 1, 1]}
    | {"use_linear_projection": True},
    "sdxl": XL_BLOCKS
    | {"block_out_channels": (32, 64, 128), "cross_attention_dim": 96, "attention_head_dim": [1, 1, 2]}
    | {"use_linear_projection": True, "transformer_layers_per_block": [1, 1, 2], "addition_embed_type": "text_time"}
    | {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 88},
}
TEXT: dict[str, dict[str, Any]] = {
    "sd1": {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "hidden_act": "quick_gelu"},
    "sd2": {"hidden_size": 72, "intermediate_size": 112, "num_hidden_layers": 3, "hidden_act": "gelu"},
    "sdxl": {"hidden_size": 40, "intermediate_size": 72, "num_hidden_layers": 3, "hidden_act": "quick_gelu"},
}
TEXT_2 = {"hidden_size": 56, "intermediate_size": 104, "num_hidden_layers": 4, "hidden_act": "gelu", "projection_dim": 40}


@cache
def parts(family: str) -> dict[str, nn.Module]:
    """The networks; made once, never changed."""
    torch.manual_seed(FAMILIES.index(family))
    models: dict[str, nn.Module] = {
        "unet": UNet2DConditionModel(sample_size=8, layers_per_block=2, norm_num_groups=32, **UNETS[family]),
        "vae": AutoencoderKL(
            block_out_channels=(32, 32, 64, 64),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            scaling_factor=0.13025 if family == "sdxl" else 0.18215,
        ),
        "text_encoder": CLIPTextModel(_text_config(**TEXT[family])),
    }
    if family == "sdxl":
        models["text_encoder_2"] = CLIPTextModelWithProjection(_text_config(**TEXT_2))
    with torch.no_grad():  # norms and biases start at one and zero, where a swap would not show
        for model in models.values():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
    return {name: model.eval() for name, model in models.items()}


def save_folder(family: str, folder: Path) -> Path:
    """A diffusers folder."""
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, prediction_type="v_prediction" if family == "sd2" else "epsilon",
    )  # fmt: skip
    models = dict(parts(family))
    source = ASSETS / {"sd1": "sd15", "sd2": "sd21", "sdxl": "sdxl"}[family]
    tokenizer = build_tokenizer(source / "tokenizer")
    if family == "sdxl":
        second = build_tokenizer(source / "tokenizer_2")
        pipeline: Any = StableDiffusionXLPipeline(**models, tokenizer=tokenizer, tokenizer_2=second, scheduler=scheduler)
    else:
        nothing = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipeline = StableDiffusionPipeline(**models, tokenizer=tokenizer, scheduler=scheduler, **nothing)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def tensors(family: str) -> dict[str, Tensor]:
    """The original checkpoint's tensors, those that nothing reads included."""
    found: dict[str, Tensor] = {}
    for name, layout in LAYOUTS[family].items():
        state = parts(family)[name].state_dict()
        thirds: dict[str, dict[int, Tensor]] = {}
        for key, place in layout(state).items():
            if place.third is None:
                found[place.key] = _original_form(state[key], place)
            else:
                thirds.setdefault(place.key, {})[place.third] = state[key]
        found |= {key: torch.cat([parts_[i] for i in range(3)]) for key, parts_ in thirds.items()}
    found["alphas_cumprod"] = torch.ones(1000)
    if family == "sd2":  # OpenCLIP's last layer and projection, which Stable Diffusion 2 does not use
        last = "cond_stage_model.model.transformer.resblocks.2."
        unused = {
            key.replace("resblocks.2.", "resblocks.3."): tensor.clone() for key, tensor in found.items() if key.startswith(last)
        }
        found |= unused | {"cond_stage_model.model.text_projection": torch.ones(72, 72)}
    return found


def save_single(family: str, file: Path, **metadata: str) -> Path:
    """One checkpoint in the original layout; Stable Diffusion 2's says in its metadata that it predicts the velocity."""
    marks = {"modelspec.prediction_type": "v"} if family == "sd2" else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors(family).items()}, file, marks | metadata)
    return file


def _original_form(tensor: Tensor, place: Place) -> Tensor:
    """VAE attention as 1x1 convolutions, a projection transposed."""
    if ".mid.attn_1." in place.key and tensor.dim() == 2:
        return tensor[:, :, None, None]
    return tensor.T if place.is_transposed else tensor


def _text_config(**sizes: Any) -> CLIPTextConfig:
    marks = {"bos_token_id": 49406, "eos_token_id": 2, "pad_token_id": 1}
    return CLIPTextConfig(vocab_size=49408, num_attention_heads=1, max_position_embeddings=77, **marks, **sizes)
