"""Export: the run's file with what is told of it; only files of runs, and only their own pictures."""

from __future__ import annotations

import json
from pathlib import Path

import gradio as gr
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from app.pages.export import ExportPage, adapter_files
from tests.app.pages.asking import answered_here
from trainer import presets, settings
from trainer.events import Finished, Preview, Started
from trainer.run import RunDir

NAME = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
TOLD = ("Fine <i>", "zxq", "Anna", "MIT", "text", 0, "all")


@pytest.fixture
def studio(tmp_path, monkeypatch):
    return answered_here(tmp_path / "runs", monkeypatch)


@pytest.fixture
def run(studio) -> RunDir:
    run = RunDir(studio.output / "one")
    run.previews.mkdir(parents=True)
    values = settings.apply(presets.load("pocket-lora"), ["run.name=my-style", 'data.trigger="zxq style"'])
    run.config_file.write_text(settings.dump(values), encoding="utf-8")
    for step in (None, 5, 10):
        save_file({f"{NAME}.lora_up.weight": torch.ones(4, 1), f"{NAME}.lora_down.weight": torch.ones(1, 4)},
                  run.export_file("my-style", step))  # fmt: skip
    run.embedding_file("my-style").write_bytes(b"word")
    run.emit(Started({}, 0))
    Image.new("RGB", (64, 64), (10, 200, 10)).save(run.preview_file(10, 0))
    run.emit(Preview(10, [run.relative(run.preview_file(10, 0))], ["<b>fox"]))
    run.emit(Finished(10, "my-style.safetensors", "done"))
    run.verify_file.write_text(json.dumps([{"reader": "diffusers", "error": 2e-4, "message": "makes the same <u>change"}]))
    return run


@pytest.fixture
def page(studio, run) -> ExportPage:
    with gr.Blocks() as site:
        return ExportPage(studio, site)


def test_a_runs_file_is_offered_with_what_its_recipe_tells(page):
    run, which, name, trigger, preview, shown, checksum, readers, a1111, *_ = page.show(None)
    assert run["value"] == "one" and name == "my-style" and trigger == "zxq style"
    assert which["choices"] == ["my-style.safetensors", "my-style-000010.safetensors", "my-style-000005.safetensors"]
    assert which["value"] == which["choices"][0] and preview["choices"][1] == ("<b>fox", 0) and "000010-00.png" in shown
    assert "AutoV2" in checksum and "makes the same &lt;u&gt;change" in readers and a1111 == "<lora:my-style:1>, zxq style"


def test_files_of_single_steps_were_not_read_back(page):
    assert "was not read back" in page.of_file("one", "my-style-000005.safetensors", "x", "")[1]


def test_the_written_file_tells_what_was_typed(page, studio):
    report, download, checksum, a1111, *_ = page.publish("one", "my-style.safetensors", *TOLD)
    made = Path(download["value"])
    assert made == studio.files.folder / "Fine -i.safetensors" and "Wrote Fine -i.safetensors" in report and "AutoV3" in checksum
    assert a1111 == "<lora:Fine -i:1>, zxq"
    with safe_open(made, "pt") as opened:
        told = opened.metadata()
    assert told["modelspec.author"] == "Anna" and told["modelspec.license"] == "MIT" and "modelspec.thumbnail" in told


@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("one", "../one/my-style.safetensors"),
        ("../one", "my-style.safetensors"),
        ("one", "my-style-embedding.safetensors"),
        ("one", "config.toml"),
        (None, None),
    ],
)
def test_only_adapter_files_of_runs_are_written(page, studio, name, which):
    report, download, *_ = page.publish(name, which, *TOLD)
    assert "No run has" in report and not download["visible"] and not studio.files.folder.exists()
    assert page.of_file(name, which, "", "")[0] == ""


def test_a_link_is_no_file_of_a_run(run, tmp_path):
    (tmp_path / "secret").write_bytes(b"x")
    (run.path / "link.safetensors").symlink_to(tmp_path / "secret")
    assert "link.safetensors" not in adapter_files(run)


def test_damaged_verdicts_are_none(page, run):
    for text in ("{torn", "[1]", "[{}]", "3"):
        run.verify_file.write_text(text)
        assert page.verdicts("one", "my-style.safetensors") == []
