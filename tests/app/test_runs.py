"""Runs by name, and events of which only the new lines are read."""

from __future__ import annotations

import os
import time

from app.runs import Runs
from trainer import presets
from trainer.events import Finished, Preview, Started, Step


def test_only_runs_have_names_and_the_newest_is_first(tmp_path):
    for age, name in ((20, "first"), (10, "second")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").touch()
        os.utime(tmp_path / name / "config.toml", (time.time() - age,) * 2)
    (tmp_path / "no-run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "first")
    runs = Runs(tmp_path)
    assert runs.names() == ["second", "first"]
    for name in ("no-run", "link", "../one", "", None):
        assert runs.folder(name) is None
    assert runs.view("nobody").state == "none"


def test_new_lines_are_added_and_torn_ones_wait(tmp_path, run):
    runs = Runs(tmp_path)
    assert runs.events(run) == []
    run.emit(Started({"steps": 9}, 0))
    with run.events_file.open("a") as stream:
        stream.write('{"event": "Step", "step": 1, ')
    assert [event["event"] for event in runs.events(run)] == ["Started"]
    with run.events_file.open("a") as stream:
        stream.write('"loss": 0.5}\nnot json\n[]\n')
    assert [event["event"] for event in runs.events(run)] == ["Started", "Step"]
    before = runs.events(run)
    before.clear()
    assert len(runs.events(run)) == 2, "a caller's list is its own"


def test_a_file_written_anew_is_read_anew(tmp_path, run):
    runs = Runs(tmp_path)
    for step in range(1, 6):
        run.emit(Step(step, 0.5, 1e-3, 1.0, 1.0))
    assert len(runs.events(run)) == 5
    run.rewind_events(3)
    run.emit(Step(4, 0.25, 1e-3, 1.0, 1.0))
    assert [event["step"] for event in runs.events(run)] == [1, 2, 3, 4]
    assert runs.view("one").loss == 0.25
    run.events_file.unlink()
    assert runs.events(run) == []


def test_only_the_new_part_is_read(tmp_path, run):
    runs = Runs(tmp_path)
    run.emit(Finished(5, ""))
    runs.events(run)
    size = run.events_file.stat().st_size
    with run.events_file.open("r+b") as stream:
        stream.write(b"#" * 5)
    assert run.events_file.stat().st_size == size and len(runs.events(run)) == 1


def test_a_recipe_is_read_once_until_it_is_another_one(tmp_path, run, monkeypatch):
    runs, read = Runs(tmp_path), []
    load = presets.load
    monkeypatch.setattr(presets, "load", lambda name: read.append(name) or load(name))
    run.config_file.write_text("[train]\nsteps = 5\n")
    assert [runs.recipe("one") for _ in range(3)] == [{"train.steps": 5}] * 3 and len(read) == 1
    run.config_file.write_text("[train]\nsteps = 50\n")
    assert runs.recipe("one") == {"train.steps": 50} and len(read) == 2
    run.config_file.write_text("[torn")
    assert runs.recipe("one") == {} == runs.recipe("nobody")


def test_samples_are_known_without_a_look_at_the_disk(tmp_path, run):
    runs = Runs(tmp_path)
    assert not runs.has_samples("one") and not runs.has_samples("nobody")
    run.emit(Preview(0, ["previews/gone.png"], ["a fox"]))
    assert runs.has_samples("one") and runs.samples("one").steps == ()
