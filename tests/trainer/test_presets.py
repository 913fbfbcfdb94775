"""Presets: shipped ones are complete and honest, files of one's own are read, mistakes are named."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from morelora import ALGORITHMS, AdapterSet, Target, resolve
from morelora.adapted import Adapted
from morelora.adapter import RankOptions
from morelora.inject import build
from trainer import presets, settings
from trainer.cli import main
from trainer.config import Config
from trainer.errors import InputError
from trainer.models.shapes import shipped
from trainer.optim import parameter_groups
from trainer.plan import TrainedPart, trained_parts

NAMES = [preset.name for preset in presets.list_presets()]
EXAMPLES = [preset.name for preset in presets.list_presets() if preset.is_example]
STYLES = [name for name in NAMES if name not in EXAMPLES]
KINDS = ("lora", "locon", "loha", "lokr", "lokr-tiny", "dora", "prodigy", "one-picture")
LOW_MEMORY = ("sd15-lora-8gb", "sd21-lora-8gb", "sdxl-lora-8gb", "sdxl-lora-12gb")
FAMILY = {"sd15": "sd1", "sd21": "sd2", "sdxl": "sdxl"}
RATES = {"sd15": {"lora": 2e-4, "locon": 2e-4, "loha": 2e-4, "lokr": 1e-4, "lokr-tiny": 5e-4, "dora": 1e-4}}
RATES |= {"sd21": RATES["sd15"], "sdxl": RATES["sd15"] | {"lora": 1.5e-4, "locon": 1.5e-4, "loha": 1e-4, "dora": 7.5e-5}}
"""Of the UNet, as recipes of experienced users agree."""


def test_the_four_that_the_readme_names_are_there():
    assert {"pocket-lora", "pocket-loha", "pocket-lokr", "pocket-dora"} <= set(EXAMPLES)


def test_every_algorithm_has_an_example():
    assert {settings.parse(presets.load(name), name).adapter.algorithm for name in EXAMPLES} == set(ALGORITHMS)


def test_every_family_has_every_kind_of_style_preset():
    assert set(STYLES) == {f"{family}-{kind}" for family in FAMILY for kind in KINDS} | set(LOW_MEMORY)


def holds(parsed: Any, given: Any) -> bool:
    """Whether every value that was given is there; what was not given is free."""
    if isinstance(given, dict):
        return all(holds(parsed[key], value) for key, value in given.items())
    if isinstance(given, list):
        return len(parsed) == len(given) and all(map(holds, parsed, given))
    return parsed == given


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_preset_parses_and_keeps_every_value(name):
    values = presets.load(name)
    parsed = settings.to_values(settings.parse(values, name))
    assert holds(parsed, values)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_shipped_preset_trains_what_it_promises(name):
    config = settings.parse(presets.load(name), name)
    has_text_layers = config.adapter.algorithm != "norm"
    assert config.train.unet and config.train.text_encoder == has_text_layers and config.adapter.layers == "all"
    if isinstance(config.adapter.options, RankOptions):
        assert config.adapter.options.alpha not in (None, config.adapter.options.rank)
    assert config.adapter.weight_decompose == name.startswith("pocket-dora")
    assert config.run.name == name and config.data.trigger
    assert all("{trigger}" in prompt for prompt in config.preview.prompts)


def test_titles_are_the_first_lines():
    for preset in presets.list_presets():
        assert preset.file.read_text(encoding="utf-8").startswith(f"# {preset.title}\n")


def test_paths_of_a_shipped_preset_are_the_projects(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert presets.load("pocket-loha")["data"]["images"] == str(presets.ROOT / "assets/styles/duotone/train")


def test_a_file_of_ones_own_keeps_its_paths(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('\ufeff[data]\nimages = "pictures"\n', encoding="utf-8")
    assert presets.load(str(file)) == {"data": {"images": "pictures"}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[data\nimages = 3", ["mine.toml", "not valid TOML", "line 1"]),
        (b'a = "\xff"', ["mine.toml", "not UTF-8", "byte 5"]),
        (None, ["mine.toml", "cannot be read"]),
    ],
)
def test_an_unreadable_file_is_named(tmp_path, content, words):
    file = tmp_path / "mine.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError) as error:
        presets.load(str(file))
    assert all(word in str(error.value) for word in words)


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(InputError, match="did you mean pocket-loha") as error:
        presets.load("poket-loha")
    assert "pocket-lokr" in str(error.value)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_shipped_preset_has_its_pictures_and_previews_other_things(name):
    config = settings.parse(presets.load(name), name)
    captions = [file.read_text(encoding="utf-8").strip() for file in Path(config.data.images).glob("*.txt")]
    assert len(captions) == len(list(Path(config.data.images).glob("*.png"))) == 12
    assert all(caption.startswith(f"{config.data.trigger}, ") for caption in captions)
    shown = {prompt.replace("{trigger}", config.data.trigger) for prompt in config.preview.prompts}
    assert len(shown) >= 4 and not shown & set(captions), "the sheet must show the style, not the memory of the pictures"


@cache
def layers_of(family: str) -> dict[str, Any]:
    """The family's full-size UNet and text encoders without memory."""
    with torch.device("meta"):
        models = {"unet": UNet2DConditionModel.from_config(shipped(family, "unet"))}
        text = {"text_encoder": CLIPTextModel}
        text |= {"text_encoder_2": CLIPTextModelWithProjection} if family == "sdxl" else {}
        return models | {name: kind(CLIPTextConfig(**shipped(family, name))) for name, kind in text.items()}


