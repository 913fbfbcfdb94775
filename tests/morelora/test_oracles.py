"""The change of the weight against other people's code: lycoris' functions, ``torch.kron``, peft's layers.

Left out on purpose, since they are wrong in the versions at hand: lycoris' own merging of LoHa and LoKr (applies the scale
twice), peft's effective-convolution LoHa gradients, peft's factorisation for LoKr.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from morelora.adapter import Adapter
from morelora.factors import divisors_near
from morelora.registry import ALGORITHMS
from morelora.weight_decompose import WeightDecomposed
from tests.morelora.grid import CASES, EVERY, LAYERS, Case

functional = pytest.importorskip("lycoris.functional")
F64 = torch.float64


def shaped(adapter: Adapter, flat: Tensor) -> Tensor:
    """``(rows, c)`` as LyCORIS stores a convolution's factor."""
    return flat if adapter.site.kernel is None else flat.reshape(flat.shape[0], -1, *adapter.site.kernel)


def lycoris_lora(a: Any, gamma: float) -> Tensor:
    from lycoris.functional import locon

    if a.mid is not None:
        return locon.diff_weight(a.down[:, :, None, None], a.up[:, :, None, None], a.mid, gamma=gamma)
    return locon.diff_weight(shaped(a, a.down), a.up, None, gamma=gamma)


def lycoris_loha(a: Any, gamma: float) -> Tensor:
    from lycoris.functional import loha

    scale = torch.tensor(gamma, dtype=F64)
    if a.t1 is not None:
        return loha.diff_weight(a.w1_b, a.w1_a.T, a.w2_b, a.w2_a.T, a.t1, a.t2, gamma=scale)
    return loha.diff_weight(shaped(a, a.w1_b), a.w1_a, shaped(a, a.w2_b), a.w2_a, None, None, gamma=scale)


def lycoris_lokr(a: Any, gamma: float) -> Tensor:
    from lycoris.functional import lokr

    w2 = None if a.w2 is None else shaped(a, a.w2)
    w2_b = None if a.w2_b is None else shaped(a, a.w2_b)
    rank = a.options.rank if a.w1_a is not None or a.w2_a is not None else 1
    return lokr.diff_weight(a.w1, a.w1_a, a.w1_b, w2, a.w2_a, w2_b, None, gamma=gamma * rank)


def lycoris_krona(a: Any, gamma: float) -> Tensor:
    from lycoris.functional import lokr

    whole = lokr.diff_weight(a.w1, None, None, shaped(a, a.w2), None, None, None, gamma=gamma)
    return gamma * whole  # it leaves the scale out where both are whole


LYCORIS = {"lora": lycoris_lora, "loha": lycoris_loha, "lokr": lycoris_lokr, "krona": lycoris_krona}


@pytest.mark.acts("adapter.scale")
@pytest.mark.parametrize("case", [case for case in CASES if case.algorithm in LYCORIS and case.starts_by_itself], ids=str)
def test_delta_equals_lycoris(case: Case) -> None:
    adapter, weight = case.adapter(trained=True), LAYERS[case.layer].weight.detach()
    inner = getattr(adapter, "inner", adapter)
    gamma = inner.scale if case.algorithm == "lokr" else dict(case.options).get("scale", inner.options.scale)
    theirs = LYCORIS[case.algorithm](inner, gamma).reshape(weight.shape)
    torch.testing.assert_close(inner.delta(weight), theirs, rtol=0, atol=1e-10)
    if isinstance(adapter, WeightDecomposed):
        scale = adapter._shape(adapter.magnitude)
        changed = functional.weight_decompose(weight + theirs, scale, wd_on_out=case.axis == "output")
        torch.testing.assert_close(weight + adapter.delta(weight), changed, rtol=0, atol=1e-10)


KRONECKER = ("lokr", "krona", "krona_res")


