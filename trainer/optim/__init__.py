"""What moves the weights: optimisers and schedules as tables, groups of parameters, averages, and state without pickle."""

from trainer.optim.average import Ema, evaluated
from trainer.optim.groups import current_rates, learning_rate, parameter_groups
from trainer.optim.optimizers import OPTIMIZERS, build_optimizer, check_optimizer
from trainer.optim.schedules import SCHEDULES, build_schedule
from trainer.optim.state import pack_optimizer, unpack_optimizer
from trainer.optim.strength import effective_strength, usual_range

__all__ = [
    "OPTIMIZERS", "SCHEDULES", "Ema", "build_optimizer", "build_schedule", "check_optimizer", "current_rates",
    "effective_strength", "evaluated", "learning_rate", "pack_optimizer", "parameter_groups", "unpack_optimizer", "usual_range",
]  # fmt: skip
