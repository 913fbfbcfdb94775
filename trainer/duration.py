"""How many steps a run has where ``train.steps = 0`` leaves it to the number of pictures."""

from __future__ import annotations

from trainer.config import Config, TrainConfig
from trainer.errors import InputError

RULE = ("steps_per_picture", "steps_min", "steps_max")


def settle_steps(config: Config, pictures: int) -> Config:
    """The settings with ``train.steps`` as a number: ``steps_per_picture * pictures`` within ``steps_min`` and ``steps_max``.

    Raises:
        InputError: the warm-up, or a cycle of restarts, is not shorter than that.
    """
    train = config.train
    if train.steps:
        return config
    steps = min(max(train.steps_per_picture * pictures, train.steps_min), train.steps_max)
    if 1 <= config.optimizer.warmup >= steps:
        raise InputError(
            f"optimizer.warmup ({config.optimizer.warmup:g}) must be less than the {steps} steps that {pictures} pictures give",
            "give a share instead, such as optimizer.warmup = 0.05, or set train.steps",
        )
    if config.relora.every >= steps:
        raise InputError(
            f"relora.every ({config.relora.every}) must be less than the {steps} steps that {pictures} pictures give",
            "lower it, or set train.steps",
        )
    own = TrainConfig.model_fields
    return config.model_copy(update={"train": train.model_copy(update={"steps": steps} | {n: own[n].default for n in RULE})})


def steps_note(asked: TrainConfig, steps: int, pictures: int) -> list[str]:
    """How the number of steps came about, and what of the settings did not act."""
    if not asked.steps:
        rule = f"{asked.steps_per_picture} x {pictures} pictures, within {asked.steps_min} to {asked.steps_max}"
        return [f"train.steps = 0: {rule}, makes {steps} steps."]
    idle = [name for name in RULE if getattr(asked, name) != TrainConfig.model_fields[name].default]
    return [f"train.steps = {steps} is given: {', '.join(f'train.{name}' for name in idle)} does not act."] if idle else []
