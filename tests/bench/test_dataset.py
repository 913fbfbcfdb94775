"""A folder of 2,000 pictures at a small size: none is lost, memory stays flat, and a second start does nothing again."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import dataset as bench
from trainer.data import cache, looks

PICTURES = 2000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    bench.make(folder, PICTURES, (64, 100))
    return folder


def test_none_is_lost_and_none_is_done_twice(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(looks, "RACE", -3600.0)  # the pictures count as old
    decoded: list[Path] = []
    real = looks.images.decode
    monkeypatch.setattr(looks.images, "decode", lambda path, colour: decoded.append(path) or real(path, colour))
    monkeypatch.setattr(cache, "TRIMMED", 200)
    config, encoder = bench.config_of(folder, 64), bench.Encoder(bench.blocks, "blocks")

    (reading, encoding), dataset, loader = bench.start(tmp_path / "state", config, encoder)
    assert len(dataset.items) == encoder.encoded == len(decoded) == PICTURES
    assert dataset.report.dropped == 0 and len(dataset.report.buckets) > 1
    assert bench.deal(dataset, loader, epochs=2)[1] == {2}
    kept = encoder.kept / PICTURES
    assert reading.slope < 16 * 2**10 and encoding.slope - kept < 16 * 2**10

    _, again, _ = bench.start(tmp_path / "state", config, encoder)
    assert again == dataset and encoder.encoded == len(decoded) == PICTURES


def test_the_slope_is_that_of_a_line():
    phase = bench.Phase("x")
    phase.resident = [1000] * 20 + [1000 + 7 * index for index in range(80)]
    assert phase.slope == pytest.approx(7)
