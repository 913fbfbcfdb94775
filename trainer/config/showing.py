"""Settings of how the pictures and captions of one folder are shown."""

from __future__ import annotations

from typing import Literal

from trainer.config.base import Section, setting


class ShowingConfig(Section):
    """Crops and colours of pictures, tags of captions."""

    crop: Literal["center", "random"] = setting(
        "center", "Where a picture is cut to its bucket's shape: around its middle, or at random places."
    )
    crops: int = setting(1, "Random crops of each picture, all of them cached.", ge=1, le=64)
    crop_keep: float = setting(
        1.0,
        "Smallest share of a side that a random crop keeps: below 1 it zooms in, never beyond the picture's pixels.",
        ge=0.2,
        le=1,
    )
    color_jitter: tuple[float, ...] = setting(
        (), "Strengths of random brightness, contrast, saturation and hue, such as [0.1, 0.1, 0.1, 0.02]; empty means none."
    )
    color_variants: int = setting(
        1, "Random colourings of each picture beside the picture as it is, all of them cached.", ge=1, le=64
    )
    shuffle_tags: bool = setting(False, "Put the tags of a caption, which commas part, in another order each time.")
    keep_tags: int = setting(
        0, "First tags that are neither shuffled nor dropped; '|||' in a caption ends them in its place.", ge=0, le=1000
    )
    tag_dropout: float = setting(0.0, "Chance that a tag is left out; never the trigger.", ge=0, le=1)
