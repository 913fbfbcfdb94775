"""Every picture is decoded once before anything is trained: what it is, whether its mask fits, or why it cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from trainer.data import images, masks
from trainer.data.buckets import Size
from trainer.data.problems import Unusable
from trainer.errors import ExitCode, StoppedError

THREADS = 4
"""Decoding leaves Python's lock; few, because each may hold a picture of ``images.MAX_PIXELS``."""
BLACK_MASK = "black mask"


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


@dataclass(frozen=True)
class Watch:
    """``should_stop()`` is asked between pictures; ``progress(done, total)`` counts them."""

    should_stop: Callable[[], bool]
    progress: Callable[[int, int], None]


def look_at_all(
    wanted: Sequence[Wanted], background: tuple[int, int, int], unusable: list[tuple[Path, str]], watch: Watch
) -> list[Look]:
    """Decode every picture; those that cannot be are added to ``unusable``. Raises ``StoppedError``."""
    looks = []
    pool = ThreadPoolExecutor(THREADS)
    try:
        for done, result in enumerate(pool.map(lambda one: _look(one, background), wanted), 1):
            if watch.should_stop():
                raise StoppedError("stopped while the pictures were read", "start the run again", ExitCode.INTERRUPTED)
            if isinstance(result, Look):
                looks.append(result)
            else:
                unusable.append(result)
            watch.progress(done, len(wanted))
    finally:
        pool.shutdown(cancel_futures=True)
    return looks


def _look(wanted: Wanted, background: tuple[int, int, int]) -> Look | tuple[Path, str]:
    """What the picture is; or the file that cannot be used, and why."""
    try:
        decoded = images.decode(wanted.path, background)
    except Unusable as error:
        return wanted.path, str(error)
    remarks, mask = decoded.remarks, wanted.mask
    if mask is None or (mask == wanted.path and images.TRANSPARENT not in remarks):
        return Look(wanted.path, decoded.size, decoded.sha256, None, "", remarks)
    try:
        values = decoded.alpha if mask == wanted.path else masks.load(wanted.path, mask, decoded.size)
    except Unusable as error:
        return mask, str(error)
    remarks |= frozenset() if values.any() else {BLACK_MASK}
    return Look(wanted.path, decoded.size, decoded.sha256, mask, masks.sha256(values), remarks)
