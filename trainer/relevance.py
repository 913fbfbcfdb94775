"""Which settings would do nothing among the others as they are: each is tried, and the schema's own refusal is the answer.

So a form can hide what has no effect, and there is no second list of what depends on what.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from trainer import settings
from trainer.errors import InputError
from trainer.schema import Setting, walk

SAYS = "has no effect"
"""What the schema's checks say of a setting that is set in vain."""


def without_effect(values: Mapping[str, Any]) -> dict[str, str]:
    """The settings that another value would be refused for, by path, with the reason.

    Empty where ``values`` are refused as they are.
    """
    try:
        config = settings.to_values(settings.parse(values, "the recipe"))
    except InputError:
        return {}
    algorithm = config["adapter"]["algorithm"]
    found = {}
    for setting in walk():
        if setting.algorithms and algorithm not in setting.algorithms:
            continue
        reason = next(filter(None, (_refusal(values, setting, value) for value in _others(setting, config))), "")
        if reason:
            found[setting.path] = reason
    return found


def without_vain(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """``values`` without the settings that the schema refuses because they do nothing, and its words for each."""
    kept, reasons = copy.deepcopy(dict(values)), []
    while True:
        try:
            settings.parse(kept, "the recipe")
        except InputError as error:
            vain = [line.strip() for line in error.what.splitlines() if f" {SAYS}" in line]
            vain = [line for line in vain if _at(kept, line.partition(" ")[0]) is not None]
            if vain:
                reasons += vain
                for line in vain:
                    settings.put(kept, line.partition(" ")[0], None)
                continue
        return kept, reasons


def _refusal(values: Mapping[str, Any], setting: Setting, value: Any) -> str:
    """Why the schema calls ``value`` of no effect; '' where it does not, or refuses it for something else."""
    tried = copy.deepcopy(dict(values))
    settings.put(tried, setting.path, value)
    try:
        settings.parse(tried, "the recipe")
    except InputError as error:
        return next((line.strip() for line in error.what.splitlines() if line.strip().startswith(f"{setting.path} {SAYS}")), "")
    return ""


def _others(setting: Setting, config: Mapping[str, Any]) -> Iterator[Any]:
    """A value that the setting may have by itself and has not now; none for texts, lists and tables."""
    now = _at(config, setting.path)
    if setting.choices:
        yield from (choice for choice in setting.choices if choice != now)
        return
    if bool in setting.kinds:
        yield not now
        return
    kind = next((kind for kind in (int, float) if kind in setting.kinds), None)
    if kind is None:
        return
    bounds = setting.bounds
    low, high = bounds.get("ge", bounds.get("gt", 0)), bounds.get("le", bounds.get("lt", 2**31))
    between = (kind((low + high) / 2), kind(low + 1), kind(high))
    yield from (value for value in between if value != now and _within(value, bounds))


def _within(value: float, bounds: Mapping[str, float]) -> bool:
    above = value >= bounds.get("ge", value) and value > bounds.get("gt", value - 1)
    return above and value <= bounds.get("le", value) and value < bounds.get("lt", value + 1)


def _at(values: Any, path: str) -> Any:
    for name in path.split("."):
        values = values.get(name) if isinstance(values, Mapping) else None
    return values
