"""Each setting of the loss acts in a real session, by the amount that its formula says."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from PIL import Image

from tests.trainer import tiny
from trainer import settings
from trainer.config import Config, DataConfig, LossConfig
from trainer.data import Batch
from trainer.diffusion.schedule import Schedule
from trainer.errors import InputError
from trainer.models import load
from trainer.objective import Text, corrupt, drift, losses, predict, remarks
from trainer.session import Session

SCHEDULER = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory):  # noqa: ANN201
    """Makes sessions on a tiny base whose four pictures form one batch."""
    folder = tmp_path_factory.mktemp("objective")
    base, pictures = tiny.save_base(folder / "base"), tiny.save_pictures(folder / "pictures")
    (folder / "masks").mkdir()
    left = Image.new("L", (64, 64), "black")
    left.paste("white", (0, 0, 32, 64))
    left.save(folder / "masks" / "0.png")

    def make(**changes) -> Session:  # noqa: ANN003
        return tiny.session(base, pictures, folder, **{"train__batch_size": 4, "train__text_encoder": False} | changes)

    return make


@pytest.fixture(scope="module")
def plain(start) -> Session:  # noqa: ANN001
    return start()


def first(session: Session) -> Batch:
    return session.loader.batch(0)


@torch.no_grad()
def differences(session: Session) -> tuple[torch.Tensor, torch.Tensor]:
    """Timesteps, and prediction minus target of the unchanged base, worked out apart from ``losses``."""
    batch = first(session)
    given = corrupt(session, batch)
    predicted = session.bundle.unet(given.noisy, given.t, encoder_hidden_states=batch.text_states).sample
    return given.t, predicted - given.target


def test_the_plain_loss_is_the_mean_squared_error(plain):
    _, d = differences(plain)
    torch.testing.assert_close(losses(plain, first(plain)).detach(), d.square().mean((1, 2, 3)))


def test_what_is_seen_is_diffusers_noising_of_what_is_aimed_at(plain):
    batch = first(plain)
    given = corrupt(plain, batch)
    torch.testing.assert_close(given.noisy, SCHEDULER.add_noise(batch.latents, given.target, given.t))


def test_equal_batch_numbers_have_equal_noise(plain, start):
    one, again, other = (corrupt(s, s.loader.batch(k)) for s, k in ((plain, 3), (start(), 3), (plain, 4)))
    assert one.noisy.equal(again.noisy) and one.t.equal(again.t)
    assert not one.noisy.equal(other.noisy)


@pytest.mark.acts("loss.kind", "loss.huber_delta", "loss.huber_schedule")
@pytest.mark.parametrize("schedule", ["constant", "exponential", "snr"])
@pytest.mark.parametrize("kind", ["huber", "smooth_l1"])
def test_kind_delta_and_schedule(start, kind, schedule):
    session = start(loss__kind=kind, loss__huber_delta=0.2, loss__huber_schedule=schedule)
    t, d = differences(session)
    sigma = ((1 - SCHEDULER.alphas_cumprod[t]) / SCHEDULER.alphas_cumprod[t]).sqrt()
    delta = {
        "constant": torch.full((4,), 0.2),
        "exponential": torch.exp(math.log(0.2) * t / 1000),
        "snr": 0.8 / (1 + sigma) ** 2 + 0.2,
    }[schedule].view(-1, 1, 1, 1)
    root = (d.square() + delta.square()).sqrt() - delta
    want = (2 * root * (delta if kind == "huber" else 1)).mean((1, 2, 3))
    torch.testing.assert_close(losses(session, first(session)).detach(), want, rtol=1e-4, atol=1e-6)


@pytest.mark.acts("loss.min_snr_gamma", "loss.debiased")
@pytest.mark.parametrize(
    ("changes", "weight"),
    [
        ({"loss__min_snr_gamma": 2.0}, lambda snr: (2 / snr).clamp_max(1)),
        ({"loss__debiased": True}, lambda snr: 1 / snr.sqrt()),
    ],
)
def test_weights(start, changes, weight):
    session = start(**changes)
    t, d = differences(session)
    want = weight(compute_snr(SCHEDULER, t)) * d.square().mean((1, 2, 3))
    torch.testing.assert_close(losses(session, first(session)).detach(), want, rtol=1e-3, atol=0)


@pytest.mark.acts("loss.timesteps", "loss.timestep_min", "loss.timestep_max", "loss.timestep_mean", "loss.timestep_std")
def test_range_and_distribution_of_timesteps(start):
    low = start(loss__timestep_min=100, loss__timestep_max=199)
    t = torch.cat([corrupt(low, low.loader.batch(k)).t for k in range(50)])
    assert t.min() >= 100 and t.max() <= 199 and t.float().std() > 20
    skew = start(loss__timesteps="logit_normal", loss__timestep_mean=2.0, loss__timestep_std=0.1)
    t = torch.cat([corrupt(skew, skew.loader.batch(k)).t for k in range(50)]) / 1000
    logits = (t / (1 - t)).log()
    assert logits.mean().item() == pytest.approx(2.0, abs=0.05) and logits.std().item() == pytest.approx(0.1, rel=0.2)
    cubic = start(loss__timesteps="high_noise")
    assert int((corrupt(cubic, first(cubic)).t >= 875).sum()) == 2


@pytest.mark.acts("loss.noise_offset", "loss.pyramid_iterations")
def test_noise_offset_and_pyramid_change_noise_and_target_together(start, plain):
    for changes in ({"loss__noise_offset": 0.5}, {"loss__pyramid_iterations": 4, "loss__pyramid_discount": 0.9}):
        session = start(**changes)
        given, before = corrupt(session, first(session)), corrupt(plain, first(plain))
        assert not torch.allclose(given.target, before.target)
        torch.testing.assert_close(given.noisy, SCHEDULER.add_noise(first(session).latents, given.target, given.t))


@pytest.mark.acts("loss.pyramid_discount")
def test_a_small_discount_leaves_the_first_level_of_the_pyramid(start):
    """The others are multiplied by its powers. Of the first picture, before which nothing else is drawn."""

    def target(**changes: float) -> torch.Tensor:
        session = start(**{f"loss__pyramid_{name}": value for name, value in changes.items()})
        return corrupt(session, first(session)).target[0]

    alone = target(iterations=1)
    assert (target(iterations=4, discount=0.001) - alone).abs().max() < 0.01
    assert (target(iterations=4, discount=0.9) - alone).abs().max() > 0.3


@pytest.mark.acts("loss.input_perturbation")
def test_input_perturbation_is_seen_and_not_aimed_at(start, plain):
    given, before = (corrupt(s, first(s)) for s in (start(loss__input_perturbation=0.3), plain))
    assert given.target.equal(before.target) and given.t.equal(before.t)
    sigma = (1 - SCHEDULER.alphas_cumprod[given.t]).sqrt().view(-1, 1, 1, 1)
    assert ((given.noisy - before.noisy) / sigma).std().item() == pytest.approx(0.3, rel=0.15)


def test_the_plan_shows_which_timesteps_are_trained():
    schedule = Schedule(SCHEDULER.alphas_cumprod, "epsilon")
    assert remarks(Config(), schedule) == []
    (said,) = remarks(Config(loss=LossConfig(timestep_min=500)), schedule)
    assert "uniform from 500 to 999: ▁▁▁▁▁▁▁▁▁▁██████████" in said
    with pytest.raises(InputError, match="has 500 timesteps") as refused:
        remarks(Config(), Schedule(SCHEDULER.alphas_cumprod[:500], "epsilon"))
    assert "timestep_max = 499" in refused.value.fix


def weigh(session: Session, batch: Batch, **changes) -> torch.Tensor:  # noqa: ANN003
    """Losses of a batch that differs from the dealt one."""
    return losses(session, replace(batch, **changes)).detach()


@pytest.mark.acts("loss.unmasked_weight", "loss.mask_normalize")
def test_a_mask_weighs_positions(start, plain):
    """One picture has a mask file whose left half is white; the others count everywhere."""
    masks = {"data__mask": "files", "data__mask_folder": str(Path(plain.config.data.images).parent / "masks")}
    mask = torch.ones(4, 1, 8, 8)
    mask[first(plain).items.index(0), ..., 4:] = 0
    for unmasked, normalize in ((0.0, False), (0.25, False), (0.25, True)):
        session = start(**masks, loss__unmasked_weight=unmasked, loss__mask_normalize=normalize)
        _, d = differences(session)
        counted = torch.where(mask == 1, 1.0, unmasked)
        want = (d.square() * counted).mean((1, 2, 3)) / (counted.mean((1, 2, 3)) if normalize else 1)
        torch.testing.assert_close(losses(session, first(session)).detach(), want)


@pytest.mark.acts("loss.prior_weight")
def test_weights_of_folders_and_of_regularisation_pictures(start, plain):
    batch = first(plain)
    before = weigh(plain, batch)
    assert weigh(plain, batch, weights=torch.tensor([1.0, 2.0, 0.5, 0.0])).tolist() == pytest.approx(
        (before * torch.tensor([1.0, 2.0, 0.5, 0.0])).tolist()
    )
    session = start(
        data__images="",
        data__sources=[{"path": plain.config.data.images}, {"path": plain.config.data.images, "regularization": True}],
        loss__prior_weight=0.25,
    )
    found = weigh(session, batch, regularization=[False, True, False, True])
    assert found.tolist() == pytest.approx((before * torch.tensor([1.0, 0.25, 1.0, 0.25])).tolist())


def moved(session: Session) -> Session:
    """The adapters no longer at their start, where they change nothing."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in session.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return session


