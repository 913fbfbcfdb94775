"""ReLoRA in a run: when adapters begin again, and what the optimiser forgets then. See ``morelora/restarted.py``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from morelora import AdapterSet
from morelora.errors import AdapterError
from morelora.procedure import Procedure, Stepped
from morelora.quantized import QuantizedLinear
from morelora.restarted import Restarted
from trainer import rng
from trainer.config import Config
from trainer.errors import InputError

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

RESTART = 8
"""Key of the generator that adapters begin again from, beside the step."""
NAME = "relora"


def make_restartable(adapters: AdapterSet, config: Config) -> None:
    """Put the adapters into a form that can begin again, where ``relora.every`` asks for it.

    Raises:
        InputError: an algorithm cannot, or a weight cannot hold what is to be merged into it.
    """
    if not config.relora.every:
        return
    for name, layer in adapters.layers.items():
        weight = layer.base.weight
        if config.relora.keep == "merge" and (isinstance(layer.base, QuantizedLinear) or weight.dtype != torch.float32):
            why = f"{name} is not held in fp32, and would round small changes away"
            raise InputError(f"relora.keep = 'merge' does not work here: {why}", "use relora.keep = 'stack'")
        try:
            layer.adapter = Restarted(layer.adapter).train(layer.training)
        except AdapterError as error:
            raise InputError(f"relora.every: {name}: {error}", "or set relora.every = 0") from error


class Restarts(Procedure):
    """Begins again every so many steps, but not after the last one."""

    rewrites = True

    def __init__(self, adapters: AdapterSet, optimizer: Optimizer, schedule: LambdaLR, config: Config) -> None:
        super().__init__(dict(adapters), config.train.steps)
        self.layers, self.optimizer, self.schedule = adapters.layers, optimizer, schedule
        self.every, self.fold, self.seed = config.relora.every, config.relora.keep == "merge", config.train.seed
        self.cycles = config.relora.cycles(config.train.steps)

    def stepped(self, step: Stepped) -> None:
        made = self.schedule.last_epoch + 1  # the rate's count: steps that fp16's scaler left out are in neither
        if made % self.every == 0 and step.number < self.steps:
            self._restart(made)

    def rehearse(self) -> None:
        while len(self.adapters) and next(iter(self.adapters.values())).cycle < self.cycles:
            self._restart(0)

    def _restart(self, key: int) -> None:
        generator = rng.generator_for(self.seed, RESTART, key)
        for layer in self.layers.values():
            layer.adapter.restart(layer.base, generator, self.fold)
            for parameter in layer.adapter.parameters():
                self.optimizer.state.pop(parameter, None)  # made anew at the next step

    def state(self) -> dict[str, Tensor]:
        stacks = {name: layer.adapter.stack for name, layer in self.layers.items()}
        found = {name: dict(zip(("up", "down"), stack, strict=True)) for name, stack in stacks.items() if stack is not None}
        return {f"{name}.{leaf}": tensor for name, pair in found.items() for leaf, tensor in pair.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        for name, layer in self.layers.items():
            device = next(layer.adapter.parameters()).device
            pair = [state[f"{name}.{leaf}"].to(device) for leaf in ("up", "down") if f"{name}.{leaf}" in state]
            layer.adapter.resume(layer.base, (pair[0], pair[1]) if pair else None, self.fold)
