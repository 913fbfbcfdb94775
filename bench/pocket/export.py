"""Puts the trained parts together as an ordinary StableDiffusionPipeline folder, fp16."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from .unet import BETAS


def export(work: Path, out: Path) -> None:
    """Write `out` from the latest averaged weights in `work`."""
    pipeline = StableDiffusionPipeline(
        unet=UNet2DConditionModel.from_pretrained(work / "denoiser" / "unet"),
        text_encoder=CLIPTextModel.from_pretrained(work / "denoiser" / "text_encoder"),
        vae=AutoencoderKL.from_pretrained(work / "vae"),
        tokenizer=CLIPTokenizer.from_pretrained(work / "tokenizer"),
        scheduler=DPMSolverMultistepScheduler(
            **BETAS, prediction_type="v_prediction", timestep_spacing="trailing", steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.save_pretrained(partial)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(work / "tokenizer" / name, partial / "tokenizer" / name)
    _forget_origin(partial)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    print(f"{out}: {folder_bytes(out) / 1e6:.1f} MB")


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _forget_origin(folder: Path) -> None:
    """Drop the lines that tell which folder of the author's disk a part came from."""
    for config in folder.rglob("*.json"):
        if config.name in ("tokenizer.json", "vocab.json"):
            continue
        lines = config.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if '"_name_or_path"' not in line]
        config.write_text("\n".join(kept) + "\n", encoding="utf-8")
