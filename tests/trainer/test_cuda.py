"""What only an NVIDIA card can show: runs, resumes, forms of the base and estimates on CUDA. Skipped where there is none."""

from __future__ import annotations

import os
import traceback
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer import tiny
from trainer import settings
from trainer.errors import StoppedError
from trainer.events import Event, Step, Verified
from trainer.loop import train_step
from trainer.memory.determinism import VARIABLE, WORKSPACES
from trainer.train import resume, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA card")

if torch.cuda.is_available():  # before the first test starts CUDA
    os.environ.setdefault(VARIABLE, WORKSPACES[0])

SHORT = {"data__bucket_step": 32, "preview__steps": 1, "checkpoint__every": 2}
FORMS = {
    "fp32": {"train__precision": "fp32"},
    "bf16": {"train__precision": "bf16"},
    "fp16": {"train__precision": "fp16"},
    "checkpointing": {"train__precision": "bf16", "train__gradient_checkpointing": True},
    "compile": {"train__precision": "bf16", "device__compile": True},
    "int8": {"train__precision": "bf16", "device__quantize": "int8"},
    "nf4": {"train__precision": "bf16", "device__quantize": "nf4", "device__double_quantize": True},
    "offload": {"train__precision": "bf16", "device__offload": True, "train__text_encoder": False},
    "channels_last": {"train__precision": "bf16", "device__channels_last": True},
    "paged": {"train__precision": "bf16", "optimizer__name": "paged_adamw8bit"},
}


def run(base: Path, root: Path, listener=lambda event: None, **changes) -> Path:  # noqa: ANN001, ANN003
    pictures = tiny.save_pictures(root / "pictures", count=2)
    return train(settings.parse(tiny.values(base, pictures, root / "runs", **SHORT | changes), "test"), listener=listener)


@pytest.mark.parametrize("form", FORMS)
def test_a_real_family_trains_and_is_read_back(places, tmp_path, form):  # noqa: ANN001
    """Previews and the reading back by others included; the loss stays finite and memory was really taken on the card."""
    events: list[Event] = []
    torch.cuda.reset_peak_memory_stats()
    made = run(places["sd1", "file"], tmp_path, events.append, train__steps=3, **FORMS[form])
    assert [event.step for event in events if isinstance(event, Step)] == [1, 2, 3]
    assert torch.cuda.max_memory_allocated() > 10 << 20
    verdicts = [event for event in events if isinstance(event, Verified)]
    assert verdicts and all(event.error is not None and event.error < 1e-2 for event in verdicts), verdicts
    assert any(made.rglob("*.png"))


def test_sdxl_trains_in_half_precision_without_nan(places, tmp_path):  # noqa: ANN001
    events: list[Event] = []
    run(places["sdxl", "file"], tmp_path, events.append, train__steps=2, train__precision="fp16", model__dtype="fp16")
    assert len([event for event in events if isinstance(event, Step)]) == 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_ends_with_the_same_bits_where_it_is_deterministic(places, tmp_path, precision):  # noqa: ANN001
    def stop(event: Event) -> None:
        if isinstance(event, Step) and event.step >= 3:
            (tmp_path / "cut" / "runs" / "tiny" / "stop").touch()

    changes = {"train__steps": 6, "train__precision": precision, "adapter__dropout": 0.1}
    changes |= {"device__deterministic": True}
    whole = run(places["sd1", "file"], tmp_path / "whole", **changes)
    with pytest.raises(StoppedError):
        run(places["sd1", "file"], tmp_path / "cut", stop, **changes)
    cut = resume(tmp_path / "cut" / "runs" / "tiny", listener=lambda event: None)
    one, other = (load_file(place / "tiny.safetensors") for place in (whole, cut))
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())


MORE = {"adapter__max_norm": 1.0, "train__ema": 0.9, "loss__noise_offset": 0.1, "loss__pyramid_iterations": 3}
MORE |= {"loss__input_perturbation": 0.1, "loss__min_snr_gamma": 5.0, "adapter__weight_decompose": True}


@pytest.mark.parametrize("changes", [{}, MORE], ids=["plain", "more"])
def test_no_step_waits_for_the_card(places, tmp_path, changes):  # noqa: ANN001
    """After the first steps nothing between two logs asks the device for a value."""
    pictures = tiny.save_pictures(tmp_path / "pictures", count=2)
    known = {"train__precision": "bf16", "train__steps": 9} | SHORT
    session = tiny.session(places["sd1", "file"], pictures, tmp_path, **known | changes)
    for _ in range(3):
        train_step(session)
        session.optimizer.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    places_found: list[str] = []

    def note(message: object, *rest: object) -> None:
        ours = [f for f in traceback.extract_stack() if "/trainer/" in f.filename or "/morelora/" in f.filename]
        places_found.append(f"{ours[-1].filename}:{ours[-1].lineno} {ours[-1].line}: {message}"[:200])

    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = note
            for _ in range(2):
                train_step(session)
                session.optimizer.zero_grad(set_to_none=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert not places_found, "\n".join(places_found)


def test_the_estimate_is_near_what_the_run_takes(places, tmp_path):  # noqa: ANN001
    from trainer.estimate.measure import PeakMeter, measure

    pictures = tiny.save_pictures(tmp_path / "pictures", count=2, side=256)
    changes = SHORT | {"data__resolution": 256, "train__precision": "bf16", "train__steps": 20}
    session = tiny.session(places["sd1", "file"], pictures, tmp_path, **changes)
    foretold = measure(session, session.loader, ["fox"])
    with PeakMeter(session.accelerator.device) as meter:
        for _ in range(4):
            train_step(session)
            session.optimizer.zero_grad(set_to_none=True)
    assert 0.85 < foretold.peak / meter.peak < 1.3, (foretold.peak, meter.peak)
