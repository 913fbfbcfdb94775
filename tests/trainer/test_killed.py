"""Whole runs that are ended from outside: by signals, and by ``kill -9`` at any moment."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.trainer import tiny
from tests.trainer.test_train import FULL, digest, run, stop_after
from trainer import settings
from trainer.errors import StoppedError
from trainer.run import RunDir
from trainer.train import resume

KILLS = 20


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    return tiny.save_base(folder / "base"), tiny.save_pictures(folder / "pictures")


def _through_the_door(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    from trainer.cli import main

    raise SystemExit(main(arguments))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_finish_the_step_save_export_and_can_be_resumed(inputs, tmp_path, number, code):
    config = tmp_path / "long.toml"
    values = tiny.values(*inputs, tmp_path / "out", train__steps=100_000, checkpoint__every=0)
    config.write_text(settings.to_toml(settings.parse(values, "test")))
    child = multiprocessing.get_context("forkserver").Process(target=_through_the_door, args=(["--preset", str(config)],))
    child.start()
    held = RunDir(tmp_path / "out" / "tiny")
    deadline = time.monotonic() + 60
    while not any(event["event"] == "Step" for event in held.events()):
        assert child.is_alive() and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(child.pid, number)
    child.join(60)
    assert child.exitcode == code
    last = held.events()[-1]
    assert last["event"] == "Finished" and last["reason"] == "stopped"
    assert (held.path / last["file"]).is_file()
    assert (held.checkpoints / f"step-{last['step']:06d}").is_dir()


def _go_on(path: str) -> None:
    torch.set_num_threads(1)
    resume(Path(path), listener=lambda event: None)


def _kill_during(run_dir: Path, delay: float, after_start: bool) -> None:
    """Resume in a child process and kill it ``delay`` seconds after it began to train, or after its own start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trainer.train"])
    begun = sum(event["event"] == "Started" for event in RunDir(run_dir).events())
    child = context.Process(target=_go_on, args=(str(run_dir),))
    child.start()
    deadline = time.monotonic() + 60
    while after_start and sum(event["event"] == "Started" for event in RunDir(run_dir).events()) == begun:
        assert child.is_alive() and time.monotonic() < deadline
        time.sleep(0.02)
    child.join(delay)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL


@pytest.mark.timeout(1500)  # twenty starts of a process, each with torch and diffusers
@pytest.mark.slow
def test_killed_at_random_moments_the_run_ends_with_the_same_bits(inputs, tmp_path):
    """``kill -9`` at 20 random moments of one training, resumed each time: the same bytes, and never a damaged checkpoint."""
    changes = FULL | {"train__steps": 300, "checkpoint__every": 1, "checkpoint__keep": 2}
    whole = run(inputs, tmp_path / "whole", **changes | {"checkpoint__every": 0})
    cut = tmp_path / "cut" / "tiny"
    with pytest.raises(StoppedError):
        run(inputs, tmp_path / "cut", stop_after(1, cut), **changes)
    pick = random.Random(0)
    for kill in range(KILLS):
        _kill_during(cut, pick.uniform(0.05, 0.7), after_start=kill % 4 != 0)
    resume(cut, listener=lambda event: None)
    messages = [e.get("message", "") for e in RunDir(cut).events()]
    assert not [message for message in messages if "damaged" in message or "not the machine" in message]
    assert digest(cut) == digest(whole)
    assert json.loads((cut / "verify.json").read_text())
