"""What the browser asks of the trainer: plain values in, plain values out, so that a process beside the server can answer.

Each public function is a question; see ``app.desk``.
"""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from morelora.errors import MoreLoraError
from trainer import file_tools, presets, publish, settings
from trainer.errors import InputError, TrainerError
from trainer.metadata import read_recipe
from trainer.relevance import without_effect, without_vain
from trainer.schema import Setting, walk

Values = dict[str, Any]

LARGEST_RECIPE = 2**20
"""Bytes of a TOML file that is read."""


def answer(question: str, given: tuple[Any, ...]) -> tuple[bool, Any]:
    """Whether a question was refused, and the answer or, as a text for the user, the reason."""
    try:
        return False, asked(question)(*given)
    except (TrainerError, MoreLoraError, OSError) as error:
        return True, str(error)


def asked(question: str) -> Callable[..., Any]:
    """The function that answers a question. Raises ``KeyError`` where nothing does."""
    if question in QUESTIONS:
        return QUESTIONS[question]
    return getattr(importlib.import_module(LATER[question]), question)  # type: ignore[no-any-return]


def settle() -> None:
    """Import what the questions of ``LATER`` need, so that the first of them is answered as fast as the next."""
    for module in LATER.values():
        importlib.import_module(module)


def schema() -> list[Values]:
    """Every setting as a row that a form can be made of."""
    return [_row(setting) for setting in walk()]


def _row(setting: Setting) -> Values:
    numbers = [kind for kind in (int, float) if kind in setting.kinds]
    kind = "choice" if setting.choices else "flag" if bool in setting.kinds else "list" if setting.is_list else ""
    kind = kind or ("table" if setting.is_table else numbers[0].__name__ if numbers else "text")
    default = None if setting.is_required else setting.default
    return {
        "path": setting.path,
        "kind": kind,
        "default": settings.plain(default),
        "may_be_empty": setting.may_be_empty,
        "bounds": dict(setting.bounds),
        "unit": setting.unit,
        "level": setting.level,
        "help": setting.help,
        "choices": list(setting.choices),
        "algorithms": list(setting.algorithms),
    }


def preset(name: str) -> Values:
    """A preset's own nested values."""
    return presets.load(name)


def check(values: Mapping[str, Any]) -> Values:
    """A recipe judged: ``problem`` (empty if it can be used), ``toml`` as it would run, and what has ``no_effect``."""
    try:
        config = settings.parse(values, "the recipe")
    except InputError as error:
        return {"problem": error.what, "toml": settings.dump(values), "whole": {}, "no_effect": {}}
    return {
        "problem": "",
        "toml": settings.to_toml(config, whole=False),
        "whole": settings.to_values(config),
        "no_effect": without_effect(values),
    }


def read(text: str, source: str = "the recipe") -> Values:
    """The nested values of a recipe's TOML text, checked."""
    values = presets.read_toml(text, source)
    settings.parse(values, source)
    return values


def read_file(path: str) -> Values:
    """The nested values of the recipe in a file: TOML, or an adapter file, whose recipe has no local paths.

    Raises ``InputError``, whose messages name the file without its folder, which may be one of the server's own.
    """
    file = Path(path)
    try:
        return _read_adapter(file) if file.suffix.lower() == ".safetensors" else _read_toml(file)
    except InputError as error:
        raise InputError(error.what.replace(path, file.name), error.fix) from error
    except RecursionError as error:
        raise InputError(f"{file.name} is nested too deeply to be a recipe", "give a TOML file of settings") from error


def _read_adapter(file: Path) -> Values:
    return settings.to_values(read_recipe(file), whole=False)


def _read_toml(file: Path) -> Values:
    if file.stat().st_size > LARGEST_RECIPE:
        raise InputError(f"{file} is too large to be a recipe", f"give a TOML file of at most {LARGEST_RECIPE >> 10} KiB")
    values = read(presets.read_text(file), str(file))
    try:
        json.dumps(values)
    except TypeError as error:
        raise InputError(f"{file} holds a date or a time, which no setting is", "write it in quotes") from error
    return values


def with_algorithm(values: Values, preset_name: str, algorithm: str) -> Values:
    """The recipe with another algorithm: adapter and rate as the sister preset has them, ``sd15-loha`` for ``sd15-lora``.

    Where there is none, options that the new algorithm does not have are left out.
    """
    result = copy.deepcopy(values)
    sister = f"{preset_name.partition('-')[0]}-{algorithm.replace('_', '-')}"
    if sister in {shipped.name for shipped in presets.list_presets()}:
        theirs = presets.load(sister)
        result["adapter"] = theirs["adapter"]
        for name in ("lr", "text_encoder_lr"):
            if name in theirs.get("optimizer", {}):
                settings.put(result, f"optimizer.{name}", theirs["optimizer"][name])
    else:
        rows = [row for row in walk() if row.section == "adapter" and (not row.algorithms or algorithm in row.algorithms)]
        known = {row.path.rpartition(".")[2] for row in rows}
        result["adapter"] = {name: value for name, value in values.get("adapter", {}).items() if name in known}
    result["adapter"]["algorithm"] = algorithm
    return result


RECIPES = (schema, preset, check, read, read_file, with_algorithm, without_vain)
QUESTIONS = {question.__name__: question for question in (*RECIPES, *file_tools.TOOLS, publish.publish, settle)}

LATER = {
    "album": "trainer.album",
    "write_captions": "trainer.album",
    "leave_out": "trainer.album",
    "move": "trainer.album",
    "rehearse": "trainer.rehearsal",
    "render_strengths": "trainer.strengths",
    "check_trial": "trainer.try_out",
    "check_adapter": "trainer.try_out",
}
"""Questions whose modules bring in diffusers, which takes seconds: imported when they are asked, so that a form need not wait."""
