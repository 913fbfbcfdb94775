"""Settings of resumable state."""

from __future__ import annotations

from trainer.config.base import Section, setting


class CheckpointConfig(Section):
    """Resumable state."""

    every: int = setting(200, "Steps between checkpoints; 0 means only at the end or on a stop.", unit="steps", ge=0)
    keep: int = setting(2, "Newest checkpoints that are kept.", ge=1)
    export: bool = setting(False, "Also write an adapter file at each checkpoint.")
