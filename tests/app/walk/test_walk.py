"""The whole way of a new user in a browser, on the base that ships: demo, own pictures, and what can be done with the files.

The parts stand on each other, as a user's steps do: one server, one browser, two runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

import morelora
from tests.app.serving import Server
from tests.app.walk.user import CHROMIUM, User, browser
from trainer.presets import ROOT
from trainer.run import RunDir

INK = ROOT / "assets" / "styles" / "ink" / "train"
STEPS = 60
DEMO, OWN = "pocket-lora", "my-style"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]


@dataclass
class Way:
    """Where the walk goes: the server, and new tabs."""

    server: Server
    chromium: Any

    def tab(self, width: int = 1280) -> User:
        """A new tab of its own, as on another machine."""
        page = self.chromium.new_page(viewport={"width": width, "height": 900}, accept_downloads=True)
        return User(page, self.server.address)

    def run(self, name: str) -> RunDir:
        return RunDir(self.server.runs / name)


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    server = Server(tmp_path_factory.mktemp("walk"))
    try:
        with browser() as chromium:
            yield Way(server, chromium)
    finally:
        server.stop()


@pytest.fixture(scope="module")
def demo(way: Way) -> tuple[User, Path]:
    """The demo, to its file."""
    user = way.tab()
    user.open()
    user.press("Train the demo")
    user.waits("#download")
    return user, user.download("#download", way.server.folder)


@pytest.fixture(scope="module")
def own(way: Way, demo: tuple[User, Path]) -> User:
    """Own pictures, one of them twice, until training has begun."""
    pictures = way.server.folder / "mine"
    shutil.copytree(INK, pictures)
    for ending in (".png", ".txt"):
        shutil.copy(pictures / f"car{ending}", pictures / f"twin{ending}")
    user = way.tab()
    user.open()
    user.press("Begin with pictures")
    user.drop("#upload", sorted(pictures.iterdir()))
    user.waits(".mend")
    user.click("#gallery button:has(img)")
    user.waits("#tokens .note")
    user.write("#caption", "a red apple on a table")
    user.click("#save-caption")
    user.sees("of 75 tokens", "#tokens")
    user.click(".mend")
    user.gone(".mend")
    user.press("On to the recipe")
    user.write("#set-train-steps", str(STEPS))
    user.sees(f"steps = {STEPS}", "#toml")
    user.press("Dry run first")
    user.sees("What will be trained", "#found")
    user.click("#start:not([disabled])")
    user.waits("#stop")
    return user


@pytest.fixture(scope="module")
def resumed(way: Way, own: User) -> User:
    """Looked at again in mid-run, from another tab too; stopped there; gone on with, to the end."""
    own.page.reload()
    own.waits("#stop")
    phone = way.tab(390)
    phone.open("train")
    phone.waits("#pictures img")
    phone.click("#stop")
    phone.sees("Stopped; everything is saved", "#status")
    own.click("#resume")
    own.waits("#stop")
    own.sees("Done", "#status")
    phone.sees("Done", "#status")
    assert not phone.errors
    return own


def test_the_demo_takes_two_clicks(way, demo):
    user, file = demo
    assert user.actions == 2 and not user.errors
    user.draws(6, "#pictures")
    user.draws(1, "#sheet")
    assert file.read_bytes() == next(way.run(DEMO).path.glob("*.safetensors")).read_bytes()


def test_own_pictures_take_ten_actions(way, resumed):
    folder = way.server.folder / "datasets" / OWN
    assert (folder / "apple.txt").read_text().strip() == "a red apple on a table"
    assert len([name for name in ("car.png", "twin.png") if (folder / name).is_file()]) == 1
    assert (INK / "apple.txt").read_text() != "a red apple on a table", "the user's own files are left alone"
    own_actions = resumed.actions - 1
    assert own_actions <= 10


def test_a_stopped_run_goes_on_to_its_end(way, resumed):
    assert f"step {STEPS} of {STEPS}" in resumed.text("#status")
    assert way.run(OWN).path.joinpath(f"{OWN}.safetensors").is_file() and not resumed.errors


def test_two_runs_are_compared(way, resumed):
    user = way.tab()
    user.open("runs")
    for name in (DEMO, OWN):
        user.choose("#compared", name)
    user.sees("train.steps", "#comparison")
    text = user.text("#comparison")
    assert str(STEPS) in text and "220" in text and not user.errors
    user.draws(6, "#comparison")


def test_the_strength_slider_shows_the_file_at_each_strength(way, resumed):
    user = way.tab()
    user.open(f"samples?run={DEMO}")
    user.waits("#grid img")
    user.click("#render")
    user.waits("#at-strength img")
    user.write("#strength", "0")
    user.sees("strength 0", "#at-strength")
    run = way.run(DEMO)
    change = [distance(run.strength_file(0.0, 0), run.strength_file(strength, 0)) for strength in (0.0, 0.5, 1.0)]
    assert change[0] == 0 < change[1] < change[2] and not user.errors


def test_the_downloaded_file_is_inspected_and_its_recipe_taken(way, demo):
    _, file = demo
    user = way.tab()
    user.open("inspect")
    user.drop("#file", [file])
    user.waits("#spectrum svg")
    assert "lora" in user.text("#what").lower() and user.actions == 1
    user.click("#retrain")
    user.page.wait_for_url("**/recipe*")
    user.sees("steps = 220", "#toml")
    assert not user.errors


def test_the_downloaded_file_does_in_diffusers_what_it_does_here(demo):
    _, file = demo
    base, other = drawn(None, file), drawn("morelora", file)
    theirs = drawn("diffusers", file)
    assert np.abs(theirs - other).mean() < 0.02 * np.abs(theirs - base).mean()
    assert np.abs(theirs - base).mean() > 0.05


def drawn(reader: str | None, file: Path) -> np.ndarray:
    """Pixels in [0, 1] of the demo's first prompt, with the file as ``reader`` applies it."""
    pipe = StableDiffusionPipeline.from_pretrained(ROOT / "assets" / "pocket", safety_checker=None, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    if reader == "diffusers":
        pipe.load_lora_weights(str(file.parent), weight_name=file.name)
    elif reader == "morelora":
        morelora.load(pipe, file)
    return pipe(
        "duo style, fox",
        num_inference_steps=8,
        guidance_scale=2.0,
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(1),
        output_type="np",
    ).images[0]


def distance(one: Path, other: Path) -> float:
    """Mean absolute difference of two pictures, in 0 to 255."""
    first, second = (np.asarray(Image.open(file).convert("RGB"), dtype=float) for file in (one, other))
    return float(np.abs(first - second).mean())
