"""The queue: order, one at a time, restarts of the server, and runs started elsewhere."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from app.children import Child
from app.parts.status import cannot_start
from app.queue import RETRY_SECONDS, SECONDS, Queue
from trainer.errors import DiskError, InputError
from trainer.run import RunDir

ENDED = Child(2**22 + 1, 1.0)


class Starter:
    """Stands in for the trainer: sleeps until it is killed."""

    def __init__(self) -> None:
        self.words: list[list[str]] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def __call__(self, words: list[str], log: Path) -> Child:
        self.words.append(words)
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        self.processes.append(process)
        return Child(process.pid, psutil.Process(process.pid).create_time())

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def starter():
    starter = Starter()
    yield starter
    starter.end()


@pytest.fixture
def queue(tmp_path: Path, starter: Starter) -> Queue:
    (tmp_path / "runs").mkdir()
    return Queue(tmp_path / "runs", tmp_path / "state", starter)


def names(queue: Queue) -> list[str]:
    return [job.name for job in queue.waiting()]


def test_runs_go_one_after_the_other(queue, starter):
    assert [queue.add("a = 1", "one"), queue.add("b = 2", "two")] == ["one", "two"]
    for _ in range(3):
        queue.tick()
    assert len(starter.words) == 1 and queue.is_busy() and names(queue) == ["two"]
    preset = starter.words[0][starter.words[0].index("--preset") + 1]
    assert Path(preset).read_text() == "a = 1"
    assert starter.words[0][2:] == ["--name", "one", "--output", str(queue.output)]
    starter.end()
    queue.tick()
    assert len(starter.words) == 2 and names(queue) == []


def test_a_name_is_made_safe_and_never_taken_twice(queue):
    (queue.output / "one").mkdir()
    assert [queue.add("", "one"), queue.add("", "one"), queue.add("", "../one/..")] == ["one-2", "one-3", "one-4"]
    with pytest.raises(InputError):
        queue.add("", "///")


def test_a_restarted_server_knows_what_goes_on(queue, starter, tmp_path):
    queue.add("", "one")
    queue.add("", "two")
    queue.tick()
    again = Queue(queue.output, tmp_path / "state", starter)
    again.tick()
    assert again.is_busy() and len(starter.words) == 1
    starter.end()
    again.tick()
    assert len(starter.words) == 2


def test_a_process_of_the_same_number_is_not_the_same_process(starter):
    child = starter([], Path())
    assert child.lives() and not Child(child.pid, child.born - 100).lives() and not ENDED.lives()
    starter.processes[0].kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and not collected yet
    assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE and not child.lives()


def test_a_run_from_elsewhere_is_waited_for(queue, starter):
    run = RunDir(queue.output / "elsewhere")
    run.path.mkdir()
    run.config_file.touch()
    run.lock()
    queue.add("", "one")
    queue.tick()
    assert queue.is_busy() and not starter.words
    run.unlock()
    queue.tick()
    assert starter.words


def test_order_pause_removal_and_going_on(queue, starter):
    for name in "abc":
        queue.add("", name)
    queue.move("c", -5)
    assert names(queue) == ["c", "a", "b"]
    queue.move("c", 1)
    queue.move("nobody", 1)
    assert names(queue) == ["a", "c", "b"]
    queue.remove("c")
    queue.pause(True)
    queue.tick()
    assert queue.is_paused and not starter.words
    queue.pause(False)
    queue.tick()
    queue.remove("a")
    assert [job.name for job in queue.jobs()] == ["a", "b"], "one that goes on is not taken out"
    queue.resume("a")
    assert len(queue.jobs()) == 2 and not queue.jobs()[0].resume, "it goes on already"
    starter.end()
    (queue.output / "a").mkdir()
    (queue.output / "a" / "config.toml").touch()
    for name in ("../a", "nobody", "", None):
        queue.resume(name)
    queue.resume("a")
    assert names(queue) == ["b", "a"], "only jobs and runs go on"
    queue.tick()
    starter.end()
    queue.tick()
    assert starter.words[-1] == ["--resume", str(queue.output / "a")]


def test_a_job_whose_run_was_emptied_begins_anew_beside_what_is_left(queue, starter):
    queue.add("a = 1", "one")
    queue.tick()
    assert not queue.is_emptied("one"), "it has no folder yet"
    (queue.output / "one").mkdir()
    assert queue.is_emptied("one")
    starter.end()
    queue.resume("one")
    assert names(queue) == ["one-2"]
    queue.tick()
    words = starter.words[-1]
    assert Path(words[words.index("--preset") + 1]).read_text() == "a = 1" and words[words.index("--name") + 1] == "one-2"
    (queue.output / "one-2").mkdir()
    (queue.output / "one-2" / "config.toml").touch()
    assert not queue.is_emptied("one-2")


def test_last_words_are_those_of_an_ended_job(queue, starter):
    queue.add("", "one")
    queue.tick()
    queue.log_of("one").parent.mkdir(exist_ok=True)
    queue.log_of("one").write_text("x" * 5000 + "Error: no pictures\n")
    assert queue.last_words("one") == "" and queue.last_words("nobody") == ""
    starter.end()
    assert queue.last_words("one").endswith("Error: no pictures") and len(queue.last_words("one")) <= 4000


def test_a_stop_is_a_file_in_a_run_and_nowhere_else(queue):
    (queue.output / "one").mkdir()
    (queue.output / "one" / "config.toml").touch()
    for name in ("one", "../one", "gone", ".."):
        queue.request_stop(name)
    assert RunDir(queue.output / "one").stop_requested()
    assert [path.name for path in queue.output.iterdir()] == ["one"] and not (queue.output.parent / "stop").exists()


def test_what_cannot_be_started_is_told_and_tried_again_later_and_the_thread_goes_on(queue, starter, monkeypatch):
    def full(words: list[str], log: Path) -> Child:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(log))

    queue.add("", "one")
    with monkeypatch.context() as patch:
        patch.setattr(queue, "_start", full)
        assert queue.look() == RETRY_SECONDS > 10, "not each second"
        assert "one.log cannot be written: No space left" in queue.problem and "free some space" in queue.problem
        assert "cannot be started" in cannot_start(queue) and names(queue) == ["one"]
    assert queue.look() == SECONDS and queue.problem == cannot_start(queue) == "" and starter.words


def test_a_start_that_cannot_be_written_down_is_taken_back(queue, starter, monkeypatch):
    def full(file: Path, text: str) -> None:
        raise DiskError("full")

    queue.add("", "one")
    with monkeypatch.context() as patch:
        patch.setattr("app.store.write_text", full)
        queue.look()
        assert queue.problem == "full" and starter.processes[0].wait(10) == -signal.SIGKILL
    assert names(queue) == ["one"]
    queue.look()
    assert len(starter.processes) == 2 and queue.is_busy()


def test_the_thread_outlives_any_error(queue, monkeypatch):
    looks = []

    def tick() -> None:
        looks.append(1)
        if len(looks) == 3:
            queue.close()
        raise ZeroDivisionError

    monkeypatch.setattr(queue, "tick", tick)
    monkeypatch.setattr("app.queue.SECONDS", 0.01)
    monkeypatch.setattr("app.queue.RETRY_SECONDS", 0.01)
    queue.run_forever()
    assert len(looks) == 3 and "ZeroDivisionError" in queue.problem
