"""The GPU bench runs every form on a tiny model, and says nothing where there is no card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("lycoris")
pytest.importorskip("peft")

from bench import gpu  # noqa: E402


def test_forms_run_and_stands_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gpu.json"
    only = ["--steps", "1", "--only", "LoRA r16|morelora", "--variants", "plain", "checkpointing"]
    assert gpu.main(["--device", "cpu", "--models", "tiny", *only, "--output", str(path)]) == 0
    cells = json.loads(path.read_text())["cells"]
    forms = [form for form in gpu.FORMS if form.family in ("floor", "LoRA r16") or form.library == "morelora"]
    assert len(cells) == 2 * len(forms) == 14
    assert [cell for cell in cells if cell["problem"] or cell["rate"] <= 0] == []
    shown = capsys.readouterr().out
    assert all(f"| tiny | {form.family} | {form.library} | " in shown for form in forms)


def test_forms_of_one_family_train_as_many_numbers() -> None:
    frozen = gpu.build(gpu.CASES["tiny"], torch.device("cpu"))
    layers = [path for path, _ in frozen.named_modules() if gpu.re.search(gpu.LAYERS, path)]
    counts: dict[str, set[int]] = {}
    for form in gpu.FORMS:
        if form.name != "DoRA r16 / peft":  # along the other axis: one magnitude for each output
            trained = form.install(gpu.twin(frozen), layers).parameters
            counts.setdefault(form.family, set()).add(sum(parameter.numel() for parameter in trained))
    assert len(layers) > 8 and all(len(numbers) == 1 for numbers in counts.values()), counts


def test_one_that_fails_leaves_the_others_their_turn() -> None:
    def broken(model: torch.nn.Module, layers: list[str]) -> gpu.Trained:
        raise RuntimeError("cannot do this")

    frozen = gpu.build(gpu.CASES["tiny"], torch.device("cpu"))
    cell = gpu.run("tiny", frozen, gpu.Form("LoRA", "broken", broken), "plain", (1, 1))
    assert "cannot do this" in cell.problem and "failed: RuntimeError" in gpu.table("", [cell])


@pytest.mark.parametrize(("command", "words"), [([], "NVIDIA"), (["--device", "cpu"], "--models tiny")])
def test_it_refuses_what_would_say_nothing(monkeypatch, tmp_path, capsys, command, words) -> None:  # noqa: ANN001
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = tmp_path / "gpu.json"
    assert gpu.main([*command, "--output", str(path)]) == 2
    assert words in capsys.readouterr().err and not path.exists()
