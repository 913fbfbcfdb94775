"""Settings of trackers: programs that draw the course of a run."""

from __future__ import annotations

from typing import Literal

from trainer.config.base import Section, setting


class TrackConfig(Section):
    """Where the course of a run is written to beside its own events."""

    trackers: tuple[Literal["tensorboard", "wandb"], ...] = setting(
        (),
        "Programs that draw the run: tensorboard (into RUN/tensorboard), wandb (into RUN/wandb). Each is a package of its own.",
    )
    online: bool = setting(False, "Let wandb send the run to its server; off, it only writes files, which wandb sync can send.")
