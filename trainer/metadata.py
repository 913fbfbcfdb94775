"""The text that an adapter file carries: ``ss_*`` and ``modelspec.*`` for other programs, and our own recipe.

The recipe (key ``morelora``, JSON) holds the whole settings, the hashes of the pictures and of the base, and the versions:
``read_recipe`` gives the settings back. Local paths are left out unless ``export.private_paths`` is on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any, Literal

from morelora import AdapterSet, EmbeddingSet
from morelora.errors import FormatError
from morelora.formats import Encoded
from morelora.formats.container import read_metadata
from morelora.formats.embedding import WORD_KEY
from morelora.formats.network import network_metadata
from trainer import settings
from trainer.config import Config
from trainer.errors import InputError

Family = Literal["sd1", "sd2", "sdxl", "pocket"]
RECIPE = "morelora"
RECIPE_VERSION = 1
PACKAGES = ("morelora", "torch", "diffusers", "transformers")
PRIVATE = (("data", "images"), ("data", "mask_folder"), ("train", "init_from"), ("run", "output"))
"""Settings that are local paths and nothing else."""
SS_VERSION = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0", "pocket": "morelora_pocket"}
ARCHITECTURE = {
    "sd1": "stable-diffusion-v1/lora",
    "sd2": "stable-diffusion-v2-512/lora",
    "sdxl": "stable-diffusion-xl-v1-base/lora",
    "pocket": "morelora-pocket/lora",
}
IMPLEMENTATION = {"sdxl": "https://github.com/Stability-AI/generative-models"}


@dataclass(frozen=True)
class PictureFolder:
    """What other programs tell of one folder of pictures."""

    repeats: int
    pictures: int
    tags: Mapping[str, int]
    """How often each caption tag occurs."""


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
    """SHA-256 of each picture's content, by its name in the data set."""
    buckets: Mapping[str, int] = field(default_factory=dict)
    """Pictures by bucket, ``64x96`` (width x height)."""
    folders: Mapping[str, PictureFolder] = field(default_factory=dict)
    """The folders of pictures by name."""
    step: int = 0
    epochs: float = 0.0
    started_at: float = field(default_factory=time.time)
    """Seconds since the epoch."""


def metadata(adapters: AdapterSet, provenance: Provenance, stem: str, encoded: Encoded) -> dict[str, str]:
    """All text entries of a file but the hash of its data, which ``formats.container.write`` adds.

    Args:
        adapters: what the file holds.
        provenance: where it comes from.
        stem: the file's name without its ending, under which web UIs list it.
        encoded: its tensors and its form.
    """
    entries = _modelspec(provenance, stem) | {RECIPE: json.dumps(recipe(provenance), ensure_ascii=False)}
    entries |= encoded.metadata()
    if encoded.form != "diffusers" and encoded.form != "sidecar":
        entries |= _ss_base(provenance, stem) | network_metadata(adapters, encoded) | _ss_data(provenance)
    return {key: value for key, value in entries.items() if value != ""}


def embedding_metadata(words: EmbeddingSet, provenance: Provenance, stem: str) -> dict[str, str]:
    """The text entries of a word's own file: kind and family, the word, and the recipe."""
    entries = _modelspec(provenance, stem)
    entries |= {
        "modelspec.architecture": entries["modelspec.architecture"].replace("/lora", "/textual-inversion"),
        "modelspec.trigger_phrase": words.word,
        WORD_KEY: words.word,
        RECIPE: json.dumps(recipe(provenance), ensure_ascii=False),
    }
    return {key: value for key, value in entries.items() if value != ""}


def recipe(provenance: Provenance) -> dict[str, Any]:
    """Everything needed to train the same file again, as plain JSON values."""
    values = settings.to_values(provenance.config)
    return {
        "recipe": RECIPE_VERSION,
        "config": values if provenance.config.export.private_paths else publishable(values),
        "family": provenance.family,
        "base": {"name": _name(provenance.base_name), "sha256": provenance.base_hash},
        "pictures": {_relative(name): digest for name, digest in provenance.picture_hashes.items()},
        "step": provenance.step,
        "epochs": provenance.epochs,
        "versions": versions(),
    }