@pytest.mark.acts("loss.prior_preservation")
@pytest.mark.parametrize("text_encoder", [False, True])
def test_prior_preservation_is_the_distance_to_the_base_on_captions_without_trigger(start, text_encoder):
    """Against a second base model that has never had adapters."""
    session = moved(start(train__text_encoder=text_encoder, loss__prior_preservation=2.0, data__caption_dropout=0.0))
    batch, untouched = first(session), load(session.config.model)
    given = corrupt(session, batch)
    assert batch.plain == [caption.removeprefix("my style, ") for caption in batch.captions]
    with torch.no_grad():
        base = untouched.unet(given.noisy, given.t, encoder_hidden_states=untouched.encode_text(batch.plain)).sample
        states = session.bundle.encode_text(batch.plain)
        adapted = session.bundle.unet(given.noisy, given.t, encoder_hidden_states=states).sample
    torch.testing.assert_close(drift(session, batch, given).detach(), (adapted - base).square().mean((1, 2, 3)))
    assert bool((drift(session, batch, given) > 1e-6).all())
    prediction = predict(session, batch, given, Text(batch.captions, batch.text_states))
    own = (prediction - given.target).square().mean((1, 2, 3))
    torch.testing.assert_close(weigh(session, batch), (own + 2.0 * drift(session, batch, given)).detach())
    regular = [True, False, False, False]
    torch.testing.assert_close(weigh(session, batch, regularization=regular)[0], own[0].detach())


