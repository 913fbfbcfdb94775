"""T-LoRA: the mask of each picture, LyCORIS' module on linear layers, the singular vectors that it starts from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from morelora.adapted import Adapted
from morelora.algorithms.tlora import TLoRA, mask_table
from morelora.errors import AdapterError
from morelora.inject import build
from morelora.procedure import Procedures
from morelora.site import Site
from morelora.targets import Target
from tests.morelora.grid import LAYERS, example, operate, randomise


def tlora(layer: nn.Module, **options) -> TLoRA:  # noqa: ANN003
    """Built as a run does, so that it has met the weight."""
    return build(Target("unet.layer", "tlora", TLoRA.Options(**{"rank": 4, "alpha": 2.0} | options)), layer).double()


@pytest.mark.acts("adapter.min_rank", "adapter.power")
@pytest.mark.parametrize("power", [1.0, 0.5, 2.0])
def test_the_mask_is_lycoris_at_every_timestep(power: float) -> None:
    lycoris = pytest.importorskip("lycoris.modules.tlora")
    adapter = tlora(LAYERS["linear"], rank=6, min_rank=2, power=power)
    Procedures.of({"unet.layer": adapter}, 10).batch(torch.arange(1000), 1000)
    theirs = torch.cat([lycoris.compute_timestep_mask(t, 1000, 6, 2, power) for t in range(1000)])
    assert torch.equal(adapter.mask.float(), theirs)
    assert adapter.mask[0].sum() == 6 and adapter.mask[999].sum() == 2
    assert torch.equal(mask_table(torch.device("cpu"), 10, 3, 3, 1.0), torch.ones(10, 3, dtype=torch.bool))


@pytest.mark.acts("adapter.basis", "adapter.singular")
@pytest.mark.parametrize("singular", ["principal", "middle", "last"])
def test_start_change_and_gradients_are_lycoris_on_linear_layers(singular: str) -> None:
    """With the weight's own vectors, at each picture's mask."""
    lycoris = pytest.importorskip("lycoris.modules.tlora")
    layer = nn.Linear(12, 8).double()
    ours = tlora(layer, basis="weight", singular=singular)
    theirs = lycoris.TLoraModule("x", layer, lora_dim=4, alpha=2.0, sig_type=singular, bypass_mode=True).double()
    pairs = [(ours.down, theirs.q_layer.weight), (ours.up, theirs.p_layer.weight), (ours.values, theirs.lambda_layer)]
    turned = (ours.up * theirs.p_layer.weight).sum(0).sign()  # either sign of a pair of vectors is as good
    for mine, other in [(ours.down * turned[:, None], pairs[0][1]), (ours.up * turned, pairs[1][1]), pairs[2]]:
        torch.testing.assert_close(mine.reshape(other.shape), other, rtol=0, atol=1e-5)
    with torch.no_grad():
        for mine, other in pairs:
            mine.add_(torch.randn(mine.shape, dtype=mine.dtype, generator=torch.Generator().manual_seed(3)))
            other.copy_(mine.reshape(other.shape))
        for start, other in ((ours.down0, theirs.base_q), (ours.up0, theirs.base_p), (ours.values0, theirs.base_lambda[0])):
            start.copy_(other)
    t, x = torch.tensor([0, 500, 999]), torch.randn(3, 5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    Procedures.of({"unet.layer": ours}, 10).batch(t, 1000)
    mine = Adapted(layer, ours).train()(x)
    expected = []
    for one, row in zip(t.tolist(), x, strict=True):
        lycoris.set_timestep_mask(lycoris.compute_timestep_mask(one, 1000, 4, 1))
        expected.append(layer(row) + theirs.bypass_forward_diff(row))
    lycoris.clear_timestep_mask()
    torch.testing.assert_close(mine, torch.stack(expected), rtol=0, atol=1e-10)
    found = torch.autograd.grad(mine.square().sum(), [pair[0] for pair in pairs])
    wanted = torch.autograd.grad(torch.stack(expected).square().sum(), [pair[1] for pair in pairs])
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a.reshape(b.shape), b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["linear", "conv 3x3 stride 2"])
def test_each_picture_has_its_own_ranks_in_training_and_all_of_them_otherwise(name: str) -> None:
    layer, x = LAYERS[name], example(LAYERS[name])
    adapter = randomise(tlora(layer))
    adapted = Adapted(layer, adapter).train()
    Procedures.of({"unet.layer": adapter}, 10).batch(torch.tensor([0, 700]), 1000)
    found = adapted(x)
    for row, ranks in ((0, 4), (1, 1)):
        chosen = slice(0, ranks)
        delta = (adapter.up * adapter.values)[:, chosen] @ adapter.down[chosen]
        delta = 0.5 * (delta - (adapter.up0 * adapter.values0)[:, chosen] @ adapter.down0[chosen])
        expected = operate(layer, x[row : row + 1], layer.weight + delta.reshape(layer.weight.shape))
        torch.testing.assert_close(found[row : row + 1], expected, rtol=0, atol=1e-10)
    whole = operate(layer, x, layer.weight + adapter.delta(layer.weight))
    torch.testing.assert_close(adapted.eval()(x), whole, rtol=0, atol=1e-10)
    assert not torch.allclose(found[1:], whole[1:])


def test_text_encoders_train_every_rank() -> None:
    layers = {name: tlora(LAYERS["linear"]) for name in ("unet.layer", "text_encoder.layer", "text_encoder_2.layer")}
    Procedures.of(layers, 10).batch(torch.tensor([999]), 1000)
    assert [adapter.mask is None for adapter in layers.values()] == [False, True, True]


@pytest.mark.parametrize("basis", ["random", "weight"])
def test_it_starts_from_orthogonal_vectors_and_as_the_unchanged_model_under_any_mask(basis: str) -> None:
    layer, x = LAYERS["wide linear"], example(LAYERS["wide linear"])
    adapter = tlora(layer, basis=basis)
    one = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(adapter.up.T @ adapter.up, one, rtol=0, atol=1e-6)
    torch.testing.assert_close(adapter.down @ adapter.down.T, one, rtol=0, atol=1e-6)
    Procedures.of({"unet.layer": adapter}, 10).batch(torch.tensor([100, 900]), 1000)
    assert torch.equal(Adapted(layer, adapter).train()(x), layer(x))


def test_half_precision_keeps_a_change_that_is_small_beside_its_start() -> None:
    """A thousandth of it; ``[up, -up0] @ [down; down0]``, the same change, loses it."""
    adapter = tlora(LAYERS["linear"], basis="weight", singular="principal")
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(3e-4 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
        exact, (up, down) = adapter.delta(LAYERS["linear"].weight), (factor.half().double() for factor in adapter.factors())
        plain = torch.cat((adapter.up * adapter.values / 2, -adapter.up0 * adapter.values0 / 2), 1).half().double()
        plain = plain @ torch.cat((adapter.down, adapter.down0)).half().double()
    error = (up @ down - exact).norm() / exact.norm()
    assert error < 1e-3 and (plain - exact).norm() > 20 * error * exact.norm()


@pytest.mark.parametrize("name", ["linear", "conv 3x3 stride 2"])
def test_a_dropped_rank_is_dropped_from_the_start_too(name: str) -> None:
    """So that any draw leaves the unchanged model at first, and some subset of the ranks later."""
    layer, x = LAYERS[name], example(LAYERS[name])
    adapter = tlora(layer, rank=2, rank_dropout=0.5)
    adapted = Adapted(layer, adapter).train()
    assert torch.equal(adapted(x), layer(x))
    randomise(adapter)
    pairs = [
        (adapter.up * adapter.values, adapter.down),
        (adapter.up0 * adapter.values0, adapter.down0),
    ]
    each = [[up[:, [i]] @ down[[i]] for up, down in pairs] for i in range(2)]
    ranks = [operate(layer, x, 2 * (now - start).reshape(layer.weight.shape)) for now, start in each]
    bare = operate(layer, x, torch.zeros_like(layer.weight))
    for row in range(2):
        alternatives = [layer(x) + a * (ranks[0] - bare) + b * (ranks[1] - bare) for a in (0, 1) for b in (0, 1)]
        found = adapted(x)[row]
        assert min(float((found - other[row]).abs().max()) for other in alternatives) < 1e-10


def test_what_has_no_meaning_is_refused() -> None:
    with pytest.raises(ValueError, match="min_rank .5. is above rank .4."):
        TLoRA.Options(rank=4, min_rank=5)
    with pytest.raises(AdapterError, match="rank 6 is larger than a side of the layer's 5 x 7 weight"):
        TLoRA(Site.of(LAYERS["odd linear without bias"]), TLoRA.Options(rank=6))
    with pytest.raises(
        AdapterError, match="rank 4 makes a change of rank 8, which is larger than both sides of the layer's 5 x 7"
    ):
        TLoRA(Site.of(LAYERS["odd linear without bias"]), TLoRA.Options(rank=4))  # its file would be read by nobody
