"""Whole runs on a tiny base: resume is exact, stops save, bad states are refused."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer import tiny
from trainer import settings
from trainer.errors import ExitCode, InputError, LockedError, StoppedError
from trainer.events import Event, Finished, Started, Step, Warned
from trainer.run import RunDir
from trainer.train import resume, train

KILLS = 20


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    return tiny.save_base(folder / "base"), tiny.save_pictures(folder / "pictures")


def run(inputs: tuple[Path, Path], output: Path, listener=lambda event: None, **changes) -> Path:  # noqa: ANN001
    return train(settings.parse(tiny.values(*inputs, output, **changes), "test"), listener=listener)


def digest(run_dir: Path) -> str:
    """sha256 of the exported tensors, without the metadata."""
    tensors = load_file(run_dir / "tiny.safetensors")
    hasher = hashlib.sha256()
    for name in sorted(tensors):
        hasher.update(name.encode() + tensors[name].contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def stop_after(step: int, run_dir: Path):  # noqa: ANN201
    """A listener that asks for a stop by the run's ``stop`` file."""

    def listen(event: Event) -> None:
        if isinstance(event, Step) and event.step == step:
            (run_dir / "stop").touch()

    return listen


FULL = {
    "adapter__dropout": 0.1,
    "adapter__rank_dropout": 0.2,
    "adapter__module_dropout": 0.1,
    "train__ema": 0.9,
    "train__accumulation": 2,
    "data__caption_dropout": 0.3,
    "data__flip": True,
    "optimizer__warmup": 2,
    "loss__min_snr_gamma": 5.0,
    "loss__noise_offset": 0.1,
}
"""Everything that draws random numbers or holds a state."""


@pytest.mark.parametrize("algorithm", ["lora", "loha", "lokr"])
@pytest.mark.parametrize("optimizer", ["adamw", "prodigy"])
def test_a_stopped_and_resumed_run_gives_the_same_bits(inputs, tmp_path, algorithm, optimizer):
    changes = FULL | {"adapter__algorithm": algorithm, "optimizer__name": optimizer, "adapter__weight_decompose": True}
    whole = run(inputs, tmp_path / "whole", **changes)
    cut = tmp_path / "cut" / "tiny"
    with pytest.raises(StoppedError) as stopped:
        run(inputs, tmp_path / "cut", stop_after(3, cut), **changes)
    assert stopped.value.code == ExitCode.INTERRUPTED
    assert (cut / "tiny-000003.safetensors").is_file()
    resume(cut, listener=lambda event: None)
    assert digest(cut) == digest(whole)
    losses = [[e["loss"] for e in RunDir(path).events() if e["event"] == "Step"] for path in (whole, cut)]
    assert losses[0] == losses[1] and len(losses[0]) == 6


def test_previews_and_checkpoints_do_not_change_training(inputs, tmp_path):
    plain = run(inputs, tmp_path / "plain", adapter__dropout=0.2, checkpoint__every=0)
    busy = run(inputs, tmp_path / "busy", adapter__dropout=0.2, checkpoint__every=1, preview__every=1)
    assert digest(plain) == digest(busy)
    assert len(list((busy / "previews").glob("*.png"))) == 7


def test_training_moves_every_tensor_and_keeps_the_base(inputs, tmp_path):
    events: list[Event] = []
    run(inputs, tmp_path, events.append, adapter__algorithm="loha")
    assert not [event for event in events if isinstance(event, Warned)]
    steps = [event for event in events if isinstance(event, Step)]
    assert [event.step for event in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[0].lr == pytest.approx(1e-2) and steps[-1].lr < steps[0].lr
    assert isinstance(events[-1], Finished) and events[-1].reason == "done"


def test_a_tensor_without_gradient_is_named(inputs, tmp_path):
    events: list[Event] = []
    run(inputs, tmp_path, events.append, adapter__module_dropout=0.999)
    warned = [event.message for event in events if isinstance(event, Warned)]
    assert any("got no gradient" in message and "unet." in message for message in warned)


def test_the_plan_counts_what_is_trained(inputs, tmp_path):
    events: list[Event] = []
    run(inputs, tmp_path, events.append)
    plan = next(event for event in events if isinstance(event, Started)).plan
    saved = load_file(tmp_path / "tiny" / "tiny.safetensors")
    parameters = sum(t.numel() for name, t in saved.items() if not name.endswith("alpha"))
    assert sum(part["parameters"] for part in plan["trained"]) == parameters
    assert {part["component"] for part in plan["trained"]} == {"unet", "text_encoder"}
    assert plan["pictures"] == 4 and plan["captions"] == {".txt": 4} and plan["dropped"] == 0
    assert plan["epochs"] == 3.0 and plan["checkpoints"] == 3
    assert plan["effective_strength"] == pytest.approx(1e-2 * 0.5**0.5)


def test_dry_run_writes_nothing(inputs, tmp_path):
    events: list[Event] = []
    train(settings.parse(tiny.values(*inputs, tmp_path / "out"), "test"), listener=events.append, dry_run=True)
    assert [type(event) for event in events] == [Started]
    assert not (tmp_path / "out").exists()


def test_resume_refuses_changed_settings_and_pictures(inputs, tmp_path):
    base, pictures = inputs
    mine = shutil.copytree(pictures, tmp_path / "pictures")
    done = run((base, mine), tmp_path / "out")
    config = done / "config.toml"
    before = config.read_text()
    config.write_text(before.replace("lr = 0.01", "lr = 0.02"))
    with pytest.raises(InputError, match="optimizer.lr"):
        resume(done, listener=lambda event: None)
    config.write_text(before)
    (mine / "0.txt").write_text("my style, another")
    with pytest.raises(InputError, match="pictures or captions"):
        resume(done, listener=lambda event: None)


def test_a_second_process_in_the_same_folder_is_refused(inputs, tmp_path):
    done = run(inputs, tmp_path)
    held = RunDir(done)
    held.lock()
    try:
        with pytest.raises(LockedError):
            resume(done, listener=lambda event: None)
    finally:
        held.unlock()


def test_an_existing_run_is_never_overwritten(inputs, tmp_path):
    assert [run(inputs, tmp_path, train__steps=1).name for _ in range(2)] == ["tiny", "tiny-2"]


def _go_on(path: str) -> None:
    torch.set_num_threads(1)
    resume(Path(path), listener=lambda event: None)


def test_other_threads_are_told(inputs, tmp_path):
    done = run(inputs, tmp_path)
    events: list[Event] = []
    torch.set_num_threads(2)
    try:
        resume(done, listener=events.append)
    finally:
        torch.set_num_threads(1)
    assert any("threads 1 then, 2 now" in event.message for event in events if isinstance(event, Warned))


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
