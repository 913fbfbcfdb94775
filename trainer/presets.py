"""Presets: TOML files of the settings that matter to them. The first line is a comment, the title.

Those that ship lie in the project, the user's own in a folder of the place where the program is started.

Imports no torch, so that the browser's process can list them.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "presets"
SHIPPED = ROOT / "assets"
"""Models and pictures that ship; nothing there is changed."""
OWN = Path("recipes")
"""Folder of the user's own presets, beside the runs."""
PATHS = (("data", "images"),)
"""Settings that are paths; in a shipped preset they are relative to the project's folder."""

Values = dict[str, Any]


@dataclass(frozen=True)
class Preset:
    """A preset, shipped or the user's own."""

    name: str
    title: str
    file: Path

    @property
    def is_example(self) -> bool:
        """Whether it brings pictures and a base model; the others need the user's."""
        return "images" in read_toml(read_text(self.file), str(self.file)).get("data", {})


def list_presets() -> list[Preset]:
    """The shipped presets by name."""
    return [Preset(file.stem, _title(file), file) for file in _files(FOLDER)]


def list_own(folder: Path = OWN) -> list[Preset]:
    """The user's own presets by name; a file that is called like a shipped one is none."""
    shipped = {file.stem for file in _files(FOLDER)}
    files = [file for file in _files(folder) if file.stem not in shipped and not file.name.startswith(".")]
    return [Preset(file.stem, _title(file), file) for file in files]


def load(name_or_path: str) -> Values:
    """The nested values of a preset, or of a file whose name ends in ``.toml``.

    Raises:
        InputError: there is no such preset or file, or it is no TOML.
    """
    file = Path(name_or_path)
    if file.suffix == ".toml":
        return read_toml(read_text(file), str(file))
    shipped = {preset.name: preset.file for preset in list_presets()}
    known = shipped | {preset.name: preset.file for preset in list_own()}
    if name_or_path not in known:
        near = difflib.get_close_matches(name_or_path, known, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        fix = f"choose from {', '.join(known)}, or give a file whose name ends in .toml"
        raise InputError(f"there is no preset {name_or_path!r}{hint}", fix)
    values = read_toml(read_text(known[name_or_path]), f"preset {name_or_path}")
    if name_or_path not in shipped:
        return values
    for section, key in PATHS:
        if key in values.get(section, {}):
            values[section][key] = str(ROOT / values[section][key])
    return values


def read_toml(text: str, source: str) -> Values:
    """Nested values of a TOML text. Raises ``InputError`` with the line."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers without end, and brackets in brackets without end
        fix = 'write lines such as  lr = 1e-4  or  base = "folder"  under a heading such as  [optimizer]'
        raise InputError(f"{source} is not valid TOML: {error}", fix) from error


def read_text(file: Path) -> str:
    """A UTF-8 file's text. Raises ``InputError``."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text (byte {error.start})", "save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}", "give a file that exists") from error


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.toml"))


def _title(file: Path) -> str:
    first = file.read_text(encoding="utf-8-sig", errors="replace").partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else file.stem
