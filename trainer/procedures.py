"""The procedures of a session: what its algorithms do between the steps, and what that does not go together with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from morelora.errors import AdapterError
from morelora.procedure import Procedures
from trainer.errors import InputError
from trainer.restarts import NAME, Restarts

if TYPE_CHECKING:
    from trainer.session import Session


def build_procedures(session: Session) -> Procedures:
    """The procedures of the run's adapters.

    Raises:
        InputError: options of theirs contradict each other, a search has no pictures, or something else keeps a copy of the
            values that they set.
    """
    adapters, config = dict(session.adapters), session.config
    try:
        found = Procedures.of(adapters, config.train.steps)
        if config.relora.every:
            found.parts[NAME] = Restarts(session.adapters, session.optimizer.optimizer, session.schedule, config)
    except AdapterError as error:
        raise InputError(f"adapter: {error}") from error
    for name, procedure in found:
        if procedure.search is not None and procedure.search.on == "held_out" and session.held is None:
            fix = "hold some out with validation.count, or search on the training pictures"
            raise InputError(f"{name} is to search on held-out pictures, and there are none", fix)
        if session.zero is not None and procedure.reads_gradients:
            why = "which DeepSpeed has shared out and taken away by then"
            raise InputError(f"{name} reads gradients after the step, {why}", "launch it with --multi_gpu (docs/distributed.md)")
        if not procedure.rewrites:
            continue
        if config.train.ema:
            why = "the average would go on holding what it has taken away"
            raise InputError(f"train.ema does not go together with {name}: {why}", "set train.ema = 0")
        if config.optimizer.name == "schedule_free":
            why = "what it gives out is not what it trains"
            raise InputError(f"optimizer.name = 'schedule_free' does not go together with {name}: {why}", "use 'adamw'")
    return found
