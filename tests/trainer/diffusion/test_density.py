"""Distributions of timesteps against closed forms and torch's own distributions."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch.distributions import Normal, SigmoidTransform, TransformedDistribution

from trainer.diffusion.density import Density

SHAPES = [
    Density(),
    Density("uniform", 100, 299),
    Density("logit_normal", mean=0.5, std=0.7),
    Density("logit_normal", 200, 800),
    Density("high_noise"),
    Density("low_noise", 0, 499),
]


@pytest.mark.parametrize("density", SHAPES)
def test_probabilities_sum_to_one_within_the_range(density):
    p = density.probabilities()
    assert len(p) == 1000 and math.fsum(p) == pytest.approx(1) and min(p) >= 0
    assert sum(p[density.first : density.last + 1]) == pytest.approx(1)


@pytest.mark.parametrize("density", SHAPES)
def test_timesteps_of_equal_shares_follow_the_probabilities(density):
    """The draw goes by the inverse of the distribution, the curve by the distribution: two formulas, one answer."""
    count = 20_000
    drawn = torch.bincount(torch.tensor([density.timestep((i + 0.5) / count) for i in range(count)]), minlength=1000) / count
    assert (drawn - torch.tensor(density.probabilities())).abs().max() < 1.01 / count


def test_uniform_is_flat():
    assert Density("uniform", 10, 19).probabilities(20) == pytest.approx([0.0] * 10 + [0.1] * 10)


def test_logit_normal_is_torchs():
    law = TransformedDistribution(Normal(torch.tensor(0.5).double(), torch.tensor(0.7).double()), [SigmoidTransform()])
    p = torch.tensor(Density("logit_normal", mean=0.5, std=0.7).probabilities()).double()
    middle = (torch.arange(1000).double() + 0.5) / 1000
    torch.testing.assert_close(p, law.log_prob(middle).exp() / 1000, atol=1e-8, rtol=1e-3)


def test_cubic_shares():
    """``P(1 - u^3 >= 7/8) = P(u <= 1/2) = 1/2``, and the mirror image at low noise."""
    high, low = Density("high_noise").probabilities(), Density("low_noise").probabilities()
    assert sum(high[875:]) == pytest.approx(0.5) and high == pytest.approx(low[::-1])


def test_the_ends_stay_inside():
    for density in SHAPES:
        assert density.timestep(0.0) == density.first and density.timestep(1.0) == density.last


def test_the_sparkline_shows_where_the_timesteps_are():
    assert Density().sparkline(width=4) == "████"
    assert Density("uniform", 500, 999).sparkline(width=4) == "▁▁██"
    assert Density("high_noise").sparkline(width=3)[-1] == "█"


def test_the_curve_needs_no_torch():
    code = "import sys, trainer.diffusion.density; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
