"""Models with Stable Diffusion's own layer names and thin, non-square layers; adapters on them as if they were trained."""

from __future__ import annotations

import functools
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from morelora import AdapterConfig, AdapterSet, inject, resolve


def sd15() -> dict[str, nn.Module]:
    """SD 1.5's topology, every width shrunk; three text layers instead of twelve."""
    return _models((32, 64, 96, 96), blocks=None, per_block=2, text_layers=3)


def small() -> dict[str, nn.Module]:
    """Two levels, for speed: one with attention, one without."""
    return _models((32, 48), blocks=("CrossAttn", ""), per_block=1, text_layers=1)


def sdxl() -> dict[str, nn.Module]:
    """SDXL's topology with one transformer block where SDXL has up to ten."""
    torch.manual_seed(5)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 48, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=80,
        attention_head_dim=4,
        norm_num_groups=8,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=88,
    )
    models = {
        "unet": unet,
        "text_encoder": CLIPTextModel(_text_config(1)),
        "text_encoder_2": CLIPTextModelWithProjection(_text_config(2)),
    }
    return {name: model.eval() for name, model in models.items()}


def _models(widths: tuple[int, ...], blocks: tuple[str, ...] | None, per_block: int, text_layers: int) -> dict[str, nn.Module]:
    torch.manual_seed(5)
    kinds = {}
    if blocks:
        kinds = {
            "down_block_types": tuple(f"{kind}DownBlock2D" for kind in blocks),
            "up_block_types": tuple(f"{kind}UpBlock2D" for kind in reversed(blocks)),
        }
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=widths,
        layers_per_block=per_block,
        cross_attention_dim=40,
        attention_head_dim=4,
        norm_num_groups=8,
        **kinds,
    )
    text = CLIPTextModel(_text_config(text_layers))
    return {"unet": unet.eval(), "text_encoder": text.eval()}


@functools.cache
def _text_config(layers: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=64,
        hidden_size=40,
        intermediate_size=72,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=16,
        bos_token_id=0,
        eos_token_id=1,
    )


def trained(models: dict[str, nn.Module], seed: int = 1, **settings: Any) -> AdapterSet:
    """Adapters with random factors everywhere: no factor is zero, magnitudes are moved by up to 10 %."""
    config = AdapterConfig.model_validate({"layers": "all", **settings})
    adapters = inject(models, resolve(models, config))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapters.named_parameters():
            if name.endswith("magnitude"):
                parameter.mul_(1 + 0.1 * torch.rand(parameter.shape, generator=generator))
            else:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return adapters


def worst(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest relative Frobenius error over the layers, which must be the same ones."""
    assert found.keys() == expected.keys()
    return max(float((found[name] - expected[name]).norm() / expected[name].norm()) for name in expected)


@torch.no_grad()
def picture(models: dict[str, nn.Module]) -> Tensor:
    """What the two models make of fixed inputs: the text encoder's states go through the UNet."""
    generator = torch.Generator().manual_seed(9)
    states = models["text_encoder"](torch.arange(12).view(2, 6) + 2).last_hidden_state
    noise = torch.randn(2, 4, 8, 8, generator=generator)
    return models["unet"](noise, torch.tensor([7, 500]), states).sample
