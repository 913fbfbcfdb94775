"""Settings of the loss on pictures that are never trained on."""

from __future__ import annotations

from trainer.config.base import Section, setting


class ValidationConfig(Section):
    """The loss on held-out pictures at fixed noise and timesteps. Off unless folder, count or share says which pictures."""

    folder: str = setting("", "Folder of pictures and captions that are held out; the training pictures all stay.")
    count: int = setting(0, "Training pictures that are held out instead; always the same ones.", ge=0)
    share: float = setting(0.0, "Share of the training pictures that is held out instead; at least one picture.", ge=0, lt=1)
    every: int = setting(100, "Steps between validations; 0 means only before the first and after the last.", unit="steps", ge=0)
    timesteps: int = setting(4, "Timesteps at which each held-out picture is looked at, spread over all noise.", ge=1, le=100)

    @property
    def is_on(self) -> bool:
        """Whether pictures are held out."""
        return bool(self.folder or self.count or self.share)
