"""What is said before a run, against the run: peak, disk, the same bits afterwards, and settings that fit."""

from __future__ import annotations

import multiprocessing
import resource
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer import tiny
from tests.trainer.test_train import digest, run
from trainer import estimate as module
from trainer import loop, presets, settings
from trainer.conditioning import Size
from trainer.console import statement_rows
from trainer.data import Dataset
from trainer.data.items import Item
from trainer.errors import ExitCode, OutOfMemoryError
from trainer.estimate import Estimate, advice, refuse_hopeless
from trainer.estimate.measure import PeakMeter
from trainer.events import Event, Started
from trainer.models import find
from trainer.train import train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    return tiny.save_base(folder / "base"), tiny.save_pictures(folder / "pictures")


def said(events: list[Event]) -> dict:
    return next(event for event in events if isinstance(event, Started)).plan


STATEFUL = {"train__ema": 0.9, "adapter__dropout": 0.2, "adapter__weight_decompose": True, "train__text_encoder": False}


@pytest.mark.parametrize("optimizer", ["adamw", "prodigy"])
def test_the_run_that_follows_has_the_same_bits(inputs, tmp_path, optimizer):
    changes = STATEFUL | {"optimizer__name": optimizer, "train__steps": 3}
    events: list[Event] = []
    plain = run(inputs, tmp_path / "plain", **changes)
    measured = run(inputs, tmp_path / "measured", events.append, device__estimate=True, **changes)
    assert said(events)["estimate"]["step_seconds"] > 0
    assert digest(measured) == digest(plain)


def test_a_dry_run_prints_memory_time_and_disk_and_writes_nothing(inputs, tmp_path):
    events: list[Event] = []
    values = tiny.values(*inputs, tmp_path / "out", device__estimate=True)
    train(settings.parse(values, "test"), listener=events.append, dry_run=True)
    plan = said(events)
    rows = dict(statement_rows(plan))
    assert "at the peak" in rows["memory"] and "s a step" in rows["time"] and rows["disk"]
    assert plan["estimate"]["seconds"] == pytest.approx(6 * plan["estimate"]["step_seconds"])
    assert not (tmp_path / "out").exists()


def test_the_disk_is_what_the_run_leaves(inputs, tmp_path):
    events: list[Event] = []
    changes = {"checkpoint__keep": 2, "checkpoint__export": True, "train__text_encoder": False, "data__flip": True}
    folder = run(inputs, tmp_path, events.append, device__estimate=True, **changes)
    found = said(events)["estimate"]["disk"]
    kept = {file: sum(t.nbytes for n, t in load_file(file).items() if n[:3] != "rng") for file in folder.rglob("*.safetensors")}
    newest = next(size for file, size in kept.items() if "step-000006" in file.as_posix())
    assert found == pytest.approx(sum(kept.values()) + newest, rel=0.1)  # a third one while the oldest is replaced


def _child(send: Connection, values: dict, dry_run: bool) -> None:
    torch.set_num_threads(1)
    events: list[Event] = []
    train(settings.parse(values, "test"), listener=events.append, dry_run=dry_run)
    send.send(said(events)["estimate"]["memory"] if dry_run else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def in_a_process_of_its_own(values: dict, dry_run: bool) -> int:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trainer.train"])
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(send, values, dry_run))
    child.start()
    found = receive.recv() if receive.poll(300) else 0
    child.join()
    return found


GRID = {
    "checkpointing": {"train": {"batch_size": 12, "gradient_checkpointing": True}, "adapter": {"weight_decompose": True}},
    "text at rest, 192 pixels": {"train": {"batch_size": 8, "text_encoder": False}, "data": {"resolution": 192, "upscale": True}},
}


@pytest.mark.slow
@pytest.mark.parametrize("cell", GRID)
def test_the_peak_is_within_15_percent_of_a_run_in_another_process(tmp_path, cell):
    values = presets.load("pocket-lora")
    common = {"run": {"output": str(tmp_path)}, "train": {"steps": 2}, "preview": {"every": 0, "steps": 2}}
    for changes in (common, {"optimizer": {"warmup": 0}}, GRID[cell]):
        for section, entries in changes.items():
            values[section] = values.get(section, {}) | entries
    if not values["train"].get("text_encoder", True):
        values["optimizer"].pop("text_encoder_lr")
    foretold = in_a_process_of_its_own(values, dry_run=True)
    happened = in_a_process_of_its_own(values | {"device": {"estimate": False}}, dry_run=False)
    assert foretold == pytest.approx(happened, rel=0.15)


def test_the_meter_sees_a_peak_that_is_gone():
    with PeakMeter(CPU) as before:
        pass
    with PeakMeter(CPU) as meter:
        block = torch.ones(100 << 20, dtype=torch.uint8)
        block.sum()
        del block
    assert meter.peak - before.peak > 80 << 20


