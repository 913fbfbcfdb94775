"""Settings: the list from the schema, kind errors, ``key=value`` texts, the TOML round trip."""

from __future__ import annotations

import math
import tomllib
import types
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from trainer import settings
from trainer.config import Config
from trainer.errors import InputError
from trainer.schema import Setting, named, nearest, walk

RELIED_ON = {
    "data.images",
    "data.trigger",
    "model.base",
    "adapter.algorithm",
    "adapter.rank",
    "adapter.alpha",
    "train.steps",
    "train.seed",
    "optimizer.lr",
    "checkpoint.every",
    "preview.every",
    "export.dtype",
    "export.format",
}

NUMBERS = [s for s in walk() if set(s.kinds) & {int, float} and bool not in s.kinds]
SET_TOGETHER: dict[str, dict[str, Any]] = {
    "adapter.conv_rank": {"adapter": {"layers": "all"}},
    "adapter.conv_alpha": {"adapter": {"layers": "all"}},
    "data.crops": {"data": {"crop": "random"}},
    "data.crop_keep": {"data": {"crop": "random"}},
    "data.color_variants": {"data": {"color_jitter": [0.1, 0.1, 0.1, 0.01]}},
    "data.keep_tags": {"data": {"shuffle_tags": True}},
    "optimizer.warmup": {"train": {"steps": 10**6}},
    "export.svd_rank": {"export": {"format": "svd"}},
    "loss.huber_delta": {"loss": {"kind": "huber"}},
    "loss.timestep_mean": {"loss": {"timesteps": "logit_normal"}},
    "loss.timestep_std": {"loss": {"timesteps": "logit_normal"}},
    "validation.every": {"validation": {"count": 1}},
    "validation.timesteps": {"validation": {"count": 1}},
    "loss.unmasked_weight": {"data": {"mask": "files"}},
    "loss.prior_weight": {"data": {"sources": [{"path": "a"}, {"path": "b", "regularization": True}]}},
    "loss.prior_preservation": {"data": {"trigger": "x"}},
    "loss.pyramid_discount": {"loss": {"pyramid_iterations": 6}},
    "train.steps_max": {"train": {"steps_min": 1}},
    "optimizer.cycles": {"optimizer": {"schedule": "cosine_restarts"}},
    "optimizer.galore_interval": {"optimizer": {"galore_rank": 4}},
    "optimizer.galore_scale": {"optimizer": {"galore_rank": 4}},
    "embedding.vectors": {"data": {"trigger": "x"}},
    **{
        f"embedding.{name}": {"data": {"trigger": "x"}, "embedding": {"vectors": 1}}
        for name in ("lr", "weight_decay", "freeze_after", "norm_pull")
    },
    "optimizer.power": {"optimizer": {"schedule": "polynomial"}},
    "adapter.target_rank": {"adapter": {"rank": 4096}},
    "adapter.prune_from": {"adapter": {"prune_until": 1.0}},
    "adapter.prune_until": {"adapter": {"prune_from": 0.0}},
    "adapter.min_rank": {"adapter": {"rank": 4096}},
    "relora.warmup": {"train": {"steps": 0}, "relora": {"every": 10**9}},
    "adapter.search_tolerance": {"adapter": {"search": "training"}},
}
"""Settings that are refused where they would have no effect or that others bound, and what gives them their place."""


def wrong(values: dict[str, Any]) -> str:
    with pytest.raises(InputError) as error:
        settings.parse(values, "my.toml")
    return str(error.value)


def given_at(setting: Setting, value: Any) -> dict[str, Any]:
    values = settings._copy(SET_TOGETHER.get(setting.path, {}))
    if setting.algorithms:
        settings.put(values, "adapter.algorithm", setting.algorithms[0])
    settings.put(values, setting.path, value)
    return values


def get(config: Config, path: str) -> Any:
    section, _, name = path.partition(".")
    part = getattr(config, section)
    return getattr(part, name) if hasattr(part, name) else getattr(part.options, name)


# the list


def test_the_names_that_others_rely_on_are_there():
    assert {setting.path for setting in walk()} >= RELIED_ON


def test_every_setting_has_a_sentence_of_help_and_a_level():
    for setting in walk():
        assert setting.help.endswith("."), setting.path
        assert setting.level in ("basic", "advanced"), setting.path


def test_the_budgets_of_the_schema_hold():
    """What an algorithm alone has is shown only with it, and counts by itself."""
    assert len({setting.path for setting in walk() if not setting.algorithms}) <= 140
    assert len({setting.path for setting in walk() if setting.level == "basic"}) <= 8


def test_options_name_the_algorithms_that_have_them():
    assert named("adapter.factor").algorithms == ("lokr", "krona", "krona_res")
    assert named("adapter.rank", "loha").bounds == {"ge": 1, "le": 256}
    assert named("adapter.rank", "lora").bounds == {"ge": 1, "le": 4096}
    assert named("adapter.rank", "loha").default == 4
    assert named("no.such") is None


