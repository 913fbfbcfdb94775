"""Held-out concepts of a style: their truth, samples of them, and what the judge says of these."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from bench.judge import Judge
from trainer.config import Config
from trainer.models import Bundle

ROOT = Path(__file__).resolve().parents[2]
STYLES = ROOT / "assets" / "styles"
QUICK, CHUNK, SEED = 50, 10, 5000


@dataclass(frozen=True)
class Held:
    """Held-out concepts of one style: captions, numbers of the judge, and true pictures ``(N, 3, 64, 64)`` in ``0 .. 1``."""

    style: str
    captions: list[str]
    concepts: Tensor
    truth: Tensor


@dataclass(frozen=True)
class Scores:
    """Means over the held-out concepts."""

    distance: float
    """RMSE to the true picture at 16x16 pixels."""
    called_style: float
    """Share that the style judge calls the new style."""
    concept_top5: float
    """Share whose concept the concept judge has among its first five."""
    concept_top1: float
    both: float
    """Share with the new style and, in the same picture, the concept among the first five."""


def held_out(style: str, judge: Judge, count: int | None) -> Held:
    """The truth of a style: every picture, or ``count`` evenly chosen ones."""
    files = sorted((STYLES / style / "truth").glob("*.png"))
    if count is not None and count < len(files):
        files = [files[i * len(files) // count] for i in range(count)]
    names = [file.stem.replace("_", " ") for file in files]
    captions = [file.with_suffix(".txt").read_text(encoding="utf-8").strip() for file in files]
    truth = torch.stack([to_tensor(Image.open(file).convert("RGB")) for file in files])
    return Held(style, captions, torch.tensor([judge.concepts.index(name) for name in names]), truth)


def to_tensor(image: Image.Image) -> Tensor:
    """``(3, H, W)`` in ``0 .. 1``."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def measure(images: Tensor, held: Held, judge: Judge) -> Scores:
    """Judge pictures of the held-out concepts."""
    styles = judge.style_probs(images)
    called = torch.stack(list(styles.values())).argmax(0) == list(styles).index(held.style)
    ranks = judge.concept_ranks(images, held.concepts).float()
    each = (judge.distance(images, held.truth), called, ranks <= 5, ranks <= 1, called & (ranks <= 5))
    return Scores(*(round(values.float().mean().item(), 4) for values in each))


@torch.no_grad()
def sample(bundle: Bundle, captions: list[str], config: Config) -> Tensor:
    """One picture for each caption at fixed seeds, with the preset's preview settings."""
    pictures = []
    for start in range(0, len(captions), CHUNK):
        some = captions[start : start + CHUNK]
        latents = bundle.pipeline(
            some,
            num_inference_steps=config.preview.steps,
            guidance_scale=config.preview.guidance,
            width=64,
            height=64,
            generator=[Generator().manual_seed(SEED + start + i) for i in range(len(some))],
            output_type="latent",
        ).images
        pictures.append(bundle.decode_latents(latents))
    return torch.cat(pictures)


def through_vae(bundle: Bundle, images: Tensor) -> Tensor:
    """What the VAE leaves of true pictures: the best that any adapter can reach."""
    mean, _ = bundle.encode_pixels(images * 2 - 1)
    return bundle.decode_latents(mean)
