"""After which steps a run saves: every so many steps, wherever so many epochs have ended, and after the last."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.config import Config


@dataclass(frozen=True)
class Saving:
    """``every`` and ``every_epochs`` as in the settings; 0 means never."""

    steps: int
    every: int
    every_epochs: int
    batches_per_step: int
    """Of all processes together."""
    batches_per_epoch: int

    @classmethod
    def of(cls, config: Config, processes: int, batches_per_epoch: int) -> Saving:
        """From the settings."""
        kept, batches = config.checkpoint, config.train.accumulation * processes
        return cls(config.train.steps, kept.every, kept.every_epochs, batches, batches_per_epoch)

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is due between this step and the next."""
        if self.every and step % self.every == 0:
            return True
        return bool(self.every_epochs) and self._spans(step - 1) < self._spans(step)

    def count(self) -> int:
        """Checkpoints of the whole run, with the last."""
        return 1 + sum(map(self.is_due, range(1, self.steps)))

    def _spans(self, step: int) -> int:
        """Times that ``every_epochs`` epochs have ended with a step."""
        return step * self.batches_per_step // (self.batches_per_epoch * self.every_epochs)