def config(**sections):  # noqa: ANN003, ANN201
    return settings.parse({"data": {"images": "x"}} | sections, "test")


def test_advice_is_the_mildest_that_fits_without_what_is_needless():
    sizes = {"train": lambda c: 4 * c.train.batch_size * (1 if c.train.gradient_checkpointing else 3)}
    given = config(train={"batch_size": 4})
    text = advice.advise(given, lambda c: sizes["train"](c) << 30, 20 << 30)
    assert text == "train.gradient_checkpointing = true would need about 16.0 GiB"
    text = advice.advise(given, lambda c: sizes["train"](c) << 30, 12 << 30)
    assert text == "train.batch_size = 1 would need about 12.0 GiB"
    assert "no setting makes it fit" in advice.advise(given, lambda c: 8 << 30, 4 << 30)
    text = advice.advise(given, lambda c: (1 if c.device.quantize == "nf4" else 9) << 30, 4 << 30)
    assert "device.quantize = 'nf4'" in text and "batch_size" not in text


def test_weights_that_cannot_be_held_are_refused_before_they_are_read(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "available", lambda device: 1 << 19)
    monkeypatch.setattr(module, "PROGRAM", 0)
    with pytest.raises(OutOfMemoryError, match=r"this run needs about .* and 0 MiB are free") as refused:
        run(inputs, tmp_path / "out")
    assert refused.value.code == ExitCode.OUT_OF_MEMORY and refused.value.fix
    assert not (tmp_path / "out").exists()


def test_steps_that_run_out_of_memory_say_what_would_fit(inputs, tmp_path, monkeypatch):
    def exhausted(session):  # noqa: ANN001, ANN202
        raise MemoryError

    monkeypatch.setattr(loop, "train_step", exhausted)
    with pytest.raises(OutOfMemoryError, match="this run needs about"):
        run(inputs, tmp_path / "out", device__estimate=True)


def test_what_does_not_fit_is_noted_with_settings_and_a_full_disk_too(inputs, tmp_path):
    given = settings.parse(tiny.values(*inputs, tmp_path, train__batch_size=64), "test")
    source = find(given.model)
    dataset = pictures((64, 64))
    found = Estimate(10 << 30, 10 << 30, 0, 0, 1.0, 6.0, 1 << 30, 2 << 30)
    assert found.fits and module.notes(found, given, source, dataset, CPU) == []
    need = module.predict(given, source, (64, 64), CPU).total
    tight = Estimate(**asdict(found) | {"available": (10 << 30) - need // 2, "disk_free": 1})
    memory, disk = module.notes(tight, given, source, dataset, CPU)
    assert "train.batch_size = 1" in memory or "gradient_checkpointing" in memory
    assert "checkpoint.keep" in disk


def pictures(*buckets: Size, repeats: int = 1) -> Dataset:
    """A set whose pictures lie in these buckets."""
    source = SimpleNamespace(settings=SimpleNamespace(repeats=repeats))
    items = tuple(Item(Path(f"{i}.png"), ("a",), ("a",), ".txt", *bucket, "", bucket) for i, bucket in enumerate(buckets))
    return Dataset(items, (source,), (255, 255, 255), ())


def test_the_heaviest_bucket_has_the_most_pixels_in_a_batch():
    """One large picture weighs less than four that are a little smaller, unless it is repeated or its batch is filled."""
    dataset, four = pictures((96, 96), *[(64, 96)] * 6), {"batch_size": 4, "accumulation": 1}
    given = config(train=four)
    assert module.heaviest_bucket(given, dataset) == (64, 96)
    assert len(module.sample_of(given, dataset).items) == 4
    assert module.heaviest_bucket(config(train=four | {"batch_size": 1}), dataset) == (96, 96)
    assert module.heaviest_bucket(config(train=four, data={"images": "x", "partial_batches": "fill"}), dataset) == (96, 96)
    assert module.heaviest_bucket(given, pictures((96, 96), *[(64, 96)] * 6, repeats=4)) == (96, 96)


def test_a_picture_of_several_sizes_is_measured_at_the_largest():
    dataset = pictures((64, 64))
    dataset = replace(dataset, items=(replace(dataset.items[0], more_buckets=((128, 128), (96, 96))),), sizes=3)
    sample = module.sample_of(config(), dataset)
    assert [item.buckets for item in sample.items] == [((128, 128),)] and sample.sizes == 1


def test_nothing_is_refused_that_fits(inputs, tmp_path):
    given = settings.parse(tiny.values(*inputs, tmp_path), "test")
    refuse_hopeless(given, find(given.model), pictures((64, 64)), CPU)
