"""The loss of one micro step: corrupt, predict, compare, weigh. A pure function of the batch, its number and the seed."""

from __future__ import annotations

from torch import Tensor

from trainer import rng
from trainer.data import Batch
from trainer.diffusion.losses import draw_noise, draw_timesteps, min_snr_weight, squared_error
from trainer.session import Session

NOISE = 1
"""Key of the generator of noise and timesteps, beside the loader's own."""


def losses(session: Session, batch: Batch) -> Tensor:
    """Weighted loss of each picture, ``(B,)``. Noise and timesteps depend on the seed and the batch's number alone."""
    config, schedule, device = session.config, session.bundle.schedule, session.accelerator.device
    generator = rng.generator_for(config.train.seed, NOISE, batch.number)
    noise = draw_noise(batch.latents, generator, config.loss.noise_offset).to(device)
    t = draw_timesteps(len(batch.captions), len(schedule), generator).to(device)
    x0 = batch.latents.to(device)
    with session.accelerator.autocast():
        text = batch.text_states if batch.text_states is not None else session.bundle.encode_text(batch.captions)
        prediction = session.bundle.predict(schedule.corrupt(x0, noise, t), t, text, batch.frames)
    loss = squared_error(prediction, schedule.target(x0, noise, t))
    gamma = config.loss.min_snr_gamma
    return loss if gamma is None else loss * min_snr_weight(schedule.snr(t), gamma, schedule.objective)
