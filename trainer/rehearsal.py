"""A dry run as plain values: the statement, what is wrong or unusual, and the curves of rate and timesteps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trainer import settings
from trainer.config import Config
from trainer.console import size_text, statement_rows
from trainer.events import Event, Linted, Started, Warned
from trainer.objective import density
from trainer.optim.schedules import build_schedule
from trainer.train import train

GOOD, WARN, BAD = "good", "warn", "bad"
SEVERITIES = {"error": BAD, "warning": WARN, "info": GOOD}
TIGHT = 0.9
"""Share of memory or disk from which on it may not be enough: estimates are within 15 %."""
POINTS = 200
TIMESTEPS = 1000

Light = tuple[str, str]
Values = dict[str, Any]


def rehearse(values: Mapping[str, Any]) -> Values:
    """What ``--dry-run`` finds: ``rows`` of the statement, ``lights`` (kind, text), ``findings``, curves ``rate``, ``timesteps``.

    Raises:
        TrainerError: the recipe cannot be trained, with the reason and the fix.
    """
    config = settings.parse(values, "the recipe")
    heard: list[Event] = []
    train(config, listener=heard.append, dry_run=True)
    plan = next(event.plan for event in heard if isinstance(event, Started))
    findings = [finding for event in heard if isinstance(event, Linted) for finding in event.findings]
    said = [event.message for event in heard if isinstance(event, Warned)]
    return {
        "rows": statement_rows(plan),
        "lights": [*room(plan.get("estimate")), *((WARN, text) for text in [*said, *plan["notes"]])],
        "findings": [finding | {"kind": SEVERITIES[finding["severity"]]} for finding in findings],
        "rate": rate_curve(config, plan["steps"]),
        "timesteps": timesteps_curve(config),
    }


def room(estimate: Mapping[str, Any] | None) -> list[Light]:
    """Whether memory and disk are enough; nothing where it was not measured."""
    if estimate is None:
        return []
    pairs = (("memory", estimate["memory"], estimate["available"]), ("disk", estimate["disk"], estimate["disk_free"]))
    return [_light(what, needed, there) for what, needed, there in pairs]


def _light(what: str, needed: int, there: int) -> Light:
    text = f"{what}: {size_text(needed)} needed, {size_text(there)} free"
    return (BAD if needed > there else WARN if needed > TIGHT * there else GOOD), text


def rate_curve(config: Config, steps: int) -> list[tuple[float, float]]:
    """The learning rate over the steps, at most ``POINTS`` points."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=config.optimizer.lr)
    factor = build_schedule(optimizer, config.optimizer, steps).lr_lambdas[0]
    places = sorted({round(i * (steps - 1) / (POINTS - 1)) for i in range(POINTS)})
    return [(place + 1, config.optimizer.lr * factor(place)) for place in places]


def timesteps_curve(config: Config) -> list[tuple[float, float]]:
    """How often a timestep is drawn, relative to uniform draws; means of neighbours, ``POINTS`` of them."""
    shares, width = density(config.loss).probabilities(TIMESTEPS), TIMESTEPS // POINTS
    groups = [shares[i : i + width] for i in range(0, TIMESTEPS, width)]
    return [(i * width + width / 2, TIMESTEPS * sum(group) / len(group)) for i, group in enumerate(groups)]
