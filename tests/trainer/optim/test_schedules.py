"""Courses of the learning rate against closed forms and diffusers' own."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers.optimization import get_scheduler
from torch import nn

from trainer import settings
from trainer.config import OptimizerConfig
from trainer.errors import InputError
from trainer.optim import SCHEDULES, build_schedule


def sgd(lr: float = 2.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)


def run(optimizer: torch.optim.Optimizer, course: torch.optim.lr_scheduler.LRScheduler, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        course.step()
    return found


def rates(schedule: str, warmup: float = 0, steps: int = 10, **changes: float) -> list[float]:
    optimizer = sgd()
    return run(optimizer, build_schedule(optimizer, OptimizerConfig(schedule=schedule, warmup=warmup, **changes), steps), steps)


def test_constant_after_warm_up():
    assert rates("constant", 4) == pytest.approx([0.5, 1.0, 1.5, 2.0] + [2.0] * 6)


def test_warm_up_as_a_share_of_the_steps():
    assert rates("constant", 0.4) == rates("constant", 4)
    assert rates("linear", 0.05, 40) == rates("linear", 2, 40) != rates("linear", 0, 40)


@pytest.mark.acts("optimizer.schedule", "optimizer.cycles", "optimizer.power", "optimizer.warmup")
@pytest.mark.parametrize(
    ("ours", "theirs", "changes", "options"),
    [
        ("constant", "constant", {}, {}),
        ("linear", "linear", {}, {}),
        ("cosine", "cosine", {}, {}),
        ("cosine_restarts", "cosine_with_restarts", {"cycles": 3}, {"num_cycles": 3}),
        ("cosine_restarts", "cosine_with_restarts", {"cycles": 4}, {"num_cycles": 4}),
        ("polynomial", "polynomial", {"power": 1.5}, {"power": 1.5}),
    ],
)
def test_after_warm_up_the_course_is_diffusers_own(ours, theirs, changes, options):
    optimizer = sgd()
    course = get_scheduler(theirs, optimizer, num_warmup_steps=5, num_training_steps=40, **options)
    expected = run(optimizer, course, 40)[5:]
    if theirs == "constant":
        expected = [2.0] * 35
    if theirs == "polynomial":  # theirs ends at 1e-7 instead of 0
        expected = [(rate - 1e-7) / (2.0 - 1e-7) * 2.0 for rate in expected]
    assert rates(ours, 5, 40, **changes)[5:] == pytest.approx(expected, abs=1e-9)


def test_rex_is_the_papers_formula():
    expected = [2.0 * (1 - i / 10) / (0.5 + 0.5 * (1 - i / 10)) for i in range(10)]
    assert rates("rex") == pytest.approx(expected) and expected[5] == pytest.approx(2 * 2 / 3)


@pytest.mark.acts("optimizer.min_lr_ratio")
def test_the_least_rate_is_the_floor_of_the_course():
    expected = [2.0 * (0.25 + 0.75 * 0.5 * (1 + math.cos(math.pi * i / 10))) for i in range(10)]
    assert rates("cosine", min_lr_ratio=0.25) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_course_begins_at_the_whole_rate_and_never_rises_above_it(schedule):
    found = rates(schedule, 0, 50)
    assert found[0] == 2.0 and all(0 <= rate <= 2.0 for rate in found)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"cycles": 2}, "optimizer.cycles has no effect unless optimizer.schedule = 'cosine_restarts'"),
        ({"power": 1.0, "schedule": "linear"}, "optimizer.power has no effect"),
        ({"min_lr_ratio": 0.1, "schedule": "constant"}, "optimizer.min_lr_ratio has no effect"),
        ({"warmup": 2.5}, "neither a whole number of steps nor a share below 1"),
        ({"warmup": 1000}, r"must be less than train.steps \(1000\)"),
    ],
)
def test_what_would_not_act_is_refused(values, words):
    with pytest.raises(InputError, match=words):
        settings.parse({"optimizer": values}, "test")