def test_what_may_be_empty_is_empty_by_default():
    """TOML has no null: an empty setting is one that is left out, so its default must be empty too."""
    for setting in walk():
        assert (type(None) in setting.kinds) == (setting.default is None), setting.path


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("adapter.ranck", "adapter.rank"),
        ("trian.steps", "train.steps"),
        ("lr", "optimizer.lr"),
        ("train.lr", "optimizer.lr"),
        ("optimzer", "optimizer"),
        ("train.resolution", "data.resolution"),
        ("zzzzzz.qqqqqq", None),
    ],
)
def test_nearest(typed, meant):
    assert nearest(typed) == meant


# parsing


@pytest.mark.parametrize("setting", NUMBERS, ids=lambda s: f"{s.path}-{'-'.join(s.algorithms)}")
def test_every_number_takes_its_bounds_and_nothing_outside(setting):
    step = 1 if int in setting.kinds else 1e-6
    for key, limit in setting.bounds.items():
        outward = -step if key in ("gt", "ge") else step
        inside = limit if key in ("ge", "le") else limit - outward
        assert get(settings.parse(given_at(setting, inside), "test"), setting.path) == inside
        message = wrong(given_at(setting, limit + outward if key in ("ge", "le") else limit))
        assert f"{setting.path} = " in message and setting.allowed in message
    for bad in ("many", True, [1], math.nan, math.inf):
        assert f"{setting.path} = " in wrong(given_at(setting, bad))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"adapter": {"ranck": 3}}, ["adapter.ranck", "no such setting", "did you mean adapter.rank?"]),
        ({"adapter": {"rank": 0}}, ["adapter.rank = 0", "at least 1", "at most 4096"]),
        ({"adapter": {"algorithm": "loha", "rank": 999}}, ["adapter.rank = 999", "at most 256"]),
        ({"adapter": {"algorithm": "lorra", "rank": 4}}, ["adapter.algorithm", "lora, loha, lokr", "did you mean 'lora'"]),
        ({"adapter": {"factor": 4}}, ["adapter.factor", "lora has no such option", "lokr"]),
        ({"adapter": {"algorithm": 3}}, ["adapter.algorithm = 3", "lora | loha | lokr"]),
        ({"adapter": 5}, ["adapter = 5", "section"]),
        ({"adapter": {"options": 5, "rank": 3}}, ["adapter", "section"]),
        ({"adapter": {"layers": "some"}}, ["adapter.layers = 'some'", "attention | transformer | all"]),
        ({"adapter": {"rules": [{"match": "("}]}}, ["adapter.rules[0].match", "regular expression"]),
        ({"adapter": {"rules": [{"match": "x", "lr": -1}]}}, ["adapter.rules[0].lr = -1"]),
        ({"adapter": {"conv_rank": 4}}, ["conv_rank", "no effect"]),
        ({"data": {"partial_batches": "fill"}}, ["data.partial_batches", "no effect", "train.batch_size = 1"]),
        ({"preview": {"guidance": 1, "negative": "blurred"}}, ["preview.negative", "no effect", "preview.guidance = 1"]),
        ({"preview": {"prompts": ["{trigger}, fox"]}}, ["preview.prompts", "data.trigger is empty"]),
        ({"optimizer": {"lr": "fast", "lrr": 1}}, ["2 settings", "optimizer.lr = 'fast'", "optimizer.lrr"]),
        ({"train": {"unet": False, "text_encoder": False}}, ["nothing would be trained"]),
        ({"model": {"objective": "epsilon", "zero_terminal_snr": True}}, ["model.zero_terminal_snr", "v_prediction"]),
        ({"model": {"family": "sd3"}}, ["model.family = 'sd3'", "auto | sd1 | sd2 | sdxl"]),
        ({"steps": 5}, ["steps", "did you mean train.steps?"]),
        ({"data": {"images": 5}}, ["data.images = 5", "text"]),
    ],
)
def test_messages_name_path_value_and_what_is_allowed(values, words):
    message = wrong(values)
    assert "my.toml" in message and "docs/settings.md" in message
    for word in words:
        assert word in message
    assert "options" not in message.replace("no such option", "")


def test_an_unknown_algorithm_is_the_only_complaint():
    """Its rank is right for some algorithm: a second message would mislead."""
    assert "1 setting " in wrong({"adapter": {"algorithm": "lorra", "rank": 4}})


