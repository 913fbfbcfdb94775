"""Batches as a pure function of the seed and the micro step: nothing to save, nothing to restore."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.conditioning import Frames, States
from trainer.config import DataConfig, TrainConfig
from trainer.data import buckets
from trainer.data.cache import LatentStore, TextStore
from trainer.data.items import Dataset
from trainer.data.order import Order, generator


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
    frames: Frames
    """Where each picture was cut from; a centred cut is the same for a mirrored picture."""
    epoch: int
    number: int
    """Of the batch in the endless row of all batches, over all processes: what is random in it depends on nothing else."""


class Loader:
    """Deals out a dataset. Every item is seen exactly ``repeats`` times in an epoch; no batch mixes buckets."""

    def __init__(self, dataset: Dataset, latents: LatentStore, texts: TextStore | None, dealing: Dealing) -> None:
        self._dataset, self._latents, self._texts, self._dealing = dataset, latents, texts, dealing
        sizes = [item.bucket for item in dataset.items]
        self._order = Order(sizes, dealing.batch_size, dealing.repeats, dealing.seed)

    @property
    def batches_per_epoch(self) -> int:
        """Batches of one epoch over all processes."""
        return self._order.batches_per_epoch

    def __len__(self) -> int:
        """Micro steps that cover one epoch: ``batches_per_epoch / world``, rounded up."""
        return -(-self.batches_per_epoch // self._dealing.world)

    def epochs(self, micro_steps: int) -> float:
        """Epochs that ``micro_steps`` of every process make together."""
        return micro_steps * self._dealing.world / self.batches_per_epoch

    def pictures(self, k: int, count: int) -> int:
        """Pictures in the batches of micro steps ``k`` to ``k + count - 1`` of all processes together."""
        first, last = k * self._dealing.world, (k + count) * self._dealing.world
        return sum(len(self._order.batch(number)) for number in range(first, last))

    def batch(self, k: int) -> Batch:
        """The batch of micro step ``k`` (from 0) in this process: a pure function of seed, k, world and rank."""
        number = k * self._dealing.world + self._dealing.rank
        indices = self._order.batch(number)
        draw = generator(self._dealing.seed, "batch", number)
        mirrored = [draw.random() < self._dealing.flip / 2 for _ in indices]
        items = [self._dataset.items[index] for index in indices]
        captions = ["" if draw.random() < self._dealing.caption_dropout else item.caption for item in items]
        return Batch(
            latents=self._sample(indices, mirrored, draw.getrandbits(63)),
            captions=captions,
            text_states=None if self._texts is None else self._texts.batch(captions),
            items=list(indices),
            mirrored=mirrored,
            frames=Frames(
                original=[item.size for item in items],
                crops=[buckets.crop_offset(item.size, item.bucket) for item in items],
                target=items[0].bucket,
            ),
            epoch=number // self.batches_per_epoch,
            number=number,
        )

    def _sample(self, indices: Sequence[int], mirrored: Sequence[bool], seed: int) -> Tensor:
        """A draw from each picture's posterior: ``mean + std * eps``."""
        pairs = [self._latents.get(index, flipped) for index, flipped in zip(indices, mirrored, strict=True)]
        mean, std = (torch.stack(parts) for parts in zip(*pairs, strict=True))
        return mean + std * torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))