def read_recipe(path: Path) -> Config:
    """The settings that a file was trained with; left-out paths have their defaults.

    Raises:
        InputError: the file cannot be read, was not written by this program, or holds settings that no longer exist.
    """
    try:
        text = read_metadata(path).get(RECIPE)
    except FormatError as error:
        raise InputError(str(error)) from error
    if text is None:
        raise InputError(f"{path} holds no recipe: it was not trained with MoreLoRA", "give a file that was, or a .toml")
    try:
        found = json.loads(text)
        values = found["config"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: its recipe is damaged ({error})", "use the run's config.toml instead") from error
    return settings.parse(values, f"the recipe of {path}")


@cache
def versions() -> dict[str, str]:
    """Versions of the packages that the numbers depend on; those that are not installed are left out."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def publishable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings without local paths; of the base model, its VAE and single folders of pictures only the names remain."""
    values = {section: dict(fields) if isinstance(fields, Mapping) else fields for section, fields in values.items()}
    for section, key in PRIVATE:
        values.get(section, {}).pop(key, None)
    sources = values.get("data", {}).get("sources")
    if sources:
        kept = ({key: value for key, value in source.items() if key != "mask_folder"} for source in sources)
        values["data"]["sources"] = [source | {"path": _name(source["path"])} for source in kept]
    for key in {"base", "vae"} & values.get("model", {}).keys():
        values["model"][key] = _name(values["model"][key])
    return values


def pathless(value: Any) -> Any:
    """JSON values in which of every text that is a whole path from a root only the last part stays."""
    if isinstance(value, Mapping):
        return {_relative(key): pathless(item) for key, item in value.items()}
    if isinstance(value, list):
        return [pathless(item) for item in value]
    return _relative(value) if isinstance(value, str) else value


def nameless(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table with numbers in place of its names."""
    return {str(number): value for number, value in enumerate(table.values(), 1)}


def _name(path: str) -> str:
    """The last part of a path written on any system."""
    return PureWindowsPath(PurePath(path).name).name or path


def _relative(path: str) -> str:
    """A path that starts nowhere on a disk as it is; of any other, on any system, the last part."""
    return _name(path) if PurePath(path).is_absolute() or PureWindowsPath(path).is_absolute() else path


def _modelspec(provenance: Provenance, stem: str) -> dict[str, str]:
    config, family = provenance.config, provenance.family
    width = config.data.resolution
    architecture = ARCHITECTURE[family]
    if family == "sd2" and provenance.prediction_type == "v_prediction":
        architecture = "stable-diffusion-v2-768-v/lora"
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": architecture,
        "modelspec.implementation": IMPLEMENTATION.get(family, "diffusers"),
        "modelspec.title": stem,
        "modelspec.resolution": f"{width}x{width}",
        "modelspec.date": datetime.fromtimestamp(provenance.started_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "modelspec.prediction_type": "v" if provenance.prediction_type == "v_prediction" else "epsilon",
        "modelspec.trigger_phrase": config.data.trigger,
    }


def _ss_base(provenance: Provenance, stem: str) -> dict[str, str]:
    """What web UIs use to tell the family and to list the file."""
    model = provenance.config.model
    is_velocity = provenance.prediction_type == "v_prediction"
    suffix = "_v" if provenance.family == "sd2" and is_velocity else ""
    return {
        "ss_base_model_version": SS_VERSION[provenance.family] + suffix,
        "ss_v2": str(provenance.family == "sd2"),
        "ss_output_name": stem,
        "ss_sd_model_name": _name(provenance.base_name),
        "ss_new_sd_model_hash": provenance.base_hash,
        "ss_clip_skip": str(model.clip_skip) if model.clip_skip > 1 else "",
        "ss_max_token_length": str(75 * model.caption_chunks) if model.caption_chunks > 1 else "",
        "ss_zero_terminal_snr": str(model.zero_terminal_snr or ""),
    }


def _ss_data(provenance: Provenance) -> dict[str, str]:
    config = provenance.config
    folders = provenance.folders
    buckets = [
        {"resolution": [int(side) for side in reversed(bucket.split("x"))], "count": count}
        for bucket, count in provenance.buckets.items()
    ]
    return {
        "ss_resolution": f"({config.data.resolution}, {config.data.resolution})",
        "ss_num_train_images": str(sum(folder.pictures * folder.repeats for folder in folders.values())),
        "ss_dataset_dirs": json.dumps(
            {name: {"n_repeats": folder.repeats, "img_count": folder.pictures} for name, folder in folders.items()},
            ensure_ascii=False,
        ),
        "ss_bucket_info": json.dumps({"buckets": {str(index): bucket for index, bucket in enumerate(buckets)}}),
        "ss_tag_frequency": json.dumps({name: dict(folder.tags) for name, folder in folders.items()}, ensure_ascii=False),
        "ss_steps": str(provenance.step),
        "ss_epoch": f"{provenance.epochs:g}",
        "ss_learning_rate": f"{config.optimizer.lr:g}",
        "ss_optimizer": config.optimizer.name,
        "ss_seed": str(config.train.seed),
        "ss_training_started_at": f"{provenance.started_at:.3f}",
    }
