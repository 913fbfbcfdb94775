"""Weights of timesteps against diffusers' signal-to-noise ratio and against each other's objective."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from trainer.diffusion.schedule import Schedule
from trainer.diffusion.weights import debiased_weight, min_snr_weight

T = torch.tensor([0, 1, 250, 500, 998, 999])
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def min_snr(snr: torch.Tensor, objective: str) -> torch.Tensor:
    return min_snr_weight(snr, 5.0, objective)


WEIGHTS: list[Callable[[torch.Tensor, str], torch.Tensor]] = [min_snr, debiased_weight]


@pytest.mark.parametrize(
    ("snr", "epsilon", "velocity"), [(10.0, 0.5, 5 / 11), (5.0, 1.0, 5 / 6), (1.0, 1.0, 0.5), (0.01, 1.0, 0.01 / 1.01)]
)
def test_min_snr(snr, epsilon, velocity):
    value = torch.tensor([snr])
    assert min_snr_weight(value, 5.0, "epsilon").item() == pytest.approx(epsilon)
    assert min_snr_weight(value, 5.0, "v_prediction").item() == pytest.approx(velocity)


def test_min_snr_is_that_of_diffusers_training_scripts():
    scheduler = DDPMScheduler(**SD)
    snr = compute_snr(scheduler, T)
    clipped = torch.stack([snr, 5.0 * torch.ones_like(snr)], dim=1).min(dim=1)[0]
    ours = Schedule(scheduler.alphas_cumprod, "epsilon").snr(T)
    torch.testing.assert_close(min_snr(ours, "epsilon"), clipped / snr, rtol=1e-4, atol=0)
    torch.testing.assert_close(min_snr(ours, "v_prediction"), clipped / (snr + 1), rtol=1e-4, atol=0)


def test_debiased_estimation_is_the_inverse_root_of_diffusers_snr():
    scheduler = DDPMScheduler(**SD)
    ours = Schedule(scheduler.alphas_cumprod, "epsilon").snr(T)
    torch.testing.assert_close(debiased_weight(ours, "epsilon"), 1 / compute_snr(scheduler, T).sqrt(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_both_objectives_weigh_the_same_error_of_the_picture_alike(weight):
    """One wrong guess of x0, told as epsilon and as velocity: the weighted squared errors are equal."""
    scheduler = DDPMScheduler(**SD)
    generator = torch.Generator().manual_seed(0)
    x0, guess, noise = (torch.randn(len(T), 4, 3, 3, generator=generator).double() for _ in range(3))
    a = scheduler.alphas_cumprod[T].double().view(-1, 1, 1, 1)
    x_t = a.sqrt() * x0 + (1 - a).sqrt() * noise
    guessed_noise = (x_t - a.sqrt() * guess) / (1 - a).sqrt()
    velocity, guessed_velocity = ((a.sqrt() * n - (1 - a).sqrt() * x) for n, x in ((noise, x0), (guessed_noise, guess)))
    snr = (a / (1 - a)).flatten()
    as_epsilon = weight(snr, "epsilon") * (guessed_noise - noise).square().mean((1, 2, 3))
    as_velocity = weight(snr, "v_prediction") * (guessed_velocity - velocity).square().mean((1, 2, 3))
    torch.testing.assert_close(as_epsilon, as_velocity, rtol=1e-9, atol=0)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("objective", ["epsilon", "v_prediction"])
def test_weights_are_finite_at_zero_terminal_snr(weight, objective):
    scheduler = DDPMScheduler(**SD, rescale_betas_zero_snr=True)
    snr = Schedule(scheduler.alphas_cumprod, objective).snr(T)
    assert snr[-1] == 0 and bool(weight(snr, objective).isfinite().all())
    assert weight(snr, objective)[-1].item() == (1.0 if weight is min_snr and objective == "epsilon" else 0.0)
