"""After the last step: of the forms that finished adapters can take, the smallest whose loss is near the lowest one."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from morelora.procedure import Procedure, Search
from trainer.events import Searched
from trainer.memory import uncompiled
from trainer.modes import untouched
from trainer.objective import losses
from trainer.session import Session
from trainer.validation import measure

BATCHES = 32
"""Batches of the training, at most one epoch, whose loss decides where no held-out pictures do."""


def search(session: Session) -> Iterator[Searched]:
    """Let every procedure that offers forms take one. All processes take part."""
    for name, procedure in session.procedures:
        if procedure.search is not None:
            yield _choose(session, name, procedure, procedure.search)


def _choose(session: Session, name: str, procedure: Procedure, asked: Search) -> Searched:
    found: dict[int, float] = {}
    for choice in asked.choices:
        procedure.choose(choice)
        with session.averaged(), uncompiled():
            found[choice] = held_out_loss(session) if asked.on == "held_out" else training_loss(session)
    limit = min(found.values()) * (1 + asked.tolerance)
    chosen = next(choice for choice, loss in found.items() if loss <= limit)
    procedure.choose(chosen)
    named = {asked.choices[choice]: loss for choice, loss in found.items()}
    return Searched(session.step, name, named, asked.choices[chosen])


def held_out_loss(session: Session) -> float:
    """The loss on the held-out pictures."""
    assert session.held is not None, "checked when the session was built"
    return measure(session, session.held).loss


def training_loss(session: Session) -> float:
    """The training's own loss of its first batches, at their own noise, without dropout."""
    accelerator, loader = session.accelerator, session.loader
    sums = torch.zeros(2, device=accelerator.device)
    with untouched(session.bundle.unet, *session.bundle.text_encoders.values()):
        for number in range(min(BATCHES, len(loader))):
            loss = losses(session, loader.batch(number))
            sums += torch.stack((loss.sum(), torch.tensor(float(len(loss)), device=loss.device)))
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(sums, "sum")
    total, count = sums.tolist()
    return total / count
