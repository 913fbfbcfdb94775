"""Random numbers: generators and seeds that depend on their keys alone; the global state, kept across previews."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Generator, Tensor


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def seed_for(seed: int, *keys: int) -> None:
    """Seed the global generators from nothing but the arguments: what is drawn next depends on nothing before."""
    seed_everything(int(np.random.SeedSequence([seed, *keys]).generate_state(1, np.uint32)[0]))


def generator_for(seed: int, *keys: int) -> Generator:
    """A CPU generator that depends on nothing but its arguments."""
    mixed = np.random.SeedSequence([seed, *keys]).generate_state(2, np.uint32)
    return Generator().manual_seed(int(mixed[0]) << 31 ^ int(mixed[1]))


def rng_state() -> dict[str, Tensor]:
    """Torch's global generators' states as byte tensors."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state |= {f"cuda{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    return state


def load_rng_state(state: dict[str, Tensor]) -> None:
    """Put back what ``rng_state`` gave; a state of a device that is not here is left out."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            if f"cuda{i}" in state:
                torch.cuda.set_rng_state(state[f"cuda{i}"], i)


@contextmanager
def preserved() -> Iterator[None]:
    """Whatever is drawn inside, the global generators are afterwards as before."""
    python, numpy, own = random.getstate(), np.random.get_state(), rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        load_rng_state(own)
