"""What a file in a picture folder is, by its ending, or by its content where the ending says nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from trainer.data.caption_files import BESIDE, TABLES, UNREAD
from trainer.data.formats import OTHER_PICTURES, PICTURES
from trainer.data.images import is_picture

Kind = Literal["picture", "other picture", "side", "unknown"]

SIDE_FILES = frozenset((*BESIDE, *TABLES, *UNREAD, ".toml", ".md", ".html", ".ini", ".db", ".npz"))


def kind_of(file: Path) -> Kind:
    """A file with an unknown ending is judged by its content."""
    suffix = file.suffix.lower()
    if suffix in SIDE_FILES:
        return "side"
    if suffix in OTHER_PICTURES:
        return "other picture"
    return "picture" if suffix in PICTURES or (file.is_file() and is_picture(file)) else "unknown"


def refusal(file: Path, kind: Kind) -> str:
    """Why a file that is meant as a picture cannot be one, from its name and nature alone; empty where it can."""
    if kind == "other picture":
        return f"{file.suffix.lower()} files are not read here: save it as PNG or JPEG"
    if kind == "picture" and not file.is_file():
        return "is a link to nothing" if file.is_symlink() else "is not an ordinary file"
    return ""
