"""Starts other than zero against peft's, closed forms, and what a file in half precision keeps of the change."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from morelora.adapted import Adapted
from morelora.errors import AdapterError, FormatError
from morelora.formats import FORMS
from morelora.formats.container import write
from morelora.formats.precision import cast
from morelora.inject import build, inject
from morelora.load import adapter_from, load
from morelora.registry import ALGORITHMS
from morelora.residual import Whole
from morelora.start import start_from
from morelora.targets import AdapterConfig, Target, resolve
from tests.morelora.formats import sd
from tests.morelora.grid import LAYERS, example, operate

F64 = torch.float64
KINDS = ("residual", "pissa", "olora")


def made(layer: nn.Module, start: str, algorithm: str = "lora", **options: Any) -> Any:
    """A fresh one in float64."""
    target = Target("unet.layer", algorithm, ALGORITHMS[algorithm].Options(start=start, **options))
    return build(target, layer, torch.Generator().manual_seed(1)).double()


@torch.no_grad()
def moved(adapter: nn.Module, size: float) -> Any:
    """As after some steps."""
    generator = torch.Generator().manual_seed(2)
    for parameter in adapter.parameters():
        parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return adapter


# the starts


@pytest.mark.acts("adapter.start")
@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_factors_and_frozen_weight_are_pefts(start):
    """peft takes the start off the weight itself; ours is the same function, at the start and after three steps."""
    peft = pytest.importorskip("peft")
    layer = LAYERS["wide linear"]
    config = peft.LoraConfig(r=3, lora_alpha=6, init_lora_weights=start, target_modules=["layer"])
    holder = nn.ModuleDict({"layer": copy.deepcopy(layer).float()})
    theirs = peft.get_peft_model(holder, config).base_model.model["layer"].double()
    adapter = made(layer, start, rank=3, alpha=6.0)
    product = adapter.inner.up @ adapter.inner.down
    torch.testing.assert_close(product, theirs.lora_B["default"].weight @ theirs.lora_A["default"].weight, rtol=0, atol=1e-6)
    residual = layer.weight - adapter.origin.delta(layer.weight)
    torch.testing.assert_close(residual, theirs.base_layer.weight, rtol=0, atol=1e-6)
    ours, x = Adapted(copy.deepcopy(layer), adapter), example(layer)
    pairs = [(adapter.inner.up, theirs.lora_B["default"].weight), (adapter.inner.down, theirs.lora_A["default"].weight)]
    optimizer = torch.optim.SGD([p for pair in pairs for p in pair], lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        for model in (ours, theirs):
            (model(x) - 1).square().mean().backward()
        optimizer.step()
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)
    assert (ours(x) - ours.base(x)).abs().max() > 1e-3


@pytest.mark.parametrize("rs", [False, True])
@pytest.mark.parametrize("name", ["linear", "odd linear without bias", "conv 3x3 stride 2", "grouped conv"])
def test_pissa_is_the_nearest_matrix_of_the_rank_and_olora_the_first_columns_of_q(name, rs):
    layer, options = LAYERS[name], {"rank": 2, "alpha": 3.0, "rs": rs}
    flat, scale = layer.weight.detach().flatten(1), 3.0 / (2**0.5 if rs else 2)
    values, vectors = torch.linalg.eigh(flat.T @ flat)
    nearest = flat @ vectors[:, -2:] @ vectors[:, -2:].T
    pissa = made(layer, "pissa", **options)
    torch.testing.assert_close(pissa.origin.delta(layer.weight).flatten(1), nearest, rtol=0, atol=1e-6)
    torch.testing.assert_close(pissa.inner.up.square().sum(0) * scale, values[-2:].flip(0).sqrt(), rtol=0, atol=1e-5)
    olora = made(layer, "olora", **options).origin
    torch.testing.assert_close(olora.up.T @ olora.up, torch.eye(2, dtype=F64), rtol=0, atol=1e-6)
    onto = olora.up @ olora.up.T @ flat  # Gram and Schmidt: two columns of Q span the first two of W
    torch.testing.assert_close(onto[:, :2], flat[:, :2], rtol=0, atol=1e-6)
    torch.testing.assert_close(olora.up @ olora.down, onto, rtol=0, atol=1e-6)


@pytest.mark.parametrize("start", KINDS)
def test_the_first_step_moves_every_factor(start):
    adapter = made(LAYERS["linear"], start, rank=3)
    layer, x = Adapted(LAYERS["linear"], adapter), example(LAYERS["linear"])
    assert torch.equal(layer(x), layer.base(x)) and not adapter.delta(layer.weight).any()
    (layer(x) - 1).square().sum().backward()
    assert all(p.grad.abs().max() > 1e-3 for p in adapter.parameters())
    assert {name for name, _ in adapter.named_parameters()} == {"inner.up", "inner.down"}


@pytest.mark.parametrize("algorithm", ["loha", "lokr", "hadamard"])
def test_every_factor_of_a_residual_start_has_a_gradient_where_the_own_start_has_one_of_few(algorithm):
    layer = LAYERS["linear"]
    reached = []
    for start in ("default", "residual"):
        adapter = made(layer, start, algorithm, rank=3)
        (Adapted(layer, adapter)(example(layer)) - 1).square().sum().backward()
        reached.append(sum(bool(p.grad.any()) for p in adapter.parameters()) / len(list(adapter.parameters())))
    assert reached[0] < 1 and reached[1] == 1


# the change


@pytest.mark.parametrize("size", [4, 200], ids=["whole", "factors"])
def test_twice_the_rank_is_applied_by_factors_while_the_layer_has_it_and_else_as_a_whole(size):
    layer = nn.Linear(size, size).double()
    adapter = moved(made(layer, "pissa", rank=4 if size == 200 else 3), 0.3)
    assert isinstance(adapter.way, Whole) == (size == 4)
    x = torch.randn(3, size, dtype=F64, generator=torch.Generator().manual_seed(3))
    expected = operate(layer, x, layer.weight + adapter.inner.delta(layer.weight) - adapter.origin.delta(layer.weight))
    torch.testing.assert_close(adapter(x, layer), expected, rtol=0, atol=1e-10)


def test_half_precision_keeps_a_change_that_is_small_beside_its_start():
    """A thousandth of the start; ``[up, -up0] @ [down; down0]``, as peft writes it, loses it."""
    layer = nn.Linear(96, 64)
    adapter = moved(made(layer, "pissa", rank=4), 3e-4)
    exact = adapter.delta(layer.weight).detach()
    up, down = (factor.detach().half().double() for factor in adapter.factors())
    ours = (up @ down - exact).norm() / exact.norm()
    sides = (adapter.inner, adapter.origin)
    first = torch.cat([sides[0].up, -sides[1].up], 1).half().double() @ torch.cat([s.down for s in sides]).half().double()
    assert ours < 1e-3 and (first - exact).norm() / exact.norm() > 20 * ours
    layer.bfloat16(), adapter.float()
    x = torch.randn(8, 96, generator=torch.Generator().manual_seed(4)).bfloat16()
    with torch.no_grad():
        branch = adapter.way.branch(x, *(part.bfloat16() for part in adapter.factors())).double()
    assert (branch - x.double() @ exact.T).norm() < 0.02 * (x.double() @ exact.T).norm()


# files


@pytest.mark.parametrize("start", KINDS)
def test_the_file_is_a_lora_of_twice_the_rank_for_the_base_as_it_is(tmp_path, start):
    models = sd.small()
    settings = {"layers": "all", "rank": 3, "alpha": 1.5, "start": start}
    adapters = inject(models, resolve(models, AdapterConfig.model_validate(settings)), torch.Generator().manual_seed(0))
    before = sd.picture(models)
    assert torch.equal(before, sd.picture(sd.small()))
    for _, adapter in adapters:
        moved(adapter, 0.05)
    tensors = cast(FORMS["webui"](adapters), torch.float16)
    assert {len(tensor) for key, tensor in tensors.items() if key.endswith("lora_down.weight")} == {6}
    write(tmp_path / "x.safetensors", tensors, {})
    twins = sd.small()
    assert sd.worst(dict(load(twins, tmp_path / "x.safetensors").deltas()), dict(adapters.deltas())) < 2e-3
    assert (sd.picture(models) - before).norm() > 0.01 * before.norm()
    torch.testing.assert_close(sd.picture(twins), sd.picture(models), rtol=0, atol=2e-3 * float(before.abs().max()))
    with pytest.raises(FormatError, match="lora in the file, lora with frozen factors of its own here"):
        start_from(adapters, tmp_path / "x.safetensors")


def test_what_has_no_thin_factors_is_written_whole_and_in_our_own_file_by_its_start():
    layer = LAYERS["wide linear"]
    adapter = moved(made(layer, "residual", "lokr", full_matrix=True, factor=4), 1e-3)
    assert set(adapter.file_tensors(layer, 1.0)) == {"diff"} and adapter.factors() is None
    tensors = {leaf: tensor.half() for leaf, tensor in adapter.tensors(1.0).items()}
    assert set(tensors) == {f"{kind}.{leaf}" for kind in ("start", "moved") for leaf in ("lokr_w1", "lokr_w2", "alpha")}
    again, exact = adapter_from(layer, tensors).double(), adapter.delta(layer.weight)
    assert (again.delta(layer.weight) - exact).norm() < 2e-3 * exact.norm()
    with pytest.raises(AdapterError, match="moved.lokr_w1 is missing"):
        adapter_from(layer, {leaf: tensor for leaf, tensor in tensors.items() if leaf != "moved.lokr_w1"})


# what has no meaning


@pytest.mark.parametrize(
    ("algorithm", "options", "words"),
    [
        ("loha", {"start": "pissa"}, "no product of two: use start = 'residual', or algorithm = 'lora'"),
        ("lokr", {"start": "olora"}, "no product of two: use start = 'residual'"),
        ("hadamard", {"start": "pissa"}, "no product of two"),
        ("lora", {"start": "pissa", "tucker": True}, "a Tucker kernel has three: set tucker = false, or start = 'residual'"),
        ("lora", {"start": "residual", "freeze_down": True}, "freeze_down keeps one as it is drawn: use one of them"),
        ("lora", {"start": "residual", "rank_dropout": 0.1}, "keep those of its start: set it to 0, or start = 'default'"),
    ],
)
def test_starts_that_are_not_defined_are_refused_with_the_way_out(algorithm, options, words):
    with pytest.raises(ValueError, match=words):
        ALGORITHMS[algorithm].Options(**options)


def test_more_singular_vectors_than_the_weight_has_are_refused():
    with pytest.raises(AdapterError, match="rank 6 is larger than a side of the layer's 5 x 7 weight, which start = 'pissa'"):
        made(LAYERS["odd linear without bias"], "pissa", rank=6)


@pytest.mark.parametrize(
    ("name", "start", "words"),
    [
        ("additive", "residual", "start = 'residual' would train the same.*Remove it, or use algorithm = 'lora'"),
        ("tlora", "pissa", "always begins with singular vectors.*basis = 'weight' with singular = 'principal'"),
        ("krona", "pissa", "no product of two: use start = 'residual'"),
        ("krona_res", "olora", "no product of two: use start = 'residual'"),
        ("glora", "pissa", "no product of two: use start = 'residual', or algorithm = 'lora'"),
        ("dylora", "residual", "rank_dropout would drop ranks of the change and keep those of its start"),
    ],
)
def test_a_start_without_a_meaning_is_refused_with_what_to_choose(name, start, words):
    extra = {"rank_dropout": 0.1} if name == "dylora" else {}
    with pytest.raises(ValueError, match=words):
        AdapterConfig.model_validate({"algorithm": name, "start": start, **extra})


# algorithms that hold their start themselves, or have no thin factors

OTHERS = [
    *(("krona", {"factor": 4, "start": "residual"}), ("krona_res", {"factor": 4, "start": "residual"})),
    ("glora", {"rank": 2, "alpha": 3.0, "start": "residual"}),
    *((name, {"rank": 2, "alpha": 3.0, "start": start}) for name in ("adalora", "sora", "dylora") for start in KINDS),
]


@pytest.mark.parametrize(("algorithm", "options"), OTHERS)
def test_a_start_leaves_the_output_as_it_is_and_the_file_carries_exactly_the_change(algorithm, options):
    layer = copy.deepcopy(LAYERS["wide linear"]) if algorithm != "krona_res" else nn.Linear(12, 12).double()
    adapter, x = made(layer, algorithm=algorithm, **options), example(layer)
    adapted = Adapted(layer, adapter)
    assert torch.equal(adapted(x), layer(x)) and torch.equal(adapted.train()(x), layer(x))
    (adapted(x) - 1).square().sum().backward()
    still = {name for name, parameter in adapter.named_parameters() if not parameter.grad.any()}
    assert still <= {"gate"}, "a gate waits for the first step of its ranks"
    moved(adapter, 0.05)
    exact = adapter.delta(layer.weight)
    tensors = {leaf: tensor.detach() for leaf, tensor in adapter.file_tensors(layer, 1.0).items()}
    again = adapter_from(layer, tensors).double().delta(layer.weight)
    assert exact.norm() > 1e-2 and (again - exact).norm() < 2e-6 * exact.norm()
    torch.testing.assert_close(adapted(x) - layer(x), operate(layer, x, exact) - operate(layer, x, 0 * exact), rtol=0, atol=1e-9)
    assert set(tensors) == ({"diff"} if algorithm.startswith("krona") else {"lora_up.weight", "lora_down.weight", "alpha"})


@pytest.mark.parametrize("start", ["pissa", "olora"])
@pytest.mark.parametrize("algorithm", ["adalora", "sora", "dylora"])
def test_the_start_from_the_weight_is_loras(algorithm, start):
    layer, options = LAYERS["wide linear"], {"rank": 3, "alpha": 1.5}
    adapter, lora = made(layer, start, algorithm, **options), made(layer, start, **options)
    gate = getattr(adapter, "gate", torch.ones(3, dtype=F64))
    product = adapter.options.scale * adapter.up0 * gate @ adapter.down0
    torch.testing.assert_close(product, lora.origin.delta(layer.weight), rtol=0, atol=1e-6)
    if algorithm == "adalora":
        lengths = adapter.up.norm(dim=0), adapter.down.norm(dim=1)
        torch.testing.assert_close(torch.cat(lengths), torch.ones(6, dtype=F64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("algorithm", ["adalora", "sora"])
def test_a_rank_without_its_gate_leaves_the_unchanged_model_and_is_not_written(algorithm):
    layer = LAYERS["wide linear"]
    adapter = moved(made(layer, "pissa", algorithm, rank=3), 0.3)
    with torch.no_grad():
        adapter.gate[1] = 0
    kept = torch.tensor([0, 2])
    change = adapter.up[:, kept] * adapter.gate[kept] @ adapter.down[kept]
    change = change - adapter.up0[:, kept] * adapter.gate[kept] @ adapter.down0[kept]
    torch.testing.assert_close(adapter.delta(layer.weight), change, rtol=0, atol=1e-10)
    assert adapter.file_rank == 4 == len(adapter.tensors(1.0)["lora_down.weight"])


@pytest.mark.parametrize("mode", ["normal", "frozen"])
def test_every_drawn_rank_begins_at_the_unchanged_model_and_takes_its_own_start_off(mode):
    layer, x = LAYERS["wide linear"], example(LAYERS["wide linear"])
    adapter = made(layer, "pissa", "dylora", rank=3, mode=mode)
    adapted = Adapted(layer, adapter).train()
    for step in (0.0, 0.3):
        moved(adapter, step)
        for rank in (1, 2, 3):
            adapter.drawn = rank
            change = adapter.up[:, :rank] @ adapter.down[:rank] - adapter.up0[:, :rank] @ adapter.down0[:rank]
            expected = operate(layer, x, layer.weight + adapter.options.scale_at(rank) * change)
            torch.testing.assert_close(adapted(x), expected, rtol=0, atol=1e-9)
            assert step or torch.equal(adapted(x), layer(x))
    adapter.kept = 2
    assert adapter.file_rank == 4


def test_more_ranks_than_a_layer_can_hold_twice_are_refused():
    with pytest.raises(AdapterError, match="rank 4 makes a change of rank 8, which is larger than both sides"):
        made(LAYERS["odd linear without bias"], "residual", "sora", rank=4)
