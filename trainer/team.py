"""The processes of a run: how many there are, which one this is, and what they agree on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from trainer.errors import InputError

PATIENCE = timedelta(hours=3)
"""How long a process waits for the others before it gives up: one may be making previews or encoding pictures."""
SHARDED = {DistributedType.FSDP: "FSDP", DistributedType.MEGATRON_LM: "Megatron-LM"}


@dataclass(frozen=True)
class Team:
    """``world`` processes, of which this is number ``rank``; by itself a team of one."""

    rank: int = 0
    world: int = 1
    any: Callable[[bool], bool] = bool
    """Whether the flag is true in at least one process. All must ask; each waits until the others have asked."""

    @classmethod
    def of(cls, accelerator: Accelerator) -> Team:
        """The processes that accelerate has started."""
        if accelerator.num_processes == 1:
            return cls()

        def reduced(flag: bool) -> bool:
            return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum") > 0)

        return cls(accelerator.process_index, accelerator.num_processes, reduced)

    def owns(self, number: int) -> bool:
        """Whether the piece of work with this number is this process's."""
        return number % self.world == self.rank


def check_launch(accelerator: Accelerator) -> None:
    """Raise ``InputError`` where the launcher asks for what the training would not do."""
    if name := SHARDED.get(accelerator.distributed_type):
        raise InputError(
            f"this run was launched with {name}, which splits a model that is trained whole; here only adapters are trained",
            "launch it with plain data parallelism: accelerate launch --multi_gpu --num_processes N (see docs/distributed.md)",
        )
    if accelerator.gradient_accumulation_steps != 1:
        raise InputError(
            f"accelerate's configuration accumulates gradients over {accelerator.gradient_accumulation_steps} micro steps",
            "take gradient_accumulation_steps out of it and set train.accumulation",
        )
