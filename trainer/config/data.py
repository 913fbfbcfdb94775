"""Settings of pictures and captions."""

from __future__ import annotations

from trainer.config.base import Section, setting


class DataConfig(Section):
    """Pictures and captions."""

    images: str = setting("", "Folder of the training pictures.", "basic")
    trigger: str = setting("", "Word that calls the style in a prompt; put before every caption that lacks it.", "basic")
    resolution: int = setting(
        512, "Side of a square training picture; buckets keep about this area.", "basic", "pixels", ge=32, le=4096
    )
    bucket_step: int = setting(64, "Bucket sides are multiples of this.", unit="pixels", ge=8, le=512)
    upscale: bool = setting(False, "Enlarge pictures smaller than their bucket instead of making a smaller bucket.")
    flip: bool = setting(False, "Also train on mirrored pictures; not for text or one-sided subjects.")
    repeats: int = setting(1, "Times each picture is seen in an epoch.", ge=1, le=10000)
    caption_dropout: float = setting(0.05, "Share of steps that train without a caption.", ge=0, le=1)
    background: str = setting("white", "Colour put under transparent pictures.")
