"""A recipe with another algorithm."""

from __future__ import annotations

import copy
from typing import Any

from morelora import ALGORITHMS
from trainer import presets, settings
from trainer.errors import InputError
from trainer.models import find
from trainer.models.shapes import FOLDERS
from trainer.schema import walk

Values = dict[str, Any]


def with_algorithm(values: Values, preset_name: str, algorithm: str) -> tuple[Values, str]:
    """The recipe with another algorithm: adapter and rates as the sister preset has them, ``sd15-loha`` for ``sd15-lora``; and
    that preset's name.

    A recipe that began with no shipped preset has the sisters of its base model's family. Where there is none, which the name ''
    says, rates stay and options that the new algorithm does not have are left out.
    """
    result = copy.deepcopy(values)
    shipped = {preset.name for preset in presets.list_presets()}
    line = preset_name.partition("-")[0] if preset_name in shipped else _line(values)
    sister = f"{line}-{algorithm.replace('_', '-')}"
    sister = sister if sister in shipped else ""
    if sister:
        theirs = presets.load(sister)
        result["adapter"] = theirs["adapter"]
        has_text = theirs.get("train", {}).get("text_encoder", True)
        for name in ("lr", *["text_encoder_lr"] * has_text):  # one that a preset does not name is the schema's
            settings.put(result, f"optimizer.{name}", theirs.get("optimizer", {}).get(name))
    else:
        rows = [row for row in walk() if row.section == "adapter" and (not row.algorithms or algorithm in row.algorithms)]
        known = {row.path.rpartition(".")[2] for row in rows}
        result["adapter"] = {name: value for name, value in values.get("adapter", {}).items() if name in known}
    result["adapter"]["algorithm"] = algorithm
    _fit_file(result, algorithm, values.get("adapter", {}).get("algorithm", "lora"))
    return result, sister


def _fit_file(values: Values, algorithm: str, before: str) -> None:
    """An algorithm that is no change of weights has one form of file, which others need not have after it."""
    if not ALGORITHMS[algorithm].mergeable:
        settings.put(values, "export.format", "sidecar")
    elif before in ALGORITHMS and not ALGORITHMS[before].mergeable:
        settings.put(values, "export.format", None)


def _line(values: Values) -> str:
    """What names of presets for a recipe's base model begin with; '' where it is not known."""
    try:
        model = settings.parse({"model": values.get("model", {})}, "the recipe").model
        if model.base == "pocket":
            return model.base
        return FOLDERS[find(model).family if model.family == "auto" else model.family]
    except InputError:
        return ""
