"""What the rules look at: pictures with everything that was measured of them, captions, and what the settings say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.data.buckets import Size

if TYPE_CHECKING:
    from trainer.lint.measures import Measures


@dataclass(frozen=True)
class Picture:
    """One picture of the set."""

    name: str
    """As findings call it: the path below the set's folder."""
    path: Path
    size: Size
    bucket: Size
    sha256: str
    remarks: frozenset[str]
    """What decoding did: ``images.TRANSPARENT`` ..."""
    captions: tuple[str, ...]
    """The words of its caption file, or of its name, without the trigger put before them; alternatives, at least one."""
    source: str
    """Where the caption came from: ``.txt`` ..., ``file name``."""
    measures: Measures
    trigger: str = ""
    repeats: int = 1

    @property
    def caption(self) -> str:
        """The first caption."""
        return self.captions[0]


@dataclass(frozen=True)
class View:
    """A prepared view of a data set. Rules read it and change nothing."""

    pictures: tuple[Picture, ...]
    held_out: tuple[Picture, ...] = ()
    resolution: int = 512
    bucket_step: int = 64
    batch_size: int = 1
    overflow: Callable[[str], str] = lambda caption: ""
    """What the text encoder does not see of a caption."""
    strangers: tuple[str, ...] = ()
    """Other files in the folders, by name."""
    unusable: tuple[tuple[str, str], ...] = ()
    """Files that are no pictures or captions though they should be, and why."""
