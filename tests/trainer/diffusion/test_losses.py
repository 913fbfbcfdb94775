"""Losses against closed forms and torch's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from trainer.diffusion.losses import LOSSES, importance_of, picture_mean, pointwise, scheduled_delta, squared_error


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 4, 5, 2, generator=generator), torch.randn(3, 4, 5, 2, generator=generator)


def by_picture(kind: str, prediction: torch.Tensor, target: torch.Tensor, delta: float = 1.0) -> torch.Tensor:
    return picture_mean(pointwise(kind, prediction, target, torch.full((len(prediction),), delta)))


@pytest.mark.parametrize("loss", [squared_error, lambda p, t: by_picture("l2", p, t)])
def test_l2_is_torchs_mse_of_each_picture(loss):
    prediction, target = pair()
    want = [functional.mse_loss(p, t).item() for p, t in zip(prediction, target, strict=True)]
    assert loss(prediction, target).tolist() == pytest.approx(want)


@pytest.mark.parametrize("kind", LOSSES)
def test_every_loss_is_in_float32_even_where_half_precision_would_overflow(kind):
    out = pointwise(kind, torch.full((1, 1, 1, 1), 300.0, dtype=torch.float16), torch.zeros(1, 1, 1, 1), torch.ones(1))
    assert out.dtype == torch.float32 and math.isfinite(out.item())
    assert kind != "l2" or out.item() == 300.0**2


@pytest.mark.parametrize("delta", [0.1, 0.5])
def test_the_huber_losses_are_their_closed_forms(delta):
    prediction, target = pair()
    d = (prediction - target).double()
    root = (d.square() + delta**2).sqrt() - delta
    torch.testing.assert_close(by_picture("huber", prediction, target, delta), (2 * delta * root).mean((1, 2, 3)).float())
    torch.testing.assert_close(by_picture("smooth_l1", prediction, target, delta), (2 * root).mean((1, 2, 3)).float())


def test_the_huber_losses_lie_between_torchs_mse_and_l1():
    prediction, target = pair()
    mse, l1 = functional.mse_loss(prediction, target), functional.l1_loss(prediction, target)
    assert by_picture("huber", prediction, target, 1e3).mean().item() == pytest.approx(mse.item(), rel=1e-4)
    assert by_picture("smooth_l1", prediction, target, 1e-6).mean().item() == pytest.approx(2 * l1.item(), rel=1e-4)
    assert by_picture("huber", prediction, target, 1e-3).mean().item() == pytest.approx(2e-3 * l1.item(), rel=1e-2)


def test_small_errors_keep_their_digits():
    """``sqrt(d^2 + 1) - 1`` in float32 is 0 for ``d = 1e-4``."""
    tiny = pointwise("huber", torch.full((1, 1, 1, 1), 1e-4), torch.zeros(1, 1, 1, 1), torch.ones(1))
    assert tiny.item() == pytest.approx(1e-8, rel=1e-5)


def test_each_picture_has_its_own_delta():
    prediction, target = pair()
    deltas = torch.tensor([0.1, 0.5, 1.0])
    together = picture_mean(pointwise("huber", prediction, target, deltas))
    alone = [by_picture("huber", prediction[i : i + 1], target[i : i + 1], d.item()).item() for i, d in enumerate(deltas)]
    assert together.tolist() == pytest.approx(alone) and len(set(alone)) == 3


def test_schedules_of_delta():
    """The formulas of arXiv 2403.16728 at no noise, half way (snr 1, so sigma 1) and pure noise (snr 0)."""
    progress, snr = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([math.inf, 1.0, 0.0])
    assert scheduled_delta("constant", 0.1, progress, snr).tolist() == pytest.approx([0.1] * 3)
    assert scheduled_delta("exponential", 0.1, progress, snr).tolist() == pytest.approx([1.0, 0.1**0.5, 0.1])
    assert scheduled_delta("snr", 0.1, progress, snr).tolist() == pytest.approx([1.0, 0.9 / 4 + 0.1, 0.1])


def test_a_mask_leaves_the_mean_over_what_it_shows():
    loss = torch.arange(16.0).view(1, 2, 2, 4)
    left = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(1, 1, 2, 4)
    inside, outside = loss[..., :2].mean().item(), loss[..., 2:].mean().item()
    assert picture_mean(loss, importance_of(left, 0.0)).item() == pytest.approx(inside / 2)
    assert picture_mean(loss, importance_of(left, 0.0), normalize=True).item() == pytest.approx(inside)
    assert picture_mean(loss, importance_of(left, 0.1)).item() == pytest.approx((inside + 0.1 * outside) / 2)
    assert picture_mean(loss, importance_of(left, 0.1), normalize=True).item() == pytest.approx((inside + 0.1 * outside) / 1.1)
    assert picture_mean(loss, importance_of(left, 1.0)).item() == picture_mean(loss).item()


def test_a_black_mask_gives_no_loss_and_no_nan():
    loss, black = torch.ones(1, 2, 2, 2), torch.zeros(1, 1, 2, 2)
    assert [picture_mean(loss, black, normalize).item() for normalize in (False, True)] == [0.0, 0.0]
