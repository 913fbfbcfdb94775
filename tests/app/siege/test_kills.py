"""Trainer and app ended from outside, a run folder taken away, two tabs at once: a clear state on the page and no lost file."""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.app.serving import Server, wait_for
from tests.app.siege import runs
from tests.trainer import tiny
from trainer import presets
from trainer.run import RunDir


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    tiny.save_base(folder / "base")
    tiny.save_pictures(folder / "pictures")
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    shutil.rmtree(folder / "runs", ignore_errors=True)
    server = Server(folder)
    yield server
    runs.end(server)


def test_a_killed_trainer_and_a_killed_app_lose_nothing(server, folder):
    """``kill -9`` on the trainer, on the app while the resumed run goes on, a new app that takes both up again, Stop."""
    runs.queue_of(server).add(runs.recipe(folder), "one")
    run = RunDir(server.runs / "one")
    runs.kill(runs.trains(server, "one"))
    runs.shows(server, "one", "Interrupted", "checkpoints are whole")
    kept = runs.whole(run)
    runs.press(server, "resume", "one")
    pid = runs.trains(server, "one")
    assert max(runs.whole(run)) > max(kept)

    helpers = psutil.Process(server.process.pid).children(recursive=True)
    server.kill()
    steps = runs.count(server, "one", "Step")
    wait_for(lambda: runs.count(server, "one", "Step") > steps)
    wait_for(lambda: not [each for each in helpers if each.pid != pid and each.is_running()], lambda: str(helpers))

    again = Server(folder)
    try:
        runs.shows(again, "one", "Training", "step")
        assert runs.trains(again, "one") == pid
        runs.press(again, "stop", "one")
        runs.shows(again, "one", "Stopped; everything is saved")
        assert list(run.path.glob("one-*.safetensors")) and runs.whole(run)
    finally:
        runs.end(again)


def test_a_run_folder_that_is_deleted_in_mid_run_is_told_and_the_next_run_begins(server, folder):
    queue = runs.queue_of(server)
    queue.add(runs.recipe(folder), "one")
    queue.add(runs.recipe(folder), "two")
    runs.trains(server, "one")
    (server.runs / "one").rename(folder / "bin")
    shutil.rmtree(folder / "bin")
    runs.shows(server, "one", "was deleted or moved", "What to do", but="Traceback")
    assert not (server.runs / "one").exists()
    runs.trains(server, "two")
    runs.shows(server, "two", "Training")
    assert "two" in server.markup("runs/load", "", None) and server.is_well()


def test_a_run_whose_files_are_deleted_one_by_one_is_told_and_can_begin_anew(server, folder):
    """As ``rm -r`` does while the run writes: the folder stays. Both while the process is at its step and when it has ended."""
    queue = runs.queue_of(server)
    queue.add(runs.recipe(folder), "one")
    pid = psutil.Process(runs.trains(server, "one"))
    run = RunDir(server.runs / "one")
    pid.suspend()
    for file in sorted(run.path.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    runs.shows(server, "one", "were deleted or moved while it trains", "What to do", but="Getting ready")
    pid.resume()
    runs.shows(server, "one", "Failed", "one was deleted or moved", "What to do", but="Traceback")
    assert not queue.job("one").lives()
    queue.resume("one")
    runs.trains(server, "one-2")
    runs.shows(server, "one-2", "Training")
    assert server.is_well()


def test_two_tabs_that_start_two_runs_at_once_get_two_runs_one_after_the_other(server, folder):
    queue = runs.queue_of(server)
    queue.pause(True)
    demo = next(name for name in server.functions if name.startswith("home/button"))
    names: list[str] = []
    tabs = [threading.Thread(target=lambda: names.extend(server.values(demo, session=uuid.uuid4().hex))) for _ in range(4)]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    assert sorted(names) == ["pocket-lora", "pocket-lora-2", "pocket-lora-3", "pocket-lora-4"]
    assert sorted(job.name for job in queue.jobs()) == sorted(names)
    wanted = presets.read_text(presets.FOLDER / "pocket-lora.toml")
    for name in names:
        assert (server.runs / ".app" / "recipes" / f"{name}.toml").read_text(encoding="utf-8") == wanted
        queue.remove(name)
    queue.add(runs.recipe(folder), "one")
    queue.add(runs.recipe(folder), "two")
    queue.pause(False)
    runs.trains(server, "one")
    assert [job.name for job in queue.jobs() if job.lives()] == ["one"] and not (server.runs / "two").exists()
    runs.shows(server, "two", "It starts when the runs before it have ended")
