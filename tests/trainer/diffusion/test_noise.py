"""Noise and timesteps: what is drawn follows the formulas, and depends on the generator alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.diffusion.density import Density
from trainer.diffusion.noise import add_pyramid, draw_noise, draw_timesteps


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_timesteps_fill_each_stratum_once_in_random_order():
    t = draw_timesteps(10, Density(), generator())
    assert sorted((t // 100).tolist()) == list(range(10))
    assert t.tolist() != sorted(t.tolist())


def test_a_skew_density_is_stratified_too():
    """Half of the draws lie above 7/8 of the range, in every batch of an even number."""
    for seed in range(20):
        t = draw_timesteps(8, Density("high_noise"), torch.Generator().manual_seed(seed))
        assert int((t >= 875).sum()) == 4


@pytest.mark.parametrize("density", [Density(), Density("logit_normal", 100, 899, mean=-1.0), Density("high_noise")])
def test_each_draw_alone_follows_the_density(density):
    random = generator()
    drawn = torch.cat([draw_timesteps(3, density, random) for _ in range(20000)]).double()
    p, t = torch.tensor(density.probabilities()).double(), torch.arange(1000).double()
    mean = (p * t).sum()
    assert drawn.mean().item() == pytest.approx(mean.item(), abs=2)
    assert drawn.var().item() == pytest.approx((p * (t - mean).square()).sum().item(), rel=0.01)


def test_noise_offset_adds_variance_between_channels_only():
    like = torch.zeros(400, 4, 16, 16)
    plain, offset = draw_noise(like, generator()), draw_noise(like, generator(), 0.5)
    added = offset - plain
    torch.testing.assert_close(added, added[..., :1, :1].expand_as(added), atol=1e-6, rtol=0)
    assert added[..., 0, 0].std().item() == pytest.approx(0.5, rel=0.05)
    assert plain.var().item() == pytest.approx(1.0, rel=0.01)


def test_pyramid_noise_is_its_formula():
    """Level by level with torch's own enlarging layer, from the same random numbers."""
    random, start = generator(), torch.randn(4, 24, 16, generator=torch.Generator().manual_seed(1))
    want = start.clone()
    for level in range(6):
        r = 2 + 2 * torch.rand((), generator=random).item()
        height, width = max(1, int(24 / r**level)), max(1, int(16 / r**level))
        coarse = torch.randn(1, 4, height, width, generator=random)
        want += 0.4**level * nn.Upsample(size=(24, 16), mode="bilinear")(coarse)[0]
        if height == 1 or width == 1:
            break
    torch.testing.assert_close(add_pyramid(start, 6, 0.4, generator()), want / want.std())


def test_pyramid_noise_is_coarse_and_has_unit_variance():
    like = torch.zeros(200, 4, 32, 32)
    plain, pyramid = draw_noise(like, generator()), draw_noise(like, generator(), pyramid=(6, 0.8))

    def beside(noise: torch.Tensor) -> float:
        """Correlation of neighbours."""
        return (noise[..., 1:] * noise[..., :-1]).mean().item()

    assert pyramid.flatten(1).std(1).tolist() == pytest.approx([1.0] * 200, rel=1e-4)
    assert abs(beside(plain)) < 0.01 and beside(pyramid) > 0.2


def test_one_level_is_white():
    like = torch.zeros(100, 4, 16, 16)
    noise = draw_noise(like, generator(), pyramid=(1, 0.4))
    assert abs((noise[..., 1:] * noise[..., :-1]).mean().item()) < 0.02
