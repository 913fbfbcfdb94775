"""Families by the pipeline class that a model folder names, and loading from a folder."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError, safe_open
from transformers.utils import logging as transformers_logging

from trainer.config import ModelConfig
from trainer.diffusion.schedule import Schedule
from trainer.errors import InputError
from trainer.models.bundle import Bundle
from trainer.models.sd import StableDiffusion

FAMILIES = {
    "StableDiffusionPipeline": (StableDiffusion, StableDiffusionPipeline),
}

POCKET = Path(__file__).resolve().parents[2] / "assets" / "pocket"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PARTS = ("unet", "vae", "text_encoder")
NEEDED = (
    *((f"{part}/config.json",) for part in PARTS),
    ("scheduler/scheduler_config.json",),
    ("tokenizer/vocab.json", "tokenizer/tokenizer.json"),
)
"""Files of which a folder must have one each; diffusers alone would go on with an empty tokenizer."""


def resolve_base(base: str) -> Path:
    """The model folder that ``model.base`` names. Raises ``InputError`` where it is none that can be loaded."""
    path = POCKET if base == "pocket" else Path(base).expanduser()
    if path.suffix.lower() in {".ckpt", ".pt", ".pth", ".bin"}:
        raise InputError(
            f"model.base = {base!r} is a pickle, which can run code when it is opened; it is not read",
            "get the model as .safetensors, in a diffusers folder",
        )
    if path.is_file():
        raise InputError(
            f"model.base = {base!r} is a file", "give the folder of a model in diffusers form (with model_index.json)"
        )
    if not path.is_dir():
        raise InputError(f"model.base = {base!r}: there is no such folder", "give an existing model folder, or 'pocket'")
    if not (path / "model_index.json").is_file():
        raise InputError(
            f"model.base = {base!r} has no model_index.json",
            "give the folder that holds unet/, vae/, text_encoder/ and model_index.json",
        )
    return path


def check_files(path: Path) -> None:
    """Look for every part and open every weight file's header. Raises ``InputError`` for missing, torn and pickled ones."""
    for names in NEEDED:
        if not any((path / name).is_file() for name in names):
            raise InputError(f"{path} has no {' or '.join(names)}", "copy the whole model folder again")
    for part in PARTS:
        files = list((path / part).glob("*.safetensors"))
        if not files:
            pickled = list((path / part).glob("*.bin"))
            what = f"holds only {pickled[0].name}, a pickle, which is not read" if pickled else "holds no .safetensors file"
            raise InputError(f"{path / part} {what}", "save the model again as safetensors")
        for file in files:
            try:
                with safe_open(file, "pt") as handle:
                    handle.keys()
            except (SafetensorError, OSError) as error:
                raise InputError(f"{file} is damaged or not a safetensors file ({error})", "copy or download it again") from error


def pixel_factor(path: Path) -> int:
    """Pixels on the side of one latent position, from the VAE's config alone: known before the weights are read."""
    check_files(path)
    try:
        return 2 ** (len(json.loads((path / "vae" / "config.json").read_text(encoding="utf-8"))["block_out_channels"]) - 1)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InputError(
            f"{path / 'vae' / 'config.json'} is no VAE's config: {error!r}", "copy the model folder again"
        ) from error


def load(config: ModelConfig) -> Bundle:
    """The base model in evaluation mode on the CPU. Raises ``InputError`` where the folder is not one of a known family."""
    path = resolve_base(config.base)
    try:
        kind = json.loads((path / "model_index.json").read_text(encoding="utf-8")).get("_class_name")
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path / 'model_index.json'} is not JSON: {error}", "copy the model folder again") from error
    if kind not in FAMILIES:
        raise InputError(f"{path} is a {kind}, which is not supported", f"use a base of the form {', '.join(FAMILIES)}")
    check_files(path)
    bundle, pipeline_class = FAMILIES[kind]
    _quiet()
    try:
        pipeline = pipeline_class.from_pretrained(
            path,
            dtype=DTYPES[config.dtype],
            local_files_only=True,
            use_safetensors=True,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{path} cannot be loaded: {error}", "check that the folder is a whole diffusers model") from error
    pipeline.set_progress_bar_config(disable=True)
    noise = DDPMScheduler.from_config(pipeline.scheduler.config)
    return bundle(path, pipeline, Schedule(noise.alphas_cumprod, noise.config.prediction_type))


def _quiet() -> None:
    """Loading prints bars and notices that say nothing to a user."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
