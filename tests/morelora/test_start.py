"""A training that starts from a file has the file's change, whoever wrote it, or says what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from morelora.errors import FormatError
from morelora.formats import FORMS
from morelora.formats.container import write
from morelora.inject import AdapterSet, inject
from morelora.start import start_from
from morelora.targets import AdapterConfig, resolve
from tests.morelora.formats import sd

SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 3, "alpha": 1.5},
    "lora on convolutions, tucker": {"rank": 3, "alpha": 1.5, "layers": "all", "tucker": True},
    "loha": {"algorithm": "loha", "rank": 2, "alpha": 3.0},
    "lokr": {"algorithm": "lokr", "rank": 1, "alpha": 0.5, "factor": 4},
    "lokr, full": {"algorithm": "lokr", "full_matrix": True, "factor": 4},
    "dora": {"rank": 3, "alpha": 1.5, "weight_decompose": True},
    "full": {"algorithm": "full"},
}


def saved(path: Path, form: str = "webui", **settings: Any) -> dict[str, Tensor]:
    """A file of trained adapters, and their changes."""
    adapters = sd.trained(sd.small(), **{"layers": "transformer"} | settings)
    write(path, {key: tensor.detach().clone().contiguous() for key, tensor in FORMS[form](adapters).items()}, {})
    return {name: delta.clone() for name, delta in adapters.deltas()}


def fresh(**settings: Any) -> AdapterSet:
    models = sd.small()
    return inject(models, resolve(models, AdapterConfig.model_validate(settings)), torch.Generator().manual_seed(3))


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_change_is_the_files(tmp_path, settings):
    deltas = saved(tmp_path / "a.safetensors", **settings)
    adapters = fresh(**settings)
    before = torch.get_rng_state()
    start_from(adapters, tmp_path / "a.safetensors")
    assert torch.equal(before, torch.get_rng_state())
    for name, delta in adapters.deltas():
        torch.testing.assert_close(delta, deltas[name], rtol=1e-5, atol=1e-6)
        assert delta.abs().max() > 1e-3
    assert all(p.requires_grad for p in adapters.parameters())


@pytest.mark.parametrize("form", ["webui", "lora", "diffusers"])
def test_another_alpha_and_another_programs_keys_give_the_same_change(tmp_path, form):
    deltas = saved(tmp_path / "a.safetensors", form, rank=3, alpha=1.5)
    adapters = fresh(rank=3, alpha=6.0)
    start_from(adapters, tmp_path / "a.safetensors")
    for name, delta in adapters.deltas():
        torch.testing.assert_close(delta, deltas[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("file", "run", "words"),
    [
        ({"rank": 3}, {"rank": 4}, r"attn1.to_q.down: \(3, \d+\) in the file, \(4, \d+\) here.* … and \d+ more"),
        ({"algorithm": "loha"}, {"rank": 4}, "loha in the file, lora here"),
        ({"rank": 3, "weight_decompose": True}, {"rank": 3}, r"lora with weight decomposition \(input\) in the file, lora here"),
        ({"rank": 3}, {"rank": 3, "layers": "all"}, "is not in the file"),
        ({"rank": 3, "layers": "all"}, {"rank": 3}, "is not trained here"),
    ],
)
def test_another_adapter_is_refused_with_the_differences(tmp_path, file, run, words):
    saved(tmp_path / "a.safetensors", **file)
    adapters = fresh(**run)
    before = {name: tensor.clone() for name, tensor in adapters.state().items()}
    with pytest.raises(FormatError, match=words):
        start_from(adapters, tmp_path / "a.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapters.state().items())