@pytest.mark.parametrize("case", [c for c in CASES if c.algorithm in KRONECKER and not c.axis and c.starts_by_itself], ids=str)
def test_kronecker_products_are_torch_kron(case: Case) -> None:
    adapter, weight = case.adapter(trained=True), EVERY[case.layer].weight
    block = adapter.block.reshape(adapter.block.shape[0], weight.shape[1] // adapter.q, *weight.shape[2:])
    small = adapter.small.reshape(*adapter.small.shape, *(1 for _ in weight.shape[2:]))
    theirs = torch.kron(small.contiguous(), block.contiguous())
    if case.algorithm == "krona_res":
        theirs = theirs + adapter.gamma * torch.eye(len(weight), dtype=F64).reshape(weight.shape)
    torch.testing.assert_close(adapter.delta(weight), theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [-1, 1, 2, 3, 4, 5, 8, 16, 31])
def test_divisors_are_lycoris(factor: int) -> None:
    for dimension in (1, 2, 7, 12, 48, 60, 64, 127, 128, 250, 320, 360, 512, 640, 768, 1280, 2560, 3072, 5120):
        assert divisors_near(dimension, factor) == functional.factorization(dimension, factor), dimension


def peft_layer(kind: str, layer: nn.Module, rank: int, alpha: float, **options: Any) -> Any:
    """peft's layer around a copy of ours, in float64, with random factors."""
    peft = pytest.importorskip("peft")
    config = {"lora": peft.LoraConfig, "loha": peft.LoHaConfig}[kind]
    key = "lora_alpha" if kind == "lora" else "alpha"
    holder = nn.ModuleDict({"layer": layer})
    model = peft.get_peft_model(holder, config(r=rank, target_modules=["layer"], **{key: alpha}, **options))
    wrapped = model.base_model.model["layer"].double()
    generator = torch.Generator().manual_seed(21)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "base_layer" not in name:
                noise = torch.rand(parameter.shape, generator=generator, dtype=F64)
                parameter.copy_(parameter * (0.5 + noise) if "magnitude" in name else noise - 0.5)
    return wrapped


@pytest.mark.parametrize("name", ["linear", "odd linear without bias", "conv 1x1", "conv 3x3 stride 2"])
@pytest.mark.parametrize("decompose", [False, True], ids=["plain", "dora"])
def test_lora_and_output_axis_dora_equal_peft(name: str, decompose: bool) -> None:
    """Output and every gradient, alpha != rank."""
    import copy

    from morelora.adapted import Adapted
    from morelora.algorithms.lora import LoRA
    from morelora.site import Site
    from tests.morelora.grid import example

    theirs = peft_layer("lora", copy.deepcopy(LAYERS[name]), 3, 1.5, use_dora=decompose).eval()
    layer = copy.deepcopy(LAYERS[name])
    lora = LoRA(Site.of(layer), LoRA.Options(rank=3, alpha=1.5)).double()
    ours = Adapted(layer, WeightDecomposed(lora, layer.weight, "output").double() if decompose else lora)
    pairs = [(lora.up, theirs.lora_B["default"].weight), (lora.down, theirs.lora_A["default"].weight)]
    if decompose:
        pairs.append((ours.adapter.magnitude, theirs.lora_magnitude_vector["default"].weight))
    with torch.no_grad():
        for mine, other in pairs:
            mine.copy_(other.reshape(mine.shape))
    x = example(layer)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-10)
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    for mine, other in pairs:
        torch.testing.assert_close(mine.grad, other.grad.reshape(mine.shape), rtol=1e-9, atol=1e-9)


@pytest.mark.acts("adapter.rs", "adapter.rank", "adapter.alpha")
@pytest.mark.parametrize("rs", [False, True])
def test_the_scale_is_pefts(rs: bool) -> None:
    theirs = peft_layer("lora", nn.Linear(4, 6), 4, 3.0, use_rslora=rs)
    assert ALGORITHMS["lora"].Options(rank=4, alpha=3.0, rs=rs).scale == pytest.approx(theirs.scaling["default"])


@pytest.mark.parametrize("name", ["linear", "odd linear without bias", "conv 1x1", "conv 3x3 stride 2"])
def test_loha_change_equals_peft(name: str) -> None:
    import copy

    from morelora.algorithms.loha import LoHa
    from morelora.site import Site

    theirs = peft_layer("loha", copy.deepcopy(LAYERS[name]), 2, 1.0, use_effective_conv2d=False)
    ours = LoHa(Site.of(LAYERS[name]), LoHa.Options(rank=2, alpha=1.0)).double()
    with torch.no_grad():
        for leaf, parameter in ours.named_parameters():
            parameter.copy_(getattr(theirs, f"hada_{leaf}")["default"].reshape(parameter.shape))
    weight = LAYERS[name].weight
    torch.testing.assert_close(ours.delta(weight), theirs.get_delta_weight("default"), rtol=0, atol=1e-10)
