"""Inspect: a dropped file as HTML that nothing in it can break out of, its recipe as the draft, tools and their results."""

from __future__ import annotations

import json
from pathlib import Path

import gradio as gr
import pytest
import torch
from safetensors.torch import save_file

from app.pages.inspect import InspectPage, making
from app.studio import Studio
from tests.app.pages.asking import answered_here
from trainer import presets, settings

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def studio(tmp_path, monkeypatch) -> Studio:
    return answered_here(tmp_path / "runs", monkeypatch)


@pytest.fixture
def page(studio) -> InspectPage:
    with gr.Blocks() as site:
        return InspectPage(studio, site)


@pytest.fixture
def file(tmp_path) -> str:
    """Two blocks, the second changed twice as much; every word in it is hostile."""
    tensors = {}
    for factor, layer in ((1.0, "down_blocks_0"), (2.0, "up_blocks_1")):
        name = f"lora_unet_{layer}_attentions_0_transformer_blocks_0_attn1_to_q"
        tensors[f"{name}.lora_up.weight"] = torch.eye(8, 2) * factor
        tensors[f"{name}.lora_down.weight"] = torch.eye(2, 8)
        tensors[f"{name}.alpha"] = torch.tensor(2.0)
    tensors[f"lora_unet_{SCRIPT}.alpha"] = torch.tensor(1.0)
    recipe = {"config": settings.to_values(settings.parse(presets.load("pocket-loha"), "x")), "base": {"name": SCRIPT}}
    path = tmp_path / "style.safetensors"
    save_file(tensors, path, {"note": SCRIPT, SCRIPT: "key", "long": "n" * 5000, "morelora": json.dumps(recipe)})
    return str(path)


def test_a_file_is_shown_and_nothing_in_it_is_html(page, file):
    what, norms, spectrum, recipe, retrain, metadata, rank = page.examine(file)
    shown = what + norms + spectrum + metadata
    assert SCRIPT not in shown and "<script" not in shown and shown.count("&lt;script&gt;") >= 3
    assert all(word in what for word in ("style.safetensors", "lora", "kohya", "float32", "AutoV2", "1 tensors belong to no"))
    assert "width:50.0%" in norms and "width:100.0%" in norms and norms.index("IN01") < norms.index("OUT03")
    assert spectrum.count("<polyline") == 2 and "Rank 2" in spectrum
    assert "loha" in recipe["value"] and retrain["visible"] and rank == 2
    assert "n" * 2001 not in metadata and "(+3000)" in metadata


def test_the_recipe_becomes_the_draft(page, file, studio):
    assert studio.take_recipe(page.examine(file)[3]["value"]) == "yes"
    assert studio.draft.values["adapter"]["algorithm"] == "loha" and "output" not in studio.draft.values["run"]
    before = studio.draft.values
    assert studio.take_recipe("[train\n") == "" and studio.draft.values == before


def test_a_file_without_a_recipe_cannot_be_trained_from(page, tmp_path):
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    path = tmp_path / "other.safetensors"
    save_file({f"{name}.lora_up.weight": torch.ones(4, 1), f"{name}.lora_down.weight": torch.ones(1, 4)}, path)
    _, _, _, recipe, retrain, metadata, _ = page.examine(str(path))
    assert "holds no recipe" in recipe["value"] and not retrain["visible"] and "holds no text" in metadata


def test_what_is_no_adapter_leaves_a_word_and_nothing_else(page, tmp_path):
    path = tmp_path / "x<i>.safetensors"
    path.write_bytes(b"\x80\x04 pickled")
    what, norms, spectrum, recipe, retrain, metadata, _ = page.examine(str(path))
    assert "is a pickle" in what and "<i>" not in what and norms == spectrum == metadata == ""
    assert not recipe["visible"] and not retrain["visible"]
    assert "Drop an adapter file" in page.examine(None)[0]


def test_a_tool_gives_a_file_to_download(page, file, studio):
    report, download = making(studio.files.resize)(file, "small", "", 1)
    assert "Wrote small.safetensors" not in report and "entries cannot be used" in report and not download["visible"]


def test_a_merge_is_offered_by_its_name(page, tmp_path, studio):
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    path = tmp_path / "a.safetensors"
    save_file({f"{name}.lora_up.weight": torch.ones(4, 1), f"{name}.lora_down.weight": torch.ones(1, 4)}, path)
    report, download = making(page.merge_with)(str(path), [str(path)], "", "both", "", None)
    made = Path(download["value"])
    assert "Wrote both.safetensors" in report and made == studio.files.folder / "both.safetensors" and made.is_file()
    assert download["label"] == "Download both.safetensors"


def test_forms_and_precisions_are_those_of_the_schema_that_the_tool_makes(page):
    from trainer.file_tools import CHOSEN_FORMS, DTYPES

    forms, dtypes = ([value for _, value in field.choices] for field in (page.form, page.dtype))
    assert sorted(forms) == sorted(CHOSEN_FORMS) and page.form.value == "webui"
    assert dtypes[0] == "" and sorted(dtypes[1:]) == sorted(DTYPES)
