"""How algorithms take part in the loop: what they are told, when, and what does not go together with them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from morelora.procedure import Procedure, Procedures
from tests.trainer import tiny
from tests.trainer.test_loop import in_fp16
from trainer import loop
from trainer.errors import InputError
from trainer.objective import corrupt
from trainer.optim import current_rates


class Spy(Procedure):
    """Notes what it is told, and pulls on one parameter."""

    def __init__(self, session) -> None:  # noqa: ANN001
        super().__init__({}, session.config.train.steps)
        self.parameter = session.parameters()[0]
        self.seen: list[tuple] = []

    def batch(self, t, total):  # noqa: ANN001, ANN201
        self.seen.append(("batch", t.clone(), total))

    def penalty(self):  # noqa: ANN201
        self.seen.append(("penalty",))
        return 3.0 * self.parameter.sum()

    def stepped(self, step):  # noqa: ANN001, ANN201
        self.seen.append(("stepped", step.number, self.parameter.grad.clone(), step.rates()[self.parameter]))


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory):  # noqa: ANN201
    folder = tmp_path_factory.mktemp("procedures")
    base, pictures = tiny.save_base(folder / "base"), tiny.save_pictures(folder / "pictures")
    return lambda **changes: tiny.session(base, pictures, folder, **changes)


def test_a_step_tells_timesteps_asks_for_a_penalty_and_says_that_it_is_made(start):
    changes = {"train__accumulation": 2, "optimizer__clip_norm": 0.0, "optimizer__schedule": "linear"}
    plain, session = start(**changes), start(**changes)
    spy = Spy(session)
    session.procedures = Procedures({"spy": spy})
    rates = []
    for _ in range(2):
        rates.append(session.optimizer.param_groups[0]["lr"])
        loss, _ = loop.train_step(session)
        session.optimizer.zero_grad()
    assert [entry[0] for entry in spy.seen] == ["batch", "batch", "penalty", "stepped"] * 2
    for number, entry in enumerate(entry for entry in spy.seen if entry[0] == "batch"):
        assert torch.equal(entry[1], corrupt(session, session.loader.batch(number)).t) and entry[2] == 1000
    made = [entry for entry in spy.seen if entry[0] == "stepped"]
    assert [entry[1] for entry in made] == [1, 2] and [entry[3] for entry in made] == rates
    assert rates[1] < rates[0], "the rate is that of the step, not of the next"
    without = loop._backward(plain)
    torch.testing.assert_close(made[0][2], plain.parameters()[0].grad + 3.0)
    assert loop.train_step(start(**changes))[0].item() == pytest.approx(without.item()), "the loss is that of the pictures alone"
    assert loss.isfinite()


@pytest.mark.parametrize("importance", ["sensitivity", "smoothed"])
def test_a_step_that_the_scaler_left_out_changes_no_average(start, importance):
    """The fused optimiser leaves it out on the device: nobody on the host knows."""
    options = {"adapter__importance": importance, "adapter__prune_until": 1.0}
    session = in_fp16(start(adapter__algorithm="adalora", adapter__orthogonality=0.0, **options), 2.0**10)
    loop.train_step(session)
    before = {name: tensor.clone() for name, tensor in session.procedures.state().items()}
    assert any(tensor.any() for name, tensor in before.items() if name.endswith("gate.mean"))
    session.accelerator.scaler.update(2.0**80)
    session.optimizer.zero_grad()
    _, norm = loop.train_step(session)
    assert not norm.isfinite()
    assert all(torch.equal(tensor, before[name]) for name, tensor in session.procedures.state().items())


def test_a_step_that_the_scaler_left_out_draws_no_gate(start):
    session = in_fp16(start(adapter__algorithm="sora", adapter__sparsity=5.0), 2.0**80)
    loop.train_step(session)
    assert all(torch.equal(adapter.gate, torch.ones(2)) for _, adapter in session.adapters)


@pytest.mark.parametrize("algorithm", ["adalora", "sora"])
@pytest.mark.parametrize(
    ("changes", "words"), [({"train__ema": 0.9}, "train.ema"), ({"optimizer__name": "schedule_free"}, "adamw")]
)
def test_copies_of_what_is_rewritten_are_refused(start, algorithm, changes, words):
    if "optimizer__name" in changes:
        changes = changes | {"optimizer__schedule": "constant"}
    with pytest.raises(InputError, match=f"not go together with {algorithm}") as refused:
        start(adapter__algorithm=algorithm, **changes)
    assert words in str(refused.value)


def test_rates_are_those_of_the_groups_times_what_an_optimiser_found_itself():
    one, two = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([{"params": [one], "lr": 0.1}, {"params": [two], "lr": 0.4}])
    assert current_rates(optimizer) == {one: 0.1, two: 0.4}
    optimizer.param_groups[1]["d"] = 0.5
    assert current_rates(optimizer)[two] == pytest.approx(0.2)
