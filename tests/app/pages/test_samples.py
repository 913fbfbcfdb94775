"""Samples: every prompt over the steps, pairs for the slider, and pictures at strengths."""

from __future__ import annotations

import json
from pathlib import Path

import gradio as gr
import pytest

from app.pages import samples
from app.pages.samples import SamplesPage
from app.watch import Samples
from trainer.events import Preview, Started
from trainer.run import RunDir

PROMPTS = ["<b>fox</b>", "key"]


@pytest.fixture
def run(run) -> RunDir:
    run.previews.mkdir()
    run.emit(Started({}, 0))
    for step in (0, 5, 10):
        files = [run.preview_file(step, number) for number in range(2)]
        for file in files:
            file.touch()
        run.emit(Preview(step, [run.relative(file) for file in files], PROMPTS))
    return run


@pytest.fixture
def page(studio, run) -> SamplesPage:
    with gr.Blocks() as site:
        return SamplesPage(studio, site)


def test_every_prompt_stands_over_its_steps(page, studio):
    run, grid, prompt, slider, at, beside = page.show(None)
    assert run["value"] == "one" and prompt["choices"] == [(PROMPTS[0], 0), (PROMPTS[1], 1)]
    assert grid.count("<img") == 6 and "base model" in grid and "step 10" in grid and "<b>fox" not in grid
    assert [Path(file).name for file in slider["value"]] == ["000000-00.png", "000010-00.png"]
    assert [Path(file).name for file in page.pair("one", 1)["value"]] == ["000000-01.png", "000010-01.png"]
    assert "Not drawn" in at


def test_pictures_at_a_strength_are_shown_once_all_are_there(page, run):
    run.strengths.mkdir()
    run.strength_file(0.75, 0).touch()
    assert "Not drawn" in page.shown_at("one", 0.75)
    run.strength_file(0.75, 1).touch()
    assert page.shown_at("one", 0.75).count("<img") == 2 and page.shown_at("nobody", 0.75) == ""


def test_a_deleted_picture_leaves_the_others_at_their_prompts(page, studio, run):
    run.preview_file(0, 0).unlink()
    run.preview_file(10, 0).unlink()
    _, grid, prompt, slider, *_ = page.show("one")
    assert prompt["choices"] == [(PROMPTS[0], 0), (PROMPTS[1], 1)] and slider["value"] is None
    assert [Path(file).name for file in page.pair("one", 1)["value"]] == ["000000-01.png", "000010-01.png"]
    first, second = grid.split("<tr>")[-2:]
    assert first.count("<img") == 1 and "000005-00.png" in first
    assert second.count("<img") == 3 and all(f"{step:06d}-01.png" in second for step in (0, 5, 10))


def test_prompts_stay_where_the_last_picture_of_every_step_is_gone():
    found = Samples(((0, (Path("a"), None)), (5, (Path("b"), None))), ("fox", "key"))
    assert found.names == ["fox", "key"]
    assert Samples(((0, (Path("a"), None, None)),), ("fox",)).names == ["fox"], "names that lead out of the run are no pictures"


def test_pictures_at_strengths_of_an_earlier_file_say_so(page, run):
    file = run.export_file("tiny")
    file.write_bytes(b"first")
    run.strengths.mkdir()
    for number in range(2):
        run.strength_file(1.0, number).touch()
    run.drawn_file.write_text(json.dumps(run.drawn_of(file)))
    assert "earlier file" not in page.shown_at("one", 1.0)
    file.write_bytes(b"other")
    shown = page.shown_at("one", 1.0)
    assert "earlier file" in shown and shown.count("<img") == 2
    run.drawn_file.write_text("torn")
    assert "earlier file" in page.shown_at("one", 1.0)


def test_a_run_without_a_file_says_so(page):
    assert "is not there" in page.draw("one", 1.0) or "config" in page.draw("one", 1.0)


def test_many_steps_are_thinned_with_the_first_and_the_last():
    found = samples.chosen(tuple((step, ()) for step in range(500)))
    assert len(found) == samples.MOST_STEPS and found[0][0] == 0 and found[-1][0] == 499


def test_prompts_of_an_older_run_are_numbers():
    assert Samples(((0, (Path("a"), Path("b"))),)).names == ["1", "2"] and samples.first_and_last(Samples(), 0) is None
