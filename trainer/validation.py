"""The loss on held-out pictures, at noise and timesteps that are the same at every step and in every run.

It is the plain squared error of what the model predicts, whatever kind and weights the training's loss has, over all
timesteps, so that runs with other losses can be compared. It falls while the adapter learns what the pictures share, and
rises again when it learns the training pictures by heart.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from trainer import rng
from trainer.conditioning import States
from trainer.data.holdout import HeldOut
from trainer.data.views import View
from trainer.diffusion.density import Density
from trainer.diffusion.losses import squared_error
from trainer.diffusion.noise import draw_noise, draw_timesteps
from trainer.events import Validated
from trainer.modes import untouched
from trainer.session import Session

BINS = 4
"""Equal ranges of timesteps that the loss is also given for."""
SEED = 2023
"""Of noise and timesteps, together with the picture's own hash; no setting changes it."""


def measure(session: Session, held: HeldOut) -> Validated:
    """The loss of the adapters as they are on all held-out pictures. Each process looks at its share of them."""
    accelerator, total = session.accelerator, len(session.bundle.schedule)
    sums = torch.zeros(2, BINS, device=accelerator.device)
    with untouched(session.bundle.unet, *session.bundle.text_encoders.values()):
        for index in range(accelerator.process_index, len(held.items), accelerator.num_processes):
            t, errors = _look(session, held, index)
            bins = one_hot(t * BINS // total, BINS).float()
            sums += torch.stack((errors @ bins, bins.sum(0)))
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(sums, "sum")
    errors, counts = sums.tolist()
    by_bin = {_name(i, total): errors[i] / counts[i] for i in range(BINS) if counts[i]}
    return Validated(session.step, sum(errors) / sum(counts), by_bin)


def _look(session: Session, held: HeldOut, index: int) -> tuple[Tensor, Tensor]:
    """Timesteps and squared errors of one picture, ``(validation.timesteps,)`` each."""
    item, bundle, device = held.items[index], session.bundle, session.accelerator.device
    view = View(index, item.bucket)
    count, size = session.config.validation.timesteps, session.config.train.batch_size
    x0 = held.encoded.latents.get(view)[0].expand(count, -1, -1, -1)
    generator = rng.generator_for(SEED, int(item.sha256[:16], 16))
    t = draw_timesteps(count, Density(last=len(bundle.schedule) - 1), generator).to(device)
    x0, noise = x0.to(device), draw_noise(x0, generator).to(device)
    noisy, target = bundle.schedule.corrupt(x0, noise, t), bundle.schedule.target(x0, noise, t)
    predicted = []
    with session.autocast():
        for part, times in zip(noisy.split(size), t.split(size), strict=True):
            frames = held.views.frames([view] * len(part))
            predicted.append(bundle.predict(part, times, _states(session, held, [item.caption] * len(part)), frames))
    return t, squared_error(torch.cat(predicted), target)


def _states(session: Session, held: HeldOut, captions: list[str]) -> States:
    texts = held.encoded.texts
    return session.bundle.encode_text(captions) if texts is None else texts.batch(captions)


def _name(place: int, total: int) -> str:
    """``250-499``: the timesteps of one bin."""
    first, end = -(-place * total // BINS), -(-(place + 1) * total // BINS)
    return f"{first}-{end - 1}"
