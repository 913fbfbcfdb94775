"""Latents and text states on disk, each under a key of its content, its transform and its encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from trainer.data.items import Dataset

States = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class PixelEncoder:
    """``encode([B, 3, H, W] in -1..1) -> (mean, std)``, each [B, C, h, w].

    ``fingerprint`` names weights and precision: equal fingerprints promise equal results.
    """

    encode: Callable[[Tensor], tuple[Tensor, Tensor]]
    fingerprint: str


@dataclass(frozen=True)
class TextEncoder:
    """``encode([text, ...]) -> states``, a tensor or a tuple of tensors, each with the batch first."""

    encode: Callable[[list[str]], States]
    fingerprint: str
    max_length: int
    clip_skip: int


class LatentStore:
    """Posterior mean and standard deviation of every item, upright and (where asked for) mirrored."""

    def get(self, item: int, mirrored: bool) -> tuple[Tensor, Tensor]:
        """``(mean, std)`` of one item, each [C, h, w], float32."""
        raise NotImplementedError


class TextStore:
    """States of every text that was asked for."""

    def get(self, text: str) -> States:
        """States of one text, without a batch dimension."""
        raise NotImplementedError


class Cache:
    """A folder of entries, which runs may share.

    ``notice(message)`` says what the user should know, ``should_stop()`` is asked between entries,
    ``progress(done, total)`` counts entries that are ready.
    """

    def __init__(
        self,
        folder: Path,
        notice: Callable[[str], None] = lambda message: None,
        should_stop: Callable[[], bool] = lambda: False,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        raise NotImplementedError

    def latents(self, dataset: Dataset, encoder: PixelEncoder, flip: bool, batch_size: int = 1) -> LatentStore:
        """Every picture's posterior; only what the folder lacks is encoded.

        Raises ``NonFiniteError`` naming the picture, ``InputError`` where a picture changed since the scan,
        ``DiskError`` where an entry cannot be written, ``StoppedError`` where ``should_stop()``.
        """
        raise NotImplementedError

    def texts(self, texts: Sequence[str], encoder: TextEncoder, batch_size: int = 1) -> TextStore:
        """States of every text; only what the folder lacks is encoded. Raises as ``latents``."""
        raise NotImplementedError
