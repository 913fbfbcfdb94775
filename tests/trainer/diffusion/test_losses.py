"""Losses, weights, timesteps and noise against closed forms."""

from __future__ import annotations

import pytest
import torch

from trainer.diffusion.losses import draw_noise, draw_timesteps, min_snr_weight, squared_error


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_squared_error_is_one_number_for_each_sample_in_float32():
    prediction = torch.tensor([[[[1.0, 3.0]]], [[[0.0, 0.0]]]], dtype=torch.bfloat16)
    out = squared_error(prediction, torch.zeros(2, 1, 1, 2))
    assert out.dtype == torch.float32 and out.tolist() == [5.0, 0.0]


@pytest.mark.parametrize(
    ("snr", "epsilon", "velocity"), [(10.0, 0.5, 5 / 11), (5.0, 1.0, 5 / 6), (1.0, 1.0, 0.5), (0.01, 1.0, 0.01 / 1.01)]
)
def test_min_snr(snr, epsilon, velocity):
    value = torch.tensor([snr])
    assert min_snr_weight(value, 5.0, "epsilon").item() == pytest.approx(epsilon)
    assert min_snr_weight(value, 5.0, "v_prediction").item() == pytest.approx(velocity)


def test_timesteps_fill_each_stratum_once_in_random_order():
    t = draw_timesteps(10, 1000, generator())
    assert sorted((t // 100).tolist()) == list(range(10))
    assert t.tolist() != sorted(t.tolist())


def test_timesteps_are_uniform():
    random = generator()
    drawn = torch.cat([draw_timesteps(3, 1000, random) for _ in range(20000)]).double()
    assert drawn.min() == 0 and drawn.max() == 999
    assert drawn.mean().item() == pytest.approx(499.5, abs=2)
    assert drawn.var().item() == pytest.approx(1000**2 / 12, rel=0.01)


def test_noise_offset_adds_variance_between_channels_only():
    like = torch.zeros(400, 4, 16, 16)
    plain, offset = draw_noise(like, generator()), draw_noise(like, generator(), 0.5)
    added = offset - plain
    torch.testing.assert_close(added, added[..., :1, :1].expand_as(added), atol=1e-6, rtol=0)
    assert added[..., 0, 0].std().item() == pytest.approx(0.5, rel=0.05)
    assert plain.var().item() == pytest.approx(1.0, rel=0.01)
