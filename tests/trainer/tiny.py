"""A tiny random base model and pictures, made in seconds, for tests of whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from trainer import settings
from trainer.data import Cache, hold_out, scan
from trainer.models import load
from trainer.session import Session, build_accelerator, build_session

WORDS = ("fox", "cat", "key", "my", "style")


def save_base(folder: Path, prediction_type: str = "epsilon") -> Path:
    """A Stable Diffusion folder of 2 levels with random weights; about 300,000 parameters."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=400,
            hidden_size=24,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type)
    StableDiffusionPipeline(
        vae, text, _tokenizer(folder), unet, scheduler, None, None, requires_safety_checker=False
    ).save_pretrained(folder, safe_serialization=True)
    return folder


def _tokenizer(folder: Path) -> CLIPTokenizer:
    """Characters, and a few whole words built up letter by letter."""
    merges: list[str] = []
    pieces: list[str] = []
    for word in WORDS:
        letters = [*word[:-1], word[-1] + "</w>"]
        while len(letters) > 1:
            merges.append(f"{letters[0]} {letters[1]}")
            letters[:2] = ["".join(letters[:2])]
            pieces.append(letters[0])
    characters = [chr(code) for code in range(33, 127)]
    marks = ("<|startoftext|>", "<|endoftext|>")
    vocabulary = list(dict.fromkeys([*marks, *characters, *(c + "</w>" for c in characters), *pieces]))
    parts = folder / "vocabulary"
    parts.mkdir(parents=True, exist_ok=True)
    (parts / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(vocabulary)}))
    (parts / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    return CLIPTokenizer(str(parts / "vocab.json"), str(parts / "merges.txt"), model_max_length=16)


def save_pictures(folder: Path, count: int = 4, side: int = 64) -> Path:
    """Random pictures with captions."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for i, word in enumerate(("fox", "cat", "key", "fox cat", "cat key", "fox key")[:count]):
        pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"my style, {word}")
    return folder


def values(base: Path, images: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """Settings of a short run; ``changes`` are ``section__key=value``; None leaves the key out."""
    nested: dict[str, dict[str, Any]] = {
        "run": {"name": "tiny", "output": str(output)},
        "model": {"base": str(base)},
        "data": {"images": str(images), "trigger": "my style", "resolution": 64, "bucket_step": 16},
        "adapter": {"algorithm": "lora", "rank": 2, "alpha": 1.0, "layers": "all"},
        "train": {"steps": 6, "batch_size": 2},
        "optimizer": {"lr": 1e-2},
        "device": {"estimate": False},
        "preview": {"steps": 2, "prompts": ["{trigger}, fox"], "guidance": 2.0},
        "checkpoint": {"every": 2},
    }
    for name, value in changes.items():
        section, _, key = name.partition("__")
        nested[section] = nested.get(section, {}) | {key: value}
    return {section: {key: value for key, value in held.items() if value is not None} for section, held in nested.items()}


def session(base: Path, images: Path, folder: Path, **changes: Any) -> Session:
    """All that a run of ``values`` holds together before its first step; its cache lies in ``folder``."""
    config = settings.parse(values(base, images, folder, **changes), "test")
    dataset = hold_out(scan(config.data), config.validation, config.data)
    cache = Cache(folder / "cache")
    return build_session(config, load(config.model), dataset, build_accelerator(config), cache, lambda text: None)
