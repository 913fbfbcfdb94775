"""Batches as a pure function of the seed and the micro step: nothing to save, nothing to restore."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trainer.config import DataConfig, TrainConfig
from trainer.data.cache import LatentStore, States, TextStore
from trainer.data.items import Dataset, Size


@dataclass(frozen=True)
class Dealing:
    """How pictures are dealt out. ``world`` processes take turns; this is number ``rank``."""

    seed: int
    batch_size: int = 1
    repeats: int = 1
    flip: bool = False
    caption_dropout: float = 0.0
    world: int = 1
    rank: int = 0

    @classmethod
    def of(cls, data: DataConfig, train: TrainConfig, world: int = 1, rank: int = 0) -> Dealing:
        """From the settings."""
        return cls(train.seed, train.batch_size, data.repeats, data.flip, data.caption_dropout, world, rank)


@dataclass(frozen=True)
class Batch:
    """One micro step's pictures: all of one bucket, at most ``batch_size`` of them (weigh by ``len(batch.items)``)."""

    latents: Tensor
    """[B, C, h, w], float32, on the CPU: mean + std * eps in the encoder's own scale (not times ``scaling_factor``)."""
    captions: list[str]
    """After caption dropout, which leaves an empty text."""
    text_states: States | None
    """States of ``captions`` with the batch first; None where the text encoder runs in the loop."""
    items: list[int]
    """Indices into ``dataset.items``."""
    mirrored: list[bool]
    original_sizes: list[Size]
    """(width, height) before the resize."""
    crops: list[Size]
    """(left, top) of the bucket in the resized picture, in pixels."""
    target_size: Size
    """(width, height) of the bucket."""
    epoch: int


class Loader:
    """Deals out a dataset. Every item is seen exactly ``repeats`` times in an epoch; no batch mixes buckets."""

    def __init__(self, dataset: Dataset, latents: LatentStore, texts: TextStore | None, dealing: Dealing) -> None:
        raise NotImplementedError

    @property
    def batches_per_epoch(self) -> int:
        """Batches of one epoch over all processes."""
        raise NotImplementedError

    def __len__(self) -> int:
        """Micro steps that cover one epoch: ``batches_per_epoch / world``, rounded up."""
        raise NotImplementedError

    def epochs(self, micro_steps: int) -> float:
        """Epochs that ``micro_steps`` of every process make together."""
        raise NotImplementedError

    def batch(self, k: int) -> Batch:
        """The batch of micro step ``k`` (from 0) in this process: a pure function of seed, k, world and rank."""
        raise NotImplementedError
