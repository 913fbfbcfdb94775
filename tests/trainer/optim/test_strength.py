"""The effective strength and its usual range by algorithm, part and base; the plan's remark where it lies outside."""

from __future__ import annotations

import pytest

from trainer.optim import effective_strength, usual_range
from trainer.optim.optimizers import OPTIMIZERS
from trainer.plan import TrainedPart

SD, POCKET = 320, 64


def test_alpha_and_rate_can_be_traded():
    assert effective_strength("adamw", 2e-4, 0.5) == pytest.approx(2e-4 * 0.5**0.5)
    assert effective_strength("adamw8bit", 1e-4, 2.0) == pytest.approx(effective_strength("adamw", 2e-4, 0.5))


def test_it_is_said_for_adamw_alone():
    said = {name for name in OPTIMIZERS if effective_strength(name, 1.0, 1.0) is not None}
    assert said == {"adamw", "adamw8bit", "paged_adamw8bit"} and effective_strength("torch.optim.SGD", 1.0, 1.0) is None


@pytest.mark.parametrize(
    ("algorithm", "component", "decomposed", "width", "expected"),
    [
        ("lora", "unet", False, SD, (3e-5, 5e-4)),
        ("lokr", "unet", False, SD, (3e-5, 5e-4)),
        ("lora", "unet", True, SD, (1.5e-5, 2.5e-4)),
        ("lora", "text_encoder", False, SD, (0.0, 2e-4)),
        ("loha", "text_encoder_2", True, SD, (0.0, 1e-4)),
        ("full", "unet", False, SD, (1e-6, 1e-4)),
        ("full", "text_encoder", False, SD, (0.0, 1e-4)),
        ("lora", "unet", False, POCKET, (3e-4, 1e-2)),
        ("lora", "text_encoder", False, POCKET, (0.0, 1e-2)),
        ("new", "unet", False, SD, None),
        ("ia3", "unet", False, POCKET, None),
        ("vera", "unet", True, POCKET, None),
    ],
)
def test_the_usual_range(algorithm, component, decomposed, width, expected):
    found = usual_range(algorithm, component, decomposed, width)
    assert found == (expected if expected is None else pytest.approx(expected))


def remark(strength: float | None, usual: tuple[float, float] | None = (3e-5, 5e-4)) -> str:
    return " ".join(TrainedPart("unet", "lora", 1, 1, 1e-3, strength, usual).remark())


def test_what_lies_outside_is_remarked_with_the_way_back():
    assert "unet, lora" in remark(1e-3) and "above what is usual (3e-05 to 0.0005): lower" in remark(1e-3)
    assert "below" in remark(1e-5) and "raise" in remark(1e-5)
    assert remark(1e-4) == remark(None) == remark(1e-3, None) == ""
