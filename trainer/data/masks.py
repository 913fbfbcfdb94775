"""Which part of a picture counts in the loss: a mask from a file of its own, or the picture's alpha channel.

White counts, black does not. The mask of ``fox.png`` is ``fox.mask.png`` or ``fox-masklabel.png`` beside it, or ``fox.*`` in a
folder ``masks`` or ``mask`` beside it, or in ``data.mask_folder``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.data import images
from trainer.data.buckets import Size
from trainer.data.caption_files import stem_key
from trainer.data.formats import PICTURES
from trainer.data.problems import Unusable, count, shown, some
from trainer.data.sources import Source

Mask = NDArray[np.uint8]
"""[height, width]: 0 does not count, 255 counts."""

ENDINGS = (".mask", "-masklabel")
FOLDERS = ("masks", "mask")
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
TOLERANCE = 0.01
"""Most by which the shapes of picture and mask may differ, in parts of one."""

Key = tuple[Path, str]


def split(files: Sequence[Path]) -> tuple[list[Path], dict[Key, Path]]:
    """Pictures, and the masks that lie beside them by the key of their picture."""
    keys = {stem_key(file) for file in files}
    owners = {file: owner for file in files if (owner := _owner(file)) in keys}
    return [file for file in files if file not in owners], {owner: file for file, owner in owners.items()}


def is_folder(source: Source, folder: Path) -> bool:
    """Whether a folder below the pictures holds their masks and nothing to train on."""
    return source.settings.mask == "files" and (folder.name in FOLDERS or folder == Path(source.settings.mask_folder))


def find(source: Source, pictures: Sequence[Path], beside: dict[Key, Path]) -> dict[Path, Path]:
    """The mask file of each picture that has one, where the source takes masks from files."""
    if source.settings.mask != "files":
        return {}

    @cache
    def listed(folder: Path) -> dict[str, Path]:
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        return {stem_key(file)[1]: file for file in files if file.suffix.lower() in PICTURES}

    def of(picture: Path) -> Path | None:
        key = stem_key(picture)
        return beside.get(key) or next(
            (listed(place)[key[1]] for place in _places(source, picture) if key[1] in listed(place)), None
        )

    return {picture: mask for picture in pictures if (mask := of(picture))}


def unused(source: Source, beside: dict[Key, Path]) -> Iterator[str]:
    """A note where masks lie about and the source takes none from files."""
    if beside and source.settings.mask != "files":
        names = some([shown(file.name) for file in beside.values()])
        yield f"{count(len(beside), 'mask')} not used (data.mask = {source.settings.mask}): {names}"


def load(picture: Path, mask: Path, size: Size) -> Mask:
    """The mask at the picture's upright size. Raises ``Unusable`` for a file that is no picture or of another shape."""
    if mask == picture:
        return images.decode(picture, WHITE).alpha
    values = Image.fromarray(images.decode(mask, BLACK).pixels).convert("L")
    if abs(values.width * size[1] - values.height * size[0]) > TOLERANCE * values.height * size[0]:
        raise Unusable(f"is {values.width}x{values.height}, another shape than its picture of {size[0]}x{size[1]}")
    return np.asarray(values if values.size == size else values.resize(size, Image.Resampling.BILINEAR))


def sha256(mask: Mask) -> str:
    """The identity of a mask."""
    return hashlib.sha256(mask.tobytes()).hexdigest()


def _owner(file: Path) -> Key | None:
    folder, stem = stem_key(file)
    return next(((folder, stem.removesuffix(ending)) for ending in ENDINGS if stem.endswith(ending)), None)


def _places(source: Source, picture: Path) -> list[Path]:
    """The folders where the picture's mask may lie."""
    if not source.settings.mask_folder:
        return [picture.parent / name for name in FOLDERS]
    return [Path(source.settings.mask_folder).expanduser() / picture.parent.relative_to(source.path)]
