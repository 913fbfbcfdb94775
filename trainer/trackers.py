"""The course of a run for tensorboard and Weights & Biases, through accelerate's trackers.

A tracker listens to the events, as the console does: it draws what ``events.jsonl`` holds and sees nothing else. A resumed
run goes on in the same log; what was drawn after the checkpoint is purged.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from importlib.util import find_spec
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from PIL import Image

from trainer.config import TrackConfig
from trainer.errors import InputError
from trainer.events import Event, Preview, Step, Validated
from trainer.run import RunDir
from trainer.session import Session

PACKAGES = {"tensorboard": "tensorboard==2.21.0", "wandb": "wandb==0.31.0"}
PROJECT = "morelora"


class Trackers:
    """Writes events to the trackers of a run; made on the main process alone."""

    def __init__(self, accelerator: Accelerator, run: RunDir, config: TrackConfig, session: Session) -> None:
        self.accelerator, self.run = accelerator, run
        self.groups = group_names(session)
        accelerator.log_with = list(config.trackers)
        accelerator.project_configuration = ProjectConfiguration(logging_dir=str(run.tensorboard))
        accelerator.init_trackers(PROJECT, init_kwargs=_arguments(run, config, session.step))

    def __call__(self, event: Event) -> None:
        """Draw one event, where there is something to draw."""
        if isinstance(event, Step):
            rates = dict(zip(self.groups, event.rates, strict=True))
            self._log({"loss": event.loss, "grad_norm": event.grad_norm, "steps_per_second": event.rate} | rates, event.step)
        elif isinstance(event, Validated):
            bins = {f"validation/{name}": loss for name, loss in event.by_bin.items()}
            self._log({"validation/loss": event.loss} | bins, event.step)
        elif isinstance(event, Preview):
            self._draw(event)

    def finish(self) -> None:
        """Write out what is waiting."""
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def _log(self, values: dict[str, float], step: int) -> None:
        self.accelerator.log(values, step=step)

    def _draw(self, event: Preview) -> None:
        pictures = [np.asarray(Image.open(self.run.path / file).convert("RGB")) for file in event.files]
        for tracker in self.accelerator.trackers if pictures else ():
            form: dict[str, Any] = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({"previews": np.stack(pictures)}, step=event.step, **form)


def check_trackers(config: TrackConfig) -> None:
    """Raise ``InputError`` where the package of a tracker is not installed."""
    for name in config.trackers:
        if find_spec(name) is None:
            raise InputError(
                f"track.trackers names {name}, which is not installed",
                f"install it (python -m pip install {PACKAGES[name]}), or take it out of track.trackers",
            )


def group_names(session: Session) -> list[str]:
    """A name for each of the optimiser's groups, from what is in it: ``lr/unet``, ``lr/text_encoder-2``, ``lr/word``."""
    owners = {id(parameter): name.partition(".")[0] for name, parameter in session.adapters.named_parameters()}
    found, names = Counter[str](), []
    for group in session.optimizer.param_groups:
        name = "+".join(sorted({owners.get(id(parameter), "word") for parameter in group["params"]}))
        found[name] += 1
        names.append(f"lr/{name}" if found[name] == 1 else f"lr/{name}-{found[name]}")
    return names


def _arguments(run: RunDir, config: TrackConfig, step: int) -> dict[str, dict[str, Any]]:
    """What each tracker's own class is told. A resumed run has the same identity, and forgets what it will make again."""
    identity = hashlib.sha256(str(run.path.resolve()).encode()).hexdigest()[:12]
    mode = "online" if config.online else "offline"
    return {
        "tensorboard": {"purge_step": step + 1} if step else {},
        "wandb": {"mode": mode, "dir": str(run.path), "name": run.path.name, "id": identity, "resume": "allow"},
    }
