"""A dry run as plain values."""

from __future__ import annotations

import json

import pytest

from trainer import presets, rehearsal, settings
from trainer.errors import InputError
from trainer.optim.schedules import warmup_steps

GIB = 1 << 30


def test_what_the_dry_run_finds_is_plain_and_whole():
    values = settings.apply(presets.load("pocket-lora"), ["device.estimate=false", "validation.count=0"])
    found = rehearsal.rehearse(values)
    assert json.dumps(found) and found["findings"] == []
    assert ("pictures", "12, dropped 0") in found["rows"]
    with pytest.raises(InputError, match="no-such-folder"):
        rehearsal.rehearse(settings.apply(values, ["data.images=no-such-folder"]))


@pytest.mark.parametrize(
    ("memory", "disk", "kinds"),
    [(1, 1, ["good", "good"]), (9.5, 1, ["warn", "good"]), (11, 1, ["bad", "good"]), (1, 11, ["good", "bad"])],
)
def test_room_is_judged(memory, disk, kinds):
    found = {"memory": int(memory * GIB), "available": 10 * GIB, "disk": int(disk * GIB), "disk_free": 10 * GIB}
    assert [kind for kind, _ in rehearsal.room(found)] == kinds
    assert rehearsal.room(None) == []


def test_the_curve_of_the_rate_is_that_of_the_schedule():
    config = settings.parse(settings.apply({}, ["optimizer.warmup=10", "optimizer.schedule=linear", "optimizer.lr=1e-3"]), "x")
    curve = rehearsal.rate_curve(config, 110)
    assert warmup_steps(config.optimizer, 110) == 10
    assert dict(curve)[1] == pytest.approx(1e-4) and dict(curve)[10] == pytest.approx(1e-3)
    assert dict(curve)[61] == pytest.approx(0.5e-3) and len(curve) == 110


def test_the_curve_of_the_timesteps_has_the_mean_one():
    config = settings.parse(settings.apply({}, ["loss.timesteps=logit_normal"]), "x")
    curve = rehearsal.timesteps_curve(config)
    assert sum(value for _, value in curve) / len(curve) == pytest.approx(1.0, abs=1e-6)
    assert max(curve, key=lambda point: point[1])[0] == pytest.approx(500, abs=60)
