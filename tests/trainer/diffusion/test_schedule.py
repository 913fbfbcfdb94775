"""Corruption, targets and signal-to-noise ratio against diffusers' scheduler."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from trainer.diffusion.schedule import Schedule

ORACLE = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
T = torch.tensor([0, 1, 250, 998, 999])


def parts() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 4, 3, 2, generator=generator), torch.randn(5, 4, 3, 2, generator=generator)


def test_corrupt_is_diffusers_add_noise():
    x0, noise = parts()
    ours = Schedule(ORACLE.alphas_cumprod, "epsilon").corrupt(x0, noise, T)
    torch.testing.assert_close(ours, ORACLE.add_noise(x0, noise, T))


def test_velocity_is_diffusers_velocity_and_epsilon_the_noise():
    x0, noise = parts()
    velocity = Schedule(ORACLE.alphas_cumprod, "v_prediction").target(x0, noise, T)
    torch.testing.assert_close(velocity, ORACLE.get_velocity(x0, noise, T))
    assert Schedule(ORACLE.alphas_cumprod, "epsilon").target(x0, noise, T) is noise


def test_velocity_gives_back_x0():
    x0, noise = parts()
    schedule = Schedule(ORACLE.alphas_cumprod.double(), "v_prediction")
    a = ORACLE.alphas_cumprod[T].view(-1, 1, 1, 1)
    x_t, v = schedule.corrupt(x0, noise, T), schedule.target(x0, noise, T)
    torch.testing.assert_close(a.sqrt() * x_t - (1 - a).sqrt() * v, x0, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("t", [0, 500, 999])
def test_snr_is_diffusers(t):
    ours = Schedule(ORACLE.alphas_cumprod, "epsilon").snr(torch.tensor([t]))
    torch.testing.assert_close(ours, compute_snr(ORACLE, torch.tensor([t])), rtol=1e-4, atol=0)
