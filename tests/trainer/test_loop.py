"""The loop's arithmetic: the mean over all pictures of a step, and half precision with a scaled loss."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from tests.trainer import tiny
from trainer import loop
from trainer.events import Event, Step
from trainer.objective import losses
from trainer.session import Session


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory):  # noqa: ANN201
    folder = tmp_path_factory.mktemp("loop")
    base, pictures = tiny.save_base(folder / "base"), tiny.save_pictures(folder / "pictures")
    return lambda **changes: tiny.session(base, pictures, folder, **changes)


def train(session: Session) -> list[Step]:
    events: list[Event] = []
    loop.train_steps(session, events.append, lambda step: False, lambda step: False)
    return [event for event in events if isinstance(event, Step)]


def values(session: Session) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in session.parameters()]


@pytest.mark.acts("train.accumulation")
def test_a_step_is_the_mean_over_its_pictures_whatever_the_sizes_of_its_batches(start):
    """Four pictures in batches of three and one: each counts a quarter."""
    session = start(train__batch_size=3, train__accumulation=2)
    batches = [session.loader.batch(i) for i in range(2)]
    assert sorted(len(batch.captions) for batch in batches) == [1, 3]
    every = torch.cat([losses(session, batch) for batch in batches])
    want = torch.autograd.grad(every.mean(), session.parameters(), allow_unused=True)
    found = loop._backward(session)
    assert found.item() == pytest.approx(every.mean().item(), rel=1e-5)
    for parameter, gradient in zip(session.parameters(), want, strict=True):
        torch.testing.assert_close(parameter.grad, torch.zeros_like(parameter) if gradient is None else gradient)


@pytest.mark.acts("optimizer.clip_norm")
@pytest.mark.parametrize("limit", [0.0, 1e-3])
def test_a_step_is_as_long_as_the_clipped_gradient(start, limit):
    """By plain gradient descent, whose step is the gradient times the rate."""
    session = start(optimizer__name="torch.optim.SGD", optimizer__schedule="constant", optimizer__clip_norm=limit, train__steps=1)
    before = values(session)
    (event,) = train(session)
    assert event.grad_norm > 0.01, "else nothing is clipped"
    moved = torch.cat([(a - b).flatten() for a, b in zip(values(session), before, strict=True)]).norm().item()
    assert moved / session.config.optimizer.lr == pytest.approx(limit or event.grad_norm, rel=1e-3)


@pytest.mark.acts("adapter.max_norm")
def test_no_change_is_longer_than_its_limit(start):
    free, held = start(train__steps=3), start(train__steps=3, adapter__max_norm=1e-3)
    for session in (free, held):
        train(session)
    longest = [max(adapter.norm().item() for _, adapter in session.adapters) for session in (free, held)]
    assert longest[0] > 2e-3 and longest[1] == pytest.approx(1e-3, rel=1e-4)


def counted(session: Session) -> Counter[str]:
    """How often a block of each model is begun in one step; the second time it ends as soon as it has what is needed."""
    calls: Counter[str] = Counter()
    for model, kind in ((session.bundle.unet, "ResnetBlock2D"), (session.bundle.pipeline.text_encoder, "CLIPAttention")):
        block = next(module for module in model.modules() if type(module).__name__ == kind)
        block.register_forward_pre_hook(lambda module, *_: calls.update([type(module).__name__]))
    train(session)
    return calls


@pytest.mark.acts("train.gradient_checkpointing")
def test_gradient_checkpointing_computes_blocks_again(start):
    once = counted(start(train__steps=1))
    assert set(once.values()) == {1}
    again = counted(start(train__steps=1, train__gradient_checkpointing=True))
    assert again == dict.fromkeys(once, 2)


def in_fp16(session: Session, scale: float) -> Session:
    """The session as it is on a GPU in fp16: autocast and a scaled loss, which torch has on a CPU too."""
    accelerator = session.accelerator
    accelerator.state._mixed_precision, accelerator.native_amp = "fp16", True
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    accelerator._optimizers.clear()
    session.optimizer = accelerator.prepare_optimizer(session.optimizer.optimizer)
    return session


def test_fp16_clips_and_steps_with_unscaled_gradients_and_keeps_the_loss_in_fp32(start):
    changes = {"optimizer__clip_norm": 0.01, "train__steps": 3}
    full, half = start(**changes), start(**changes)
    wanted = train(full)
    found = train(in_fp16(half, 2.0**10))
    assert [event.loss for event in found] == pytest.approx([event.loss for event in wanted], rel=2e-3)
    assert [event.grad_norm for event in found] == pytest.approx([event.grad_norm for event in wanted], rel=2e-2)
    assert [event.loss for event in found] != [event.loss for event in wanted]
    assert losses(half, half.loader.batch(0)).dtype == torch.float32
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}


def test_an_overflow_skips_the_step_lowers_the_scale_and_goes_on(start):
    session = in_fp16(start(train__steps=2), 2.0**60)
    before = values(session)
    events = train(session)
    assert all(torch.equal(a, b) for a, b in zip(before, values(session), strict=True))
    assert session.accelerator.scaler.get_scale() == 2.0**58
    assert len(events) == 2 and all(event.loss < 10 for event in events)
