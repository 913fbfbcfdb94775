"""Trials: one prompt drawn by a base model alone and with adapter files at strengths, the same seed, so that only they differ.

A trial is a TOML file: sections of the settings (``model``, ``data.resolution``, ``preview`` with one prompt), and a list
``[[adapters]]``, each with ``file`` and ``strength``. It is judged from headers and files alone before a model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import morelora
from morelora import atomic
from morelora.errors import FormatError
from morelora.files.checkpoint import Checkpoint
from morelora.files.opened import Opened, open_adapter
from trainer import presets, preview, settings
from trainer.config import Config
from trainer.errors import InputError
from trainer.file_tools import named
from trainer.models import Source, find, load
from trainer.models.source import NAMES
from trainer.trial import ADAPTED, BASE, DONE, LOADING, TrialDir

ADAPTERS = "adapters"
ENTRY = {"file", "strength"}
SHOWN = 3
"""Entries of a file that a message names."""

Values = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """What is drawn: the settings, and adapter files with their strengths in the order in which they are put on."""

    config: Config
    adapters: tuple[tuple[Path, float], ...]

    @property
    def prompt(self) -> str:
        return self.config.preview.prompts[0]


def parse(values: Mapping[str, Any], source: str) -> Trial:
    """A checked trial of nested values. Raises ``InputError``."""
    entries = values.get(ADAPTERS, [])
    config = settings.parse({name: value for name, value in values.items() if name != ADAPTERS}, source)
    if len(config.preview.prompts) != 1 or not config.preview.prompts[0].strip():
        raise InputError(f"{source} has no prompt", "say in one prompt what the picture is to show")
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) and entry.keys() == ENTRY for entry in entries):
        raise InputError(f"{source} has adapters of another form", "give each a file and a strength under [[adapters]]")
    found = []
    for entry in entries:
        file = Path(str(entry["file"]))
        strength = settings.parse({"preview": {"strength": entry["strength"]}}, f"the strength of {file.name}")
        found.append((file, strength.preview.strength))
    return Trial(config, tuple(found))


def check_trial(values: Mapping[str, Any]) -> str:
    """The TOML of a trial that can be drawn. No weight of the base is read.

    Raises:
        InputError: a setting, the base model or a file cannot be used, or a file was made for another model.
    """
    _checked(parse(values, "the trial"))
    return settings.dump(values)


def check_adapter(file: str) -> None:
    """Whether a file is an adapter's, whole and finite. Raises ``InputError``."""
    with named(file):
        open_adapter(Path(file))


def _checked(trial: Trial) -> Source:
    source = find(trial.config.model)
    preview.check_size(trial.config.preview, source.pixel_factor)
    for file, _ in trial.adapters:
        with named(str(file)):
            _check_fit(open_adapter(file, Checkpoint.open(source.path)), source)
    return source


def _check_fit(opened: Opened, source: Source) -> None:
    """Raise ``InputError`` where a file holds what the base has no place for."""
    if not opened.unread:
        return
    try:
        made_for = open_adapter(opened.path).family
    except FormatError:
        made_for = ""
    other = f"; it was made for {NAMES[made_for]}" if made_for in NAMES and made_for != source.family else ""
    few = "; ".join(opened.unread[:SHOWN]) + " …" * (len(opened.unread) > SHOWN)
    raise InputError(
        f"{opened.path.name} does not fit the base model {source.path.name} ({NAMES[source.family]}){other}. "
        f"{len(opened.unread)} of its entries have no place there: {few}",
        "choose the base model that it was trained on, or another adapter",
    )


def draw(file: Path) -> Path:
    """Draw what a trial's file asks for into its folder, which is returned: ``base.png``, then ``with.png``.

    With every strength 0 the two are the same, bit for bit.

    Raises:
        InputError: as ``check_trial``.
    """
    folder = TrialDir(file.parent)
    trial = parse(presets.read_toml(presets.read_text(file), str(file)), str(file))
    source = _checked(trial)
    told = Told(folder, trial.config.preview.steps)
    told(LOADING)
    bundle = load(trial.config.model, source).to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    def picture(stage: str, place: Path) -> None:
        told(stage)
        each = preview.sample(bundle, trial.config.preview, [trial.prompt], trial.config.data.resolution, told.step(stage))
        preview.save_image(place, each[0])

    picture(BASE, folder.base)
    with torch.no_grad():
        for adapter, strength in trial.adapters:
            with named(str(adapter)):
                morelora.load(bundle.pipeline, adapter, strength)
    picture(ADAPTED, folder.adapted)
    told(DONE)
    return folder.path


class Told:
    """Writes how far a trial is, for whoever looks into its folder."""

    def __init__(self, folder: TrialDir, steps: int) -> None:
        self._file, self._steps = folder.state_file, steps

    def __call__(self, stage: str, step: int = 0) -> None:
        atomic.write_text(self._file, json.dumps({"stage": stage, "step": step, "steps": self._steps}))

    def step(self, stage: str) -> Callable[[int], None]:
        """To be told each sampling step of a stage."""
        return lambda step: self(stage, step)
