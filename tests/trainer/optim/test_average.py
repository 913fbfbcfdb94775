"""The exponential average of the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.optim import Ema


def test_ema_closed_form_and_swap():
    parameter = nn.Parameter(torch.zeros(2))
    ema = Ema([parameter], 0.5)
    with torch.no_grad():
        for step, value in ((1, 1.0), (2, 2.0)):
            parameter.fill_(value)
            ema.update(step)
    first = 0.0 + (1 - 2 / 11) * 1.0
    second = first + (1 - 3 / 12) * (2.0 - first)
    assert ema.average[0].tolist() == pytest.approx([second] * 2)
    ema.swap()
    assert parameter.tolist() == pytest.approx([second] * 2) and ema.average[0].tolist() == [2.0, 2.0]
    ema.swap()
    assert parameter.tolist() == [2.0, 2.0]


def test_ema_reaches_its_full_decay():
    parameter = nn.Parameter(torch.ones(1))
    ema = Ema([parameter], 0.9)
    ema.average[0].zero_()
    ema.update(10_000)
    assert ema.average[0].item() == pytest.approx(0.1)


def test_inside_the_parameters_are_the_averages():
    parameter = nn.Parameter(torch.tensor([3.0]))
    ema = Ema([parameter], 0.9)
    ema.average[0].fill_(1.0)
    with ema.inside():
        assert parameter.item() == 1.0
    assert parameter.item() == 3.0 and ema.average[0].item() == 1.0
