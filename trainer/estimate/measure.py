"""Two real steps before the run: what they take in memory and time. They leave no trace in what the run computes."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from types import TracebackType

import psutil
import torch

from trainer import loop, preview, rng
from trainer.data import Loader
from trainer.memory import uncompiled
from trainer.optim import pack_optimizer, unpack_optimizer
from trainer.session import Session

WARM_UP, TIMED = 1, 2
INTERVAL = 0.005
"""Seconds between looks at the resident memory."""


@dataclass(frozen=True)
class Measured:
    """Bytes at the peak, seconds of one step, and bytes of a checkpoint."""

    peak: int
    seconds: float
    checkpoint: int


class PeakMeter:
    """The peak of memory inside: on a GPU what its allocator reserved, on a CPU the resident set, looked at by a thread."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.peak = device, 0

    def __enter__(self) -> PeakMeter:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
            return self
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_reserved(self.device)
            return
        self._done.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._done.wait(INTERVAL):
            self._look()

    def _look(self) -> None:
        self.peak = max(self.peak, psutil.Process().memory_info().rss)


def measure(session: Session, loader: Loader, prompts: list[str]) -> Measured:
    """Real forward, backward and optimiser steps on ``loader``'s batches, and one preview in two sampling steps.

    Afterwards parameters, optimiser, schedule, averages, scaler and random numbers are as they were, bit for bit.
    """
    probe = replace(session, loader=loader, step=0)
    device = session.accelerator.device
    with undone(session), PeakMeter(device) as meter:
        session.procedures.rehearse()
        taken = []
        for _ in range(WARM_UP + TIMED):
            start = _now(device)
            loop.train_step(probe)
            session.optimizer.zero_grad(set_to_none=True)
            taken.append(_now(device) - start)
        seconds = min(taken[WARM_UP:])  # what other programs take of the machine only adds to it
        tensors, _ = pack_optimizer(session.optimizer)
        kept = session.procedures.state().values()
        checkpoint = sum(tensor.nbytes for tensor in (*tensors.values(), *session.parameters(), *kept))
        config = session.config
        short = config.preview.model_copy(update={"steps": 2})
        with session.resting.awake(), uncompiled():
            preview.sample(session.bundle, short, prompts[: preview.CHUNK], config.data.resolution)
    return Measured(max(meter.peak, lifetime_peak(device)), seconds, checkpoint)


def lifetime_peak(device: torch.device) -> int:
    """The most resident memory that this process had, loading included; 0 on a GPU, and where the system does not tell."""
    if device.type != "cpu" or find_spec("resource") is None:
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def undone(session: Session) -> Iterator[None]:
    """Whatever is trained inside, the session is afterwards as before."""
    optimizer, scaler = session.optimizer, session.accelerator.scaler
    frozen = [buffer for _, adapter in session.adapters for buffer in adapter.buffers()]  # which restarts draw anew
    held = [*session.parameters(), *frozen]  # now: a word may come to rest inside
    values_before = [tensor.detach().clone() for tensor in held]
    tensors, values = pack_optimizer(optimizer)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    schedule, scale = session.schedule.state_dict(), scaler and scaler.state_dict()
    kept = {name: tensor.clone() for name, tensor in session.procedures.state().items()}
    average = {} if session.ema is None else {name: tensor.clone() for name, tensor in session.ema.state().items()}
    with rng.preserved():
        yield
    with torch.no_grad():
        for tensor, before in zip(held, values_before, strict=True):
            tensor.copy_(before)
    session.procedures.load_state(kept)
    session.optimizer.zero_grad(set_to_none=True)
    unpack_optimizer(optimizer, tensors, values)
    session.schedule.load_state_dict(schedule)
    if session.ema is not None:
        session.ema.load_state(average)
    if scaler and scale:
        scaler.load_state_dict(scale)


def _now(device: torch.device) -> float:
    """The clock, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
