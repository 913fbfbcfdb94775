"""How algorithms take part in the loop: what they are told, when, and what does not go together with them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from morelora.procedure import Procedure, Procedures
from tests.trainer import tiny
from tests.trainer.test_loop import in_fp16
from trainer import loop, search
from trainer.errors import InputError
from trainer.events import Warned
from trainer.objective import corrupt, losses
from trainer.optim import current_rates
from trainer.validation import measure


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


@pytest.mark.parametrize("optimizer", ["adamw", "torch.optim.SGD"])
def test_the_last_allocation_is_made_though_the_scaler_leaves_its_step_out(start, optimizer):
    """On the device, or on the host, which then knows: the gates keep the ranks of the last budget."""
    options = {"adapter__prune_from": 0.0, "adapter__prune_until": 0.4, "adapter__prune_every": 100, "adapter__target_rank": 1}
    session = in_fp16(start(adapter__algorithm="adalora", train__steps=5, optimizer__name=optimizer, **options), 2.0**10)
    for number in range(1, 5):
        loop.train_step(session)
        session.optimizer.zero_grad()
        session.accelerator.scaler.update(2.0**80 if number == 2 else 2.0**10)
    kept = sum(int(adapter.gate.count_nonzero()) for _, adapter in session.adapters)
    assert kept == len(session.adapters)


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


def test_what_is_taken_away_is_taken_away_in_a_run(start):
    """The budget shrinks to its target, and gates under a strong threshold are zero, in the loop itself."""
    options = {"adapter__rank": 4, "adapter__prune_until": 0.6, "adapter__prune_every": 1}
    session = start(adapter__algorithm="adalora", **options)
    loop.train_steps(session, lambda event: None, lambda step: False, lambda step: False)
    kept = [int(adapter.gate.count_nonzero()) for _, adapter in session.adapters]
    assert sum(kept) == 2 * len(kept) and len(set(kept)) > 1
    session = start(adapter__algorithm="sora", adapter__sparsity=1000.0)
    loop.train_steps(session, lambda event: None, lambda step: False, lambda step: False)
    assert not any(adapter.gate.any() for _, adapter in session.adapters)


@pytest.mark.parametrize("mode", ["normal", "frozen"])
def test_frozen_ranks_have_longer_to_get_their_first_gradient(start, mode):
    session = start(
        adapter__algorithm="dylora", adapter__rank=4, adapter__mode=mode, train__steps=6, optimizer__name="torch.optim.SGD"
    )
    events = []
    loop.train_steps(session, events.append, lambda step: False, lambda step: False)
    assert session.procedures.patience == (5 if mode == "frozen" else 3)
    assert not [event for event in events if isinstance(event, Warned)]


@pytest.mark.acts("adapter.search", "adapter.search_tolerance")
@pytest.mark.parametrize(("tolerance", "rank"), [(0.0, 3), (0.1, 2), (1.0, 1)])
def test_a_search_keeps_the_lowest_rank_within_its_tolerance(start, monkeypatch, tolerance, rank):
    session = start(adapter__algorithm="dylora", adapter__rank=4, adapter__search="training", adapter__search_tolerance=tolerance)
    told = {1: 1.9, 2: 1.09, 3: 1.0, 4: 1.02}
    kept = lambda: {adapter.kept for _, adapter in session.adapters}  # noqa: E731
    monkeypatch.setattr(search, "training_loss", lambda session: told[max(kept())])
    (event,) = search.search(session)
    assert kept() == {rank} and event.chosen == f"rank {rank}"
    assert event.losses == {f"rank {b}": loss for b, loss in told.items()}


def test_the_loss_of_a_search_is_that_of_its_pictures_at_that_rank(start):
    session = start(adapter__algorithm="dylora", adapter__rank=2, adapter__dropout=0.5, validation__count=1)
    for _, adapter in session.adapters:
        torch.nn.init.normal_(adapter.up, std=0.3)
    for _, adapter in session.adapters:
        adapter.kept = 1
        with torch.no_grad():
            adapter.down[1:] = 1e3  # what is not kept must not act
    found = search.training_loss(session), search.held_out_loss(session)
    session.bundle.unet.eval(), session.bundle.pipeline.text_encoder.eval()
    with torch.no_grad():
        each = torch.cat([losses(session, session.loader.batch(i)) for i in range(len(session.loader))])
    assert found[0] == pytest.approx(each.mean().item(), rel=1e-5)
    assert found[1] == pytest.approx(measure(session, session.held).loss, rel=1e-6)


def test_a_search_on_held_out_pictures_needs_some(start):
    with pytest.raises(InputError, match="dylora is to search on held-out pictures, and there are none") as refused:
        start(adapter__algorithm="dylora", adapter__search="held_out")
    assert "validation.count" in str(refused.value)
    session = start(adapter__algorithm="dylora", adapter__search="held_out", validation__count=1)
    (event,) = search.search(session)
    assert set(event.losses) == {"rank 1", "rank 2"}


def test_masks_follow_the_timesteps_of_the_batch(start):
    session = start(adapter__algorithm="tlora", adapter__rank=4, adapter__layers="attention")
    losses(session, session.loader.batch(0))
    t = corrupt(session, session.loader.batch(0)).t
    for name, adapter in session.adapters:
        if name.startswith("unet."):
            wanted = [int((1000 - time) / 1000 * 3) + 1 for time in t.tolist()]
            assert adapter.mask.sum(1).tolist() == wanted
