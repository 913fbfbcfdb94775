"""Every optimiser of the table: its rule against other people's code, its arguments, its state, its refusals."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Adafactor

from trainer import settings
from trainer.config import OptimizerConfig
from trainer.config.optimizer import OPTIMIZER_NAMES
from trainer.errors import InputError
from trainer.optim import OPTIMIZERS, check_optimizer, evaluated, pack_optimizer, unpack_optimizer
from trainer.optim.optimizers import make_optimizer

CPU = torch.device("cpu")
EVERYWHERE = sorted(set(OPTIMIZERS) - {"paged_adamw8bit"})
DOTTED = "torch.optim.RMSprop"


def config(name: str, **changes: Any) -> OptimizerConfig:
    return OptimizerConfig(name=name, **{"lr": 0.1} | changes)


def weights(seed: int = 0) -> list[nn.Parameter]:
    """A matrix that 8-bit state applies to, a small matrix and a vector."""
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((64, 80), (5, 3), (7,))]


def make(name: str, parameters: list[nn.Parameter], **changes: Any) -> torch.optim.Optimizer:
    if "8bit" in name:
        pytest.importorskip("bitsandbytes")
    return make_optimizer([{"params": parameters, "lr": 0.1}], config(name, **changes))


def gradients(parameters: list[nn.Parameter], i: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(100 + i)
    return [torch.randn(p.shape, generator=generator) for p in parameters]


def step(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, i: int) -> None:
    for parameter, gradient in zip(parameters, gradients(parameters, i), strict=True):
        parameter.grad = gradient
    optimizer.step()


def trained(name: str, steps: int = 4, **changes: Any) -> list[Tensor]:
    parameters = weights()
    optimizer = make(name, parameters, **changes)
    for i in range(steps):
        step(parameters, optimizer, i)
    return [p.detach() for p in parameters]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def close(first: list[Tensor], second: list[Tensor], tolerance: float = 1e-6) -> None:
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def test_the_names_of_the_schema_are_the_table():
    assert set(OPTIMIZER_NAMES) == set(OPTIMIZERS)


@pytest.mark.parametrize("name", [*EVERYWHERE, DOTTED])
def test_state_survives_json_and_tensors_bit_for_bit(name):
    parameters = weights()
    optimizer = make(name, parameters)
    for i in range(3):
        step(parameters, optimizer, i)
    tensors, values = pack_optimizer(optimizer)
    tensors = {key: tensor.clone() for key, tensor in tensors.items()}
    others = [nn.Parameter(p.detach().clone()) for p in parameters]
    fresh = make(name, others)
    unpack_optimizer(fresh, tensors, json.loads(json.dumps(values)))
    for i in range(3, 8):
        step(parameters, optimizer, i)
        step(others, fresh, i)
    assert same(parameters, others)
    assert not any(torch.equal(p, q) for p, q in zip(parameters, weights(), strict=True))


@pytest.mark.acts("optimizer.name")
def test_8_bit_state_is_kept_in_8_bits_and_its_table_once():
    parameters = weights()
    optimizer = make("adamw8bit", parameters)
    step(parameters, optimizer, 0)
    tensors, _ = pack_optimizer(optimizer)
    assert [t.dtype for name, t in tensors.items() if name.endswith("state1")] == [torch.uint8, torch.float32, torch.float32]
    assert sum(name.endswith("qmap1") for name in tensors) == 1
    exact = trained("adamw", 4)
    assert not same(trained("adamw8bit", 4), exact)
    close(trained("adamw8bit", 4)[:1], exact[:1], 0.1)


def test_state_without_a_form_is_refused_by_its_place():
    optimizer = torch.optim.SGD(weights(), lr=0.1)
    optimizer.state[optimizer.param_groups[0]["params"][0]] = {"history": {1, 2}}
    with pytest.raises(TypeError, match="state.0.history is a set"):
        pack_optimizer(optimizer)


@pytest.mark.acts("optimizer.beta1", "optimizer.beta2", "optimizer.weight_decay")
def test_adamw_and_its_settings():
    theirs = weights()
    optimizer = torch.optim.AdamW(theirs, lr=0.1, betas=(0.8, 0.95), weight_decay=0.2)
    for i in range(4):
        step(theirs, optimizer, i)
    close(trained("adamw", beta1=0.8, beta2=0.95, weight_decay=0.2), theirs)


def test_adafactor_is_transformers_own():
    theirs = weights()
    optimizer = Adafactor(theirs, lr=0.1, scale_parameter=False, relative_step=False, warmup_init=False, weight_decay=0.0)
    for i in range(4):
        step(theirs, optimizer, i)
    close(trained("adafactor", weight_decay=0.0), theirs, 1e-5)


def test_lion_is_the_papers_rule():
    expected, moments = [p.detach() for p in weights()], [torch.zeros_like(p) for p in weights()]
    for i in range(4):
        for p, m, g in zip(expected, moments, gradients(expected, i), strict=True):
            p.sub_(0.1 * (torch.sign(0.9 * m + 0.1 * g) + 0.3 * p))
            m.mul_(0.99).add_(0.01 * g)
    close(trained("lion", weight_decay=0.3), expected)


def test_came_is_the_papers_rule():
    """Algorithm 2 of the paper for a matrix, without decay."""
    p = weights()[0].detach()
    m, r, c, rr, cc = torch.zeros_like(p), torch.zeros(64), torch.zeros(80), torch.zeros(64), torch.zeros(80)

    def inverse_root(rows: Tensor, columns: Tensor) -> Tensor:
        return (rows[:, None] * columns[None] / rows.mean()).rsqrt()

    for i in range(4):
        g = gradients(weights(), i)[0]
        r, c = 0.999 * r + 0.001 * (g**2).mean(1), 0.999 * c + 0.001 * (g**2).mean(0)
        u = g * inverse_root(r, c)
        u = u / max(1.0, float(u.square().mean().sqrt()))
        m = 0.9 * m + 0.1 * u
        s = (u - m) ** 2 + 1e-16
        rr, cc = 0.9999 * rr + 0.0001 * s.mean(1), 0.9999 * cc + 0.0001 * s.mean(0)
        p = p - 0.1 * m * inverse_root(rr, cc)
    close(trained("came", weight_decay=0.0)[:1], [p], 1e-4)


def test_schedule_free_is_the_papers_rule_and_gives_out_the_average():
    """``z`` steps, ``x`` averages with equal weights at a constant rate, ``y`` between them is what trains."""
    parameters = weights()
    optimizer = make("schedule_free", parameters, weight_decay=0.0)
    x, z, v = ([p.detach().clone() for p in parameters] for _ in range(3))
    v = [torch.zeros_like(p) for p in parameters]
    for t in range(4):
        for k, g in enumerate(gradients(parameters, t)):
            v[k] = 0.999 * v[k] + 0.001 * g * g
            z[k] = z[k] - 0.1 * g / ((v[k] / (1 - 0.999 ** (t + 1))).sqrt() + 1e-8)
            x[k] = x[k] + (z[k] - x[k]) / (t + 1)
        step(parameters, optimizer, t)
    y = [0.1 * b + 0.9 * a for a, b in zip(x, z, strict=True)]
    close([p.detach() for p in parameters], y, 1e-5)
    trains = [p.detach().clone() for p in parameters]
    with evaluated(optimizer):
        close([p.detach() for p in parameters], x, 1e-5)
    assert same(trains, parameters), "looking must not change a bit"


def test_other_optimisers_give_out_what_they_train():
    parameters = weights()
    optimizer = make("adamw", parameters)
    step(parameters, optimizer, 0)
    trains = [p.detach().clone() for p in parameters]
    with evaluated(optimizer):
        assert same(trains, parameters)


@pytest.mark.acts("optimizer.arguments")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("prodigy", {"d0": 1e-3}), ("prodigy", {"use_bias_correction": False}), ("adamw", {"eps": 0.1}), (DOTTED, {"alpha": 0.5})],
)
def test_arguments_act(name, arguments):
    assert not same(trained(name, arguments=arguments), trained(name))


def test_a_dotted_class_gets_lists_as_tuples_and_equals_the_class_itself():
    theirs = weights()
    optimizer = torch.optim.NAdam(theirs, lr=0.1, betas=(0.7, 0.8))
    for i in range(4):
        step(theirs, optimizer, i)
    assert same(trained("torch.optim.NAdam", arguments={"betas": [0.7, 0.8]}), theirs)


@pytest.mark.parametrize("name", [*EVERYWHERE, DOTTED])
def test_a_rehearsal_passes_and_leaves_the_random_numbers_alone(name):
    make(name, weights())
    before = torch.get_rng_state()
    check_optimizer(config(name), CPU)
    assert torch.equal(before, torch.get_rng_state())


class Forgetful(torch.optim.SGD):
    """Keeps something that its state does not hold."""

    calls = 0

    def step(self, closure=None):  # noqa: ANN001, ANN201
        self.calls += 1
        self.param_groups[0]["lr"] = 0.1 / self.calls
        return super().step(closure)


class Closed(torch.optim.SGD):
    """Cannot step without a closure, as sharpness-aware ones."""

    def step(self, closure):  # noqa: ANN001, ANN201
        return super().step(closure)


@pytest.fixture
def mine(monkeypatch):
    module = ModuleType("mine")
    module.Forgetful, module.Closed, module.Other = Forgetful, Closed, dict
    monkeypatch.setitem(sys.modules, "mine", module)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("mine.Forgetful", {}, "goes on differently after a restored state"),
        ("mine.Closed", {}, "does not run in a rehearsal: TypeError.*closure"),
        ("mine.Other", {}, "is no torch.optim.Optimizer"),
        ("mine.Missing", {}, "cannot be imported"),
        ("no_such_package.Adam", {}, "cannot be imported: No module named 'no_such_package'"),
        ("torch.optim.SGD", {"momentun": 0.9}, "arguments.momentun: SGD has no such argument; did you mean momentum"),
        ("lion", {"use_gc": True}, "arguments.use_gc: Lion has no such argument"),
        ("torch.optim.SGD", {"momentum": -1.0}, "SGD refuses optimizer.arguments = {'momentum': -1.0}.*momentum"),
        ("adamw", {"weight_decay": 0.5}, r"arguments.weight_decay is not for this table"),
        ("torch.optim.SGD", {"lr": 0.5}, "arguments.lr is not for this table"),
        ("paged_adamw8bit", {}, "needs an NVIDIA GPU"),
    ],
)
def test_what_cannot_run_is_refused_before_the_run(mine, name, arguments, words):
    if "8bit" in name:
        pytest.importorskip("bitsandbytes")
    with pytest.raises(InputError, match=words):
        check_optimizer(config(name, arguments=arguments), CPU)


def test_a_missing_bitsandbytes_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(InputError, match="bitsandbytes") as error:
        check_optimizer(config("adamw8bit"), CPU)
    assert "pip install bitsandbytes" in error.value.fix


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optimizer": {"name": "adamm"}}, "did you mean 'adamw'"),
        ({"optimizer": {"name": "adafactor", "beta1": 0.9}}, "optimizer.beta1 is not passed to adafactor"),
        ({"optimizer": {"name": "a.B", "weight_decay": 0.1}}, "optimizer.weight_decay is not passed to a.B"),
        ({"optimizer": {"name": "prodigy", "lr": 1.0, "text_encoder_lr": 0.5}}, "one rate for all"),
        ({"optimizer": {"name": "prodigy", "lr": 1.0}, "adapter": {"rules": [{"match": "attn", "lr": 0.5}]}}, "one rate for all"),
        ({"optimizer": {"name": "schedule_free"}}, "set optimizer.schedule = 'constant'"),
        ({"optimizer": {"name": "schedule_free", "schedule": "constant"}, "train": {"ema": 0.9}}, "set train.ema = 0"),
        (
            {"optimizer": {"name": "schedule_free", "schedule": "constant"}, "adapter": {"max_norm": 1.0}},
            "adapter.max_norm would limit",
        ),
    ],
)
def test_contradictions_are_refused(values, words):
    with pytest.raises(InputError, match=words):
        settings.parse(values, "test")
