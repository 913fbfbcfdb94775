"""ReLoRA in a run: when it begins again, what the optimiser forgets, how the rate rises again, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.optim import SGD

from tests.trainer.test_procedures import start  # noqa: F401  # the fixture
from trainer import loop
from trainer.config import OptimizerConfig, ReloraConfig
from trainer.errors import InputError
from trainer.optim import build_schedule, check_optimizer
from trainer.session import Session

RUN = {"relora__every": 2, "relora__warmup": 0, "train__steps": 6, "train__text_encoder": False, "adapter__layers": "attention"}


def steps(session: Session, count: int) -> None:
    for _ in range(count):
        loop.train_step(session)
        session.optimizer.zero_grad()


@pytest.mark.acts("relora.every")
def test_it_begins_again_every_so_many_steps_but_not_after_the_last(start) -> None:  # noqa: ANN001, F811
    session = start(**RUN)
    ranks = []
    for _ in range(6):
        steps(session, 1)
        ranks.append({adapter.file_rank for _, adapter in session.adapters})
    assert ranks == [{2}, {4}, {4}, {6}, {6}, {6}]


def test_after_a_restart_the_optimiser_steps_as_if_new(start) -> None:  # noqa: ANN001, F811
    """Adam's first step is the rate times the gradient's sign, whatever was before."""
    session = start(**RUN, optimizer__schedule="constant", optimizer__weight_decay=0.0)
    steps(session, 2)
    assert not any(session.optimizer.state.get(p) for p in session.parameters())
    before = [adapter.inner.up.detach().clone() for _, adapter in session.adapters]
    assert not any(up.any() for up in before)
    loop.train_step(session)
    for _, adapter in session.adapters:
        up = adapter.inner.up
        large = up.grad.abs() > 1e-5
        torch.testing.assert_close(up[large], -0.01 * up.grad.sign()[large], rtol=2e-3, atol=0)


@pytest.mark.acts("relora.warmup")
def test_the_rate_rises_again_to_the_course_that_it_left() -> None:
    config = OptimizerConfig(lr=1.0, schedule="linear", warmup=3)
    parameter = torch.nn.Parameter(torch.zeros(1))
    courses = []
    for relora in (None, ReloraConfig(every=8, warmup=4)):
        optimizer = SGD([parameter], lr=1.0)
        schedule, rates = build_schedule(optimizer, config, 24, relora), []
        for _ in range(24):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        courses.append(rates)
    plain, jagged = courses
    assert jagged[:8] == plain[:8]
    for first in (8, 16):
        for i in range(8):
            assert jagged[first + i] == pytest.approx(plain[first + i] * min(1.0, (i + 1) / 4))


@pytest.mark.acts("relora.keep")
def test_merged_and_stacked_runs_learn_the_same_and_only_one_writes_into_the_base(start) -> None:  # noqa: ANN001, F811
    runs = [start(**RUN, relora__keep=keep) for keep in ("stack", "merge")]
    before = [[layer.base.weight.clone() for layer in session.adapters.layers.values()] for session in runs]
    for session in runs:
        steps(session, 6)
    changes = [dict(session.adapters.deltas()) for session in runs]
    for name, change in changes[0].items():
        assert (changes[1][name] - change).norm() < 1e-3 * change.norm()
    moved = [
        [not torch.equal(layer.base.weight, old) for layer, old in zip(session.adapters.layers.values(), olds, strict=True)]
        for session, olds in zip(runs, before, strict=True)
    ]
    assert not any(moved[0]) and all(moved[1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"relora__every": 6}, "must be less than train.steps"),
        ({"relora__warmup": 2}, "must be less than relora.every"),
        ({"relora__every": 0, "relora__keep": "merge"}, "no effect while relora.every = 0"),
        ({"adapter__weight_decompose": True}, "magnitudes"),
        ({"adapter__max_norm": 1.0}, "cannot limit the sum"),
        ({"adapter__algorithm": "tlora"}, "relora.every: unet.*course of its own"),
        ({"adapter__algorithm": "vera", "adapter__alpha": None}, "relora.every: unet.*share the factors of vera.*layer by layer"),
        ({"adapter__algorithm": "tied", "adapter__alpha": None}, "relora.every: unet.*share the factors of tied.*layer by layer"),
        ({"train__ema": 0.5}, "train.ema does not go together with relora"),
        ({"model__dtype": "bf16", "relora__keep": "merge"}, "not held in fp32"),
    ],
)
def test_what_does_not_go_together_is_refused_with_its_reason(start, changes, words) -> None:  # noqa: ANN001, F811
    with pytest.raises(InputError, match=words):
        start(**RUN | changes)


def test_an_optimiser_that_cannot_forget_is_found_before_the_run() -> None:
    config = OptimizerConfig(name=f"{__name__}.Keeper", schedule="constant")
    check_optimizer(config, torch.device("cpu"))
    with pytest.raises(InputError, match="does not run in a rehearsal: KeyError"):
        check_optimizer(config, torch.device("cpu"), forgets=True)


class Keeper(SGD):
    """Makes its state once, when it is built."""

    def __init__(self, params, lr) -> None:  # noqa: ANN001
        super().__init__(params, lr)
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["count"] = torch.zeros(())

    def step(self, closure=None):  # noqa: ANN001, ANN201
        for group in self.param_groups:
            for parameter in group["params"]:
                if "count" not in self.state[parameter]:
                    raise KeyError("count")
                self.state[parameter]["count"] += 1
