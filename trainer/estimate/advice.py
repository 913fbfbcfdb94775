"""Concrete settings that would fit, the mildest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from trainer.config import Config
from trainer.console import size_text

SMALLER: tuple[tuple[tuple[str, Any], ...], ...] = (
    (("train.gradient_checkpointing", True),),
    (("train.precision", "bf16"),),
    (("train.batch_size", 1),),
    (("model.dtype", "bf16"),),
    (("device.quantize", "nf4"), ("device.double_quantize", True)),
    (("data.resolution", 512),),
)
"""Changes in the order in which they are tried, each on top of those before."""


def advise(config: Config, forecast: Callable[[Config], int], room: int) -> str:
    """The first settings of ``SMALLER`` with which ``forecast`` is at most ``room``, as a sentence.

    Those that turn out to be needless are left out again.
    """
    tried: list[tuple[str, Any]] = []
    for change in SMALLER:
        fresh = [(path, value) for path, value in change if _is_smaller(config, path, value)]
        if not fresh:
            continue
        tried += fresh
        if forecast(_with(config, tried)) <= room:
            chosen = list(_needed(config, tried, forecast, room))
            settings = ", ".join(f"{path} = {_toml(value)}" for path, value in chosen)
            return f"{settings} would need about {size_text(forecast(_with(config, chosen)))}"
    return "no setting makes it fit: use a smaller base model, or a machine with more memory"


def _needed(
    config: Config, tried: list[tuple[str, Any]], forecast: Callable[[Config], int], room: int
) -> Iterator[tuple[str, Any]]:
    """The changes without which it would not fit, looked at from the mildest on."""
    kept = list(tried)
    for change in tried:
        rest = [other for other in kept if other != change and not _hangs_on(other, change)]
        if forecast(_with(config, rest)) <= room:
            kept = rest
    yield from kept


def _hangs_on(change: tuple[str, Any], other: tuple[str, Any]) -> bool:
    return change[0] == "device.double_quantize" and other[0] == "device.quantize"


def _is_smaller(config: Config, path: str, value: Any) -> bool:
    """Whether the change would lower what the settings have now."""
    section, _, key = path.partition(".")
    now = getattr(getattr(config, section), key)
    if isinstance(value, int) and not isinstance(value, bool):
        return now > value
    return now != value and (not isinstance(value, str) or now in ("fp32", "none", "int8"))


def _with(config: Config, changes: list[tuple[str, Any]]) -> Config:
    for path, value in changes:
        section, _, key = path.partition(".")
        config = config.model_copy(update={section: getattr(config, section).model_copy(update={key: value})})
    return config


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
