"""Settings in and out: TOML and ``key=value`` texts to a checked ``Config`` with kind errors, and back to TOML."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import BaseModel, ValidationError

from trainer.config import Config
from trainer.errors import InputError
from trainer.presets import read_text, read_toml
from trainer.schema import OPTIONS, Setting, named, nearest, walk

CLEAR = "none"
"""On the command line: back to empty, for settings that are empty by default."""

LIST = "docs/settings.md lists every setting"

Values = dict[str, Any]


def parse(values: Mapping[str, Any], source: str) -> Config:
    """A checked ``Config`` from nested ``values``.

    Raises:
        InputError: names every wrong setting by its dotted path, its value, what is allowed and the nearest valid name.
    """
    wrong = {path: f"{path} = {value}: must be a finite number" for path, value in _not_finite(values)}
    wrong |= {path: f"{path} = {_show(value)}: must be a number" for path, value in _misplaced_bools(values)}
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        wrong = _explain(error, values) | wrong
    if wrong:
        count = "1 setting" if len(wrong) == 1 else f"{len(wrong)} settings"
        lines = "\n".join(f"  {line}" for line in wrong.values())
        raise InputError(f"{count} in {source} cannot be used:\n{lines}", f"mend it there; {LIST}")
    return config


def apply(values: Mapping[str, Any], assignments: list[str]) -> Values:
    """``values`` with ``key=value`` texts laid over them; unknown keys are left for ``parse`` to name.

    A value is written as in TOML; plain words need no quotes, and ``none`` empties a setting.

    Raises:
        InputError: an assignment has no ``=`` or no key.
    """
    result = _copy(values)
    pairs = [_split(assignment) for assignment in assignments]
    algorithm = next((value for key, value in reversed(pairs) if key == "adapter.algorithm"), None)
    algorithm = algorithm or result.get("adapter", {}).get("algorithm", "lora")
    for key, text in pairs:
        setting = named(key, algorithm)
        put(result, key, _value(text, setting))
    return result


def put(values: Values, path: str, value: Any) -> None:
    """Set ``values`` at a dotted path; None removes it. Raises ``InputError`` where the path runs through a value."""
    *sections, name = path.split(".")
    place = values
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise InputError(f"{path}: {section!r} is not a section", LIST)
    if value is None:
        place.pop(name, None)
    else:
        place[name] = value


def load(file: Path) -> Config:
    """The settings of a run folder's ``config.toml``, or of any other TOML file. Raises ``InputError``."""
    return parse(read_toml(read_text(file), str(file)), str(file))


def to_values(config: Config, whole: bool = True) -> Values:
    """Plain nested values: all that are not empty, or only those that differ from the defaults."""
    values = plain(config)
    if whole:
        return values
    algorithm = config.adapter.algorithm
    result = _difference(values, plain(Config.model_validate({"adapter": {"algorithm": algorithm}})))
    if algorithm != Config().adapter.algorithm:
        result["adapter"] = {"algorithm": algorithm} | result.get("adapter", {})
    return result


def to_toml(config: Config, whole: bool = True) -> str:
    """TOML that ``parse`` reads back to an equal ``Config``."""
    return tomlkit.dumps(to_values(config, whole))


def dump(values: Mapping[str, Any]) -> str:
    """Nested values as TOML, checked or not."""
    return tomlkit.dumps(plain(values))


def _explain(error: ValidationError, values: Mapping[str, Any]) -> dict[str, str]:
    """One line for each wrong path. Options of an unknown algorithm are not judged."""
    faults = [(_path(fault["loc"]), fault) for fault in error.errors()]
    unknown = any(path == "adapter.algorithm" for path, _ in faults)
    return {path: _line(path, fault, values) for path, fault in faults if not (unknown and OPTIONS in fault["loc"])}


def _line(path: str, fault: Any, values: Mapping[str, Any]) -> str:
    if fault["type"] == "extra_forbidden":
        return _unknown_line(path, values)
    if fault["type"] == "value_error":
        message = fault["msg"].removeprefix("Value error, ")
        return f"{path}: {message}" if path else message
    if fault["type"] == "missing":
        return f"{path}: is missing"
    if fault["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{path} = {_show(fault['input'])}: must be a section with settings of its own"
    setting = named(path, _algorithm(values))
    allowed = setting.allowed if setting else fault["msg"].removeprefix("Input should be ")
    return f"{path} = {_show(fault['input'])}: must be {allowed}"


def _unknown_line(path: str, values: Mapping[str, Any]) -> str:
    setting = named(path)
    if setting and setting.algorithms:
        owners = sorted({owner for other in walk() if other.path == path for owner in other.algorithms})
        return f"{path}: {_algorithm(values)} has no such option (it belongs to {', '.join(owners)})"
    near = nearest(path)
    return f"{path}: there is no such setting" + (f"; did you mean {near}?" if near else "")


def _algorithm(values: Mapping[str, Any]) -> str:
    adapter = values.get("adapter")
    return str(adapter.get("algorithm", "lora")) if isinstance(adapter, Mapping) else "lora"


def _path(location: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location if part != OPTIONS)
    return text.removeprefix(".")


def _split(assignment: str) -> tuple[str, str]:
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        fix = "write for example  --set optimizer.lr=1e-4"
        raise InputError(f"--set {assignment!r} is not of the form key=value", fix)
    return key.strip(), text.strip()


def _value(text: str, setting: Setting | None) -> Any:
    """A command-line text as the setting's kind of value; None clears."""
    if setting and setting.may_be_empty and text == CLEAR:
        return None
    try:
        parsed = tomllib.loads(f"x = {text}")
        value = parsed["x"] if set(parsed) == {"x"} else text
    except tomllib.TOMLDecodeError:
        value = text
    if setting is None:
        return value
    if setting.is_list:
        return value if isinstance(value, list) else [text]
    takes_text = str in setting.kinds or bool(setting.choices)
    return text if takes_text and not isinstance(value, str) else value


def _not_finite(values: Any, path: str = "") -> Iterator[tuple[str, float]]:
    for path_, value in _leaves(values, path):
        if isinstance(value, float) and not math.isfinite(value):
            yield path_, value


def _misplaced_bools(values: Any) -> Iterator[tuple[str, bool]]:
    """``true`` where a number belongs, which Python would take for 1."""
    for path, value in _leaves(values):
        setting = named(path, _algorithm(values)) if isinstance(value, bool) else None
        if setting and bool not in setting.kinds and (int in setting.kinds or float in setting.kinds):
            yield path, value


def _leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(values, list | tuple):
        for index, value in enumerate(values):
            yield from _leaves(value, f"{path}[{index}]")
    else:
        yield path, values


def plain(value: Any) -> Any:
    """Pydantic objects as dicts without empty values; options stand beside their owner's fields."""
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
        options = value.pop(OPTIONS, {})
        value |= plain(options) if isinstance(options, BaseModel) else options
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items() if item is not None}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _difference(values: Values, defaults: Values) -> Values:
    result = {}
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(defaults.get(key), dict):
            value = _difference(value, defaults[key])
            if not value:
                continue
        elif key in defaults and value == defaults[key]:
            continue
        result[key] = value
    return result


def _copy(values: Any) -> Any:
    return {key: _copy(value) for key, value in values.items()} if isinstance(values, Mapping) else values


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
