"""Settings of ReLoRA: a low-rank adapter that begins again and again on top of what it has learnt."""

from __future__ import annotations

from typing import Literal

from trainer.config.base import Section, setting


class ReloraConfig(Section):
    """Restarts of a low-rank adapter (ReLoRA): many small changes add up to one of high rank. Off unless every is set."""

    every: int = setting(0, "Steps after which the adapter begins again; 0 means never.", unit="steps", ge=0)
    keep: Literal["stack", "merge"] = setting(
        "stack",
        "What was learnt before stands beside the weight as factors (stack), or is written into the frozen weight while the run "
        "lasts (merge): steps then take no more time, and the base must be in fp32.",
    )
    warmup: int = setting(10, "Steps over which the learning rate rises again after each restart.", unit="steps", ge=0)

    def cycles(self, steps: int) -> int:
        """How many changes add up in a run of so many steps."""
        return -(-steps // self.every) if self.every else 1