def parts_of(config: Config, family: str) -> list[TrainedPart]:
    models = {name: model for name, model in layers_of(family).items() if name == "unet" or config.train.text_encoder}
    targets = resolve(models, config.adapter)
    with torch.device("meta"):
        adapters = AdapterSet(models, {t.name: Adapted(layer(models, t), build(t, layer(models, t))) for t in targets})
    parameter_groups(adapters, targets, config.optimizer)
    return trained_parts(config, targets, adapters, models["unet"].config.block_out_channels[0])


def layer(models: dict[str, Any], target: Target) -> nn.Module:
    return models[target.component].get_submodule(target.path)


@pytest.mark.parametrize("name", [name for name in STYLES if name not in LOW_MEMORY])
def test_a_style_preset_fits_its_family_and_learns_in_the_usual_range(name):
    """On the full-size layers: every rule and rank fits, and no part is remarked as too strong or too weak."""
    config, family = settings.parse(presets.load(name), name), FAMILY[name.partition("-")[0]]
    assert config.model.family == family and config.model.base == "" and config.run.name == name
    parts = parts_of(config, family)
    assert {part.component for part in parts} == {"unet"} | ({"text_encoder"} if config.train.text_encoder else set())
    assert [text for part in parts for text in part.remark()] == []
    assert all(part.strength is None for part in parts) == (config.optimizer.name == "prodigy")


@pytest.mark.parametrize("name", STYLES)
def test_a_style_preset_has_the_values_of_its_kind(name):
    config = settings.parse(presets.load(name), name)
    family, _, kind = name.removesuffix("-8gb").removesuffix("-12gb").partition("-")
    options, optimizer = config.adapter.options, config.optimizer
    prodigy = kind in ("prodigy", "one-picture")
    assert optimizer.lr == (1.0 if prodigy else RATES[family][kind]) and (optimizer.name == "prodigy") == prodigy
    assert config.adapter.algorithm == {"loha": "loha", "lokr": "lokr", "lokr-tiny": "lokr", "one-picture": "lokr"}.get(
        kind, "lora"
    )
    assert config.adapter.weight_decompose == (kind == "dora") and (config.adapter.max_norm == 1.0) == (kind == "loha")
    assert (config.adapter.layers == "all") == (kind in ("locon", "loha"))
    assert getattr(options, "full_matrix", False) == (kind in ("lokr", "one-picture"))
    assert config.loss.min_snr_gamma == 5.0 and optimizer.schedule == "cosine" and config.train.precision == "bf16"
    assert config.train.steps == (160 if kind == "one-picture" else 0) and config.train.steps_per_picture == 80
    assert (config.train.steps_min, config.train.steps_max) == (800, 1600 if family == "sdxl" and kind != "one-picture" else 2500)
    assert config.data.resolution == {"sd15": 512, "sd21": 768, "sdxl": 1024}[family]
    assert config.train.text_encoder == (family != "sdxl" and not prodigy)


@pytest.mark.parametrize("name", STYLES)
def test_a_style_preset_holds_only_what_differs_from_the_defaults(name):
    values = presets.load(name)
    algorithm = values.get("adapter", {}).get("algorithm", "lora")
    defaults = settings.to_values(settings.parse({"adapter": {"algorithm": algorithm}}, "defaults"))
    for section, given in values.items():
        same = [key for key, value in given.items() if defaults[section].get(key) == value and key != "algorithm"]
        assert not same, f"[{section}] {same}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "no base model and no pictures yet"),
        (["--images", "somewhere"], "no base model yet"),
        (["--base", "pocket"], "data.images is empty"),
    ],
)
def test_a_style_preset_asks_for_what_it_needs(options, words, capsys):
    assert main(["--preset", "sd15-lora", "--dry-run", "--set", "train.precision=fp32", *options]) == 2
    told = capsys.readouterr()
    assert words in told.out + told.err and "Traceback" not in told.err


@pytest.mark.parametrize("name", LOW_MEMORY)
def test_a_low_memory_preset_is_the_plain_one_with_what_saves(name):
    low, plain = (settings.parse(presets.load(n), n) for n in (name, "-".join(name.split("-")[:2])))
    assert low.adapter == plain.adapter and low.data == plain.data and low.loss == plain.loss and low.model == plain.model
    assert low.train.batch_size * low.train.accumulation == plain.train.batch_size
    assert low.train.gradient_checkpointing and low.optimizer.lr == plain.optimizer.lr
    assert (low.device.quantize == "nf4") == (name == "sdxl-lora-8gb")
    assert (low.optimizer.name == "adamw8bit") == name.startswith("sdxl")
