"""Own presets: a file under a safe name that page and command line find; names that cannot be are refused."""

from __future__ import annotations

import pytest

from app.own import Own
from trainer import cli, presets, settings
from trainer.errors import InputError

TOML = settings.dump({"train": {"steps": 7}, "adapter": {"algorithm": "loha", "rank": 3}})


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Own(tmp_path / presets.OWN)


def test_a_saved_preset_is_listed_and_trained_by_the_command_line(own, capsys):
    file = own.save("Tinte & Papier", TOML)
    assert [(preset.name, preset.title) for preset in own.presets()] == [("Tinte & Papier", "Tinte & Papier")]
    by_name, by_file = (
        cli.config_of(cli.build_parser().parse_args(["--preset", given])) for given in ("Tinte & Papier", str(file))
    )
    assert by_name == by_file == settings.parse(presets.read_toml(TOML, "x"), "x")
    assert cli.main(["--list-presets"]) == 0 and "Tinte & Papier" in capsys.readouterr().out
    own.save("Tinte & Papier", "")
    assert presets.load("Tinte & Papier") == {} and len(own.presets()) == 1, "one of that name is replaced"


@pytest.mark.parametrize(
    ("given", "stem"),
    [
        ("../../etc/passwd", "etc-passwd"),
        ("C:\\style.toml", "C-style"),
        ("a\nb\x00\u202ec", "a b-\u202ec"),
        (".hidden", "hidden"),
        ("ü" * 100, "ü" * 90),
        ("two\ud800", "two"),
    ],
)
def test_names_are_made_safe(own, given, stem):
    file = own.save(given, TOML)
    assert file.parent == own.folder and file.stem == stem
    assert presets.load(stem) == presets.read_toml(TOML, "x") and len(list(own.folder.iterdir())) == 1


@pytest.mark.parametrize(("given", "words"), [("  ", "no name"), ("...", "no character"), ("Pocket-LoRA.toml", "that ships")])
def test_names_that_cannot_be_are_refused(own, given, words):
    with pytest.raises(InputError, match=words):
        own.save(given, TOML)
    assert not own.presets()


def test_a_file_that_is_called_like_a_shipped_preset_does_not_take_its_place(own):
    own.folder.mkdir()
    (own.folder / "pocket-lora.toml").write_bytes(b"\xff")
    (own.folder / "torn.toml").write_bytes(b"# \xff\n[")
    assert [preset.name for preset in own.presets()] == ["torn"] and own.file("pocket-lora") is None
    assert presets.load("pocket-lora")["run"]["name"] == "pocket-lora"
    with pytest.raises(InputError, match=r"torn\.toml is not UTF-8"):
        presets.load("torn")
