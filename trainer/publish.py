"""A run's file as others get it: a name, author, licence, description and a small picture, and nothing private.

The tensors stay as they are, bit for bit, so that what readers were seen to make of them still holds; only the text changes.
Source of the entries: Stability AI's ModelSpec 1.0.1; A1111 shows ``ssmd_cover_images``.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from morelora.formats.container import data_hash, read, write
from trainer.data import images
from trainer.data.problems import Unusable
from trainer.errors import DiskError, InputError
from trainer.file_tools import checksums, named, new_file
from trainer.metadata import RECIPE, nameless, pathless, publishable
from trainer.privacy import ALL, BARE, NAMES, PRIVACY

THUMB = 256
"""Longest side of the picture in the file."""
LONGEST = 10_000
"""Characters of a text."""
NEEDED = (
    "modelspec.",
    "ss_base_model_version",
    "ss_v2",
    "ss_network_",
    "ss_clip_skip",
    "ss_sd_model_name",
    "ss_zero_terminal_snr",
    "sshs_",
    "morelora.",
    "lora_adapter_metadata",
    "format",
)
"""Beginnings of the entries that programs go by."""
FOLDERS = ("ss_dataset_dirs", "ss_tag_frequency")
"""Entries that are tables by folders of pictures."""

Values = dict[str, Any]


@dataclass(frozen=True)
class Card:
    """What is told of a file. An empty text leaves an entry out."""

    name: str
    author: str = ""
    license: str = ""
    trigger_phrase: str = ""
    description: str = ""
    picture: str = ""
    """An image file."""
    privacy: str = ALL
    """One of ``PRIVACY``."""

    def entries(self, stem: str) -> dict[str, str]:
        """As metadata; ``stem`` is the file's name, under which web UIs list it."""
        told = {key: getattr(self, key).strip() for key in ("author", "license", "trigger_phrase", "description")}
        for key, text in told.items():
            if len(text) > LONGEST:
                raise InputError(f"the {key.replace('_', ' ')} has {len(text)} characters", f"write at most {LONGEST}")
        found = {f"modelspec.{key}": text for key, text in told.items()} | {"modelspec.title": self.name.strip() or stem}
        found |= {"ss_output_name": stem}
        if self.picture:
            jpeg = thumbnail(Path(self.picture))
            found |= {"modelspec.thumbnail": f"data:image/jpeg;base64,{jpeg}", "ssmd_cover_images": json.dumps([jpeg])}
        return found


def publish(file: str, folder: str, card: Mapping[str, str]) -> Values:
    """Write ``FOLDER/NAME.safetensors`` of ``file``; nothing is overwritten.

    Returns:
        The new ``file`` and its ``checksums``.

    Raises:
        InputError: the file is damaged, a text too long, or the picture is none.
        DiskError: the new file cannot be written.
    """
    wanted = Card(**card)
    if wanted.privacy not in PRIVACY:
        raise InputError(f"there is no privacy {wanted.privacy!r}", f"choose from {', '.join(PRIVACY)}")
    with named(file):
        tensors, metadata = read(Path(file))
        before = data_hash(Path(file))
    place = new_file(folder, wanted.name)
    entries = kept(metadata, wanted.privacy) | wanted.entries(place.stem)
    try:
        write(place, tensors, {key: text for key, text in entries.items() if text})
    except OSError as error:
        raise DiskError.of(error, place.name) from error
    if data_hash(place) != before:
        place.unlink()
        raise InputError(f"{Path(file).name} is not stored as this program does", "convert it on the page Inspect first")
    return {"file": str(place), "checksums": checksums(str(place))}


def kept(metadata: Mapping[str, str], privacy: str) -> dict[str, str]:
    """The entries that stay. Local paths never do, whatever the run was told."""
    if privacy == BARE:
        return {key: text for key, text in metadata.items() if key.startswith(NEEDED)}
    found = {key: _changed(text, pathless) for key, text in metadata.items()}
    if RECIPE in found:
        found[RECIPE] = _changed(found[RECIPE], lambda recipe: _recipe(recipe, privacy))
    if privacy == NAMES:
        found |= {key: _changed(found[key], nameless) for key in FOLDERS if key in found}
    return found


def _recipe(recipe: Any, privacy: str) -> Any:
    if not isinstance(recipe, dict) or not isinstance(recipe.get("config"), dict):
        return {}
    recipe = recipe | {"config": publishable(recipe["config"])}
    if privacy == NAMES:
        recipe["pictures"] = nameless(recipe.get("pictures", {}))
        for number, source in enumerate(recipe["config"].get("data", {}).get("sources", []), 1):
            source["path"] = str(number)
    return recipe


def _changed(text: str, change: Callable[[Any], Any]) -> str:
    """A JSON object or list with its values changed; another text as a value of its own."""
    if text[:1] not in ("{", "["):
        changed = change(text)
        return changed if isinstance(changed, str) else text
    try:
        return json.dumps(change(json.loads(text)), ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def thumbnail(file: Path) -> str:
    """A small JPEG as base64, without what a camera wrote into the picture."""
    try:
        picture = Image.fromarray(images.decode(file, (255, 255, 255)).pixels)
    except Unusable as error:
        raise InputError(f"{file.name} cannot be the preview picture: {error}", "choose another one") from error
    picture.thumbnail((THUMB, THUMB))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=85)
    return base64.b64encode(stream.getvalue()).decode()
