"""The page of a run: what is hidden, what is sent again, and in which order."""

from __future__ import annotations

import inspect

import gradio as gr
import pytest

from app.page import address
from app.pages import train
from tests.app.test_queue import ENDED
from trainer.events import Failed, Preview, Saved, Started, Step
from trainer.run import RunDir

PLAN = {"trained": [], "pictures": 12, "dropped": 0, "device": "cpu", "steps": 4}


@pytest.fixture
def run(run) -> RunDir:
    run.emit(Started(PLAN, 0))
    return run


def test_updates_and_components_stand_in_the_same_order(studio, run):
    with gr.Blocks():
        parts = train.live_parts()
    for part, update in zip(parts, train.updates(studio, "one"), strict=True):
        assert set(update) <= set(inspect.signature(type(part)).parameters), type(part)


def test_a_run_in_its_course(studio, run):
    run.lock()
    for step in range(1, 3):
        run.emit(Step(step, 0.5 / step, 1e-3, 1.0, 2.0))
    run.previews.mkdir()
    run.preview_file(0, 0).touch()
    run.emit(Preview(0, ["previews/000000-00.png", "../../etc/passwd"]))
    run.emit(Saved(2, "checkpoint", "checkpoints/2"))
    status, stop, sample, save, go_on, diagnose, file, _, sheet, heading, pictures, curves, log = train.updates(studio, "one")
    assert "step 2 of 4" in status["value"] and not go_on["visible"]
    assert all(button["visible"] for button in (stop, sample, save))
    assert not diagnose["visible"] and not file["visible"] and not sheet["visible"] and not log["value"].count("Error")
    assert pictures["value"].count("<img") == 1 and address(run.preview_file(0, 0)) in pictures["value"]
    assert heading["value"] == "<h3>Pictures of the base model</h3>"
    assert curves["value"].count("polyline") >= 1 and "step 2: checkpoint" in curves["value"]
    run.unlock()
    interrupted = train.updates(studio, "one")
    assert (
        "Interrupted" in interrupted[0]["value"]
        and interrupted[4]["visible"]
        and not any(each["visible"] for each in interrupted[1:4])
    )


def test_a_failed_run_shows_cause_and_log_as_text(studio, run):
    run.emit(Failed(2, "<b>out of memory</b>"))
    run.log_file.write_text("line\n" * 100 + "<i>last</i>\n")
    status, *_, log = train.updates(studio, "one")
    assert (
        "&lt;i&gt;last" in status["value"] and "<i>" not in status["value"] and status["value"].count("line") == train.LAST_LINES
    )
    assert "&lt;b&gt;out of memory" in status["value"] and "<b>out" not in status["value"]
    assert log["value"].endswith("&lt;i&gt;last&lt;/i&gt;</pre>") and log["value"].count("line") == train.LOG_LINES - 1


def test_diagnostics_are_offered_where_a_run_broke(studio, run):
    run.emit(Failed(2, f"no room in {run.path}"))
    run.log_file.write_text("Error: /home/anna/secret is full\n")
    assert train.updates(studio, "one")[5]["visible"]
    told = train.diagnosis(studio, "one")
    assert told["visible"] and "no room in <run>" in told["value"] and "Error: <path> is full" in told["value"]
    assert not train.updates(studio, None)[5]["visible"] and "## Program" in train.diagnosis(studio, None)["value"]


def test_a_job_without_a_folder_waits_or_shows_its_last_words(studio):
    studio.queue.add("", "next")
    assert "It starts when" in train.updates(studio, "next")[0]["value"]
    assert "Nothing has been trained yet" in train.updates(studio, None)[0]["value"]


def test_a_job_that_ended_without_a_folder_and_without_a_word_is_no_run_that_gets_ready(studio, monkeypatch):
    studio.queue.add("", "next")
    monkeypatch.setattr(studio.queue, "_start", lambda words, log: ENDED)
    studio.queue.tick()
    status, *_ = shown = train.updates(studio, "next")
    assert "ended without a word" in status["value"] and "What to do" in status["value"] and shown[5]["visible"]


def test_a_run_that_was_cut_off_on_a_full_disk_says_so(studio, run, monkeypatch):
    assert "The disk is full" not in train.updates(studio, "one")[0]["value"]
    monkeypatch.setattr("app.watch.LEAST_ROOM", 2**62)
    assert "The disk is full" in train.updates(studio, "one")[0]["value"]


def test_a_broken_runs_log_is_read_once_a_look(studio, run, monkeypatch):
    run.emit(Failed(2, "no room"))
    run.log_file.write_text("the end")
    read = []
    monkeypatch.setattr(train, "tail", lambda file, lines: read.append(file) or "the end")
    status, *_, log = train.updates(studio, "one")
    assert read == [run.log_file] and "the end" in status["value"] and "the end" in log["value"]
