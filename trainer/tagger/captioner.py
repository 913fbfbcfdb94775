"""What every captioner is, and which one a folder holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from trainer.data.images import Pixels
from trainer.errors import InputError


class Captioner(Protocol):
    """Says in words what is in a picture."""

    def describe(self, pixels: Pixels) -> str:
        """The caption of one picture, ``[height, width, 3]`` in 0 .. 255."""


def open_captioner(folder: Path, threshold: float) -> Captioner:
    """The model in ``folder``; ``threshold`` is the least probability of a tag, where it gives tags.

    Raises ``InputError`` where the folder holds none of the known models, or what one needs is not installed.
    """
    if not folder.is_dir():
        raise InputError(f"--captioner {folder}: there is no such folder", "give the folder of a BLIP, Florence-2 or WD14 model")
    if (folder / "model.onnx").is_file():
        from trainer.tagger.wd14 import Wd14

        return Wd14(folder, threshold)
    kind = _kind(folder)
    if kind not in KINDS:
        raise InputError(
            f"--captioner {folder} holds no captioner that is known: {f'it is a {kind!r}' if kind else 'it has no config.json'}",
            "give a folder with BLIP or Florence-2 (config.json, model.safetensors), or WD14 (model.onnx, selected_tags.csv)",
        )
    return KINDS[kind](folder)


def _blip(folder: Path) -> Captioner:
    from trainer.tagger.generators import Blip

    return Blip(folder)


def _florence(folder: Path) -> Captioner:
    from trainer.tagger.generators import Florence

    return Florence(folder)


KINDS: dict[str, Callable[[Path], Captioner]] = {"blip": _blip, "florence2": _florence}
"""Captioners by the ``model_type`` of their config."""


def _kind(folder: Path) -> str:
    """The ``model_type`` of config.json; empty where there is none. Raises ``InputError`` for models that bring code along."""
    file = folder / "config.json"
    if not file.is_file():
        return ""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        kind = str(config["model_type"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is no model's config: {error!r}", "copy or download the folder again") from error
    if "auto_map" in config:
        raise InputError(
            f"--captioner {folder} is a form of {kind} that runs code of its own, which is never done here",
            "take the form for transformers itself; of Florence-2 that is florence-community/Florence-2-base",
        )
    return kind
