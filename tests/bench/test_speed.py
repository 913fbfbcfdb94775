"""The speed bench compares like with like, and reports what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("lycoris")
pytest.importorskip("peft")

from bench import speed  # noqa: E402
from bench.peers import FORMS  # noqa: E402


@pytest.fixture(autouse=True)
def random_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(speed, "POCKET", tmp_path / "absent")


def test_every_form_starts_as_the_frozen_model_on_the_same_layers() -> None:
    frozen = speed.build("pocket")
    inputs = speed.inputs_for(frozen, 1, 8)
    steps = {name: speed.Step(form, frozen, inputs) for name, form in FORMS.items()}
    floor = steps[speed.FLOOR]
    with torch.no_grad():
        expected = floor.loss()
        for step in steps.values():
            torch.testing.assert_close(step.loss(), expected, rtol=1e-4, atol=0)
    counts: dict[str, set[int]] = {}
    for step in steps.values():
        family = step.form.family
        axis = " output" if family == "DoRA r8" and step.form.library in ("peft", "morelora output axis") else ""
        counts.setdefault(family + axis, set()).add(step.count)
        assert all(p is q for p, q in zip(step.model.conv_out.parameters(), frozen.conv_out.parameters(), strict=True))
    assert all(len(numbers) == 1 for numbers in counts.values()), counts


def test_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "speed.json"
    assert speed.main(["--only", "LoRA r8 / morelora", "--rounds", "2", "--batch", "1", "--output", str(path)]) == 0
    report = json.loads(path.read_text())
    floor, ours = report["forms"][speed.FLOOR], report["forms"]["LoRA r8 / morelora"]
    assert floor["ratio"] == 1 and len(ours["seconds"]) == 2
    assert ours["ratio"] == pytest.approx(min(ours["seconds"]) / min(floor["seconds"]), rel=0.05)
    assert floor["kept_bytes"] < ours["kept_bytes"] < 2 * floor["kept_bytes"]
    assert report["machine"]["threads"] == torch.get_num_threads() and "torch" in report["machine"]["versions"]
    assert "| LoRA r8 | morelora |" in capsys.readouterr().out
