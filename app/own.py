"""The user's own presets: recipes under a name, a TOML file each beside the runs, which the command line finds there too."""

from __future__ import annotations

from pathlib import Path

from app.store import write_text
from trainer import presets
from trainer.errors import InputError
from trainer.presets import Preset
from trainer.run import slug

ENDING = ".toml"


class Own:
    """The presets in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def presets(self) -> list[Preset]:
        """All of them by name."""
        return presets.list_own(self.folder)

    def file(self, name: str) -> Path | None:
        """The file of a preset; None where there is none of that name."""
        return next((preset.file for preset in self.presets() if preset.name == name), None)

    def save(self, name: str, toml: str) -> Path:
        """Write a recipe under ``name``, made safe, with the words given as its title; one of that name is replaced.

        Raises:
            InputError: no name is left, or it is a shipped preset's.
            OSError: it cannot be written.
        """
        title = " ".join(name.split()).removesuffix(ENDING)
        if not title:
            raise InputError("the preset has no name", "give it one, such as my-style")
        stem = slug(title)
        if stem.casefold() in {preset.name.casefold() for preset in presets.list_presets()}:
            raise InputError(f"{stem} is the name of a preset that ships", "give another one")
        file = self.folder / f"{stem}{ENDING}"
        write_text(file, f"# {printable(title)}\n{toml}")
        return file


def printable(text: str) -> str:
    """A text as a TOML comment can hold it."""
    return "".join(letter for letter in text if letter.isprintable())
