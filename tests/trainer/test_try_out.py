"""Trials on the tiny base: pictures against a base with merged weights, and what is refused before a model is loaded."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.trainer import tiny
from trainer import cli, preview, settings, try_out
from trainer.config import Config
from trainer.errors import InputError
from trainer.models import load
from trainer.trial import TrialDir

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny.save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """Two plain LoRAs of one layer, without alpha: the change is ``up @ down``."""
    folder = tmp_path_factory.mktemp("adapters")
    return [adapter(folder / f"{seed}.safetensors", seed) for seed in (1, 2)]


def adapter(file: Path, seed: int, rows: int = 16, columns: int = 24) -> Path:
    random = torch.Generator().manual_seed(seed)
    key = f"lora_unet_{LAYER.replace('.', '_')}"
    up, down = torch.randn(rows, 2, generator=random), torch.randn(2, columns, generator=random)
    save_file({f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down}, file)
    return file


def values(base: Path, *adapters: tuple[Path, Any], **sampling: Any) -> dict[str, Any]:
    return {
        "model": {"base": str(base)},
        "data": {"resolution": 64},
        "preview": {"prompts": ["fox cat"], "steps": 2, "guidance": 2.0, "seed": 7, **sampling},
        "adapters": [{"file": str(file), "strength": strength} for file, strength in adapters],
    }


def drawn(folder: Path, told: dict[str, Any]) -> TrialDir:
    trial = TrialDir(folder)
    trial.recipe_file.write_text(try_out.check_trial(told), encoding="utf-8")
    try_out.draw(trial.recipe_file)
    return trial


def pixels(image: Path | Image.Image) -> np.ndarray:
    return np.asarray(image if isinstance(image, Image.Image) else Image.open(image)).astype(int)


def merged(base: Path, change: torch.Tensor | float) -> np.ndarray:
    """The prompt's picture by the base with ``change`` added to the layer's weight: no adapter is in the model."""
    config: Config = try_out.parse(values(base), "x").config
    bundle = load(config.model)
    with torch.no_grad():
        bundle.unet.get_submodule(LAYER).weight += change
    return pixels(preview.sample(bundle, config.preview, ["fox cat"], 64)[0])


def change_of(file: Path) -> torch.Tensor:
    from safetensors.torch import load_file

    tensors = {key.rpartition(".lora_")[2]: tensor for key, tensor in load_file(file).items()}
    return tensors["up.weight"] @ tensors["down.weight"]


def test_strength_0_is_the_base_bit_for_bit(tmp_path, base, files):
    trial = drawn(tmp_path, values(base, (files[0], 0.0), (files[1], 0.0)))
    assert trial.adapted.read_bytes() == trial.base.read_bytes()
    assert (pixels(trial.base) == merged(base, 0.0)).all()


def test_adapters_add_up_at_their_strengths(tmp_path, base, files):
    trial = drawn(tmp_path, values(base, (files[0], 0.5), (files[1], 1.5)))
    expected = merged(base, 0.5 * change_of(files[0]) + 1.5 * change_of(files[1]))
    assert abs(pixels(trial.adapted) - expected).max() <= 1
    assert abs(pixels(trial.base) - expected).max() > 8 and (pixels(trial.base) == merged(base, 0.0)).all()


def test_seed_negative_and_size_are_the_settings(tmp_path, base):
    first = pixels(drawn(tmp_path, values(base)).base)
    assert (pixels(drawn(tmp_path, values(base, seed=8)).base) != first).any()
    assert (pixels(drawn(tmp_path, values(base, negative="key")).base) != first).any()
    assert pixels(drawn(tmp_path, values(base, width=96, height=32)).base).shape == (32, 96, 3)


def test_it_says_how_far_it_is(tmp_path, base, files, monkeypatch):
    told, write = [], try_out.atomic.write_text
    monkeypatch.setattr(try_out.atomic, "write_text", lambda file, text: (told.append(json.loads(text)), write(file, text)))
    trial = drawn(tmp_path, values(base, (files[0], 1.0)))
    assert [(each["stage"], each["step"]) for each in told] == [
        ("loading", 0), ("base", 0), ("base", 1), ("base", 2), ("with", 0), ("with", 1), ("with", 2), ("done", 0),
    ]  # fmt: skip
    assert all(each["steps"] == 2 for each in told) and trial.state() == told[-1]
    trial.state_file.write_text('{"stage": "torn')
    assert trial.state() == {}


# what is refused, before any weight of the base is read


@pytest.fixture
def unloaded(monkeypatch) -> None:
    def refuse(*given: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(try_out, "load", refuse)


def refused(folder: Path, told: dict[str, Any]) -> str:
    """What is said of a trial, asked and drawn alike."""
    file = folder / "trial.toml"
    file.write_text(settings.dump(told), encoding="utf-8")
    with pytest.raises(InputError) as drawing:
        try_out.draw(file)
    with pytest.raises(InputError) as asking:
        try_out.check_trial(told)
    assert str(drawing.value).partition("\n")[2] == str(asking.value).partition("\n")[2]
    return str(asking.value)


def test_an_adapter_of_another_model_is_named_with_what_to_do(tmp_path, base, unloaded):
    file = adapter(tmp_path / "large.safetensors", 1, 320, 768)
    text = refused(tmp_path, values(base, (file, 1.0)))
    assert "large.safetensors does not fit the base model" in text and LAYER in text
    assert "choose the base model that it was trained on" in text and str(tmp_path) not in text


def test_an_adapter_of_another_family_is_told_its_family(tmp_path, base, unloaded):
    key = "lora_unet_down_blocks_2_attentions_0_transformer_blocks_9_attn2_to_k"
    file = tmp_path / "xl.safetensors"
    parts = {f"{key}.lora_up.weight": torch.ones(1280, 2), f"{key}.lora_down.weight": torch.ones(2, 2048)}
    save_file(parts, file, {"ss_base_model_version": "sdxl_base_v1-0"})
    assert "it was made for Stable Diffusion XL" in refused(tmp_path, values(base, (file, 1.0)))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("pickle", pickle.dumps({"a": 1}), "is a pickle"),
        ("torn", (2**40).to_bytes(8, "little") + b"{}", "is no whole safetensors file"),
        ("text", b"hello", "is no whole safetensors file"),
        ("empty", b"", "is no whole safetensors file"),
        ("missing", None, "cannot be read"),
    ],
)
def test_a_bad_file_is_named(tmp_path, base, unloaded, name, content, words):
    file = tmp_path / f"{name}.safetensors"
    if content is not None:
        file.write_bytes(content)
    text = refused(tmp_path, values(base, (file, 1.0)))
    assert f"{name}.safetensors {words}" in text and str(tmp_path) not in text
    with pytest.raises(InputError, match=words):
        try_out.check_adapter(str(file))


def test_nan_and_words_are_refused(tmp_path, base, unloaded):
    key = f"lora_unet_{LAYER.replace('.', '_')}"
    broken, word = tmp_path / "nan.safetensors", tmp_path / "word.safetensors"
    save_file({f"{key}.lora_up.weight": torch.full((16, 2), torch.nan), f"{key}.lora_down.weight": torch.ones(2, 24)}, broken)
    save_file({"emb_params": torch.ones(2, 24)}, word, {"morelora.word": "inkwash"})
    assert "NaN" in refused(tmp_path, values(base, (broken, 1.0)))
    told = refused(tmp_path, values(base, (word, 1.0)))
    assert "word.safetensors is an embedding and no adapter" in told and str(tmp_path) not in told
    assert all(way in told for way in ("'inkwash'", "load_embedding(pipe, 'word.safetensors')", "'embedding:word'"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"preview": {"prompts": []}}, "has no prompt"),
        ({"preview": {"prompts": ["  "]}}, "has no prompt"),
        ({"preview": {"prompts": ["fox"], "steps": 0}}, "preview.steps = 0"),
        ({"preview": {"prompts": ["fox"], "width": 100}}, "preview.width = 100"),
        ({"model": {"base": "nowhere"}}, "there is no such folder or file"),
        ({"adapters": [{"file": "x"}]}, "[[adapters]]"),
        ({"adapters": [{"file": "x.safetensors", "strength": 2.5}]}, "the strength of x.safetensors"),
        ({"adapters": [{"file": "x.safetensors", "strength": "much"}]}, "preview.strength"),
    ],
)
def test_settings_are_judged_by_the_schema(tmp_path, base, unloaded, changes, words):
    assert words in refused(tmp_path, values(base) | changes)


def test_the_command_line_draws_a_trial(tmp_path, base, files, capsys):
    file = tmp_path / "trial.toml"
    file.write_text(settings.dump(values(base, (files[0], 1.0))), encoding="utf-8")
    assert cli.main(["--try", str(file)]) == 0
    assert str(tmp_path) in capsys.readouterr().out and TrialDir(tmp_path).adapted.is_file()
    assert cli.main(["--try", str(file), "--set", "preview.seed=1"]) == 2
    assert "--set cannot stand beside --try" in capsys.readouterr().err
    assert cli.main(["--try", str(tmp_path / "none.toml")]) == 2
