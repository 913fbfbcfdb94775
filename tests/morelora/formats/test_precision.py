"""The cast: exact where it can be, refused where it cannot."""

import pytest
import torch

from morelora.errors import FormatError, NonFiniteTensorError
from morelora.formats.precision import cast


def pair(up: float, down: float) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "m.lora_up.weight": up * torch.randn(6, 2, generator=generator),
        "m.lora_down.weight": down * torch.randn(2, 9, generator=generator),
    }


def product(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return tensors["m.lora_up.weight"].double() @ tensors["m.lora_down.weight"].double()


def test_small_factors_survive_float16():
    """1e-7 is below float16's smallest normal number by far: cast as it stands, the product would be 30 % off."""
    tensors = pair(1e-7, 3.0)
    plain = {key: tensor.half() for key, tensor in tensors.items()}
    error = [
        float((product(found) - product(tensors)).norm() / product(tensors).norm())
        for found in (plain, cast(tensors, torch.float16))
    ]
    assert error[0] > 0.05
    assert error[1] < 4e-4


@pytest.mark.parametrize(
    ("size", "dtype"), [(1e-9, torch.float32), (1e-6, torch.float32), (1e-3, torch.float16), (0, torch.float16)]
)
def test_a_difference_too_small_for_float16_stays_in_float32(size, dtype):
    """It has no partner to take its size from; of 1e-9 float16 would leave nothing."""
    tensor = size * torch.randn(8, 8, generator=torch.Generator().manual_seed(3))
    found = cast({"m.diff": tensor}, torch.float16)["m.diff"]
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), tensor, rtol=1e-3, atol=0)


def test_float32_is_bit_for_bit():
    tensors = pair(1e-7, 3.0)
    assert all(torch.equal(found, tensors[key]) for key, found in cast(tensors, torch.float32).items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_alpha_and_magnitudes_stay_float32(dtype):
    tensors = pair(1, 1) | {
        "m.alpha": torch.tensor(0.1),
        "m.dora_scale": torch.tensor([[1.0001]]),
        "n.lora_magnitude_vector": torch.ones(3),
    }
    found = cast(tensors, dtype)
    assert {key for key, tensor in found.items() if tensor.dtype == dtype} == {"m.lora_up.weight", "m.lora_down.weight"}
    assert found["m.dora_scale"] == tensors["m.dora_scale"]
    assert found["m.alpha"].shape == ()


def test_own_contiguous_memory():
    whole = torch.randn(4, 4)
    found = cast({"a": whole.T, "b": whole[:2]}, torch.float32)
    assert found["a"].is_contiguous() and found["b"].is_contiguous()
    assert len({tensor.untyped_storage().data_ptr() for tensor in (whole, *found.values())}) == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_is_refused_by_name(value):
    with pytest.raises(NonFiniteTensorError, match="m.lora_up.weight holds NaN or infinite"):
        cast(pair(1, 1) | {"m.lora_up.weight": torch.tensor([[value]])}, torch.float32)


def test_overflow_is_refused_by_name_and_bf16_takes_it():
    tensors = {"m.hada_w1_a": torch.tensor([[1e6]])}
    with pytest.raises(FormatError, match="m.hada_w1_a is too large for torch.float16: choose bf16 or fp32"):
        cast(tensors, torch.float16)
    assert float(cast(tensors, torch.bfloat16)["m.hada_w1_a"]) == pytest.approx(1e6, rel=4e-3)
