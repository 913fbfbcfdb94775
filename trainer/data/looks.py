"""Every picture is decoded once before anything is trained: what it is, whether its mask fits, or why it cannot be used."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import PIL

from morelora import atomic
from trainer.data import images, masks
from trainer.data.buckets import Size
from trainer.data.problems import Unusable
from trainer.errors import ExitCode, StoppedError
from trainer.heap import trim

THREADS = 4
"""Decoding leaves Python's lock; few, because each may hold a picture of ``images.MAX_PIXELS``."""
BLACK_MASK = "black mask"
DECODER = f"1, Pillow {PIL.__version__}"
"""Change the number whenever ``images.decode`` gives other pixels or remarks, or ``masks.load`` other masks."""
RACE = 3.0
TRIMMED = 16
"""Pictures after which freed memory is given back."""

Colour = tuple[int, int, int]

Marks = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Wanted:
    """A picture to look at. ``mask`` is its mask's file, itself where its alpha channel is the mask, or none."""

    path: Path
    mask: Path | None


@dataclass(frozen=True)
class Look:
    """What decoding one picture told; its pixels are let go. Remarks are those of ``images.Decoded`` and ``BLACK_MASK``."""

    path: Path
    size: Size
    sha256: str
    mask: Path | None
    mask_sha256: str
    remarks: frozenset[str]
    marks: Marks
    """What tells, without decoding, whether another look would be the same."""


@dataclass(frozen=True)
class Watch:
    """``should_stop()`` is asked between pictures; ``progress(done, total)`` counts them."""

    should_stop: Callable[[], bool] = lambda: False
    progress: Callable[[int, int], None] = lambda done, total: None


def look_at_all(
    wanted: Sequence[Wanted], background: Colour, unusable: list[tuple[Path, str]], watch: Watch, known: Known
) -> list[Look]:
    """Decode every picture that is not ``known``; those that cannot be are added to ``unusable``. Raises ``StoppedError``."""
    looks = []
    pool = ThreadPoolExecutor(THREADS)
    try:
        for done, result in enumerate(pool.map(lambda one: _look(one, background, known), wanted), 1):
            if watch.should_stop():
                raise StoppedError("stopped while the pictures were read", "start the run again", ExitCode.INTERRUPTED)
            if isinstance(result, Look):
                looks.append(result)
            else:
                unusable.append(result)
            watch.progress(done, len(wanted))
            if done % TRIMMED == 0:
                trim()
    finally:
        pool.shutdown(cancel_futures=True)
    known.remember(looks)
    return looks


def _look(wanted: Wanted, background: Colour, known: Known) -> Look | tuple[Path, str]:
    """What the picture is; or the file that cannot be used, and why."""
    marks = _marks(wanted, background)  # before the file is read: a change in between must not look like the old state
    if look := known.find(wanted.path, marks):
        return look
    try:
        decoded = images.decode(wanted.path, background)
    except Unusable as error:
        return wanted.path, str(error)
    remarks, mask, values = decoded.remarks, wanted.mask, None
    if mask == wanted.path:
        mask, values = (mask, decoded.alpha) if images.TRANSPARENT in remarks else (None, None)
    elif mask is not None:
        try:
            values = masks.load(wanted.path, mask, decoded.size)
        except Unusable as error:
            return mask, str(error)
    digest = "" if values is None else masks.sha256(values)
    remarks |= {BLACK_MASK} if values is not None and not values.any() else set()
    return Look(wanted.path, decoded.size, decoded.sha256, mask, digest, remarks, marks)


def _marks(wanted: Wanted, background: Colour) -> Marks:
    """The background, and of the picture's and the mask's file size, inode, and times of writing and of any change."""
    files = [file for file in (wanted.path, wanted.mask) if file is not None]
    try:
        found = [file.stat() for file in files]
    except OSError:
        return ()
    return (background, *((entry.st_size, entry.st_ino, entry.st_mtime_ns, entry.st_ctime_ns) for entry in found))


class Known:
    """Looks of an earlier start, so that a file that has not changed since is not decoded again.

    A file counts as unchanged where its ``Marks`` are as they were; ``ctime`` is among them, which on Linux and macOS no program
    can set. A file that was changed within ``RACE`` seconds of the start is not remembered: a second write in the same tick of
    the file system's clock would not show. What is trained on never rests on this alone: latents are found by the hash of the
    pixels, and a picture that is encoded is decoded and compared with it.
    """

    def __init__(self, looks: Iterable[Look] = ()) -> None:
        self._looks = {look.path: look for look in looks}
        self._start = time.time_ns()

    @classmethod
    def read(cls, file: Path) -> Known:
        """What ``write`` kept; nothing where the file is absent, damaged, or of another decoder."""
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            return cls(_from_json(row) for row in values["looks"] if values["decoder"] == DECODER)
        except (OSError, ValueError, KeyError, TypeError):
            return cls()

    def write(self, file: Path) -> None:
        """Keep it for the next start."""
        atomic.write_text(file, json.dumps({"decoder": DECODER, "looks": [_to_json(look) for look in self._looks.values()]}))

    def find(self, picture: Path, marks: Marks) -> Look | None:
        """The look at a picture that has not changed since."""
        look = self._looks.get(picture)
        return look if look and look.marks == marks else None

    def remember(self, looks: Iterable[Look]) -> None:
        """Keep these as well, but for files that were changed a moment ago."""
        settled = self._start - int(RACE * 1e9)
        self._looks |= {look.path: look for look in looks if all(max(times) < settled for _, _, *times in look.marks[1:])}


def _to_json(look: Look) -> dict[str, Any]:
    return asdict(look) | {"path": str(look.path), "mask": look.mask and str(look.mask), "remarks": sorted(look.remarks)}


def _from_json(row: dict[str, Any]) -> Look:
    paths = {"path": Path(row["path"]), "mask": Path(row["mask"]) if row["mask"] else None}
    lists = {"size": tuple(row["size"]), "remarks": frozenset(row["remarks"]), "marks": tuple(map(tuple, row["marks"]))}
    return Look(**row | paths | lists)
