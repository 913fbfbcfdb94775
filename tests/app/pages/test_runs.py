"""Runs: the queue's buttons, the list, and the comparison of two."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import pytest

from app.pages import runs
from app.pages.runs import RunsPage
from app.studio import Studio
from app.watch import Samples
from trainer import presets, settings
from trainer.events import Finished, Preview, Started, Step
from trainer.run import RunDir


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    studio = Studio(tmp_path_factory.mktemp("runs"))
    for name, rate in (("first", 1e-3), ("second<i>", 2e-3)):
        make(studio.output, name, rate)
    yield studio
    studio.close()


@pytest.fixture
def page(studio) -> RunsPage:
    with gr.Blocks() as site:
        return RunsPage(studio, site)


def make(output: Path, name: str, rate: float) -> None:
    run = RunDir(output / name)
    run.previews.mkdir(parents=True)
    values = settings.apply(presets.load("pocket-lora"), [f"optimizer.lr={rate}"])
    run.config_file.write_text(settings.dump(values), encoding="utf-8")
    run.emit(Started({"steps": 3}, 0))
    for step in range(1, 4):
        run.emit(Step(step, rate * 100 / step, rate, 1.0, 1.0))
    run.preview_file(3, 0).touch()
    run.emit(Preview(3, [run.relative(run.preview_file(3, 0))], ["a fox"]))
    run.emit(Finished(3, ""))


def test_runs_are_listed_and_found_by_name_and_recipe(page):
    both = page.listed("")
    assert both.count("<tr>") == 3 and "second&lt;i&gt;" in both and "<i>" not in both
    assert page.listed("0.002").count("<tr>") == 2 and "No run" in page.listed("lora zebra")


def test_two_runs_beside_each_other(page):
    shown = page.compare(["first", "second<i>", "../other"])
    assert shown.count("<polyline") == 2 and "optimizer.lr" in shown and "0.001" in shown and "0.002" in shown
    assert shown.count("<img") == 2 and "<i>" not in shown and "data.images" not in shown
    assert "Choose two" in page.compare(["first"]) and "Choose two" in page.compare(None)


def test_the_same_prompts_stand_beside_each_other_under_different_triggers(tmp_path):
    files = [tmp_path / name for name in "abc"]
    found = {
        "one": Samples(((1, (files[0],)),), ("ink style, fox",)),
        "two": Samples(((1, (files[1], files[2])),), ("a duck", "duo, fox")),
    }
    recipes = {"one": {"data.trigger": "ink style"}, "two": {"data.trigger": "duo"}}
    shown = runs.pictures(found, recipes)
    assert "{trigger}, fox" in shown and "duck" not in shown
    assert [str(file) in shown for file in files] == [True, False, True]
    assert runs.pictures(found, {"one": {}, "two": {}}) == ""
    alike = {"one": found["one"], "two": Samples(((1, (files[1],)),), ("ink style, fox",))}
    same = runs.pictures(alike, {name: {"data.trigger": "ink style"} for name in alike})
    assert "ink style, fox" in same and "{trigger}" not in same


def test_a_recipe_is_taken_over(page, studio):
    assert page.take(["second<i>"]) == "yes" and studio.draft.values["optimizer"]["lr"] == 2e-3
    assert page.take(["../other"]) == "" and page.take([]) == ""


def test_the_queue_is_shown_in_its_order(page, studio):
    for name in ("x", "y"):
        studio.queue.add("", name)
    queue, job, pause, _, jobs = page.refresh("", "y")
    assert queue.index(">x<") < queue.index(">y<") and job["value"] == "y" and pause["value"] == "Pause the queue"
    studio.queue.move("y", -1)
    studio.queue.pause(True)
    queue, _, pause, *_ = page.refresh("", "gone")
    assert queue.index(">y<") < queue.index(">x<") and "is paused" in queue and pause["value"] == "Let the queue go on"
    for name in ("x", "y"):
        studio.queue.remove(name)
    queue, *_, none = page.refresh("", None)
    assert "Nothing waits" in queue and jobs["visible"] and not none["visible"]


def test_where_nothing_was_trained_the_table_says_how_to_begin(tmp_path):
    with gr.Blocks() as site:
        assert "Begin with the demo" in RunsPage(Studio(tmp_path), site).listed("")
