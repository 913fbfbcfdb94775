"""The schema as a list: every setting with its type, default, bounds, unit, level and help.

Command line, documentation and the browser's form derive from ``walk``.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from morelora import ALGORITHMS
from trainer.config import Config
from trainer.config.optimizer import OPTIMIZER_NAMES

OPTIONS = "options"
"""The adapter's field that holds the algorithm's own settings; users write those beside it, under ``adapter.``."""

WORDS = {"adapter.algorithm": tuple(ALGORITHMS), "optimizer.name": OPTIMIZER_NAMES}
"""Names that are looked up in a table."""

BOUNDS = {
    "gt": "more than {}", "ge": "at least {}", "lt": "less than {}", "le": "at most {}",
    "min_length": "{} or more characters long", "max_length": "at most {} characters long",
}  # fmt: skip
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class Setting:
    """One setting. ``algorithms`` is empty unless it is an option of those algorithms only."""

    path: str
    type: Any
    default: Any
    bounds: Mapping[str, float]
    unit: str
    level: str
    help: str
    algorithms: tuple[str, ...] = ()

    @property
    def section(self) -> str:
        return self.path.partition(".")[0]

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The type's alternatives: ``float | None`` gives ``(float, NoneType)``."""
        return get_args(self.type) if get_origin(self.type) in (Union, types.UnionType) else (self.type,)

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that are allowed, where only some are."""
        if self.path in WORDS:
            return WORDS[self.path]
        return tuple(word for kind in self.kinds if get_origin(kind) is Literal for word in get_args(kind))

    @property
    def is_list(self) -> bool:
        return any(get_origin(kind) is tuple for kind in self.kinds)

    @property
    def is_texts(self) -> bool:
        """Whether it is a list of texts."""
        return any(get_origin(kind) is tuple and get_args(kind)[0] is str for kind in self.kinds)

    @property
    def item(self) -> type[BaseModel] | None:
        """The section that each entry of a list is, such as one rule of ``adapter.rules``."""
        inner = get_args(self.type)[:1] if get_origin(self.type) is tuple else ()
        return next((kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)), None)

    @property
    def is_required(self) -> bool:
        return self.default is PydanticUndefined

    @property
    def is_table(self) -> bool:
        return any(get_origin(kind) is dict for kind in self.kinds)

    @property
    def may_be_empty(self) -> bool:
        """Whether ``none`` clears it: it is empty by default."""
        return self.default in (None, "", (), {})

    @property
    def allowed(self) -> str:
        """What may be written: ``whole number, at least 1, at most 256``."""
        if self.choices:
            return " | ".join(self.choices)
        if self.item:
            return f"a list of tables, each under [[{self.path}]]"
        if self.is_list:
            return "a list"
        if self.is_table:
            return "a table"
        words = " or ".join(KINDS[kind] for kind in self.kinds if kind in KINDS)
        return ", ".join([words, *(BOUNDS[key].format(_short(limit)) for key, limit in self.bounds.items())])


@cache
def walk(schema: type[BaseModel] = Config) -> tuple[Setting, ...]:
    """Every setting in the order of the schema; an option that algorithms define differently comes once a kind."""
    return tuple(_walk(schema, ""))


def named(path: str, algorithm: str | None = None) -> Setting | None:
    """The setting at a dotted path, as ``algorithm`` defines it; None where there is none.

    ``data.sources[0].repeats`` is the setting ``repeats`` of an entry of ``data.sources``.
    """
    schema, path = _entry(path)
    found = [setting for setting in walk(schema) if setting.path == path]
    return next((setting for setting in found if algorithm in setting.algorithms), found[0] if found else None)


def nearest(path: str) -> str | None:
    """The setting or section that was probably meant: the same name elsewhere, a similar path, or a similar name."""
    schema, inner = _entry(path)
    if schema is not Config:
        near = difflib.get_close_matches(inner, [setting.path for setting in walk(schema)], n=1)
        return path.removesuffix(inner) + near[0] if near else None
    if "." not in path and (near := difflib.get_close_matches(path, {setting.section for setting in walk()}, n=1)):
        return near[0]
    paths = sorted({setting.path for setting in walk()})
    names = {other.rpartition(".")[2]: other for other in paths}
    name = path.rpartition(".")[2]
    if name in names and names[name] != path:
        return names[name]
    alike = difflib.get_close_matches(path, paths, n=1, cutoff=0.75)
    return alike[0] if alike else next((names[near] for near in difflib.get_close_matches(name, names, n=1)), None)


def _entry(path: str) -> tuple[type[BaseModel], str]:
    """The schema that a path belongs to and its place there: the list's own where it runs through an entry of a list."""
    listed, bracket, rest = path.partition("[")
    owner = next((setting for setting in walk() if setting.path == listed), None) if bracket else None
    return (owner.item, rest.partition("].")[2]) if owner and owner.item else (Config, path)


def _walk(schema: type[BaseModel], prefix: str) -> Iterator[Setting]:
    for name, field in schema.model_fields.items():
        if name == OPTIONS:
            yield from _options(prefix)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _walk(field.annotation, f"{prefix}{name}.")
        else:
            yield _setting(f"{prefix}{name}", field)


def _options(prefix: str) -> Iterator[Setting]:
    """The algorithms' own settings; those that several define alike come once."""
    found: dict[tuple[Any, ...], Setting] = {}
    for algorithm, adapter in ALGORITHMS.items():
        for name, field in adapter.Options.model_fields.items():
            setting = _setting(f"{prefix}{name}", field)
            key = (setting.path, str(setting.type), setting.default, str(setting.bounds), setting.help)
            owners = found[key].algorithms if key in found else ()
            found[key] = replace(setting, algorithms=(*owners, algorithm))
    order = list(dict.fromkeys(setting.path for setting in found.values()))
    yield from sorted(found.values(), key=lambda setting: order.index(setting.path))


def _setting(path: str, field: FieldInfo) -> Setting:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    bounds = {key: getattr(rule, key) for rule in field.metadata for key in BOUNDS if hasattr(rule, key)}
    level, unit = str(extra.get("level", "advanced")), str(extra.get("unit", ""))
    default = field.get_default(call_default_factory=True)
    return Setting(path, field.annotation, default, bounds, unit, level, field.description or "")


def _short(number: float) -> str:
    return f"{number:.12g}" if isinstance(number, float) else str(number)
