"""Every word that the pages show, by language: ``say("home.title")``. A language is a TOML file beside this one.

``en.toml`` is whole; where another language lacks an entry, English stands in for it. The schema's help texts are English.
"""

from __future__ import annotations

import os
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
DEFAULT = "en"


class Language:
    """The language that ``say`` speaks; one for the whole server."""

    chosen = DEFAULT


def languages() -> list[str]:
    """Those that there are files of."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def usual() -> str:
    """The machine's language where there is a file of it."""
    code = os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG") or DEFAULT
    return code[:2].lower() if code[:2].lower() in languages() else DEFAULT


def say(key: str, **values: Any) -> str:
    """The text of a dotted key, with ``{name}`` replaced. Raises ``KeyError`` where not even English has it."""
    chosen, fallback = catalogue(Language.chosen), catalogue(DEFAULT)
    text = chosen[key] if key in chosen else fallback[key]
    return text.format(**values) if values else text


def has(key: str) -> bool:
    """Whether there is a text of this key."""
    return key in catalogue(DEFAULT)


@cache
def catalogue(language: str) -> dict[str, str]:
    """All texts of a language by dotted key."""
    values = tomllib.loads((FOLDER / f"{language}.toml").read_text(encoding="utf-8"))
    return dict(_flat(values, ""))


def _flat(values: dict[str, Any], prefix: str) -> list[tuple[str, str]]:
    found = []
    for name, value in values.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return found
