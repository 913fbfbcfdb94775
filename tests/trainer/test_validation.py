"""The loss on held-out pictures: its value, the same at every look, without a trace in the training."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file

from tests.trainer import tiny
from trainer import rng, settings, validation
from trainer.data.views import View
from trainer.diffusion.density import Density
from trainer.diffusion.noise import draw_noise, draw_timesteps
from trainer.errors import InputError
from trainer.events import Event, Started, Validated
from trainer.run import RunDir
from trainer.session import Session
from trainer.train import train

SCHEDULER = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("validation")
    return tiny.save_base(folder / "base"), tiny.save_pictures(folder / "pictures", 6)


def session(inputs: tuple[Path, Path], folder: Path, **changes) -> Session:  # noqa: ANN003
    return tiny.session(*inputs, folder, **{"validation__count": 2} | changes)


def run(inputs: tuple[Path, Path], output: Path, **changes) -> tuple[Path, list[Event]]:  # noqa: ANN003
    events: list[Event] = []
    return train(settings.parse(tiny.values(*inputs, output, **changes), "test"), listener=events.append), events


def digest(path: Path) -> str:
    tensors = load_file(path / "tiny.safetensors")
    return hashlib.sha256(b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))).hexdigest()


@torch.no_grad()
def by_hand(session: Session, timesteps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Timesteps and mean squared errors of every look, with diffusers' parts."""
    ts, errors = [], []
    for index, item in enumerate(session.dataset.held_out):
        generator = rng.generator_for(validation.SEED, int(item.sha256[:16], 16))
        x0 = session.held.encoded.latents.get(View(index, item.bucket))[0].repeat(timesteps, 1, 1, 1)
        t = draw_timesteps(timesteps, Density(), generator)
        noise = draw_noise(x0, generator)
        states = session.bundle.encode_text([item.caption] * timesteps)
        predicted = session.bundle.unet(SCHEDULER.add_noise(x0, noise, t), t, encoder_hidden_states=states).sample
        ts.append(t)
        errors.append((predicted - noise).square().mean((1, 2, 3)))
    return torch.cat(ts), torch.cat(errors)


@pytest.mark.acts("validation.timesteps")
@pytest.mark.parametrize("text_encoder", [True, False])
def test_the_loss_is_the_mean_squared_error_by_bin(inputs, tmp_path, text_encoder):
    held = session(inputs, tmp_path, validation__timesteps=6, train__text_encoder=text_encoder)
    found = validation.measure(held, held.held)
    t, errors = by_hand(held, 6)
    assert found.loss == pytest.approx(errors.mean().item(), rel=1e-5)
    want = {f"{low}-{low + 249}": errors[(t >= low) & (t < low + 250)].mean().item() for low in (0, 250, 500, 750)}
    assert found.by_bin == pytest.approx(want, rel=1e-5) and found.step == 0


def test_neither_seed_nor_batch_size_nor_other_settings_of_the_loss_change_it(inputs, tmp_path):
    one = session(inputs, tmp_path)
    other = session(
        inputs, tmp_path, train__seed=7, train__batch_size=3, loss__kind="huber", loss__timestep_min=900, adapter__dropout=0.5
    )
    assert other.held.items == one.held.items
    assert validation.measure(other, other.held).loss == pytest.approx(validation.measure(one, one.held).loss, rel=1e-5)


@pytest.mark.acts("validation.every")
def test_training_has_the_same_bits_with_and_without_looking(inputs, tmp_path):
    changes = {"adapter__dropout": 0.2, "train__ema": 0.9, "validation__count": 2}
    often, said = run(inputs, tmp_path / "often", **changes, validation__every=1)
    once, _ = run(inputs, tmp_path / "once", **changes, validation__every=0)
    assert digest(often) == digest(once)
    assert [event.step for event in said if isinstance(event, Validated)] == list(range(7))


@pytest.mark.acts("train.ema")
def test_validation_looks_at_the_average(inputs, tmp_path):
    """With a decay near 1 the average is still near the base when the adapter is not."""
    slow, _ = run(inputs, tmp_path / "slow", validation__count=2, validation__timesteps=8)
    events = [e for e in RunDir(slow).events() if e["event"] == "Validated"]
    assert abs(events[-1]["loss"] / events[0]["loss"] - 1) > 1e-3
    base, *_, last = events
    averaged, _ = run(inputs, tmp_path / "ema", validation__count=2, validation__timesteps=8, train__ema=0.9)
    found = [e for e in RunDir(averaged).events() if e["event"] == "Validated"]
    assert found[0]["loss"] == base["loss"] and found[-1]["loss"] != last["loss"]


def test_held_out_pictures_are_counted_and_not_trained_on(inputs, tmp_path):
    path, events = run(inputs, tmp_path, validation__count=2, train__steps=1)
    plan = next(event for event in events if isinstance(event, Started)).plan
    assert plan["pictures"] == 4 and plan["epochs"] == 0.5
    assert any("2 pictures held out" in note for note in plan["notes"])
    kinds = [event["event"] for event in RunDir(path).events()]
    assert kinds.index("Validated") < kinds.index("Step") and kinds.count("Validated") == 2


def test_contradictions_are_refused():
    for section, message in [
        ({"count": 1, "share": 0.5}, "choose one"),
        ({"folder": "x", "count": 1}, "choose one"),
        ({"every": 5}, "validation.every has no effect"),
    ]:
        with pytest.raises(InputError, match=message):
            settings.parse({"validation": section}, "test")
