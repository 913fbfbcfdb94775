"""What every algorithm would be in a recipe: numbers that train, bytes of its file, time of a step beside LoRA's.

All of it is counted on shapes (``trainer.estimate.adapters``): nothing is trained, and no weight is read.
"""

from __future__ import annotations

import json
import os
import time
from functools import lru_cache
from typing import Any

from morelora import AdapterConfig
from morelora.errors import MoreLoraError
from trainer import settings
from trainer.config import Config, ModelConfig
from trainer.errors import InputError
from trainer.estimate.adapters import Base, Counted
from trainer.models import find
from trainer.models.parts import build_empty
from trainer.models.registry import DTYPES
from trainer.switch import with_algorithm

NAMED = 128
"""Bytes of a tensor's name, shape and place in a file's header, about."""
COUNTED_FORMS = ("webui", "sidecar")
"""Of a file: what adapters write by themselves."""

Values = dict[str, Any]


def cards(values: Values, preset_name: str, seconds: float = float("inf")) -> tuple[dict[str, Values], bool]:
    """Every algorithm that the base model has layers for, by name, and whether no card would say more if it was asked again.

    ``numbers`` train, ``bytes`` are the file's, ``time`` is that of a step of the UNet as a multiple of LoRA's by the cost model.
    None is what is not known before the training, or was not counted when ``seconds`` were over; ``problem`` says why an
    algorithm cannot be in this recipe. Other algorithms than the recipe's are as they would be if they were chosen.

    Raises:
        InputError: the recipe cannot be used, or its base model is not there.
    """
    config = settings.parse(values, "the recipe")
    base = _base(config.model.base, config.model.family, _written_at(config.model.base))
    found, work, spent, is_whole = {}, {}, 0.0, True
    for name in base.algorithms:
        try:
            chosen = config if name == config.adapter.algorithm else _switched(values, preset_name, name)
            counted = _counted(base, chosen)
        except (InputError, MoreLoraError) as error:
            found[name] = {"numbers": None, "bytes": None, "problem": str(error)}
            continue
        found[name] = {"numbers": counted.numbers, "bytes": _bytes(counted, chosen), "problem": ""}
        if not chosen.train.unet:
            continue
        if counted.knows_work(chosen) or spent < seconds:
            start = time.monotonic()
            work[name] = counted.work(chosen)
            spent += time.monotonic() - start
        else:
            is_whole = False
    times = {name: work[name] / work["lora"] for name in work if "lora" in work}
    return {name: card | {"time": times.get(name)} for name, card in found.items()}, is_whole


def _switched(values: Values, preset_name: str, algorithm: str) -> Config:
    return settings.parse(with_algorithm(values, preset_name, algorithm)[0], "the recipe")


def _written_at(base: str) -> float:
    """When a base model was last written; 0 where that is not known."""
    try:
        return os.stat(os.path.expanduser(base)).st_mtime
    except OSError:
        return 0.0


@lru_cache(maxsize=2)
def _base(base: str, family: Any, written_at: float) -> Base:
    """``written_at`` is a part of the key alone: another model in the same place is another base."""
    source = find(ModelConfig(base=base, family=family))
    parts = {name: part for name, part in source.parts.items() if name != "vae"}
    return Base({name: build_empty(name, part.config).requires_grad_(False) for name, part in parts.items()}, source.pixel_factor)


def _counted(base: Base, config: Config) -> Counted:
    trained = {name: config.train.unet if name == "unet" else config.train.text_encoder for name in base.models}
    return _remembered(base, config.adapter.model_dump_json(exclude_unset=True), tuple(name for name in trained if trained[name]))


@lru_cache(maxsize=512)
def _remembered(base: Base, adapter: str, parts: tuple[str, ...]) -> Counted:
    return Counted(base, AdapterConfig(**json.loads(adapter)), parts)


def _bytes(counted: Counted, config: Config) -> int | None:
    """Of the file; None where it depends on the training, or on more than the adapters."""
    written = counted.written
    if written is None or config.export.format not in COUNTED_FORMS or config.relora.every:
        return None
    numbers, tensors = written
    return numbers * DTYPES[config.export.dtype].itemsize + tensors * NAMED
