"""The first page: what it shows of a run, and that it shows text of others as text."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from app.jobs import Jobs
from app.pages import home
from app.watch import View
from trainer.events import Failed, Started
from trainer.run import RunDir

PLAN = {
    "trained": [{"component": "unet", "algorithm": "loha", "layers": 127, "parameters": 268000}],
    "pictures": 12,
    "dropped": 0,
    "device": "cpu",
    "steps": 200,
}


def test_a_running_run_shows_bar_numbers_and_what_is_trained():
    text = home.status_html(View("running", step=50, steps=200, loss=0.12345, seconds_left=75.4, plan=PLAN), "")
    assert "width:25.0%" in text
    assert "step 50 of 200 · loss 0.1235 · 1:15 left" in text
    assert "unet: loha, 127 layers, 268,000 parameters" in text
    assert "12 pictures, 0 dropped, on cpu" in text


@pytest.mark.parametrize("view", [View("failed", "<script>x</script>"), None])
def test_text_from_elsewhere_is_escaped(view):
    text = home.status_html(view, "" if view else "<script>x</script>")
    assert "<script>" not in text and "&lt;script&gt;x&lt;/script&gt;" in text
    assert "<script>" not in home.device_html("<script>")


def test_what_is_empty_is_hidden(tmp_path):
    status, stop, file, _, sheet, _, pictures, losses = home.updates(View("starting"), "")
    assert not any(part["visible"] for part in (stop, file, sheet, pictures, losses))
    full = View("running", previews=(tmp_path / "a.png",), preview_step=0, losses=[(1, 0.5), (2, 0.25)])
    status, stop, file, _, sheet, heading, pictures, losses = home.updates(full, "")
    assert stop["visible"] and pictures == {"value": [str(tmp_path / "a.png")], "visible": True}
    assert heading["value"] == "<h3>Pictures of the base model</h3>"
    assert losses["value"]["data"] == [[1, 0.5], [2, 0.25]]


def test_updates_and_components_stand_in_the_same_order():
    with home.gr.Blocks():
        parts = home.live_parts()
    for part, update in zip(parts, home.updates(View("running", losses=[(1, 1.0), (2, 1.0)]), ""), strict=False):
        assert set(update) <= set(inspect.signature(type(part)).parameters), type(part)
    assert len(parts) == len(home.updates(None, "")) + 1, "the last one is the memory"


def test_only_what_changed_is_sent_again(tmp_path):
    jobs = Jobs(tmp_path / "runs", tmp_path)
    run = RunDir(tmp_path / "runs" / "one")
    run.path.mkdir(parents=True)
    run.config_file.touch()
    run.emit(Started(PLAN, 0))
    first = home.refresh(jobs, "one", [])
    again = home.refresh(jobs, "one", first[-1])
    assert [part == home.gr.skip() for part in first[:-1]] == [False] * 8
    assert [part == home.gr.skip() for part in again[:-1]] == [True] * 8
    run.emit(Failed(5, "loss is nan"))
    later = home.refresh(jobs, "one", again[-1])
    assert [part == home.gr.skip() for part in later[:-1]] == [False] + [True] * 7
    assert "loss is nan" in later[0]["value"]


def test_the_device_line_comes_from_the_doctor():
    line = home.device_line()
    assert "core" in line and Path(home.ROOT / "trainer" / "doctor.py").is_file()
