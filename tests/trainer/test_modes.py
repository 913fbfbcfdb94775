"""Looking at a model leaves modes, gradients and random numbers as they were."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.modes import untouched


def test_modes_gradients_and_random_numbers_come_back():
    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)))
    model.train()
    model[1][1].eval()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), untouched(model):
        assert not any(module.training for module in model.modules())
        assert not model(torch.ones(1, 2)).requires_grad
        torch.rand(3)
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == [True, True, True, True, False]
    assert torch.get_rng_state().equal(state) and model(torch.ones(1, 2)).requires_grad
