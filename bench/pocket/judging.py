"""Trains the judge on real pictures: every concept in every look and in the held-out styles, under augmentation.

The concept network sees strong changes (place, size, softness, colours, noise), because samples are soft and adapters
change colours. The style network sees mild ones, because colour and line are what it judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..judge import SEEN, WEIGHTS, Eye
from .concepts import all_concepts
from .looks import LOOKS, STYLES
from .loop import Job, train
from .pictures import load_atlas


@dataclass(frozen=True)
class Jitter:
    """Strengths of the random changes: shift and zoom (share of the side), blur and colour (probability), noise."""

    shift: float
    zoom: float
    blur: float
    colour: float
    noise: float


STRONG = Jitter(shift=0.08, zoom=0.12, blur=0.6, colour=0.5, noise=0.05)
MILD = Jitter(shift=0.06, zoom=0.10, blur=0.6, colour=0.0, noise=0.03)


def style_of(look: str) -> str:
    """The style class of a look: coloured grounds do not make a style of their own."""
    return look.split(" on ")[0]


def style_names() -> list[str]:
    """All style classes, looks of the base first."""
    return list(dict.fromkeys(style_of(look) for look in [*LOOKS, *STYLES]))


def real_pictures() -> tuple[Tensor, list[str]]:
    """(looks, concepts, 3, 64, 64) uint8 images of the shipped atlas in every look and style, and the looks' names."""
    atlas, rows = load_atlas(), []
    everything = LOOKS | STYLES
    for look in everything.values():
        stack = np.stack([look.paint(picture) for picture in atlas[look.source]])
        rows.append((stack.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 3, 1, 2))
    return torch.from_numpy(np.stack(rows)), list(everything)


def augment(images: Tensor, jitter: Jitter) -> Tensor:
    """Random place and size, softness, colours and noise, one draw per image; images as the networks see them."""
    count = len(images)
    images = _moved(images, jitter)
    soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    softer = F.interpolate(F.avg_pool2d(images, 2), size=SEEN, mode="bilinear")
    kind = torch.rand(count, 1, 1, 1)
    images = torch.where(kind < jitter.blur, torch.where(kind < jitter.blur / 2, soft, softer), images)
    recoloured = _recoloured(images)
    images = torch.where(torch.rand(count, 1, 1, 1) < jitter.colour, recoloured, images)
    noise = torch.rand(count, 1, 1, 1) * jitter.noise * torch.randn_like(images)
    return (images + noise).clamp(0, 1)


def _moved(images: Tensor, jitter: Jitter) -> Tensor:
    count = len(images)
    scale = 1 + (torch.rand(count, 2) * 2 - 1) * jitter.zoom
    shift = (torch.rand(count, 2) * 2 - 1) * jitter.shift * 2
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = scale[:, 0], scale[:, 1]
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _recoloured(images: Tensor) -> Tensor:
    """Mix the channels by a random matrix near the identity, then change contrast and brightness."""
    count = len(images)
    mix = torch.eye(3) * 0.7 + torch.randn(count, 3, 3) * 0.25 + 0.1
    mixed = torch.einsum("nij,njhw->nihw", mix, images)
    contrast = 0.6 + 0.8 * torch.rand(count, 1, 1, 1)
    return ((mixed - 0.5) * contrast + 0.5 + 0.3 * (torch.rand(count, 3, 1, 1) - 0.5)).clamp(0, 1)


def train_judge(work: Path, minutes: float) -> None:
    """Train both networks (concept 4/5 of the time) and write assets/judge."""
    table, looks = real_pictures()
    table = torch.stack([F.interpolate(rows.float(), size=(SEEN, SEEN), mode="area") for rows in table]) / 255
    style_ids = torch.tensor([style_names().index(style_of(look)) for look in looks])
    weights = torch.tensor([3.0 if look in ("noto", "flat", *STYLES) else 1.0 for look in looks])

    def draw(count: int, jitter: Jitter) -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.multinomial(weights, count, replacement=True)
        concepts = torch.randint(table.shape[1], (count,))
        return augment(table[rows, concepts], jitter), concepts, style_ids[rows]

    def concept_loss() -> Tensor:
        images, concepts, _ = draw(64, STRONG)
        return F.cross_entropy(concept(images), concepts, label_smoothing=0.05)

    def style_loss() -> Tensor:
        images, _, styles = draw(64, MILD)
        return F.cross_entropy(style(images), styles)

    concept = Eye([c.name for c in all_concepts()], (32, 64, 128))
    style = Eye(style_names(), (16, 32, 48))
    train(Job(concept, work / "judge_concept.pt", minutes * 0.8, peak=2e-3, decay=0.995), concept_loss)
    train(Job(style, work / "judge_style.pt", minutes * 0.2, peak=2e-3, decay=0.995), style_loss)
    for eye, name in ((concept, "concept"), (style, "style")):
        eye.eval().save(WEIGHTS / f"{name}.safetensors")
    print("real pictures:", judge_accuracy(), flush=True)


def judge_accuracy() -> dict[str, str]:
    """What the shipped judge says about the true pictures, per look: concept top-1/top-5 and style share."""
    from ..judge import Judge

    judge, (table, looks), lines = Judge.load(), real_pictures(), {}
    ids = torch.arange(table.shape[1])
    for look, images in zip(looks, table, strict=True):
        ranks = judge.concept_ranks(images / 255, ids)
        named = torch.stack(list(judge.style_probs(images / 255).values())).argmax(0)
        right = (named == judge.styles.index(style_of(look))).float().mean()
        lines[look] = f"{(ranks == 1).float().mean():.3f}/{(ranks <= 5).float().mean():.3f} style {right:.3f}"
    return lines
