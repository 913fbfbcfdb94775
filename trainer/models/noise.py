"""What a base model predicts, its noise schedule and its sampler: from its config, its marks, the settings, or assumed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from diffusers import DDIMScheduler, DDPMScheduler

from trainer.config import ModelConfig
from trainer.diffusion.schedule import Objective, Schedule
from trainer.errors import InputError
from trainer.models.source import NAMES, Source

TELLTALE = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"
"""A tensor whose spread differs between the two Stable Diffusion 2.1 models, 768-v and 512-base; ComfyUI tells them so too."""
SPREAD = 0.09


@dataclass(frozen=True)
class Noise:
    """Schedule for training, sampler for previews, and what the plan should say of them."""

    schedule: Schedule
    sampler: Any
    notes: list[str]


def build_noise(source: Source, config: ModelConfig, unet: Any, sampler: Any) -> Noise:
    """Decide what the model predicts and whether its last step is pure noise.

    Args:
        source: the base model's configs and marks.
        config: the settings, which come first.
        unet: the loaded UNet, for Stable Diffusion 2 files that say nothing.
        sampler: the model's own.

    Raises:
        InputError: the objective is none that is known, or zero terminal SNR is asked for where it cannot be.
    """
    objective, note = _objective(source, config, unet)
    is_zero, zero_note = _is_zero_terminal(source, config, objective)
    plain = DDPMScheduler.from_config(sampler.config, rescale_betas_zero_snr=False)
    schedule = Schedule(plain.alphas_cumprod, objective)
    if is_zero:
        schedule = schedule.with_zero_terminal_snr()
        sampler = _rescaled_sampler(sampler, objective)
    elif sampler.config.prediction_type != objective:
        sampler = type(sampler).from_config(sampler.config, prediction_type=objective)
    return Noise(schedule, sampler, [text for text in (note, zero_note) if text])


def _objective(source: Source, config: ModelConfig, unet: Any) -> tuple[Objective, str]:
    """The objective, and what the user should know of how it was found."""
    if config.objective != "auto":
        return config.objective, ""
    if not source.is_file:
        return _known(source, str(source.scheduler.get("prediction_type", "epsilon"))), ""
    if "v_pred" in source.hints:
        return "v_prediction", "The base predicts the velocity: the file has the mark v_pred."
    said = source.hints.get("modelspec.prediction_type", "v" * ("768-v" in source.hints.get("modelspec.architecture", "")))
    if said:
        return _known(source, {"v": "v_prediction"}.get(said, said)), f"The base's metadata says that it predicts {said}."
    ways = "set model.objective if that is wrong"
    if source.family == "sd2":
        spread = float(unet.state_dict()[TELLTALE].float().std(unbiased=False))
        guess: Objective = "v_prediction" if spread > SPREAD else "epsilon"
        return (
            guess,
            f"A single file of {NAMES['sd2']} does not say what it predicts; {guess} is guessed from its weights: {ways}.",
        )
    return (
        "epsilon",
        f"The file does not say what the base predicts; epsilon is assumed, as usual for {NAMES[source.family]}: {ways}.",
    )


def _known(source: Source, name: str) -> Objective:
    for objective in get_args(Objective):
        if name == objective:
            return objective
    raise InputError(
        f"{source.path} predicts {name!r}, which is not supported",
        "use a base that predicts epsilon or v_prediction; model.objective overrules the model where it is wrong",
    )


def _is_zero_terminal(source: Source, config: ModelConfig, objective: Objective) -> tuple[bool, str]:
    """Whether the schedule ends in pure noise: by the setting, else as the model says."""
    says = bool(source.scheduler.get("rescale_betas_zero_snr")) or "ztsnr" in source.hints
    wanted = says if config.zero_terminal_snr is None else config.zero_terminal_snr
    if wanted and objective == "epsilon":
        if config.zero_terminal_snr:
            raise InputError(
                "model.zero_terminal_snr needs a base that predicts the velocity, and this one predicts epsilon: "
                "where nothing but noise is left, the noise to predict is the input itself and teaches nothing",
                "remove model.zero_terminal_snr; for brightness, loss.noise_offset works with every base",
            )
        return False, "The base's zero terminal SNR is left out: it means nothing for a model that predicts epsilon."
    note = "The noise schedule ends in pure noise (zero terminal SNR)" + (", as the base says." if says else ".")
    return wanted, note if wanted else ""


def _rescaled_sampler(sampler: Any, objective: Objective) -> DDIMScheduler:
    """A sampler that starts at the last timestep, which has no signal at all. Source: arXiv 2305.08891, section 3.3."""
    return DDIMScheduler.from_config(
        sampler.config, prediction_type=objective, rescale_betas_zero_snr=True, timestep_spacing="trailing",
        clip_sample=False, set_alpha_to_one=False,
    )  # fmt: skip
