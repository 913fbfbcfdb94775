"""What the browser asks of the trainer: plain values in, plain values out, so that a process beside the server can answer.

Each public function is a question; see ``app.desk``.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from morelora.errors import MoreLoraError
from trainer import file_tools, presets, publish, settings
from trainer.config import Config
from trainer.data.sources import sources_of
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
    default = None if setting.is_required else setting.default
    return {
        "path": setting.path,
        "kind": _kind(setting),
        "default": settings.plain(default),
        "may_be_empty": setting.may_be_empty,
        "bounds": dict(setting.bounds),
        "unit": setting.unit,
        "level": setting.level,
        "help": setting.help,
        "choices": list(setting.choices),
        "algorithms": list(setting.algorithms),
    }


def _kind(setting: Setting) -> str:
    numbers = [kind.__name__ for kind in (int, float) if kind in setting.kinds]
    told = {
        "choice": setting.choices,
        "flag": bool in setting.kinds,
        "texts": setting.is_texts,
        "list": setting.is_list,
        "table": setting.is_table,
    }
    return next((kind for kind, is_it in told.items() if is_it), (*numbers, "text")[0])


def preset(name: str) -> Values:
    """A preset's own nested values."""
    return presets.load(name)


def check(values: Mapping[str, Any]) -> Values:
    """A recipe judged: ``problem`` (empty if it can be used), ``toml`` as it would run, pairs of a kind and a path of what is
    ``missing`` to train it here, and what has ``no_effect``."""
    try:
        config = settings.parse(values, "the recipe")
    except InputError as error:
        return {"problem": error.what, "toml": settings.dump(values), "missing": [], "whole": {}, "no_effect": {}}
    return {
        "problem": "",
        "toml": settings.to_toml(config, whole=False),
        "missing": list(_missing(config)),
        "whole": settings.to_values(config),
        "no_effect": without_effect(values),
    }


def _missing(config: Config) -> Iterator[tuple[str, str]]:
    """``base`` and ``pictures`` that are not given; ``no_base`` and ``no_folder`` that are not there."""
    base = config.model.base.strip()
    if not base:
        yield "base", ""
    elif base != "pocket" and not os.path.exists(os.path.expanduser(base)):
        yield "no_base", base
    data = config.data
    if not (data.sources or data.images.strip()):
        yield "pictures", ""
        return
    yield from (("no_folder", str(source.path)) for source in sources_of(data) if not source.path.is_dir())


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


RECIPES = (schema, preset, check, read, read_file, without_vain)
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
    "with_algorithm": "trainer.switch",
    "cards": "trainer.cards",
}
"""Questions whose modules bring in diffusers, which takes seconds: imported when they are asked, so that a form need not wait."""
