"""Several folders, each with the run's settings and its own over them."""

import tomllib
from pathlib import Path

import pytest

from tests.trainer.data.pictures import save
from trainer import settings
from trainer.config import Config, DataConfig
from trainer.config.data import FolderConfig, SourceConfig
from trainer.data import scan
from trainer.data.sources import labels, sources_of
from trainer.errors import InputError
from trainer.schema import nearest, walk


def data(*sources: dict, **more: object) -> DataConfig:
    return Config.model_validate({"data": {"resolution": 64, "bucket_step": 16, "sources": sources, **more}}).data


def test_a_source_has_the_runs_settings_and_its_own_over_them():
    own = {"path": "b", "repeats": 3, "flip": False, "trigger": "", "loss_weight": 0.5}
    first, second = sources_of(data({"path": "~/a"}, own, repeats=2, flip=True, trigger="word"))
    assert (first.path, first.setting) == (Path.home() / "a", "data.sources[0].path")
    assert first.settings == FolderConfig(repeats=2, flip=True, trigger="word")
    assert second.settings == FolderConfig(repeats=3, flip=False, trigger="")
    assert (first.loss_weight, second.loss_weight) == (1.0, 0.5)


def test_one_folder_is_a_single_source():
    source = sources_of(DataConfig(images="a", repeats=4))[0]
    assert (source.path, source.setting, source.settings) == (Path("a"), "data.images", FolderConfig(repeats=4))


@pytest.mark.parametrize("name", FolderConfig.model_fields)
def test_what_a_source_may_override_is_declared_once(name):
    run, own = ({setting.path: setting for setting in walk(schema)} for schema in (FolderConfig, SourceConfig))
    assert (own[name].help, own[name].bounds, own[name].choices) == (run[name].help, run[name].bounds, run[name].choices)
    assert own[name].default is None


@pytest.mark.acts("data.sources", "data.sources.regularization", "data.sources.loss_weight")
def test_items_know_their_folder(tmp_path):
    save(tmp_path / "one", "x.png", caption="a fox")
    save(tmp_path / "two", "x.png", caption="a Word dog", seed=1)
    save(tmp_path / "class", "y.png", caption="a dog")
    dataset = scan(
        data(
            {"path": str(tmp_path / "one"), "repeats": 3},
            {"path": str(tmp_path / "two"), "trigger": "word", "loss_weight": 2.0},
            {"path": str(tmp_path / "class"), "regularization": True},
            trigger="style",
        )
    )
    found = [(item.captions, item.plain, item.source, item.regularization, item.loss_weight) for item in dataset.items]
    assert found == [
        (("style, a fox",), ("a fox",), 0, False, 1.0),
        (("a Word dog",), ("a dog",), 1, False, 2.0),
        (("a dog",), ("a dog",), 2, True, 1.0),
    ]
    assert dataset.repeats == (3, 1, 1)
    assert [dataset.name(item.path) for item in dataset.items] == ["one/x.png", "two/x.png", "class/y.png"]
    assert dataset.notes == (
        "3 folders: one (1 picture x 3), two (1 picture x 1), class (1 picture x 1, regularization)",
        "1 caption lacks the trigger 'style': it is put before it",
    )


def test_folders_called_alike_are_told_apart():
    assert labels(sources_of(data({"path": "a/x"}, {"path": "b/x"}, {"path": "c/y"}))) == ["x", "x-2", "y"]


def test_a_broken_folder_is_named_by_its_setting(tmp_path):
    save(tmp_path / "one", "x.png")
    with pytest.raises(InputError, match=r"data\.sources\[1\]\.path = '.*gone' does not exist"):
        scan(data({"path": str(tmp_path / "one")}, {"path": str(tmp_path / "gone")}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sources": [{"path": "a", "repeats": 0}]}, "data.sources[0].repeats = 0: must be a whole number, at least 1"),
        ({"sources": [{"path": "a", "repeat": 2}]}, "data.sources[0].repeat: there is no such setting; did you mean "),
        ({"sources": [{"path": "a", "repeats": True}]}, "data.sources[0].repeats = True: must be a number"),
        ({"sources": [{"repeats": 2}]}, "data.sources[0].path: is missing"),
        ({"sources": [{"path": "a"}, 5]}, "data.sources[1] = 5: must be a section"),
        ({"sources": {"path": "a"}}, "must be a list of tables, each under [[data.sources]]"),
        ({"sources": [{"path": "a"}], "images": "b"}, "data.images and data.sources are both given"),
        ({"sources": [{"path": "a", "regularization": True}]}, "there is nothing to learn"),
        (
            {"sources": [{"path": "a"}, {"path": "b", "regularization": True, "trigger": "x"}]},
            "data.sources[1].trigger has no effect",
        ),
    ],
)
def test_wrong_sources_are_named_by_their_place(values, message):
    with pytest.raises(InputError) as caught:
        settings.parse({"data": values}, "my.toml")
    assert message in str(caught.value)


def test_near_names_are_those_of_a_source():
    assert nearest("data.sources[3].repeat") == "data.sources[3].repeats"
    assert nearest("data.sources[0].zzzz") is None


def test_sources_survive_toml_and_the_command_line():
    config = Config(data=data({"path": "a", "repeats": 2}, {"path": "b", "caption_dropout": 0.5}))
    assert settings.parse(tomllib.loads(settings.to_toml(config)), "x") == config
    given = settings.apply({}, ['data.sources=[{path = "a", repeats = 2}]'])
    assert settings.parse(given, "x").data.sources == (SourceConfig(path="a", repeats=2),)
