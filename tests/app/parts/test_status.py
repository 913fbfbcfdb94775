"""A run's state as HTML."""

from __future__ import annotations

import os

import psutil
import pytest

from app.parts.status import clock, key, status
from app.queue import Job
from app.watch import View
from tests.app.test_queue import ENDED

PLAN = {
    "trained": [{"component": "unet", "algorithm": "loha", "layers": 127, "parameters": 268000}],
    "pictures": 12,
    "dropped": 0,
    "device": "cpu",
    "steps": 200,
}


@pytest.mark.parametrize(
    ("state", "job", "expected"),
    [
        ("none", Job("one"), "waiting"),
        ("none", Job("one", pid=os.getpid(), born=psutil.Process().create_time()), "starting"),
        ("none", Job("one", pid=ENDED.pid, born=ENDED.born), "failed"),
        ("done", Job("one", pid=ENDED.pid, born=ENDED.born), "done"),
        ("none", None, "none"),
    ],
)
def test_a_job_without_a_run_waits_gets_ready_or_failed(state, job, expected):
    assert key(View(state), job) == expected


def test_a_running_run_shows_bar_numbers_and_what_is_trained():
    text = status(View("running", step=50, steps=200, loss=0.12345, seconds_left=75.4, plan=PLAN))
    assert "width:25.0%" in text
    assert "step 50 of 200 · loss 0.1235 · 1:15 left" in text
    assert "unet: loha, 127 layers, 268,000 parameters" in text
    assert "12 pictures, 0 dropped, on cpu" in text


@pytest.mark.parametrize("view", [View("failed", "<script>x</script>"), View("none")])
def test_text_from_elsewhere_is_escaped(view):
    text = status(view, "" if view.message else "<script>x</script>")
    assert "<script>" not in text and "&lt;script&gt;x&lt;/script&gt;" in text


def test_a_clock_has_hours_where_it_needs_them():
    assert [clock(seconds) for seconds in (5, 75.4, 3729)] == ["0:05", "1:15", "1:02:09"]
