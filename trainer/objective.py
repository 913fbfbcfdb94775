"""The loss of one micro step: corrupt, predict, compare, weigh. A pure function of the batch, its number and the seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer import rng
from trainer.conditioning import States
from trainer.config import Config, LossConfig
from trainer.data import Batch
from trainer.diffusion.density import Density
from trainer.diffusion.losses import importance_of, picture_mean, pointwise, scheduled_delta
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


@dataclass(frozen=True)
class Text:
    """Captions of a batch, and their states where they were encoded ahead."""

    captions: list[str]
    states: States | None


def losses(session: Session, batch: Batch) -> Tensor:
    """Weighted loss of each picture, ``(B,)``, in float32; noise and timesteps depend on seed and batch number alone."""
    config, schedule, device = session.config.loss, session.bundle.schedule, session.accelerator.device
    given = corrupt(session, batch)
    session.procedures.batch(given.t, len(schedule))
    prediction = predict(session, batch, given, Text(batch.captions, batch.text_states))
    importance = None if batch.masks is None else importance_of(batch.masks.to(device), config.unmasked_weight)
    regular = torch.tensor(batch.regularization, device=device)
    loss = compare(prediction, given, config, schedule, importance)
    loss = loss * batch.weights.to(device) * torch.where(regular, config.prior_weight, 1.0)
    if session.config.keeps_prior:
        loss = loss + config.prior_preservation * torch.where(regular, 0.0, drift(session, batch, given))
    return loss


def drift(session: Session, batch: Batch, given: Corrupted) -> Tensor:
    """How far the adapters have moved the predictions for the captions without trigger, ``(B,)``.

    The loss of the adapted prediction against the base model's own, of the same noised pictures: with strength 0, also in the
    text encoders, and without gradient. Regularisation pictures are left out: they have a target of their own.
    Sources: OneTrainer's prior prediction, ai-toolkit's differential output preservation.
    """
    plain = Text(batch.plain, batch.plain_states)
    with torch.no_grad(), session.at_strength(0.0):
        base = predict(session, batch, given, plain)
    adapted = predict(session, batch, given, plain)
    return compare(adapted, replace(given, target=base), session.config.loss, session.bundle.schedule)


def predict(session: Session, batch: Batch, given: Corrupted, text: Text) -> Tensor:
    """The denoiser's prediction under a text, with the adapters as they are."""
    with session.autocast():
        states = text.states if text.states is not None else session.bundle.encode_text(text.captions)
        return session.bundle.predict(given.noisy, given.t, states, batch.frames)


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


def remarks(config: Config, schedule: Schedule) -> list[str]:
    """What the plan says of the loss. Raises ``InputError`` where the base model has fewer timesteps than are asked for."""
    return [*_on_timesteps(density(config.loss), len(schedule)), *_on_preservation(config)]


def _on_timesteps(drawn: Density, total: int) -> Iterator[str]:
    if drawn.last >= total:
        raise InputError(
            f"loss.timestep_max = {drawn.last}, but the base model has {total} timesteps, from 0 on",
            f"set loss.timestep_max = {total - 1} or less",
        )
    if drawn != Density(last=total - 1):
        shape = f"{drawn.kind} from {drawn.first} to {drawn.last}: {drawn.sparkline(total)} (least to most noise)"
        yield f"Timesteps are drawn {shape}; --plot-timesteps FILE.png shows them."


def _on_preservation(config: Config) -> Iterator[str]:
    if config.keeps_prior:
        yield (
            "Prior preservation: every micro step also predicts the captions without trigger, by the base and by the adapters: "
            "one pass more without and one with gradients, more than twice the time and nearly twice the activations' memory."
        )
        if config.data.caption_dropout:
            yield (
                "data.caption_dropout teaches the look without words, which loss.prior_preservation works against: "
                "data.caption_dropout = 0 suits it."
            )


def compare(
    prediction: Tensor, given: Corrupted, config: LossConfig, schedule: Schedule, importance: Tensor | None = None
) -> Tensor:
    """The settings' loss of a prediction, weighed by position and by timestep, ``(B,)``."""
    snr = schedule.snr(given.t)
    delta = scheduled_delta(config.huber_schedule, config.huber_delta, given.t / len(schedule), snr)
    loss = pointwise(config.kind, prediction, given.target, delta)
    return weight(snr, config, schedule) * picture_mean(loss, importance, config.mask_normalize)


def weight(snr: Tensor, config: LossConfig, schedule: Schedule) -> Tensor | float:
    """The weight of each timestep."""
    if config.min_snr_gamma is not None:
        return min_snr_weight(snr, config.min_snr_gamma, schedule.objective)
    return debiased_weight(snr, schedule.objective) if config.debiased else 1.0
