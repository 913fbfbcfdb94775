"""The recipe as a file: what goes out comes in as the same settings; what is no recipe is refused in words."""

from __future__ import annotations

import json

import gradio as gr
import pytest
import torch

from app.desk import Refused
from app.parts.recipe_file import RecipeFile
from app.studio import Studio
from morelora.formats import container
from trainer import presets, settings


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    studio = Studio(tmp_path_factory.mktemp("home") / "runs")
    yield studio
    studio.close()


@pytest.fixture
def part(studio):
    studio.draft.begin(presets.load("pocket-hadamard"), "pocket-hadamard")
    with gr.Blocks():
        return RecipeFile(studio)


def test_what_goes_out_comes_in_as_the_same_settings(part, studio, tmp_path):
    studio.draft.put({"train.steps": 70, "data.trigger": 'a "quoted" \\ ü', "optimizer.arguments": {"eps": 1e-9}})
    config = settings.parse(studio.draft.values, "x")
    text, name = part.given()
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    assert name == "pocket-hadamard.toml" and settings.load(file) == config
    studio.draft.begin({})
    assert name in part.taken(str(file)) and settings.parse(studio.draft.values, "x") == config
    assert studio.draft.changes() == {} and studio.draft.preset == ""


def test_a_kept_recipe_is_what_is_begun_with(part, studio):
    studio.draft.put({"train.steps": 70})
    assert "mine.toml" in part.kept("mine") and (studio.draft.preset, studio.draft.changes()) == ("mine", {})
    file = studio.own.file("mine")
    assert file.parent == studio.output.parent / "recipes"
    assert settings.load(file) == settings.parse(studio.draft.values, "x")


def test_what_cannot_run_or_has_no_name_is_not_kept(part, studio):
    with pytest.raises(Refused, match="no name"):
        part.kept(" ")
    studio.draft.put({"train.steps": -7})
    with pytest.raises(Refused, match=r"train\.steps = -7"):
        part.kept("faulty")
    assert studio.own.file("faulty") is None and part.given()[0].count("steps = -7") == 1


FAULTS = [
    ("a.toml", b"[data\n", "a.toml is not valid TOML"),
    ("a.toml", b"\xff\xfe", "a.toml is not UTF-8"),
    ("a.toml", b"x = " + b"[" * 100_000, "a.toml is not valid TOML"),
    ("a.toml", b"x = " + b"1" * 5000, "a.toml is not valid TOML"),
    ("a.toml", b"# " + b"x" * 2**20, "a.toml is too large to be a recipe"),
    ("a.toml", b"[train]\nsteps = -3", "train.steps = -3"),
    ("a.toml", b"[train]\nstepz = 3", "did you mean train.steps"),
    ("a.toml", b"optimizer = 3", "optimizer = 3: must be a section"),
    ("a.toml", b"[optimizer.arguments]\nx = 2020-01-01", "holds a date"),
    ("a.safetensors", b"\x80\x04torn", "a.safetensors"),
]


@pytest.mark.parametrize(("name", "content", "words"), FAULTS)
def test_what_is_no_recipe_is_refused_in_words(part, studio, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    before = studio.draft.values
    with pytest.raises(Refused) as refused:
        part.taken(str(tmp_path / name))
    assert words in str(refused.value) and str(tmp_path) not in str(refused.value)
    assert studio.draft.values == before


def test_an_adapter_file_brings_the_recipe_that_it_was_trained_with(part, studio, tmp_path):
    values = {"adapter": {"algorithm": "lokr", "factor": 4}, "train": {"steps": 9}, "run": {"name": "dusk"}}
    file = tmp_path / "dusk.safetensors"
    container.write(file, {"x": torch.zeros(1)}, {"morelora": json.dumps({"config": values})})
    assert "no folder of pictures" in part.taken(str(file))
    assert settings.parse(studio.draft.values, "x") == settings.parse(values, "x")


def test_an_adapter_without_a_recipe_says_so(part, tmp_path):
    file = tmp_path / "other.safetensors"
    container.write(file, {"x": torch.zeros(1)}, {})
    with pytest.raises(Refused, match=r"^other\.safetensors holds no recipe: it was not trained with MoreLoRA"):
        part.taken(str(file))
    container.write(file, {"x": torch.zeros(1)}, {"morelora": '{"config": ' + "[" * 5000 + "]" * 5000 + "}"})
    with pytest.raises(Refused, match=r"^other\.safetensors"):
        part.taken(str(file))
