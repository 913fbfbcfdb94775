"""Try it: what can be chosen, what is drawn of it, a real trial on the base that ships, and a reload."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch
from PIL import Image, ImageChops
from safetensors.torch import save_file

from app.pages import tryit
from app.pages.tryit import MOST, SAMPLING, TryPage
from tests.app.pages.asking import answered_here
from tests.app.serving import wait_for
from trainer import presets, settings
from trainer.run import RunDir

KEY = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_v"
FILE = "one/my-style.safetensors"


@pytest.fixture
def studio(tmp_path, monkeypatch):
    return answered_here(tmp_path / "runs", monkeypatch)


@pytest.fixture
def run(studio) -> RunDir:
    return make_run(studio.output / "one", "pocket")


def make_run(path: Path, base: str, width: int = 0) -> RunDir:
    """A run with a file of one layer, of the width that the shipped base has unless told otherwise."""
    run = RunDir(path)
    run.path.mkdir(parents=True)
    values = settings.apply(presets.load("pocket-lora"), ["run.name=my-style", f'model.base="{base}"', "preview.seed=5"])
    run.config_file.write_text(settings.dump(values), encoding="utf-8")
    width = width or width_of_layer()
    tensors = {f"{KEY}.lora_up.weight": torch.ones(width, 1), f"{KEY}.lora_down.weight": torch.ones(1, width) / 4}
    save_file(tensors, run.export_file("my-style"))
    run.embedding_file("my-style").write_bytes(b"word")
    return run


def width_of_layer() -> int:
    from morelora.files.checkpoint import Checkpoint
    from trainer.models.registry import POCKET

    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_v"
    return Checkpoint.open(POCKET).layers[name].weight_shape[0]


@pytest.fixture
def page(studio, run) -> TryPage:
    with gr.Blocks() as site:
        return TryPage(studio, site)


def entered(page: TryPage, **query: str) -> dict[str, Any]:
    prompt, adapters, *rest = page.enter(SimpleNamespace(query_params=query))
    sliders, model, rest = rest[:MOST], rest[MOST], rest[MOST + 1 :]
    shown = dict(
        zip(("name", "progress", "base", "with", "make", "cancel", "history", "timer"), rest[len(SAMPLING) :], strict=False)
    )
    return shown | {
        "prompt": prompt, "adapters": adapters, "model": model, "sampling": dict(zip(SAMPLING, rest, strict=False)),
        "strengths": {each["label"]: each["value"] for each in sliders if each["visible"]},
    }  # fmt: skip


def sampling(**changes: Any) -> list[Any]:
    usual = {"seed": 5, "steps": 2, "guidance": 2.0, "negative": "", "width": None, "height": None}
    return list((usual | changes).values())


def begin(page: TryPage, prompt: str, keys: list[str], strengths: list[float], **changes: Any) -> list[Any]:
    return page.begin("", prompt, keys, "", *[*strengths, *[1.0] * MOST][:MOST], *sampling(**changes))


def test_the_newest_run_is_offered_with_its_base_prompt_and_sampling(page):
    found = entered(page)
    assert found["adapters"]["value"] == [FILE] and found["adapters"]["choices"] == [("one · my-style", FILE)]
    assert found["strengths"] == {"one · my-style": 1.0} and found["prompt"] == "duo style, fox"
    assert (found["sampling"]["seed"], found["sampling"]["guidance"], found["sampling"]["steps"]) == (5, 2.0, 25)
    assert found["model"] == {"choices": [("pocket, the small one that ships", "")], "value": "", "__type__": "update"}
    assert (
        "choose an adapter" in found["progress"]["value"]
        and found["history"]["value"] == ""
        and "<img" not in found["base"]["value"]
    )


def test_an_adapter_brings_its_runs_base(page, studio):
    make_run(studio.output / "two", "/models/sd <i>")
    chosen = page.choose([FILE, "two/my-style.safetensors", "../etc/x.safetensors"], 0.3, 1.0, 1.0, 1.0)
    assert chosen[0]["value"] == [FILE, "two/my-style.safetensors"] and chosen[1]["value"] == 0.3
    assert [each["visible"] for each in chosen[1:5]] == [True, True, False, False]
    assert ("sd <i>, as in the run two", "two") in chosen[5]["choices"] and chosen[5]["value"] == "two"
    values = page._trial("x", [FILE], "two", [0.25, 1, 1, 1, *sampling(negative="blur", width=96)])
    assert values["model"] == {"base": "/models/sd <i>"} and values["data"] == {"resolution": 64}
    assert values["preview"] == {"prompts": ["x"], "seed": 5, "steps": 2, "guidance": 2.0, "negative": "blur", "width": 96}
    assert values["adapters"] == [{"file": str(studio.output / FILE), "strength": 0.25}]


def test_a_dropped_file_is_kept_and_chosen(page, studio, tmp_path):
    dropped = tmp_path / "up" / "mine.safetensors"
    dropped.parent.mkdir()
    shutil.copy(studio.output / FILE, dropped)
    chosen = page.take(str(dropped), [FILE], 0.5, 1.0, 1.0, 1.0)
    assert chosen[0]["value"] == [FILE, "mine.safetensors"] and chosen[1]["value"] == 0.5
    assert (studio.files.folder / "mine.safetensors").read_bytes() == dropped.read_bytes()
    assert page.take(str(dropped), [], 1.0)[0]["value"] == ["mine-2.safetensors"]


def test_a_dropped_file_that_is_none_is_told(page, studio, tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(tryit.gr, "Warning", said.append)
    (tmp_path / "<b>.safetensors").write_bytes(b"PK\x03\x04")
    assert page.take(str(tmp_path / "<b>.safetensors"), [FILE], 1.0)[0]["value"] == [FILE]
    assert "&lt;b&gt;.safetensors is a pickle" in said[0] and not studio.files.folder.exists()


@pytest.mark.parametrize(
    ("prompt", "changes", "words"),
    [
        ("", {}, "has no prompt"),
        ("x", {"steps": 0}, "preview.steps = 0"),
        ("x", {"seed": -1}, "preview.seed = -1"),
        ("x", {"seed": float("nan")}, "not a number"),
        ("x", {"width": 99}, "preview.width = 99"),
    ],
)
def test_what_cannot_be_drawn_is_said_at_once(page, studio, prompt, changes, words):
    assert words in begin(page, prompt, [FILE], [1.0], **changes)[1] and studio.trials.names() == []


def test_an_adapter_of_another_model_is_said_at_once(page, studio):
    make_run(studio.output / "wide", "pocket", 1280)
    assert "does not fit the base model pocket" in begin(page, "x", ["wide/my-style.safetensors"], [1.0])[1]
    assert studio.trials.names() == []


def test_a_real_trial_strength_0_is_the_base_bit_for_bit_and_a_reload_shows_it(page, studio):
    name = begin(page, "<i>fox", [FILE], [0.0])[0]
    assert "loaded" in page.refresh(name, [])[1]["value"] and page.refresh(name, [])[7]["active"]
    wait_for(lambda: not studio.trials.drawing(), lambda: str(studio.trials.look(name)))
    found = studio.trials.look(name)
    assert found.state == "done", found.message
    assert found.adapted.read_bytes() == found.base.read_bytes() and Image.open(found.base).size == (64, 64)

    second = begin(page, "<i>fox", [FILE], [1.0])[0]
    wait_for(lambda: not studio.trials.drawing(), lambda: str(studio.trials.look(second)))
    now = studio.trials.look(second)
    assert now.base.read_bytes() == found.base.read_bytes()
    assert ImageChops.difference(Image.open(now.base), Image.open(now.adapted)).getbbox()

    shown = entered(page)
    assert shown["name"] == second and shown["strengths"] == {"one · my-style": 1.0} and not shown["timer"]["active"]
    assert str(now.base) in shown["base"]["value"] and str(now.adapted) in shown["with"]["value"]
    assert shown["history"]["value"].count("<img") == 4 and "<i>" not in shown["history"]["value"]
    first = entered(page, trial=name)
    assert (first["name"], first["prompt"], first["strengths"]) == (name, "<i>fox", {"one · my-style": 0.0})
    assert first["sampling"]["steps"] == 2 and entered(page, run="one")["prompt"] == "duo style, fox"


def test_cancel_ends_it_and_another_one_can_begin(page, studio):
    name = begin(page, "fox", [], [], steps=1000)[0]
    assert "already" in begin(page, "key", [], [])[1]
    page.stop(name)
    wait_for(lambda: not studio.trials.drawing())
    assert "Cancelled" in page.refresh(name, [])[1]["value"] and page.refresh(name, [])[4] == gr.update(interactive=True)
