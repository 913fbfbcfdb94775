"""Settings of the loss."""

from __future__ import annotations

from trainer.config.base import Section, setting


class LossConfig(Section):
    """The diffusion loss."""

    min_snr_gamma: float | None = setting(None, "min-SNR weighting of the timesteps; 5 is usual, empty means off.", gt=0)
    noise_offset: float = setting(0.0, "Noise that is constant over the picture; shifts brightness. Usually 0.", ge=0, le=1)
