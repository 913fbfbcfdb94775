"""The benches of speed and memory compare like with like over the whole registry, and report what they measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("lycoris")
pytest.importorskip("peft")

from bench import memory, speed, step  # noqa: E402
from bench.peers import FAMILIES, FORMS  # noqa: E402
from morelora import ALGORITHMS  # noqa: E402

FEW = ["--only", "LoRA r8 / (morelora|peft)", "--batch", "1"]


@pytest.fixture(autouse=True)
def random_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(step, "POCKET", tmp_path / "absent")


def test_every_algorithm_has_a_family() -> None:
    shown = {family.split(",")[0].split(" ")[0].lower() for family in FAMILIES}
    assert set(ALGORITHMS) <= shown
    assert all(f"{family} / morelora" in FORMS for family in FAMILIES)


def test_every_form_starts_as_the_frozen_model_and_a_family_trains_as_many_numbers() -> None:
    frozen = step.build("pocket")
    inputs = step.inputs_for(frozen, 1, 8)
    counts: dict[str, set[int]] = {}
    with torch.no_grad():
        expected = step.Step(FORMS[speed.FLOOR], frozen, inputs).loss()
        for form in FORMS.values():
            made = step.Step(form, frozen, inputs)
            torch.testing.assert_close(made.loss(), expected, rtol=1e-4, atol=0)
            axis = " output" if form.family == "DoRA r8" and form.library in ("peft", "morelora output axis") else ""
            counts.setdefault(form.family + axis, set()).add(made.count)
            assert all(p is q for p, q in zip(made.model.conv_out.parameters(), frozen.conv_out.parameters(), strict=True))
    assert all(len(numbers) == 1 for numbers in counts.values()), counts


def test_a_report_of_speed_keeps_what_was_not_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "speed.json"
    path.write_text(
        json.dumps({"families": {"LoHa r4": {"rounds": 1, "seconds": {speed.FLOOR: [1], "LoHa r4 / morelora": [2]}}}})
    )
    assert speed.main([*FEW, "--rounds", "2", "--output", str(path)]) == 0
    report = json.loads(path.read_text())
    found = report["families"]["LoRA r8"]["seconds"]
    assert list(found) == [speed.FLOOR, "LoRA r8 / morelora", "LoRA r8 / peft"] and all(len(of) == 2 for of in found.values())
    shown = capsys.readouterr().out
    assert "| LoHa r4 | morelora | 2.000 | 2.00 (2.00 to 2.00) |" in shown and "| LoRA r8 | peft |" in shown
    assert report["machine"]["threads"] == torch.get_num_threads() and "torch" in report["machine"]["versions"]


def test_ratios_are_of_the_same_round_and_the_better_peer_is_the_faster() -> None:
    seconds = {speed.FLOOR: [1.0, 2.0, 4.0], "a / morelora": [1.1, 2.4, 8.0], "a / slow": [3.0] * 3, "a / fast": [1.0, 4.0, 2.0]}
    assert speed.ratio(seconds["a / morelora"], seconds[speed.FLOOR]) == pytest.approx((1.2, 1.1, 2.0))
    assert speed.better_peer(seconds) == "a / fast"
    assert speed.summary({"a": {"seconds": seconds}}) == ["a: 1.10 (0.60 to 4.00) of fast"]


def test_memory_counts_what_is_kept_and_the_file(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    assert memory.main([*FEW, "--output", str(path)]) == 0
    found = json.loads(path.read_text())["families"]["LoRA r8"]
    floor, ours, peft = (found[name] for name in (speed.FLOOR, "LoRA r8 / morelora", "LoRA r8 / peft"))
    assert floor["kept"] < ours["kept"] <= peft["kept"] < 2 * floor["kept"]
    assert 2 * ours["parameters"] < ours["file"] < 2.2 * ours["parameters"] and floor["file"] == 0
    assert f"| {ours['kept'] / peft['kept']:.2f} |" in memory.rows(found)[1]
