"""``--caption``: a caption file beside every picture of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from morelora import atomic
from trainer.config import DataConfig
from trainer.data import images
from trainer.data.caption_files import BESIDE
from trainer.data.captions import with_trigger
from trainer.data.folder import read_folders
from trainer.data.problems import Unusable, count, listing, shown
from trainer.data.sources import sources_of
from trainer.errors import InputError
from trainer.tagger.captioner import open_captioner


@dataclass(frozen=True)
class Wish:
    """What the command line asks for."""

    model: Path
    overwrite: bool = False
    threshold: float = 0.35


def caption_and_show(data: DataConfig, wish: Wish) -> None:
    """Write ``NAME.txt`` beside every picture that has no caption file, or beside all where that is asked for.

    The trigger is put before each. Raises ``InputError``: no folder, no captioner, or pictures that cannot be read, which are
    told at the end, when all others have their captions.
    """
    background = images.colour(data.background)
    pictures = [file for folder in read_folders(sources_of(data)) for file in folder.pictures]
    captioner = open_captioner(wish.model.expanduser(), wish.threshold)
    kept, unusable = 0, []
    for picture in pictures:
        if not wish.overwrite and any(picture.with_suffix(suffix).exists() for suffix in BESIDE):
            kept += 1
            continue
        try:
            pixels = images.decode(picture, background).pixels
        except Unusable as error:
            unusable.append(f"{shown(picture.name)}: {error}")
            continue
        text = with_trigger(captioner.describe(pixels), data.trigger)
        atomic.write_text(picture.with_suffix(".txt"), text + "\n")
        print(f"{shown(picture.name)}: {text}", flush=True)
    print(f"{count(len(pictures) - kept - len(unusable), 'caption')} written.")
    if kept:
        print(f"{count(kept, 'picture')} kept the caption that was there; --overwrite writes all anew.")
    if unusable:
        fix = "repair these files or take them out; the others have their captions"
        raise InputError(f"{count(len(unusable), 'picture')} could not be read:\n{listing(unusable)}", fix)