def test_the_plan_says_what_prior_preservation_costs_and_what_works_against_it():
    schedule = Schedule(SCHEDULER.alphas_cumprod, "epsilon")
    loss = LossConfig(prior_preservation=1.0)
    said = remarks(Config(loss=loss, data=DataConfig(trigger="x")), schedule)
    assert len(said) == 2 and "more than twice the time" in said[0] and "data.caption_dropout = 0" in said[1]
    assert len(remarks(Config(loss=loss, data=DataConfig(trigger="x", caption_dropout=0)), schedule)) == 1


def test_prior_preservation_pulls_the_adapters_back(start):
    session = moved(start(loss__prior_preservation=1.0, loss__min_snr_gamma=5.0))
    batch = first(session)
    given = corrupt(session, batch)
    before = drift(session, batch, given).sum()
    before.backward()
    with torch.no_grad():
        for parameter in session.parameters():
            parameter.sub_(1e-2 * parameter.grad)
    assert session.adapters.strength == 1.0 and drift(session, batch, given).sum() < before


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"min_snr_gamma": 5.0, "debiased": True}, "choose one"),
        ({"huber_delta": 0.5}, "loss.huber_delta has no effect while loss.kind = 'l2'"),
        ({"huber_schedule": "constant"}, "loss.huber_schedule has no effect"),
        ({"timestep_min": 500, "timestep_max": 400}, "timestep_min .500. is above"),
        ({"timestep_mean": 1.0}, "loss.timestep_mean has no effect while loss.timesteps = 'uniform'"),
        ({"timesteps": "high_noise", "timestep_std": 2.0}, "loss.timestep_std has no effect"),
        ({"unmasked_weight": 0.1}, "loss.unmasked_weight has no effect while data.mask = 'none'"),
        ({"mask_normalize": True}, "loss.mask_normalize has no effect"),
        ({"prior_weight": 0.5}, "loss.prior_weight has no effect while none of data.sources"),
        ({"prior_preservation": 1.0}, "give a trigger"),
        ({"pyramid_discount": 0.9}, "loss.pyramid_discount has no effect"),
    ],
)
def test_what_contradicts_itself_or_would_not_act_is_refused(section, message):
    with pytest.raises(InputError, match=message):
        settings.parse({"loss": section}, "test")
