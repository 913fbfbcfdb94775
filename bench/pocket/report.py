"""Measures the shipped base against its promises, from the shipped files alone.

Every figure is printed with what it is to be read against: the real pictures (the ceiling of retrieval) and chance.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from ..judge import Judge
from .captions import plain_caption
from .concepts import all_concepts
from .export import folder_bytes
from .judging import real_pictures
from .looks import LOOKS, STYLES
from .sampling import STEPS, load_pipeline, sample
from .vae import psnr, reconstruct

PROMPTS = 252  # fixed captions: every concept once, the looks in turn
TURN = ("noto", "flat", "noto on blue", "noto", "flat on yellow", "pixel", "noto", "comic", "flat", "negative")


def fixed_prompts() -> list[tuple[int, str]]:
    """(concept, look) of the captions that the report samples; the same on every machine."""
    return [(i % len(all_concepts()), TURN[i % len(TURN)]) for i in range(PROMPTS)]


def report(folder: Path) -> None:
    """Print all figures of one model folder."""
    pipeline, judge = load_pipeline(folder), Judge.load()
    table, looks = real_pictures()
    weights = sum(f.stat().st_size for f in folder.rglob("*.safetensors"))
    print(f"size                 {folder_bytes(folder) / 1e6:.1f} MB, of which fp16 weights {weights / 1e6:.1f} MB")
    print(f"concepts, looks      {len(all_concepts())}, {len(LOOKS)}; held-out styles: {', '.join(STYLES)}")
    _report_codec(pipeline, table, looks)
    _report_speed(pipeline)
    _report_retrieval(pipeline, judge, table, looks)


def _report_codec(pipeline: StableDiffusionPipeline, table: Tensor, looks: list[str]) -> None:
    for look in ("noto", "flat", *STYLES):
        images = table[looks.index(look)] / 255
        value = psnr(reconstruct(pipeline.vae, images), images).mean()
        print(f"reconstruction       {value:.2f} dB PSNR, {look}" + (" (never trained on)" if look in STYLES else ""))


def _report_speed(pipeline: StableDiffusionPipeline) -> None:
    sample(pipeline, ["fox"])
    started = time.perf_counter()
    sample(pipeline, ["fox"])
    spent = time.perf_counter() - started
    print(f"one 64x64 picture    {spent:.2f} s, {STEPS} steps with guidance, {torch.get_num_threads()} threads")


def _report_retrieval(pipeline: StableDiffusionPipeline, judge: Judge, table: Tensor, looks: list[str]) -> None:
    prompts = fixed_prompts()
    ids = torch.tensor([concept for concept, _ in prompts])
    rows = torch.tensor([looks.index(look) for _, look in prompts])
    real = table[rows, ids] / 255
    samples = sample(pipeline, [plain_caption(concept, look) for concept, look in prompts])
    print(f"fixed captions       {len(prompts)}")
    for name, images in (("samples", samples), ("real pictures", real)):
        print(f"concept, {name:<14}{_shares(judge.concept_ranks(images, ids))}")
    print(f"concept, chance        top-1 {1 / len(judge.concepts):.3f}  top-5 {5 / len(judge.concepts):.3f}")
    for look in dict.fromkeys(TURN):
        chosen = rows == looks.index(look)
        print(f"  {look:<18} {_shares(judge.concept_ranks(samples[chosen], ids[chosen]))}")
    print(f"distance to truth    {judge.distance(samples, real).mean():.3f} RMSE at 16x16")


def _shares(ranks: Tensor) -> str:
    return f"top-1 {(ranks == 1).float().mean():.3f}  top-5 {(ranks <= 5).float().mean():.3f}  (n={len(ranks)})"
