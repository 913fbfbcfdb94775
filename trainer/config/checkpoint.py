"""Settings of resumable state."""

from __future__ import annotations

from trainer.config.base import Section, setting


class CheckpointConfig(Section):
    """Resumable state."""

    every: int = setting(200, "Steps between checkpoints; 0 means only at the end or on a stop.", unit="steps", ge=0)
    every_epochs: int = setting(0, "Epochs between checkpoints, beside those by steps; 0 means none.", unit="epochs", ge=0)
    keep: int = setting(2, "Newest checkpoints that are kept.", ge=1)
    export: bool = setting(False, "Also write an adapter file at each checkpoint.")
    keep_exports: int = setting(0, "Newest of these adapter files that are kept; 0 keeps all. The last file always stays.", ge=0)
