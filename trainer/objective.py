"""The loss of one micro step: corrupt, predict, compare, weigh. A pure function of the batch, its number and the seed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trainer import rng
from trainer.config import LossConfig
from trainer.data import Batch
from trainer.diffusion.density import Density
from trainer.diffusion.losses import picture_mean, pointwise, scheduled_delta
from trainer.diffusion.noise import draw_noise, draw_timesteps
from trainer.diffusion.schedule import Schedule
from trainer.diffusion.weights import debiased_weight, min_snr_weight
from trainer.errors import InputError
from trainer.session import Session

NOISE = 1
"""Key of the generator of noise and timesteps, beside the loader's own."""


@dataclass(frozen=True)
class Corrupted:
    """Noised latents ``x_t`` at timesteps ``t`` and what the denoiser should make of them, on its device."""

    noisy: Tensor
    t: Tensor
    target: Tensor


def losses(session: Session, batch: Batch) -> Tensor:
    """Weighted loss of each picture, ``(B,)``, in float32; noise and timesteps depend on seed and batch number alone."""
    config, schedule = session.config.loss, session.bundle.schedule
    given = corrupt(session, batch)
    with session.accelerator.autocast():
        text = batch.text_states if batch.text_states is not None else session.bundle.encode_text(batch.captions)
        prediction = session.bundle.predict(given.noisy, given.t, text, batch.frames)
    return compare(prediction, given, config, schedule)


def corrupt(session: Session, batch: Batch) -> Corrupted:
    """Noise the batch's latents. With input perturbation (arXiv 2301.11706) the input has more noise than the target tells."""
    config, schedule, device = session.config.loss, session.bundle.schedule, session.accelerator.device
    generator = rng.generator_for(session.config.train.seed, NOISE, batch.number)
    pyramid = (config.pyramid_iterations, config.pyramid_discount)
    noise = draw_noise(batch.latents, generator, config.noise_offset, pyramid)
    t = draw_timesteps(len(batch.latents), density(config), generator).to(device)
    seen = noise
    if config.input_perturbation:
        seen = noise + config.input_perturbation * draw_noise(batch.latents, generator)
    x0, noise, seen = (part.to(device) for part in (batch.latents, noise, seen))
    return Corrupted(schedule.corrupt(x0, seen, t), t, schedule.target(x0, noise, t))


def density(config: LossConfig) -> Density:
    """How often each timestep is drawn."""
    return Density(config.timesteps, config.timestep_min, config.timestep_max, config.timestep_mean, config.timestep_std)


def remarks(config: LossConfig, schedule: Schedule) -> list[str]:
    """What the plan says of the loss. Raises ``InputError`` where the base model has fewer timesteps than are asked for."""
    drawn, total = density(config), len(schedule)
    if drawn.last >= total:
        raise InputError(
            f"loss.timestep_max = {drawn.last}, but the base model has {total} timesteps, from 0 on",
            f"set loss.timestep_max = {total - 1} or less",
        )
    if drawn == Density(last=total - 1):
        return []
    shape = f"{drawn.kind} from {drawn.first} to {drawn.last}: {drawn.sparkline(total)} (least to most noise)"
    return [f"Timesteps are drawn {shape}; --plot-timesteps FILE.png shows them."]


def compare(prediction: Tensor, given: Corrupted, config: LossConfig, schedule: Schedule) -> Tensor:
    """The settings' loss of a prediction, weighed by timestep, ``(B,)``."""
    snr = schedule.snr(given.t)
    delta = scheduled_delta(config.huber_schedule, config.huber_delta, given.t / len(schedule), snr)
    return weight(snr, config, schedule) * picture_mean(pointwise(config.kind, prediction, given.target, delta))


def weight(snr: Tensor, config: LossConfig, schedule: Schedule) -> Tensor | float:
    """The weight of each timestep."""
    if config.min_snr_gamma is not None:
        return min_snr_weight(snr, config.min_snr_gamma, schedule.objective)
    return debiased_weight(snr, schedule.objective) if config.debiased else 1.0
