"""The training loop: corrupt, predict, loss, backward, step. Says events and knows nothing of screens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from morelora.procedure import Stepped
from trainer import rng
from trainer.errors import NonFiniteError
from trainer.events import Event, Step, Warned
from trainer.objective import losses
from trainer.optim import current_rates
from trainer.session import Session

MICRO_STEP, OPTIMIZER_STEP = 2, 3
"""Keys of the global random numbers: adapters draw dropout from them, and some optimisers draw too."""


def train_steps(
    session: Session, emit: Callable[[Event], None], is_due: Callable[[int], bool], pause: Callable[[int], bool]
) -> bool:
    """Train from ``session.step`` to the last step.

    Args:
        emit: takes the events.
        is_due: whether ``pause`` wants to act after a step.
        pause: makes checkpoints and previews after a step; True asks to stop.

    Returns:
        Whether all steps are done.

    Raises:
        NonFiniteError: the loss is NaN or infinite.
    """
    config = session.config
    meter = Meter(emit, every=1 if session.accelerator.device.type == "cpu" else 10)
    moved = GradientCheck(session.named_parameters(), 0 if session.zero else session.procedures.patience)
    while session.step < config.train.steps:
        rates = [float(rate) for rate in session.schedule.get_last_lr()]
        loss, norm = train_step(session)
        if moved.is_open:
            moved.look(session.step, emit)
        session.optimizer.zero_grad(set_to_none=True)
        meter.add(session.step, loss, rates, norm)
        if is_due(session.step):
            meter.flush()
            stopped = pause(session.step)
            meter.restart_clock()
            if stopped:
                break
    meter.flush()
    return session.step == config.train.steps


def train_step(session: Session) -> tuple[Tensor, Tensor]:
    """One optimiser step; its loss and its gradient's norm before clipping. The gradients are left to be looked at."""
    if session.word is not None:
        session.word.rest(session.step)
    loss = _backward(session)
    norm = _optimize(session)
    session.step += 1
    return loss, norm


def _backward(session: Session) -> Tensor:
    """The gradient of one step, over all its micro steps and processes; returns the mean loss of its pictures.

    What the algorithms' procedures add to the loss is in the gradient and not in what is returned.
    """
    seed, count = session.config.train.seed, session.config.train.accumulation
    batches = [session.loader.batch(session.step * count + i) for i in range(count)]
    pictures = session.loader.pictures(session.step * count, count)
    total = torch.zeros((), device=session.accelerator.device)
    with _summed(session) as backward:
        for batch in batches:
            rng.seed_for(seed, MICRO_STEP, batch.number)
            loss = losses(session, batch).sum() / pictures
            if loss.requires_grad:  # module dropout may have skipped every adapter
                backward(loss)
            total += loss.detach()
        penalty = session.procedures.penalty()
        if penalty is not None:
            backward(penalty / session.accelerator.num_processes)
        for parameter in session.parameters():
            if parameter.grad is None:  # skipped in every micro step: zero, as where another process did not skip it
                parameter.grad = torch.zeros_like(parameter)
    return session.accelerator.reduce(total, "sum") if session.accelerator.num_processes > 1 else total


@contextmanager
def _summed(session: Session) -> Iterator[Callable[[Tensor], None]]:
    """Gives the backward pass; what it adds up inside is summed over the processes on leaving.

    Each process divided its losses by the pictures of all, so the sum is the gradient of the mean over all pictures.
    """
    if session.zero is not None:
        with session.zero.collected():
            yield session.zero.backward
        return
    yield session.accelerator.backward
    if session.accelerator.num_processes > 1:
        _sum_gradients(session)


def _sum_gradients(session: Session) -> None:
    """One all-reduce over what is trained: that is little, so no wrapper around the models is needed."""
    gradients = [parameter.grad for parameter in session.parameters()]
    flat = session.accelerator.reduce(torch.cat([g.flatten() for g in gradients]), "sum")
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def _optimize(session: Session) -> Tensor:
    """Clip, step, limit norms, average; returns the gradient's norm before clipping."""
    config, accelerator = session.config, session.accelerator
    rng.seed_for(config.train.seed, OPTIMIZER_STEP, session.step)
    norm = _step(session)
    is_made = None if accelerator.scaler is None else norm.isfinite()
    session.procedures.stepped(Stepped(session.step + 1, partial(current_rates, session.optimizer), is_made))
    if not accelerator.optimizer_step_was_skipped:
        session.schedule.step()
    if config.adapter.max_norm is not None:
        session.adapters.limit_norm(config.adapter.max_norm)
    if session.word is not None:
        session.word.pull()
    if session.zero is not None and session.rewrites:
        session.zero.take()
    if session.ema is not None:
        session.ema.update(session.step)
    return norm


def _step(session: Session) -> Tensor:
    """Clip and step; returns the gradient's norm before clipping."""
    if session.zero is not None:
        return session.zero.step()
    norm = session.accelerator.clip_grad_norm_(session.parameters(), session.config.optimizer.clip_norm or math.inf)
    session.optimizer.step()
    return norm


class Meter:
    """Turns losses that are still on the device into ``Step`` events, several at a time, so that the loop does not wait."""

    def __init__(self, emit: Callable[[Event], None], every: int) -> None:
        self.emit, self.every = emit, every
        self.waiting: list[tuple[int, Tensor, list[float], Tensor]] = []
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leave the time of checkpoints and previews out of the rate."""
        self.since = time.perf_counter()

    def add(self, step: int, loss: Tensor, rates: list[float], norm: Tensor) -> None:
        self.waiting.append((step, loss, rates, norm))
        if len(self.waiting) >= self.every:
            self.flush()

    def flush(self) -> None:
        """Emit what is waiting. Raises ``NonFiniteError`` where a loss is not finite."""
        if not self.waiting:
            return
        values = torch.stack([torch.stack((loss, norm.to(loss))) for _, loss, _, norm in self.waiting]).tolist()
        now = time.perf_counter()
        rate = len(self.waiting) / max(now - self.since, 1e-9)
        for (step, _, rates, _), (loss, norm) in zip(self.waiting, values, strict=True):
            if not math.isfinite(loss):
                raise NonFiniteError(
                    f"the loss of step {step} is {loss}",
                    "lower optimizer.lr, use train.precision = 'bf16' or 'fp32', or lower adapter.alpha; then start again",
                    "No damaged weights were saved: the last checkpoint is from before.",
                )
            self.emit(Step(step, loss, rates[0], norm, rate, rates))
        self.waiting.clear()
        self.since = now


class GradientCheck:
    """Watches the first steps for trainable tensors that never get a gradient."""

    def __init__(self, parameters: dict[str, nn.Parameter], steps: int) -> None:
        self.still = parameters
        self.looks, self.steps = 0, steps

    @property
    def is_open(self) -> bool:
        return self.looks < self.steps

    def look(self, step: int, emit: Callable[[Event], None]) -> None:
        """Strike off what has a gradient now; after the last look, name what never had one."""
        self.looks += 1
        self.still = {n: p for n, p in self.still.items() if p.grad is None or not bool(p.grad.any())}
        if not self.is_open and self.still:
            names = ", ".join(list(self.still)[:5])
            emit(Warned(f"{len(self.still)} trainable tensors got no gradient in the first {self.steps} steps: {names}"))
