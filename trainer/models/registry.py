"""Families by name, and loading a base model: find it, tell its family, build its pipeline and its schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPTokenizer
from transformers.utils import logging as transformers_logging

from trainer.config import ModelConfig
from trainer.errors import InputError
from trainer.models import text
from trainer.models.bundle import Bundle
from trainer.models.clip import build_tokenizer
from trainer.models.folder import open_folder
from trainer.models.noise import build_noise
from trainer.models.sd import StableDiffusion
from trainer.models.sdxl import StableDiffusionXL
from trainer.models.single import open_file
from trainer.models.source import Source
from trainer.models.vae import open_vae
from trainer.models.weights import refuse_pickle

FAMILIES: dict[str, tuple[type[Bundle], Any, dict[str, Any]]] = {
    "sd1": (StableDiffusion, StableDiffusionPipeline, {"safety_checker": None, "feature_extractor": None}),
    "sd2": (StableDiffusion, StableDiffusionPipeline, {"safety_checker": None, "feature_extractor": None}),
    "sdxl": (StableDiffusionXL, StableDiffusionXLPipeline, {"add_watermarker": False}),
}
"""What a family's bundle is, its pipeline, and what the pipeline is told beside the parts."""

POCKET = Path(__file__).resolve().parents[2] / "assets" / "pocket"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def find(config: ModelConfig) -> Source:
    """The base model that the settings name, from its configs and headers alone; takes well under a second.

    Raises:
        InputError: there is none, it cannot be used, or ``model.family`` is not its family.
    """
    _quiet()
    path = POCKET if config.base == "pocket" else Path(config.base).expanduser()
    refuse_pickle(path)
    if path.is_file():
        source = open_file(path, config.family)
    elif path.is_dir():
        source = open_folder(path, config.family)
    else:
        raise InputError(
            f"model.base = {config.base!r}: there is no such folder or file",
            "give an existing model folder or .safetensors file, or 'pocket'",
        )
    if config.vae is not None:
        source = replace(source, parts=source.parts | {"vae": open_vae(config.vae, source.family)})
    source.check()
    return source


def load(config: ModelConfig, source: Source | None = None) -> Bundle:
    """The base model in evaluation mode on the CPU; ``source`` is what ``find`` gave, if it was asked before.

    Raises:
        InputError: as ``find``, and where tensors are missing or have other shapes.
    """
    source = source or find(config)
    bundle, pipeline_class, extra = FAMILIES[source.family]
    # The VAE is held in float32, whatever the rest is: in half precision it may give NaN.
    parts = {name: part.load(torch.float32 if name == "vae" else DTYPES[config.dtype]) for name, part in source.parts.items()}
    tokenizers = {name: _tokenizer(folder) for name, folder in source.tokenizers.items()}
    scheduler = getattr(diffusers, source.scheduler["_class_name"]).from_config(dict(source.scheduler))
    pipeline = pipeline_class(**parts, **tokenizers, scheduler=scheduler, **extra)
    pipeline.set_progress_bar_config(disable=True)
    noise = build_noise(source, config, pipeline.unet, pipeline.scheduler)
    pipeline.scheduler = noise.sampler
    loaded = bundle(source, pipeline, noise.schedule, config)
    loaded.notes += noise.notes
    if config.vae is not None:
        loaded.notes.append(f"The VAE is {Path(config.vae).name} in place of the base's own (model.vae).")
    return loaded


def overflow_of(config: ModelConfig) -> Callable[[str], str]:
    """What a base does not see of a caption, as ``Bundle.overflow``, from its vocabulary alone: no weight is read."""
    tokenizer = _tokenizer(find(config).tokenizers["tokenizer"])
    return lambda caption: text.overflow(tokenizer, caption, config.caption_chunks)


def tokens_of(config: ModelConfig) -> Callable[[str], int]:
    """How many tokens a caption has for a base, without the marks at its ends; from its vocabulary alone."""
    tokenizer = _tokenizer(find(config).tokenizers["tokenizer"])
    return lambda caption: len(tokenizer(caption, add_special_tokens=False).input_ids)


def _tokenizer(folder: Path) -> CLIPTokenizer:
    """A folder's own tokenizer, or CLIP's with the folder's marks where it has no vocabulary."""
    if not any((folder / name).is_file() for name in ("vocab.json", "tokenizer.json")):
        return build_tokenizer(folder)
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # damage ends in errors of many classes
        raise InputError(
            f"the tokenizer in {folder} is damaged ({type(error).__name__}: {error})", "copy the whole model folder again"
        ) from error


def _quiet() -> None:
    """Loading prints bars and notices that say nothing to a user."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
