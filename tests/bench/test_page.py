"""The bench of the page: the run that it makes, and what counts as too much."""

from __future__ import annotations

from app.runs import Runs
from bench import page
from bench.page import Figure
from bench.report import part


def test_the_run_has_its_steps_and_samples(tmp_path):
    page.make_run(tmp_path / "long", 40, 5)
    runs = Runs(tmp_path)
    view, samples = runs.view("long"), runs.samples("long")
    assert (view.step, view.steps, len(view.saved)) == (40, 40, 5)
    assert [step for step, _ in samples.steps] == [0, 10, 20, 30, 40]
    assert sum(len(files) for _, files in samples.steps) == 5 * page.PROMPTS and page.PREVIEWS * page.PROMPTS == 500


def test_a_figure_beyond_its_limit_is_seen():
    assert Figure("poll", 201, "ms", 200).is_over and not Figure("poll", 200, "ms", 200).is_over
    assert not Figure("start", 1e9, "s").is_over and Figure("poll", 12.345, "ms", 200).row() == "| poll | 12.3 ms | 200 ms |"


def test_the_document_has_a_place_for_the_table():
    assert part("bench.page")
