"""The text that an adapter file carries: ``ss_*`` and ``modelspec.*`` for other programs, and our own recipe.

The recipe (key ``morelora``, JSON) holds the whole settings, the hashes of the pictures and of the base, and the versions:
``read_recipe`` gives the settings back. Local paths are left out unless ``export.private_paths`` is on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from morelora import AdapterSet
from morelora.errors import FormatError
from morelora.formats.container import read_header
from morelora.weight_decompose import WeightDecomposed
from trainer.config import Config

Family = Literal["sd1", "sd2", "sdxl", "pocket"]
RECIPE_VERSION = 1
PACKAGES = ("torch", "diffusers", "transformers", "morelora")
PRIVATE = (("model", "base"), ("data", "images"), ("run", "output"))
"""Settings that are local paths."""


@dataclass(frozen=True)
class Provenance:
    """Where an adapter file comes from: what a run knows and the adapters do not."""

    config: Config
    family: Family
    base_name: str
    """Name of the base model without its path."""
    base_hash: str = ""
    """SHA-256 of the base's weights; empty where it is not known."""
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    picture_hashes: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each picture's content, by file name without its folder."""
    buckets: Mapping[str, int] = field(default_factory=dict)
    """Pictures by bucket, ``64x96`` (width x height)."""
    tag_frequency: Mapping[str, int] = field(default_factory=dict)
    """How often each caption tag occurs."""
    step: int = 0
    epochs: float = 0.0
    started_at: float = field(default_factory=time.time)
    """Seconds since the epoch."""
