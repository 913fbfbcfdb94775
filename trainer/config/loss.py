"""Settings of the loss: its kind and weights, the timesteps and the noise that it is taken at."""

from __future__ import annotations

from typing import Literal

from trainer.config.base import Section, setting


class LossConfig(Section):
    """The diffusion loss."""

    kind: Literal["l2", "huber", "smooth_l1"] = setting(
        "l2", "Error of a prediction: its square, or one that grows linearly beyond huber_delta and so minds outliers less."
    )
    huber_delta: float = setting(0.1, "Size of an error beyond which huber and smooth_l1 grow linearly.", gt=0, le=1)
    huber_schedule: Literal["constant", "exponential", "snr"] = setting(
        "snr", "How huber_delta depends on the noise: always the same, or from 1 without noise down to huber_delta."
    )
    min_snr_gamma: float | None = setting(None, "min-SNR weighting of the timesteps; 5 is usual, empty means off.", gt=0)
    debiased: bool = setting(False, "Debiased estimation: weigh timesteps by 1 / sqrt(SNR), so that high noise counts more.")
    timesteps: Literal["uniform", "logit_normal", "high_noise", "low_noise"] = setting(
        "uniform",
        "How often each timestep is drawn: all alike, most in the middle (logit_normal), more at high noise (look and "
        "composition) or at low noise (detail). The loss is not weighed back.",
    )
    timestep_min: int = setting(0, "Lowest timestep that is trained; 0 is the least noise.", ge=0, le=999)
    timestep_max: int = setting(999, "Highest timestep that is trained; 999 is the most noise.", ge=0, le=999)
    timestep_mean: float = setting(0.0, "Mean of logit_normal: above 0 towards high noise.", ge=-5, le=5)
    timestep_std: float = setting(1.0, "Width of logit_normal; 1 is usual.", gt=0, le=5)
    noise_offset: float = setting(0.0, "Noise that is constant over the picture; shifts brightness. Usually 0.", ge=0, le=1)
    pyramid_iterations: int = setting(
        0, "Levels of multi-resolution noise: each is coarser than the one before. 6 is usual, 0 means off.", ge=0, le=16
    )
    pyramid_discount: float = setting(0.4, "Strength of each level of multi-resolution noise over the one before.", gt=0, le=1)
    input_perturbation: float = setting(
        0.0, "Extra noise in the denoiser's input that is not in its target; 0.1 is usual, 0 means off.", ge=0, le=1
    )
    unmasked_weight: float = setting(
        0.0, "How much counts what a picture's mask (data.mask) hides; 0.1 keeps the rest sane.", ge=0, lt=1
    )
    mask_normalize: bool = setting(False, "Divide a masked loss by the mask's area, so that small masks count as much as large.")
    prior_weight: float = setting(1.0, "Weight of the loss of regularization pictures.", gt=0, le=100)
    prior_preservation: float = setting(
        0.0,
        "Keep what the base model makes of captions without the trigger: weight of the difference to its own prediction. "
        "Needs no pictures; a step takes more than twice the time. 1 is usual, 0 means off.",
        ge=0,
        le=100,
    )
