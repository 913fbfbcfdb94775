"""Load an exported file back through every reader that is installed and compare the change it makes with our own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from morelora import AdapterSet
from trainer.events import Verified


def verify(adapters: AdapterSet, path: Path, models: Mapping[str, nn.Module] | None = None) -> list[Verified]:
    """One verdict for each installed reader: morelora itself, diffusers, lycoris-lora.

    Args:
        adapters: the adapters that were exported, in place in their models. Nothing of them is changed.
        path: the file.
        models: all components of the pipeline by name (``unet``, ``text_encoder``); default: those of ``adapters``.

    Returns:
        ``Verified.error`` is the largest ``||D_reader - D|| / ||D||`` over the layers, None where the reader cannot read
        this form (``message`` says why). A reader that is not installed is left out.

    Raises:
        InputError: our own reader cannot read the file, or its change differs by more than the precision allows.
    """
    raise NotImplementedError
