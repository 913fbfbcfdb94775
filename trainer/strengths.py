"""A finished file's pictures at several strengths: the same prompts and seeds, so that only the strength differs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

import morelora
from morelora import atomic
from trainer import preview, settings
from trainer.errors import InputError
from trainer.models import load
from trainer.run import RunDir


def render_strengths(folder: str, prompts: Sequence[str], strengths: Sequence[float]) -> list[list[str]]:
    """Draw ``prompts`` with a run's exported file at each strength, into ``RUN/strengths``; returns the files by strength.

    Raises:
        InputError: there is no such run, or it has no adapter file yet.
    """
    run = RunDir.open(Path(folder))
    config = settings.load(run.config_file)
    file = run.export_file(config.run.name)
    if not file.is_file():
        raise InputError(f"{file} is not there", "wait until the run has ended; a stopped run writes it too")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bundle = load(config.model).to(device)
    run.strengths.mkdir(exist_ok=True)
    drawn = json.dumps(run.drawn_of(file))
    run.drawn_file.unlink(missing_ok=True)
    made = []
    with torch.no_grad():
        adapters = morelora.load(bundle.pipeline, file)
        for strength in strengths:
            adapters.strength = strength
            pictures = preview.sample(bundle, config.preview, list(prompts), config.data.resolution)
            files = [run.strength_file(strength, number) for number in range(len(pictures))]
            for place, picture in zip(files, pictures, strict=True):
                preview.save_image(place, picture)
            made.append([str(place) for place in files])
    atomic.write_text(run.drawn_file, drawn)
    return made
