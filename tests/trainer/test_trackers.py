"""What trackers are told: tensorboard's own reader gives back what ``events.jsonl`` holds, resumed or not."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.trainer import tiny
from trainer import settings, trackers
from trainer.errors import InputError, StoppedError
from trainer.events import Event, Step
from trainer.run import RunDir
from trainer.train import resume, train

CHANGES = {
    "track__trackers": ["tensorboard"],
    "optimizer__text_encoder_lr": 5e-3,
    "embedding__vectors": 1,
    "preview__every": 3,
    "validation__count": 1,
    "validation__every": 2,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    return tiny.save_base(folder / "base"), tiny.save_pictures(folder / "pictures")


@pytest.fixture(scope="module")
def drawn(inputs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, EventAccumulator]:
    """A run that was stopped after step 3 with its last checkpoint at step 2, as a killed one would be, and resumed."""
    output = tmp_path_factory.mktemp("runs")
    run = RunDir(output / "tiny")

    def stop(event: Event) -> None:
        if isinstance(event, Step) and event.step == 3:
            run.stop_file.touch()

    with pytest.raises(StoppedError):
        train(settings.parse(tiny.values(*inputs, output, **CHANGES), "test"), listener=stop)
    newest = run.checkpoints / "step-000003"
    newest.rename(run.path / "lost")
    resume(run.path, listener=lambda event: None)
    return run, read(run)


def read(run: RunDir) -> EventAccumulator:
    found = EventAccumulator(str(run.tensorboard / trackers.PROJECT), size_guidance={"images": 0, "scalars": 0})
    found.Reload()
    return found


def scalars(found: EventAccumulator, tag: str) -> dict[int, float]:
    events = found.Scalars(tag)
    assert len({event.step for event in events}) == len(events), f"{tag} has a step twice"
    return {event.step: event.value for event in events}


def test_every_step_is_there_once_with_the_values_of_the_events(drawn):
    run, found = drawn
    steps = [event for event in run.events() if event["event"] == "Step"]
    assert [event["step"] for event in steps] == [1, 2, 3, 4, 5, 6]
    for tag, key in (("loss", "loss"), ("grad_norm", "grad_norm"), ("steps_per_second", "rate")):
        assert scalars(found, tag) == pytest.approx({event["step"]: event[key] for event in steps}, rel=1e-6)


def test_every_group_has_its_rate(drawn):
    run, found = drawn
    first = {"lr/unet": 1e-2, "lr/text_encoder": 5e-3, "lr/word": 1e-3}
    assert {tag for tag in found.Tags()["scalars"] if tag.startswith("lr/")} == first.keys()
    rates = [event["rates"] for event in run.events() if event["event"] == "Step"]
    for index, (tag, rate) in enumerate(first.items()):
        written = scalars(found, tag)
        assert written[1] == pytest.approx(rate) and written[6] < rate
        assert list(written.values()) == pytest.approx([each[index] for each in rates], rel=1e-6)


def test_validation_and_pictures_are_there(drawn):
    run, found = drawn
    validated = {event["step"]: event["loss"] for event in run.events() if event["event"] == "Validated"}
    assert len(validated) > 2 and scalars(found, "validation/loss") == pytest.approx(validated, rel=1e-6)
    images = found.Images("previews")
    assert [image.step for image in images] == [0, 3, 6]
    (run.path / "shown.png").write_bytes(images[1].encoded_image_string)
    shown, file = (np.asarray(Image.open(path).convert("RGB")) for path in (run.path / "shown.png", run.preview_file(3, 0)))
    assert np.array_equal(shown, file)


def test_without_trackers_nothing_is_written(inputs, tmp_path):
    path = train(settings.parse(tiny.values(*inputs, tmp_path, train__steps=1), "test"), listener=lambda event: None)
    assert not (path / "tensorboard").exists()


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_told_before_anything_is_written(inputs, tmp_path, monkeypatch, name):
    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    config = settings.parse(tiny.values(*inputs, tmp_path / "out", track__trackers=[name]), "test")
    with pytest.raises(InputError, match=f"track.trackers names {name}.*\n.*pip install {name}==") as told:
        train(config, listener=lambda event: None)
    assert told.value.code == 2 and not (tmp_path / "out").exists()


class Wandb(ModuleType):
    """Stands for the package: keeps what it is told."""

    Image = staticmethod(np.asarray)

    def __init__(self) -> None:
        super().__init__("wandb")
        self.told: dict[str, Any] = {}
        self.lines: list[tuple[int, dict[str, Any]]] = []

    def init(self, **told: Any) -> Wandb:
        self.told = told
        return self

    def log(self, values: dict[str, Any], step: int) -> None:
        self.lines.append((step, values))

    def finish(self) -> None:
        self.lines.append((-1, {}))


@pytest.mark.acts("track.trackers", "track.online")
@pytest.mark.parametrize("online", [False, True])
def test_wandb_sends_nothing_unless_it_is_asked_to(inputs, tmp_path, monkeypatch, online):
    fake = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(trackers, "find_spec", lambda package: True)
    values = tiny.values(*inputs, tmp_path, track__trackers=["wandb"], track__online=online, train__steps=2)
    path = train(settings.parse(values, "test"), listener=lambda event: None)
    assert fake.told["mode"] == ("online" if online else "offline") and fake.told["dir"] == str(path)
    losses = [event["loss"] for event in RunDir(path).events() if event["event"] == "Step"]
    assert [values["loss"] for _, values in fake.lines if "loss" in values] == losses
    assert fake.lines[-1] == (-1, {}) and any("previews" in values for _, values in fake.lines)


def test_online_without_wandb_is_refused(inputs, tmp_path):
    with pytest.raises(InputError, match="track.online has no effect without wandb"):
        settings.parse(tiny.values(*inputs, tmp_path, track__online=True), "test")
    with pytest.raises(InputError, match="track.trackers.*'tensorbord'.*'tensorboard'"):
        settings.parse(tiny.values(*inputs, tmp_path, track__trackers=["tensorbord"]), "test")
