"""Real runs under a server, tiny and without an end of their own, and what the page says of them."""

from __future__ import annotations

import json
import os
import signal
import uuid
from pathlib import Path
from typing import Any

import psutil

from app.queue import Queue
from app.studio import STATE
from tests.app.serving import Server, wait_for
from tests.trainer import tiny
from trainer import settings
from trainer.run import RunDir

PAGE = "train/run.input"


def recipe(folder: Path, **changes: Any) -> str:
    """A run over the base and the pictures in ``folder`` that goes on until it is stopped and saves at every second step."""
    endless = {"train__steps": 100_000, "checkpoint__export": False, "data__lint": False}
    values = tiny.values(folder / "base", folder / "pictures", folder, **endless | changes)
    return settings.to_toml(settings.parse(values, "test"))


def queue_of(server: Server) -> Queue:
    """The server's queue, as another server on the same folder has it."""
    return Queue(server.runs, server.runs / STATE)


def count(server: Server, name: str, event: str) -> int:
    """Events of a kind that a run has told."""
    return sum(each["event"] == event for each in RunDir(server.runs / name).events())


def trains(server: Server, name: str) -> int:
    """Wait until a run has made one more step and one more checkpoint; returns its process."""
    steps, saved = count(server, name, "Step"), count(server, name, "Saved")
    wait_for(lambda: count(server, name, "Step") > steps + 1 and count(server, name, "Saved") > saved, server.log)
    job = queue_of(server).job(name)
    assert job is not None and job.lives()
    return job.pid


def kill(pid: int) -> None:
    """End a run's process as ``kill -9`` does; another process collects it."""
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def page(server: Server, name: str) -> str:
    """Everything that the page Train shows of a run in a new tab."""
    session = uuid.uuid4().hex
    server.call("train/load", session=session)
    return server.markup(PAGE, name, session=session)


def press(server: Server, button: str, name: str) -> dict[str, Any]:
    """A button of the page Train, in a new tab that shows a run."""
    session = uuid.uuid4().hex
    server.call("train/load", session=session)
    return server.call(f"train/{button}.click", name, session=session)


def shows(server: Server, name: str, *words: str, but: str = "\0") -> None:
    """Wait until the page Train shows every word of a run."""
    wait_for(
        lambda: all(word in page(server, name) for word in words) and but not in page(server, name), lambda: page(server, name)
    )


def whole(run: RunDir) -> list[int]:
    """Steps of a run's checkpoints, all of which must match their checksums."""
    from trainer.checkpoint import _problem, committed

    found = committed(run.checkpoints)
    assert found and all(_problem(path) is None for path in found)
    return [json.loads((path / "state.json").read_text())["step"] for path in found]


def end(server: Server) -> None:
    """End the server, then every run of it."""
    server.stop()
    for job in queue_of(server).jobs():
        if job.lives():
            psutil.Process(job.pid).kill()
