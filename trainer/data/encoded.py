"""What the cache hands to training: latents, masks and text states by what they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer.conditioning import States
from trainer.data.entries import Entries, Entry
from trainer.data.views import View


class LatentStore:
    """Posterior mean and standard deviation of every view."""

    def __init__(self, entries: Entries, keys: dict[View, str]) -> None:
        self._entries, self._keys = entries, keys

    def get(self, view: View) -> tuple[Tensor, Tensor]:
        """``(mean, std)`` of one view, each [C, h, w], float32."""
        entry = self._entries.get(self._keys[view])
        return entry["mean"], entry["std"]


class MaskStore:
    """How much each latent of a view counts: 1 everywhere where the picture has no mask."""

    def __init__(self, entries: Entries, keys: dict[View, str]) -> None:
        self._entries, self._keys = entries, keys

    def get(self, view: View, size: torch.Size) -> Tensor:
        """[1, h, w] in 0..1, float32; ``size`` (h, w) is that of the view's latents."""
        key = self._keys.get(replace(view, colour=0, mirrored=False))
        if key is None:
            return torch.ones(1, *size)
        mask = self._entries.get(key)["mask"]
        return mask.flip(-1) if view.mirrored else mask


class TextStore:
    """States of every text that was asked for."""

    def __init__(self, entries: Entries, keys: dict[str, str]) -> None:
        self._entries, self._keys = entries, keys

    def batch(self, texts: Sequence[str]) -> States:
        """States of the texts with the batch first, in the form that the encoder gave: a tensor or a tuple."""
        found = [self._entries.get(self._keys[text]) for text in texts]
        return unpack({name: torch.stack([entry[name] for entry in found]) for name in found[0]})


@dataclass(frozen=True)
class Encoded:
    """A data set, encoded."""

    latents: LatentStore
    masks: MaskStore | None
    """None where no picture has a mask."""
    texts: TextStore | None
    """None where the text encoder runs in the loop."""


def pack(states: States, row: int) -> Entry:
    """One text's states as named tensors: ``states`` alone, or ``00``, ``01`` ... for a tuple."""
    named = {"states": states} if isinstance(states, Tensor) else {f"{i:02d}": part for i, part in enumerate(states)}
    return {name: own(part[row]) for name, part in named.items()}


def unpack(entry: Entry) -> States:
    """What ``pack`` took, of one text or of several that were stacked."""
    return entry["states"] if "states" in entry else tuple(entry[name] for name in sorted(entry))


def own(part: Tensor) -> Tensor:
    """A contiguous copy on the CPU, as a file wants it, that does not keep the whole batch alive."""
    return part.detach().cpu().clone(memory_format=torch.contiguous_format)
