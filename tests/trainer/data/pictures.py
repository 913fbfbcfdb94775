"""Folders of small pictures, and encoders that count, for the tests of this package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from trainer.config import DataConfig
from trainer.data import PixelEncoder, TextEncoder


def save(folder: Path, name: str, size: tuple[int, int] = (64, 64), caption: str | None = None, seed: int = 0) -> Path:
    """A picture of noise, and its caption file where a caption is given."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng([seed, *name.encode()]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / name)
    if caption is not None:
        (folder / name).with_suffix(".txt").write_text(caption, encoding="utf-8")
    return folder / name


def settings(folder: Path, **more: object) -> DataConfig:
    """Settings of the small base: 64 pixels, buckets in steps of 16."""
    return DataConfig(images=str(folder), **{"resolution": 64, "bucket_step": 16, **more})


class CountingPixels:
    """Mean: the picture's 8x8 block means and their sum; std: 0.1. Keeps what it was asked to encode."""

    def __init__(self, fingerprint: str = "vae-1") -> None:
        self.seen: list[Tensor] = []
        self.batches: list[int] = []
        self.encoder = PixelEncoder(self.encode, fingerprint)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        assert not torch.is_grad_enabled()
        self.seen += list(pixels)
        self.batches.append(len(pixels))
        mean = blocks(pixels)
        return mean, torch.full_like(mean, 0.1)


def blocks(pixels: Tensor) -> Tensor:
    """[B, 4, H / 8, W / 8]: what ``CountingPixels`` gives."""
    means = functional.avg_pool2d(pixels, 8)
    return torch.cat([means, means.sum(1, keepdim=True)], 1)


class CountingTexts:
    """States: the text's code points, padded to 20, in one or two tensors."""

    def __init__(self, fingerprint: str = "clip-1", max_length: int = 77, clip_skip: int = 0, pair: bool = False) -> None:
        self.seen: list[str] = []
        self.pair = pair
        self.encoder = TextEncoder(self.encode, fingerprint, max_length, clip_skip)

    def encode(self, texts: list[str]) -> Tensor | tuple[Tensor, Tensor]:
        self.seen += texts
        states = torch.stack([code_points(text) for text in texts])
        return (states, states[:, 0] * 2) if self.pair else states


def code_points(text: str) -> Tensor:
    """[20, 3]: each row one character's number."""
    numbers = [ord(letter) for letter in text[:20]]
    return torch.tensor(numbers + [0] * (20 - len(numbers))).float()[:, None].repeat(1, 3)
