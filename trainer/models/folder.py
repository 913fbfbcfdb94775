"""A base model in diffusers form: ``model_index.json`` and a folder for each part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.errors import InputError
from trainer.models.parts import FolderPart, Part, read_json
from trainer.models.source import NAMES, Family, Source

PIPELINES: dict[str, tuple[str, ...]] = {
    "StableDiffusionPipeline": ("unet", "vae", "text_encoder"),
    "StableDiffusionXLPipeline": ("unet", "vae", "text_encoder", "text_encoder_2"),
}
"""Parts by the pipeline that a folder names."""
WIDTHS: dict[int, Family] = {768: "sd1", 1024: "sd2"}
"""Width of the text condition of the published models."""
VOCABULARY = ("vocab.json", "tokenizer.json")


def open_folder(path: Path, forced: str = "auto") -> Source:
    """Read the configs and the headers of a model folder.

    Raises:
        InputError: it is no model folder, of another kind or not whole, or ``forced`` is not its family.
    """
    if not (path / "model_index.json").is_file():
        raise InputError(
            f"model.base = {str(path)!r} has no model_index.json",
            "give the folder that holds unet/, vae/, text_encoder/ and model_index.json, or a single .safetensors file",
        )
    kind = read_json(path / "model_index.json").get("_class_name")
    if kind not in PIPELINES:
        raise InputError(f"{path} is a {kind}, which is not supported", f"use a base of the form {', '.join(PIPELINES)}")
    parts: dict[str, Part] = {name: FolderPart(name, path / name) for name in PIPELINES[kind]}
    tokenizers = {name.replace("text_encoder", "tokenizer"): path for name in parts if name.startswith("text_encoder")}
    for name in tokenizers:
        if not any((path / name / file).is_file() for file in VOCABULARY):
            raise InputError(
                f"{path} has no {' or '.join(f'{name}/{file}' for file in VOCABULARY)}", "copy the whole model folder again"
            )
    family = _family(path, kind, parts["unet"].config, forced)
    folders = {name: path / name for name in tokenizers}
    return Source(path, family, parts, folders, read_json(path / "scheduler" / "scheduler_config.json"))


def _family(path: Path, kind: str, unet: Any, forced: str) -> Family:
    """SDXL by its pipeline; 2 from 1 by the width of the condition, else by linear projections, which may be overruled."""
    width = unet.get("cross_attention_dim")
    told: Family
    if kind == "StableDiffusionXLPipeline":
        told, reason, is_sure = "sdxl", f"model_index.json names {kind}", True
    elif width in WIDTHS:
        told, reason, is_sure = WIDTHS[width], f"its UNet is conditioned by {width} channels", True
    else:
        told = "sd2" if unet.get("use_linear_projection") else "sd1"
        reason, is_sure = f"its UNet has {'linear' if told == 'sd2' else 'convolutional'} projections", forced == "sdxl"
    if forced in ("auto", told):
        return told
    if is_sure:
        raise InputError(
            f"model.family = {forced!r} does not fit {path}: {reason}, as {NAMES[told]} has it",
            f"use model.family = 'auto' or {told!r}",
        )
    return "sd1" if forced == "sd1" else "sd2"
