"""Batches as a pure function of the seed and the micro step: nothing to save, nothing to restore."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.conditioning import Frames, States
from trainer.config import Config
from trainer.data.encoded import Encoded
from trainer.data.order import Order, generator
from trainer.data.phrasing import twin
from trainer.data.views import View, Views


@dataclass(frozen=True)
class Dealing:
    """How shots are put into batches. ``world`` processes take turns; this is number ``rank``."""

    seed: int
    batch_size: int = 1
    fill: bool = False
    world: int = 1
    rank: int = 0
    plain: bool = False
    """Whether the texts without the trigger are wanted too."""

    @classmethod
    def of(cls, config: Config, world: int = 1, rank: int = 0) -> Dealing:
        """From the settings."""
        fill = config.data.partial_batches == "fill"
        return cls(config.train.seed, config.train.batch_size, fill, world, rank, config.keeps_prior)

    def order(self, views: Views) -> Order:
        """Which shots make which batch: each comes as often in an epoch as its folder's pictures are repeated."""
        shots, repeats = views.shots, views.dataset.repeats
        return Order([s.bucket for s in shots], self.batch_size, [repeats[s.item] for s in shots], self.seed, self.fill)


@dataclass(frozen=True)
class Batch:
    """One micro step's pictures: all of one bucket, at most ``batch_size`` of them (weigh by ``len(batch.items)``)."""

    latents: Tensor
    """[B, C, h, w], float32, on the CPU: mean + std * eps in the denoiser's scale."""
    captions: list[str]
    """The texts that are used: drawn, shuffled, and empty where caption dropout struck."""
    text_states: States | None
    """States of ``captions`` with the batch first; None where the text encoder runs in the loop."""
    items: list[int]
    """Indices into ``dataset.items``."""
    views: list[View]
    """What of each picture is seen: its size, crop and colouring, and whether it is mirrored."""
    frames: Frames
    """Where each picture was cut from."""
    epoch: int
    number: int
    """Of the batch in the endless row of all batches, over all processes: what is random in it depends on nothing else."""
    weights: Tensor
    """[B], float32: the weight of each picture's folder in the loss."""
    regularization: list[bool]
    """Which pictures are of the class, not of the subject."""
    masks: Tensor | None = None
    """[B, 1, h, w] in 0..1: how much each latent counts; None where no picture of the data set has a mask."""
    plain: list[str] = field(default_factory=list)
    """``captions`` without the trigger, drawn alike; empty unless they are wanted."""
    plain_states: States | None = None
    """States of ``plain``; None where the text encoder runs in the loop."""


class Loader:
    """Deals out a data set. Every shot is seen exactly its ``repeats`` times in an epoch; no batch mixes buckets."""

    def __init__(self, views: Views, encoded: Encoded, dealing: Dealing) -> None:
        self._views, self._encoded, self._dealing = views, encoded, dealing
        self._shots, self._order = views.shots, dealing.order(views)

    @property
    def encodes_in_the_loop(self) -> bool:
        """Whether captions are given to the text encoder when they are drawn."""
        return self._encoded.texts is None

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
        draw = generator(self._dealing.seed, "batch", number)
        views = [self._views.draw(self._shots[shot], draw) for shot in self._order.batch(number)]
        items = [self._views.dataset.items[view.item] for view in views]
        pairs = [twin(item, self._views.settings(view.item), draw) for item, view in zip(items, views, strict=True)]
        captions, plain = [text for text, _ in pairs], [text for _, text in pairs] if self._dealing.plain else []
        latents = self._sample(views, draw.getrandbits(63))
        texts, masks = self._encoded.texts, self._encoded.masks
        return Batch(
            latents=latents,
            captions=captions,
            text_states=None if texts is None else texts.batch(captions),
            items=[view.item for view in views],
            views=views,
            frames=self._views.frames(views),
            epoch=number // self.batches_per_epoch,
            number=number,
            weights=torch.tensor([item.loss_weight for item in items]),
            regularization=[item.regularization for item in items],
            masks=None if masks is None else torch.stack([masks.get(view, latents.shape[2:]) for view in views]),
            plain=plain,
            plain_states=texts.batch(plain) if texts is not None and plain else None,
        )

    def _sample(self, views: Sequence[View], seed: int) -> Tensor:
        """A draw from each view's posterior: ``mean + std * eps``."""
        mean, std = (torch.stack(parts) for parts in zip(*map(self._encoded.latents.get, views), strict=True))
        return mean + std * torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))
