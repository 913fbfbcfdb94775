"""``device.deterministic``: set while a run trains, kept by a resumed one, put back afterwards; said where a promise needs it."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from tests.trainer import tiny
from trainer import settings
from trainer.config import DeviceConfig
from trainer.errors import ExitCode, InputError, StoppedError
from trainer.events import Event, Step
from trainer.failures import explain
from trainer.memory.determinism import VARIABLE, deterministic, notes
from trainer.train import resume, train

EXACT = {"torch": True, "cudnn": True, "benchmark": False, "compiler": True, "workspace": ":4096:8"}


def flags() -> dict[str, Any]:
    return {
        "torch": torch.are_deterministic_algorithms_enabled(),
        "cudnn": torch.backends.cudnn.deterministic,
        "benchmark": torch.backends.cudnn.benchmark,
        "compiler": torch._inductor.config.deterministic,
        "workspace": os.environ.get(VARIABLE),
    }


@pytest.fixture
def usual(monkeypatch):  # noqa: ANN001, ANN201
    """What stands before and after: nothing of it as a deterministic run has it."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    return flags()


@pytest.mark.acts("device.deterministic")
def test_a_run_and_its_resumption_are_deterministic_and_leave_the_process_as_it_was(tmp_path, usual):
    seen: list[dict[str, Any]] = []

    def note(event: Event) -> None:
        if isinstance(event, Step):
            seen.append(flags())
        if len(seen) == 1:
            (tmp_path / "runs" / "tiny" / "stop").touch()

    base, pictures = tiny.save_base(tmp_path / "base"), tiny.save_pictures(tmp_path / "pictures", count=2)
    config = settings.parse(tiny.values(base, pictures, tmp_path / "runs", train__steps=2, device__deterministic=True), "test")
    with pytest.raises(StoppedError):
        train(config, listener=note)
    assert flags() == usual
    resume(tmp_path / "runs" / "tiny", listener=note)
    assert seen == [EXACT, EXACT]
    assert flags() == usual


def test_nothing_is_touched_where_it_is_not_asked_for(usual):
    with deterministic(DeviceConfig()):
        assert flags() == usual


def test_a_failure_puts_everything_back_and_a_fitting_workspace_stays(monkeypatch, usual):
    monkeypatch.setenv(VARIABLE, ":16:8")
    with pytest.raises(ZeroDivisionError), deterministic(DeviceConfig(deterministic=True)):
        assert flags() == EXACT | {"workspace": ":16:8"}
        raise ZeroDivisionError
    assert flags() == usual | {"workspace": ":16:8"}


def test_a_process_whose_cuda_started_without_it_is_refused(monkeypatch, usual):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(InputError, match=f"{VARIABLE}=:4096:8"), deterministic(DeviceConfig(deterministic=True)):
        pass
    assert flags() == usual


def test_what_has_no_deterministic_form_ends_with_the_way_out():
    """The error is PyTorch's own, of an operation that has none on a CPU either."""
    with deterministic(DeviceConfig(deterministic=True)), pytest.raises(RuntimeError) as error:
        torch.nn.functional.max_unpool2d(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1, dtype=torch.int64), 2)
    told = explain(error.value, None)
    assert told.code == ExitCode.INPUT and "device.deterministic = false" in told.fix


def test_a_card_without_it_is_told_and_nobody_else():
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert "device.deterministic = true" in notes(DeviceConfig(), cuda)[0]
    assert not notes(DeviceConfig(deterministic=True), cuda) and not notes(DeviceConfig(), cpu)


def test_xformers_is_refused_beside_it():
    with pytest.raises(InputError, match="'xformers', whose sums vary"):
        settings.parse({"device": {"deterministic": True, "attention": "xformers"}}, "test")
