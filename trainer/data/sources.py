"""Where pictures come from: the folders of a run, each with the settings that hold in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.config.data import DataConfig, FolderConfig, SourceConfig
from trainer.data.problems import shown
from trainer.errors import InputError


@dataclass(frozen=True)
class Source:
    """One folder. ``setting`` is how the user named it: ``data.images`` or ``data.sources[0].path``."""

    path: Path
    setting: str
    settings: FolderConfig
    """What holds in this folder: the run's settings, and its own over them."""
    regularization: bool = False
    loss_weight: float = 1.0
    concept: str = ""
    """What a folder called ``10_sks dog`` shows: the caption of pictures that have none."""

    @property
    def trigger(self) -> str:
        """The word that its captions must hold. Pictures of the class teach what the word does not mean: they have none."""
        return "" if self.regularization else self.settings.trigger


def sources_of(data: DataConfig) -> list[Source]:
    """The folders that the settings name, in their order. Raises ``InputError`` where they name none."""
    if data.sources:
        named = {f"data.sources[{index}].path": source for index, source in enumerate(data.sources)}
    elif data.images.strip():
        named = {"data.images": SourceConfig(path=data.images)}
    else:
        raise InputError("data.images is empty: there is nothing to train on", "give the folder of your pictures: --images DIR")
    return [
        Source(Path(os.path.expanduser(own.path)), setting, own.over(data), own.regularization, own.loss_weight)
        for setting, own in named.items()
    ]


def labels(sources: Sequence[Source]) -> list[str]:
    """A short name for each folder: its own, numbered where several are called alike."""
    names = [shown(source.path.resolve().name) or "pictures" for source in sources]
    return [f"{name}-{before + 1}" if (before := names[:index].count(name)) else name for index, name in enumerate(names)]


def namer(sources: Sequence[Source]) -> Callable[[Path], str]:
    """How a file is called in messages: by its place in its folder, behind the folder's name where there are several."""
    prefixes = [f"{label}/" if len(sources) > 1 else "" for label in labels(sources)]
    places = {source.path: prefix for source, prefix in zip(sources, prefixes, strict=True)}

    def name(file: Path) -> str:
        home = next(parent for parent in file.parents if parent in places)
        return f"{places[home]}{shown(file.relative_to(home))}"

    return name
