"""The checkpoint that the full-size bench writes is a whole one, and its report says what was found and foretold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bench import fullsize
from trainer.config import ModelConfig
from trainer.models import find
from trainer.models import parts as parts_module

SMALL = {"block_out_channels": [32, 32, 64, 64], "hidden_size": 48, "intermediate_size": 64, "cross_attention_dim": 48}


def test_the_checkpoint_is_found_as_its_family_and_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = fullsize.shipped
    monkeypatch.setattr(
        fullsize, "shipped", lambda *part: {k: SMALL.get(k, v) if k in SMALL else v for k, v in shipped(*part).items()}
    )
    file = tmp_path / "model.safetensors"
    save_file(fullsize.checkpoint("sd1", torch.bfloat16), file)
    source = find(ModelConfig(base=str(file)))
    assert source.family == "sd1" and source.is_file
    unet = source.parts["unet"].load(torch.float32)
    weight = unet.conv_in.weight.detach()
    assert weight.std() == pytest.approx((4 * 9) ** -0.5, rel=0.1)
    assert parts_module.build_empty("unet", source.parts["unet"].config).state_dict().keys() == unet.state_dict().keys()
    assert float(unet.conv_norm_out.weight.detach().min()) == 1 and float(unet.conv_norm_out.bias.detach().abs().max()) == 0


def test_the_table_has_the_error_of_the_estimate() -> None:
    found = {"peak": 4 << 30, "seconds": 10.0, "shapes": 3 << 30, "estimate": {"memory": 5 << 30, "step_seconds": 9.0}}
    head = {"date": "today", "cpu": "a CPU", "threads": 1, "versions": {"torch": "2"}}
    text = fullsize.table({"command": "bench", "machine": head, "family": "sd1", "found": found})
    assert "| 4.00 GiB | 5.00 GiB | +25.0% | 3.00 GiB (-25.0%) |" in text and "| 10.0 s | 9.0 s | -10.0% |" in text
