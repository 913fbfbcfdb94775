"""Whole runs on miniatures of every family: trained from folder and from file, stopped, resumed, exported, read by others.

One run a family goes through from a folder; the other is made from one checkpoint with the same weights, stopped and resumed.
Their adapters must be equal bit for bit, which shows both the resume and that the two forms are one model.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tomlkit
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.trainer import golden, miniatures, tiny
from trainer import cli, settings
from trainer.errors import StoppedError
from trainer.events import Event, Started, Verified, Warned
from trainer.train import resume, train

STEPS = 3
CHANGES = {"train__steps": STEPS, "checkpoint__every": 0, "data__bucket_step": 32, "preview__steps": 1}
VERSIONS = {"sd1": "sd_v1", "sd2": "sd_v2_v", "sdxl": "sdxl_base_v1-0"}
ARCHITECTURES = {
    "sd1": "stable-diffusion-v1/lora",
    "sd2": "stable-diffusion-v2-768-v/lora",
    "sdxl": "stable-diffusion-xl-v1-base/lora",
}


class Trained:
    """Both runs of one family."""

    def __init__(self, family: str, places: dict[tuple[str, str], Path], root: Path) -> None:
        self.family, self.events = family, []
        pictures = tiny.save_pictures(root / "pictures", count=2)

        def start(form: str, listener) -> Path:  # noqa: ANN001
            values = tiny.values(places[family, form], pictures, root / form, **CHANGES)
            return train(settings.parse(values, "test"), listener=listener)

        def stop(event: Event) -> None:
            if isinstance(event, Started):  # the steps themselves are told late on a card
                (root / "file" / "tiny" / "stop").touch()

        self.whole = start("folder", self.events.append)
        self.resumed = root / "file" / "tiny"
        with pytest.MonkeyPatch.context() as patch:  # equal files need no second reading, which takes longer than the training
            patch.setattr("trainer.keeper.verify", lambda *arguments: [])
            with pytest.raises(StoppedError):
                start("file", stop)
            resume(self.resumed, listener=lambda event: None)


@pytest.fixture(scope="module", params=miniatures.FAMILIES)
def trained(request, places, tmp_path_factory) -> Trained:  # noqa: ANN001
    return Trained(request.param, places, tmp_path_factory.mktemp(request.param))


def file_of(run: Path) -> Path:
    return run / "tiny.safetensors"


def test_the_two_forms_and_a_resume_give_the_same_bits(trained):
    one, other = load_file(file_of(trained.whole)), load_file(file_of(trained.resumed))
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    assert not [event for event in trained.events if isinstance(event, Warned)]


def test_every_reader_makes_the_same_change(trained):
    pytest.importorskip("lycoris")
    verdicts = {event.reader: event for event in trained.events if isinstance(event, Verified)}
    plan = next(event for event in trained.events if isinstance(event, Started)).plan
    layers = sum(part["layers"] for part in plan["trained"])
    assert set(verdicts) == {"morelora", "diffusers", "lycoris"}
    for verdict in verdicts.values():
        assert verdict.error is not None and verdict.error < 1e-3, verdict.message
        assert verdict.layers == layers, verdict.message


def test_the_keys_are_the_familys(trained):
    """SDXL's first text encoder is read before its last layer, which has no adapter."""
    layers = {"sd1": (3,), "sd2": (3,), "sdxl": (2, 4)}[trained.family]
    heads = {key.partition(".")[0] for key in load_file(file_of(trained.resumed))}
    assert heads == golden.keys(trained.family, layers, depths=(1, 2))


def test_the_metadata_name_the_family(trained):
    with safe_open(file_of(trained.resumed), "pt") as handle:
        metadata = handle.metadata()
    assert metadata["ss_base_model_version"] == VERSIONS[trained.family]
    assert metadata["ss_v2"] == str(trained.family == "sd2")
    assert metadata["modelspec.architecture"] == ARCHITECTURES[trained.family]
    assert metadata["modelspec.prediction_type"] == ("v" if trained.family == "sd2" else "epsilon")
    assert metadata["ss_sd_model_name"] == f"{trained.family}.safetensors"
    assert json.loads(metadata["morelora"])["family"] == trained.family


def test_a_condition_of_its_own_is_cached_and_trained_on(places, tmp_path, monkeypatch, capsys):
    """Layer, chunks and velocity, through the command line, with captions encoded ahead."""
    monkeypatch.setattr("trainer.keeper.verify", lambda *arguments: [])
    pictures = tiny.save_pictures(tmp_path / "pictures", count=2)
    (pictures / "0.txt").write_text("my style, " + "cat " * 100)
    chosen = CHANGES | {
        **{"train__steps": 1, "train__text_encoder": False, "adapter__layers": "attention", "model__clip_skip": 2},
        **{"model__caption_chunks": 2, "model__objective": "v_prediction", "model__zero_terminal_snr": True},
    }
    file = tmp_path / "preset.toml"
    values = tiny.values(places["sdxl", "file"], pictures, tmp_path, **chosen)
    file.write_text(tomlkit.dumps(values), encoding="utf-8")
    assert cli.main(["--preset", str(file)]) == 0, capsys.readouterr().err
    assert "not read" not in capsys.readouterr().out
    shapes = {load_file(entry)["00"].shape for entry in (tmp_path / "tiny" / "cache").glob("text-*.safetensors")}
    assert shapes == {torch.Size([154, 96])}
    with safe_open(file_of(tmp_path / "tiny"), "pt") as handle:
        metadata = handle.metadata()
    assert metadata["modelspec.prediction_type"] == "v" and metadata["ss_zero_terminal_snr"] == "True"
    assert (metadata["ss_clip_skip"], metadata["ss_max_token_length"]) == ("2", "150")


def test_the_plan_tells_family_and_objective(trained):
    plan = next(event for event in trained.events if isinstance(event, Started)).plan
    assert plan["family"] == trained.family
    assert plan["objective"] == ("v_prediction" if trained.family == "sd2" else "epsilon")
    unread = [note for note in plan["notes"] if "nothing reads" in note]
    assert unread == (["text_encoder: nothing reads its last 1 layer; no adapter there"] if trained.family == "sdxl" else [])
