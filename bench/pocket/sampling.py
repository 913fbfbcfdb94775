"""Samples of a pocket folder with fixed seeds: batches for the report and the sheet."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

STEPS = 25
GUIDANCE = 2.0
BATCH = 24


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """The pipeline in fp32, by the ordinary loader."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample(pipeline: StableDiffusionPipeline, captions: list[str], seed: int = 0, steps: int = STEPS) -> Tensor:
    """One picture per caption, (N, 3, 64, 64) in 0..1; picture i has its own noise, seed + i."""
    pictures = []
    for start in range(0, len(captions), BATCH):
        part = captions[start : start + BATCH]
        noise = [torch.Generator().manual_seed(seed + start + i) for i in range(len(part))]
        output = pipeline(part, num_inference_steps=steps, guidance_scale=GUIDANCE, generator=noise, output_type="pt")
        pictures.append(output.images)
    return torch.cat(pictures).float()
