"""Settings that would do nothing are found by the schema's own refusals."""

import pytest

from trainer import presets, settings
from trainer.errors import InputError
from trainer.relevance import without_effect, without_vain
from trainer.schema import walk


@pytest.mark.parametrize(
    ("setting", "gate", "value"),
    [
        ("optimizer.power", "optimizer.schedule", "polynomial"),
        ("optimizer.cycles", "optimizer.schedule", "cosine_restarts"),
        ("loss.huber_delta", "loss.kind", "huber"),
        ("embedding.lr", "embedding.vectors", 4),
        ("validation.every", "validation.count", 2),
        ("checkpoint.keep_exports", "checkpoint.export", True),
        ("device.double_quantize", "device.quantize", "nf4"),
    ],
)
def test_a_setting_counts_once_its_gate_is_open(setting, gate, value):
    values = presets.load("pocket-lora")
    assert without_effect(values)[setting].startswith(f"{setting} has no effect")
    settings.put(values, gate, value)
    assert setting not in without_effect(values)


def test_what_always_counts_is_never_among_them():
    found = without_effect(presets.load("pocket-lora"))
    assert not {"optimizer.lr", "train.text_encoder", "adapter.rank", "adapter.algorithm", "data.images"} & found.keys()


@pytest.mark.parametrize("name", ["pocket-lora", "pocket-full", "sdxl-lora-8gb"])
def test_each_reason_is_what_the_schema_says(name):
    values = presets.load(name)
    for path, reason in without_effect(values).items():
        assert any(setting.path == path for setting in walk())
        with pytest.raises(InputError) as error:
            _refused(values, path)
        assert reason in str(error.value)


def _refused(values, path):
    """Try what a user could: each choice, the other flag, numbers within the bounds."""
    for setting in (setting for setting in walk() if setting.path == path):
        for word in (*setting.choices, "true", "false", "1", "2", "0.5", "0.9", "1000", "64", "4096"):
            try:
                settings.parse(settings.apply(values, [f"{path}={word}"]), "here")
            except InputError as error:
                if "has no effect" in str(error):
                    raise


def test_a_recipe_that_is_refused_has_none():
    assert without_effect({"train": {"steps": -1}}) == {}


def test_what_is_set_in_vain_is_taken_out_with_the_reason():
    values = {"train": {"text_encoder": False}, "optimizer": {"text_encoder_lr": 1e-4, "power": 3.0, "lr": 1e-3}}
    kept, reasons = without_vain(values)
    assert kept == {"train": {"text_encoder": False}, "optimizer": {"lr": 1e-3}}
    assert sorted(reason.partition(" ")[0] for reason in reasons) == ["optimizer.power", "optimizer.text_encoder_lr"]
    assert without_vain({"optimizer": {"lr": -1.0}}) == ({"optimizer": {"lr": -1.0}}, []), "what is wrong otherwise is left"
