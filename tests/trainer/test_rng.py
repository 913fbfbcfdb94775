"""Random states are kept, and generators depend on their keys alone."""

from __future__ import annotations

import random

import numpy as np
import torch

from trainer import rng


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(()).item()


def test_preserved_gives_back_all_three_generators():
    rng.seed_everything(3)
    expected = draw()
    rng.seed_everything(3)
    with rng.preserved():
        draw()
        torch.manual_seed(99)
    assert draw() == expected


def test_seeds_all_three():
    rng.seed_everything(1)
    one = draw()
    rng.seed_everything(2)
    two = draw()
    assert all(a != b for a, b in zip(one, two, strict=True))


def test_state_round_trip():
    torch.manual_seed(5)
    state = rng.rng_state()
    expected = torch.rand(4)
    torch.manual_seed(6)
    rng.load_rng_state(state)
    assert torch.equal(torch.rand(4), expected)


def test_generators_differ_by_every_key_and_repeat():
    keys = [(s, a, b) for s in range(4) for a in range(4) for b in range(4)]
    drawn = {key: tuple(torch.rand(3, generator=rng.generator_for(*key)).tolist()) for key in keys}
    assert len(set(drawn.values())) == len(keys)
    assert drawn[1, 2, 3] == tuple(torch.rand(3, generator=rng.generator_for(1, 2, 3)).tolist())


def test_seeding_by_keys_depends_on_nothing_before():
    rng.seed_for(7, 2, 5)
    expected = draw()
    draw()
    rng.seed_for(7, 2, 5)
    assert draw() == expected
    others = []
    for keys in ((8, 2, 5), (7, 3, 5), (7, 2, 6)):
        rng.seed_for(*keys)
        others.append(draw())
    assert len({expected, *others}) == 4
