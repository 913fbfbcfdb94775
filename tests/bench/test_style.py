"""The style benchmark: scores of pictures whose answer is known, what is kept between runs, the ranking."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.judge import Judge
from bench.style.held import Scores, held_out, measure
from bench.style.sheet import HEAD, LABEL, SIDE, draw_sheet
from bench.style.store import Store
from bench.style.table import plot, ranked, tables
from bench.style.trial import BOUNDS, Clock, Result, Trial
from trainer.events import Step


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load()


@pytest.mark.parametrize("name", ["duotone", "ink", "blueprint"])
def test_true_pictures_score_as_the_style_and_their_concepts(judge, name):
    held = held_out(name, judge, 20)
    scores = measure(held.truth, held, judge)
    assert len(held.captions) == 20
    assert scores.distance == 0.0 and scores.called_style >= 0.95 and scores.concept_top5 >= 0.95 and scores.both >= 0.95


def test_wrong_pictures_score_low(judge):
    held, other = held_out("duotone", judge, 20), held_out("ink", judge, 20)
    swapped = measure(held.truth.roll(1, 0), held, judge)
    assert swapped.concept_top1 <= 0.1 and swapped.distance > 0.05
    assert swapped.both <= swapped.concept_top5 < swapped.called_style
    assert measure(other.truth, held, judge).called_style <= 0.05


def test_grey_noise_has_the_closed_form_distance(judge):
    held = held_out("ink", judge, 4)
    shifted = measure((held.truth + 0.25), held, judge)
    assert shifted.distance == pytest.approx(0.25, abs=1e-4)


def test_the_sheet_has_a_row_for_each_model():
    pictures = [("base", torch.zeros(3, 3, 64, 64)), ("pocket-lora", torch.ones(3, 3, 64, 64))]
    sheet = draw_sheet(pictures, ["t, a", "t, b", "t, c"])
    assert sheet.size == (LABEL + 3 * SIDE, HEAD + 2 * SIDE)
    assert sheet.getpixel((LABEL + 10, 60)) == (0, 0, 0) and sheet.getpixel((LABEL + 10, 60 + SIDE)) == (255, 255, 255)


def result(what: str, style: str = "ink", seed: int = 1, both: float = 0.5, called: float = 0.8) -> Result:
    return Result(style, what, seed, "d", Scores(0.1, called, 0.9, 0.8, both), 60.0, 0.2, 1000, 2048)


def test_a_result_counts_until_its_preset_or_a_change_differs(tmp_path):
    text = '[run]\nname = "mine"\n'
    preset = tmp_path / "mine.toml"
    preset.write_text(text)
    trial = Trial("ink", str(preset), 1)
    store = Store(tmp_path / "style.json")
    store.add([replace(result(str(preset)), digest=trial.digest)])
    again = Store(store.file)
    assert again.results == store.results and again.has(trial)
    assert not again.has(replace(trial, seed=2)) and not again.has(replace(trial, style="duotone"))
    assert not again.has(replace(trial, changes=("optimizer.lr=1",))) and not again.has(replace(trial, count=5))
    preset.write_text(text + "[train]\nsteps = 3\n")
    assert not again.has(trial)


def test_a_new_result_takes_the_old_ones_place(tmp_path):
    store = Store(tmp_path / "style.json")
    store.add([result("a", both=0.1), result("b")])
    store.add([result("a", both=0.7), result("a", seed=2)])
    assert [(r.what, r.seed, r.scores.both) for r in Store(store.file).results] == [("a", 1, 0.7), ("a", 2, 0.5), ("b", 1, 0.5)]


def test_bounds_are_known_by_how_many_concepts_they_saw(tmp_path):
    store = Store(tmp_path / "style.json")
    store.add(replace(result(what, seed=0), digest="50") for what in BOUNDS)
    assert store.has_bounds("ink", 50) and not store.has_bounds("ink", 88) and not store.has_bounds("duotone", 50)


RESULTS = [
    *(replace(result(what, style, 0), digest="50") for what in BOUNDS for style in ("duotone", "ink")),
    result("low", "ink", 1, 0.2, called=0.3), result("low", "ink", 2, 0.4, called=0.5), result("low", "duotone", 1, 0.9),
    result("high", "ink", 1, 0.8), result("high", "duotone", 1, 0.6),
    result("half", "ink", 1, 1.0),
]  # fmt: skip


def test_the_ranking_weighs_styles_alike_and_leaves_out_what_was_not_tried_in_all():
    entries = ranked(RESULTS)
    assert [entry.what for entry in entries] == ["high", "low"]
    low = entries[1]
    assert low.mean(lambda r: r.scores.both) == pytest.approx((0.3 + 0.9) / 2)
    assert low.spread(lambda r: r.scores.both) == pytest.approx(0.02**0.5 / 2)
    assert low.misses == ["ink"] and low.seeds == 1 and entries[0].misses == []


def test_the_table_tells_place_spread_and_who_misses_the_aim():
    text = tables(RESULTS)
    assert "| 1 | `high` | 70% ± 0% | 80% | 80% |" in text
    assert "| 2 | `low` | 60% ± 7% | 80% | 40% ± 14% |" in text
    assert "Below 60% called the new style, mean over the seeds: `low` (ink)." in text


def test_the_plot_is_the_same_file_for_the_same_results(tmp_path):
    pytest.importorskip("matplotlib")
    plot(ranked(RESULTS), tmp_path / "one.svg")
    plot(ranked(RESULTS), tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert "1 high" in (tmp_path / "one.svg").read_text()


def test_the_clock_leaves_the_first_step_out(monkeypatch):
    times = iter([10.0, 10.5, 11.5])
    monkeypatch.setattr("bench.style.trial.time.process_time", lambda: next(times))
    clock = Clock()
    for step in (1, 2, 4):
        clock(Step(step, 0.1, 1e-3, 1.0, 2.0))
    assert clock.step_seconds == pytest.approx(1.5 / 3)
