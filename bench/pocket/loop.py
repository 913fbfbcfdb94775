"""The training loop that all parts of the pocket share: by the clock, averaged, resumable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

SAVE_EVERY = 120.0  # seconds; a crash loses no more than this
WARM_UP = 150  # steps


@dataclass(frozen=True)
class Job:
    """What to train, where its checkpoint lies, for how long, at what peak rate, and how slowly the average moves."""

    model: nn.Module
    path: Path
    minutes: float
    peak: float
    decay: float
    on_save: Callable[[int], None] = lambda step: None


class Average:
    """Exponential moving average of the trainable weights."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.live = [p for p in model.parameters() if p.requires_grad]
        self.slow = [p.detach().clone() for p in self.live]
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the live weights, faster in the first steps."""
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.slow, [p.detach() for p in self.live], weight)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange live and averaged weights: once to use the average, once more to go on training."""
        for live, slow in zip(self.live, self.slow, strict=True):
            kept = live.detach().clone()
            live.copy_(slow)
            slow.copy_(kept)


def train(job: Job, loss: Callable[[], Tensor]) -> None:
    """Minimise `loss()` until the time of the job is used up; the model is left with its averaged weights.

    The rate warms up by steps and falls as a half cosine over the clock, so a slower machine gets fewer steps and the
    same schedule. Time of earlier, interrupted runs counts.
    """
    torch.manual_seed(0)
    parameters = [p for p in job.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=job.peak, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    average = Average(job.model, job.decay)
    step, spent = _resume(job, optimizer, average)
    saved = started = time.monotonic()
    recent = 0.0
    while (used := spent + time.monotonic() - started) < job.minutes * 60:
        rate = 0.5 * (1 + math.cos(math.pi * used / (job.minutes * 60)))
        for group in optimizer.param_groups:
            group["lr"] = job.peak * min(1.0, (step + 1) / WARM_UP) * max(rate, 0.02)
        value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        step += 1
        recent += (value.item() - recent) * max(0.01, 1 / step)
        if time.monotonic() - saved > SAVE_EVERY:
            print(f"step {step}  {used:.0f} s  loss {recent:.4f}", flush=True)
            _save(job, optimizer, average, step, used)
            saved = time.monotonic()
    average.swap()
    job.on_save(step)
    print(f"done: {step} steps, {job.minutes * 60:.0f} s, loss {recent:.4f}", flush=True)


def resumed_step(path: Path) -> int:
    """The step that a checkpoint holds, 0 if there is none."""
    return torch.load(path, mmap=True)["step"] if path.exists() else 0


def _save(job: Job, optimizer: torch.optim.Optimizer, average: Average, step: int, spent: float) -> None:
    state = {"model": job.model.state_dict(), "optimizer": optimizer.state_dict(), "slow": average.slow}
    state |= {"step": step, "spent": spent, "random": torch.get_rng_state()}
    partial = job.path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(job.path)
    average.swap()
    job.model.eval()
    job.on_save(step)
    job.model.train()
    average.swap()


def _resume(job: Job, optimizer: torch.optim.Optimizer, average: Average) -> tuple[int, float]:
    job.path.parent.mkdir(parents=True, exist_ok=True)
    job.model.train()
    if not job.path.exists():
        return 0, 0.0
    state = torch.load(job.path)
    job.model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    average.slow, average.steps = state["slow"], state["step"]
    torch.set_rng_state(state["random"])
    print(f"going on from step {state['step']}, {state['spent']:.0f} s", flush=True)
    return state["step"], state["spent"]
