"""What a base predicts and how its schedule ends: from configs, marks, metadata, settings."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

from trainer.config import ModelConfig
from trainer.errors import InputError
from trainer.models import find
from trainer.models.noise import TELLTALE, build_noise

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def unet(spread: float) -> Any:
    return SimpleNamespace(state_dict=lambda: {TELLTALE: torch.tensor([-spread, spread])})


def noise(source: Any, spread: float = 0.0, **config: Any) -> Any:
    sampler = PNDMScheduler(**BETAS, skip_prk_steps=True)
    return build_noise(source, ModelConfig(**config), unet(spread), sampler)


@pytest.mark.parametrize(
    ("family", "hints", "spread", "config", "objective", "note"),
    [
        ("sd1", {}, 0.0, {}, "epsilon", "epsilon is assumed"),
        ("sdxl", {}, 0.0, {}, "epsilon", "epsilon is assumed"),
        ("sd2", {}, 0.01, {}, "epsilon", "epsilon is guessed"),
        ("sd2", {}, 0.2, {}, "v_prediction", "v_prediction is guessed"),
        ("sdxl", {"v_pred": ""}, 0.0, {}, "v_prediction", "mark v_pred"),
        ("sd1", {"modelspec.prediction_type": "v"}, 0.0, {}, "v_prediction", "metadata"),
        ("sd2", {"modelspec.architecture": "stable-diffusion-v2-768-v"}, 0.0, {}, "v_prediction", "metadata"),
        ("sd2", {"modelspec.prediction_type": "epsilon"}, 0.2, {}, "epsilon", "metadata"),
        ("sd2", {"modelspec.prediction_type": "v"}, 0.2, {"objective": "epsilon"}, "epsilon", ""),
    ],
)
def test_a_files_objective(places, family, hints, spread, config, objective, note):
    source = replace(find(ModelConfig(base=str(places[family, "file"]))), hints=hints)
    made = noise(source, spread, **config)
    assert made.schedule.objective == objective == made.sampler.config.prediction_type
    assert note in " ".join(made.notes) and bool(note) == bool(made.notes)


@pytest.mark.acts("model.objective")
def test_a_folder_says_what_it_predicts_and_a_setting_overrules_it(places):
    source = find(ModelConfig(base=str(places["sd2", "folder"])))
    assert noise(source).schedule.objective == "v_prediction"
    assert noise(source, objective="epsilon").sampler.config.prediction_type == "epsilon"
    with pytest.raises(InputError, match="predicts 'sample'"):
        noise(replace(source, scheduler={"prediction_type": "sample"}))


def test_zero_terminal_snr_is_diffusers(places):
    source = find(ModelConfig(base=str(places["sd2", "folder"])))
    made = noise(source, zero_terminal_snr=True)
    betas = rescale_zero_terminal_snr(DDIMScheduler(**BETAS).betas.double())
    torch.testing.assert_close(made.schedule.alphas_cumprod, (1 - betas).cumprod(0).float(), rtol=1e-6, atol=1e-7)
    assert made.schedule.snr(torch.tensor([999])).item() == 0
    torch.testing.assert_close(made.sampler.alphas_cumprod, made.schedule.alphas_cumprod, rtol=1e-3, atol=1e-7)
    made.sampler.set_timesteps(4)
    assert made.sampler.timesteps.tolist() == [999, 749, 499, 249]
    assert not made.sampler.config.clip_sample


@pytest.mark.acts("model.zero_terminal_snr")
def test_the_base_says_how_its_schedule_ends_and_a_setting_overrules_it(places):
    source = find(ModelConfig(base=str(places["sd2", "folder"])))
    says = replace(source, scheduler=source.scheduler | {"rescale_betas_zero_snr": True})
    assert noise(says).schedule.alphas_cumprod[-1] == 0
    assert noise(says, zero_terminal_snr=False).schedule.alphas_cumprod[-1] > 0
    marked = replace(find(ModelConfig(base=str(places["sdxl", "file"]))), hints={"v_pred": "", "ztsnr": ""})
    assert noise(marked).schedule.alphas_cumprod[-1] == 0


def test_zero_terminal_snr_without_velocity_is_refused(places):
    source = find(ModelConfig(base=str(places["sd1", "folder"])))
    with pytest.raises(InputError, match="predicts epsilon") as refused:
        noise(source, zero_terminal_snr=True)
    assert "noise_offset" in refused.value.fix
    says = replace(source, scheduler=source.scheduler | {"rescale_betas_zero_snr": True})
    made = noise(says)
    assert made.schedule.alphas_cumprod[-1] > 0 and "left out" in made.notes[0]


def test_other_samplers_keep_their_kind(places):
    source = find(ModelConfig(base=str(places["sdxl", "file"])))
    euler = EulerDiscreteScheduler(**BETAS)
    made = build_noise(source, ModelConfig(objective="v_prediction"), None, euler)
    assert isinstance(made.sampler, EulerDiscreteScheduler) and made.sampler.config.prediction_type == "v_prediction"
