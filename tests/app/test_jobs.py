"""Runs as child processes: argument lists, own sessions, only known names."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from app import jobs as module
from app.jobs import Jobs
from trainer.run import RunDir

CHILD = """
import sys, os, pathlib
arguments = dict(zip(sys.argv[2::2], sys.argv[3::2]))
print("words", os.getsid(0) == os.getpid(), arguments["--preset"])
run = pathlib.Path(arguments["--output"]) / arguments["--name"]
if {make}:
    run.mkdir()
    (run / "config.toml").touch()
    (run / "sid").write_text(str(os.getsid(0) == os.getpid()))
sys.exit({code})
"""


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    for name in ("runs", "logs"):
        (tmp_path / name).mkdir()
    return Jobs(tmp_path / "runs", tmp_path / "logs")


def start(jobs: Jobs, monkeypatch: pytest.MonkeyPatch, make: bool, code: int) -> str:
    """Start a preset with a stand-in for the trainer."""
    original = module.subprocess.Popen

    def popen(command: list[str], **rest):  # noqa: ANN003, ANN202
        assert command[:3] == [sys.executable, "-m", "trainer"] and "shell" not in rest
        return original([sys.executable, "-c", CHILD.format(make=make, code=code), "x", *command[3:]], **rest)

    monkeypatch.setattr(module.subprocess, "Popen", popen)
    return jobs.start("pocket-loha")


def wait(jobs: Jobs, name: str) -> None:
    jobs.started[name].process.wait(timeout=30)


def test_a_run_is_a_child_in_its_own_session(jobs, monkeypatch):
    name = start(jobs, monkeypatch, make=True, code=0)
    assert jobs.is_busy() and jobs.names() == [name]
    wait(jobs, name)
    assert not jobs.is_busy()
    assert (jobs.output / name / "sid").read_text() == "True", "a Ctrl-C at the server must not end the run"
    assert jobs.run(name).path == jobs.output / name
    assert jobs.last_words(name) == ""


def test_a_child_that_makes_no_run_leaves_its_last_words(jobs, monkeypatch):
    name = start(jobs, monkeypatch, make=False, code=2)
    wait(jobs, name)
    assert jobs.last_words(name) == "words True pocket-loha"


def test_an_unknown_preset_is_not_passed_on(jobs):
    with pytest.raises(ValueError, match="no preset"):
        jobs.start("../../x.toml")


def test_only_runs_have_names_and_the_newest_is_first(jobs):
    for name in ("first", "second", "no-run"):
        (jobs.output / name).mkdir()
    for name in ("first", "second"):
        time.sleep(0.02)
        (jobs.output / name / "config.toml").touch()
        os.utime(jobs.output / name)
    assert jobs.names() == ["second", "first"]
    assert jobs.run("no-run") is None and jobs.run("../logs") is None and jobs.run(None) is None


def test_a_stop_is_a_file_in_the_run(jobs):
    (jobs.output / "one").mkdir()
    (jobs.output / "one" / "config.toml").touch()
    jobs.request_stop("one")
    jobs.request_stop("../one")
    jobs.request_stop("gone")
    assert RunDir(jobs.output / "one").stop_requested()
    assert [path.name for path in jobs.output.iterdir()] == ["one"]
