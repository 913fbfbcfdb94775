"""Settings of pictures and captions: of the whole run, of every folder, and of one folder alone."""

from __future__ import annotations

from typing import Any, Literal

from trainer.config.base import Section, setting, with_optional
from trainer.config.showing import ShowingConfig

MOST_REPEATS = 10000


class RunPictures(Section):
    """What all folders of a run share."""

    images: str = setting("", "Folder of the training pictures.", "basic")
    resolution: int = setting(
        512, "Side of a square training picture; buckets keep about this area.", unit="pixels", ge=32, le=4096
    )
    resolutions: tuple[int, ...] = setting(
        (),
        "Several resolutions, data.resolution among them: each picture is trained at all that it is large enough for.",
    )
    bucket_step: int = setting(64, "Bucket sides are multiples of this.", unit="pixels", ge=8, le=512)
    upscale: bool = setting(False, "Enlarge pictures smaller than their bucket instead of making a smaller bucket.")
    background: str = setting("white", "Colour put under transparent pictures.")
    partial_batches: Literal["smaller", "fill"] = setting(
        "smaller",
        "A bucket's last batch that its pictures cannot fill: run it smaller, or fill it with pictures seen again.",
    )
    lint: bool = setting(True, "Look for faults in pictures and captions before training, and say what is found.")


class FolderConfig(ShowingConfig):
    """What may differ from folder to folder: a field here is a setting of the run that each source may override."""

    trigger: str = setting("", "Word that calls the style in a prompt; put before every caption that lacks it.", "basic")
    flip: bool = setting(False, "Also train on mirrored pictures; not for text or one-sided subjects.")
    repeats: int = setting(1, "Times each picture is seen in an epoch.", ge=1, le=MOST_REPEATS)
    caption_dropout: float = setting(0.05, "Share of steps that train without a caption.", ge=0, le=1)
    caption: str = setting("", "Caption of pictures that have none of their own; empty means the folder's or the file's name.")
    caption_prefix: str = setting("", "Text put before every caption.")
    caption_suffix: str = setting("", "Text put after every caption.")
    caption_lines: Literal["join", "first", "random"] = setting(
        "join", "Captions of several lines: join the lines, take the first, or draw one at random each time."
    )
    mask: Literal["none", "alpha", "files"] = setting(
        "none",
        "Part of a picture that counts: all, what its alpha channel shows, or the white of name.mask.png or masks/name.png.",
    )
    mask_folder: str = setting("", "Folder of the mask files; empty means beside the pictures, or masks/ there.")
    recursive: bool = setting(False, "Also take the pictures in folders below.")


class _OneFolder(Section):
    path: str = setting(..., "Folder of the pictures.", min_length=1)
    regularization: bool = setting(False, "Pictures of the class, not of the subject: they keep what the base knew of it.")
    loss_weight: float = setting(1.0, "Weight of these pictures in the loss.", gt=0, le=100)


_SourceFields: Any = with_optional(_OneFolder, FolderConfig)


class SourceConfig(_SourceFields):
    """One folder of several, with settings of its own: those of ``FolderConfig`` that are empty are the run's."""

    def over(self, run: FolderConfig) -> FolderConfig:
        """The settings that hold in this folder."""
        names = FolderConfig.model_fields
        own = {name: value for name in names if (value := getattr(self, name)) is not None}
        return FolderConfig(**{name: getattr(run, name) for name in names} | own)


class DataConfig(FolderConfig, RunPictures):
    """Pictures and captions."""

    sources: tuple[SourceConfig, ...] = setting((), "Several folders in place of data.images, each with settings of its own.")
