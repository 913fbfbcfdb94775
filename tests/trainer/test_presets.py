"""Presets: shipped ones are complete and honest, files of one's own are read, mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer import presets, settings
from trainer.errors import InputError

NAMES = [preset.name for preset in presets.list_presets()]


def test_the_four_that_the_readme_names_are_there():
    assert {"pocket-lora", "pocket-loha", "pocket-lokr", "pocket-dora"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_preset_parses_and_keeps_every_value(name):
    values = presets.load(name)
    parsed = settings.to_values(settings.parse(values, name))
    for section, given in values.items():
        assert given == {key: parsed[section][key] for key in given}


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_preset_trains_what_it_promises(name):
    config = settings.parse(presets.load(name), name)
    assert config.train.unet and config.train.text_encoder and config.adapter.layers == "all"
    assert config.adapter.options.alpha not in (None, config.adapter.options.rank)
    assert config.adapter.weight_decompose == (name == "pocket-dora")
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


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_preset_has_its_pictures_and_previews_other_things(name):
    config = settings.parse(presets.load(name), name)
    captions = [file.read_text(encoding="utf-8").strip() for file in Path(config.data.images).glob("*.txt")]
    assert len(captions) == len(list(Path(config.data.images).glob("*.png"))) == 12
    assert all(caption.startswith(f"{config.data.trigger}, ") for caption in captions)
    shown = {prompt.replace("{trigger}", config.data.trigger) for prompt in config.preview.prompts}
    assert len(shown) >= 4 and not shown & set(captions), "the sheet must show the style, not the memory of the pictures"
