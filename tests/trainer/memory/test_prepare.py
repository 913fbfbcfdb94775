"""The form in which the base model is held on its device."""

from __future__ import annotations

import pytest
import torch

from tests.trainer import tiny
from tests.trainer.test_train import losses, run


@pytest.mark.acts("device.channels_last")
def test_channels_last_is_another_order_in_memory_and_the_same_run(tmp_path):
    inputs = tiny.save_base(tmp_path / "base"), tiny.save_pictures(tmp_path / "pictures")
    session = tiny.session(*inputs, tmp_path, device__channels_last=True)
    kernel = session.bundle.unet.conv_in.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last) and not kernel.is_contiguous()
    plain, other = [], []
    run(inputs, tmp_path / "plain", plain.append)
    run(inputs, tmp_path / "other", other.append, device__channels_last=True)
    assert losses(other) == pytest.approx(losses(plain), rel=1e-3)