# key=value


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("optimizer.lr=1e-3", "optimizer.lr", 1e-3),
        (" train.steps = 12 ", "train.steps", 12),
        ("train.text_encoder=false", "train.text_encoder", False),
        ("run.name=2024", "run.name", "2024"),
        ("run.name=true", "run.name", "true"),
        ('run.name="a = b"', "run.name", "a = b"),
        ("data.trigger=my style, wide", "data.trigger", "my style, wide"),
        ("data.images=C:\\pictures\\new", "data.images", "C:\\pictures\\new"),
        ("data.trigger=none", "data.trigger", ""),
        ("data.trigger=", "data.trigger", ""),
        ('data.trigger="none"', "data.trigger", "none"),
        ("adapter.alpha=none", "adapter.alpha", None),
        ('preview.prompts=["a", "b"]', "preview.prompts", ("a", "b")),
        ("preview.prompts=a fox, at night", "preview.prompts", ("a fox, at night",)),
        ("adapter.rules=[{match = 'conv', rank = 2}]", "adapter.rules", None),
    ],
)
def test_apply(text, path, value):
    before = {"data": {"trigger": "old"}, "adapter": {"alpha": 3.0}}
    config = settings.parse(settings.apply(before, [text]), "test")
    if path == "adapter.rules":
        assert (config.adapter.rules[0].match, config.adapter.rules[0].options) == ("conv", {"rank": 2})
    else:
        assert get(config, path) == value
    assert before == {"data": {"trigger": "old"}, "adapter": {"alpha": 3.0}}, "the preset must stay as it was"


def test_the_last_assignment_counts():
    assert settings.apply({}, ["train.steps=1", "train.steps=2"]) == {"train": {"steps": 2}}


def test_a_line_break_cannot_bring_in_a_second_setting():
    assert settings.apply({}, ["data.trigger=1\n[train]\nsteps=5"]) == {"data": {"trigger": "1\n[train]\nsteps=5"}}


@pytest.mark.parametrize("text", ["optimizer.lr", "=5", ""])
def test_apply_refuses_what_is_no_assignment(text):
    with pytest.raises(InputError, match="key=value"):
        settings.apply({}, [text])


def test_apply_refuses_a_path_through_a_value():
    with pytest.raises(InputError, match="'steps' is not a section"):
        settings.apply({"train": {"steps": 5}}, ["train.steps.more=1"])


# TOML


def values_of(setting: Setting) -> st.SearchStrategy[Any]:
    """Valid values of one setting, by its type and bounds."""
    kind = next(kind for kind in setting.kinds if kind is not types.NoneType)
    low = setting.bounds.get("ge", setting.bounds.get("gt"))
    high = setting.bounds.get("le", setting.bounds.get("lt"))
    if setting.choices:
        return st.sampled_from(setting.choices)
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(low, min(high or 10**9, 10**9) - ("lt" in setting.bounds))
    if kind is float:
        opened = {"exclude_min": "gt" in setting.bounds, "exclude_max": "lt" in setting.bounds}
        return st.floats(low, high if high is not None else 1e9, allow_nan=False, **opened)
    text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
    return st.lists(text, max_size=3) if get_origin(kind) is tuple and str in get_args(kind) else text


FREE = [s for s in walk() if not s.algorithms and s.path not in SET_TOGETHER and s.path != "adapter.rules"]


@given(st.data())
@hypothesis_settings(max_examples=60, deadline=None)
def test_toml_round_trips_exactly(data):
    values: dict[str, Any] = {}
    for setting in data.draw(st.lists(st.sampled_from(FREE), max_size=8, unique_by=lambda s: s.path)):
        settings.put(values, setting.path, data.draw(values_of(setting), label=setting.path))
    settings.put(values, "adapter.rules", [{"match": "conv", "rank": 3, "lr": 1e-5}, {"match": "ff", "algorithm": "none"}])
    try:
        config = settings.parse(values, "test")
    except InputError:
        return  # a combination without effect
    for whole in (True, False):
        assert settings.parse(tomllib.loads(settings.to_toml(config, whole)), "test") == config


@pytest.mark.parametrize("algorithm", ["lora", "loha", "lokr"])
def test_toml_keeps_the_algorithm_and_its_options(algorithm):
    config = settings.parse({"adapter": {"algorithm": algorithm, "rank": 5, "alpha": 2.5}}, "test")
    text = settings.to_toml(config, whole=False)
    expected = {"rank": 5, "alpha": 2.5} | ({"algorithm": algorithm} if algorithm != "lora" else {})
    assert tomllib.loads(text) == {"adapter": expected}
    assert settings.parse(tomllib.loads(settings.to_toml(config)), "test") == config


def test_the_short_form_holds_only_what_differs():
    assert settings.to_toml(Config(), whole=False) == ""
    assert set(settings.to_values(Config())["optimizer"]) >= {"name", "lr", "schedule"}


def test_load_reads_a_config_file(tmp_path):
    config = settings.parse({"train": {"steps": 7}}, "test")
    file = tmp_path / "config.toml"
    file.write_text(settings.to_toml(config), encoding="utf-8")
    assert settings.load(file) == config
