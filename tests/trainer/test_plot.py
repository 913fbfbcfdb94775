"""The picture of the timesteps shows the density that the settings give."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from trainer import plot
from trainer.cli import main
from trainer.diffusion.density import Density

BLUE = (122, 166, 214)


def heights(image: Image.Image) -> np.ndarray:
    """Blue pixels of each column between the margins."""
    blue = (np.asarray(image) == BLUE).all(2).sum(0)
    return blue[plot.MARGIN : plot.WIDTH - plot.MARGIN]


def test_the_area_is_the_density():
    density = Density("logit_normal", 100, 949, mean=0.5)
    found = heights(plot.timesteps_plot(density))
    p = np.array(density.probabilities())
    want = p[np.arange(len(found)) * 1000 // len(found)]
    assert np.abs(found / found.max() - want / want.max()).max() < 0.03


def test_a_peak_is_cut_off_so_that_the_rest_is_seen():
    found = heights(plot.timesteps_plot(Density("high_noise")))
    uniform = found.max() / plot.CUT
    assert found[len(found) * 3 // 4] > uniform / 2


def test_the_door_draws_the_settings_and_trains_nothing(tmp_path, capsys):
    file = tmp_path / "t.png"
    assert main(["--plot-timesteps", str(file), "--set", "loss.timestep_min=500", "--output", str(tmp_path / "runs")]) == 0
    assert str(file) in capsys.readouterr().out and [path.name for path in tmp_path.iterdir()] == ["t.png"]
    found = heights(Image.open(file).convert("RGB"))
    assert found[: len(found) // 2 - 5].max() == 0 and found[len(found) // 2 + 5 :].min() > 50


@pytest.mark.parametrize(
    "arguments", [["--plot-timesteps", "t.txt"], ["--resume", "runs/x", "--plot-timesteps", "t.png"], ["--plot-timesteps"]]
)
def test_wrong_use_is_refused(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert "plot-timesteps" in capsys.readouterr().err and not list(tmp_path.iterdir())
