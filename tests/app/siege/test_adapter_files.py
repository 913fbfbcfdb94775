"""Hostile adapter files and names at a running server: refused in words, shown as text, written nowhere but into ``files``."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.app.serving import Server
from tests.app.siege.test_requests import BAD, META, SCRIPT, Trap, is_harmless, upload

NAME = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("files") / "home")
    yield server
    server.stop()


def dropped(server: Server, name: str, content: bytes) -> dict[str, Any]:
    return {"path": upload(server, name, content).json()[0], "meta": META, "orig_name": name}


def adapter(folder: Path, **entries: str) -> bytes:
    file = folder / "made.safetensors"
    tensors = {"lora_up.weight": torch.ones(8, 2), "lora_down.weight": torch.ones(2, 8)}
    save_file({f"{NAME}.{leaf}": tensor for leaf, tensor in tensors.items()}, file, entries or None)
    return file.read_bytes()


def test_what_is_no_adapter_is_refused_in_words(server, tmp_path):
    sprung = tmp_path / "sprung"
    whole = adapter(tmp_path)
    files = {
        "pickle": (pickle.dumps(Trap(sprung)), "is a pickle"),
        "huge": (struct.pack("<Q", 50_000_000) + bytes(50_000_100), "has a header of 50000000 bytes"),
        "torn": (whole[:-8], "should hold"),
        "deep": (struct.pack("<Q", 100_000) + b"[" * 100_000, "no readable safetensors header"),
        "empty": (b"", "no whole safetensors file"),
    }
    for name, (content, words) in files.items():
        shown = server.markup("inspect/file.upload", dropped(server, f"{name}.safetensors", content))
        assert f"{name}.safetensors" in shown and words in shown and is_harmless(shown) and str(server.folder) not in shown
    assert not sprung.exists() and server.is_well()


def test_text_in_a_file_is_shown_as_text(server, tmp_path):
    recipe = json.dumps({"base": {"name": BAD}, "config": {"run": {"name": SCRIPT}}})
    content = adapter(tmp_path, note=SCRIPT, ss_sd_model_name=BAD, morelora=recipe)
    shown = server.markup("inspect/file.upload", dropped(server, "x.safetensors", content))
    assert SCRIPT not in shown and BAD not in shown and "&lt;script&gt;" in shown and "&lt;img" in shown


def test_only_uploads_are_read(server, tmp_path):
    (tmp_path / "outside.safetensors").write_bytes(adapter(tmp_path))
    for path in (tmp_path / "outside.safetensors", "/etc/passwd", "../made.safetensors"):
        for function, more in (("inspect/file.upload", []), ("inspect/convert.click", ["x", "", "lora", ""])):
            answer = server.call(function, {"path": str(path), "meta": META}, *more)
            assert not answer["success"] and is_harmless(json.dumps(answer))


def test_a_new_file_lies_in_the_folder_of_files_whatever_it_is_called(server, tmp_path):
    before = {path for path in server.folder.rglob("*.safetensors") if "morelora-" not in str(path)}
    file = dropped(server, "x.safetensors", adapter(tmp_path))
    shown = server.markup("inspect/convert.click", file, f"../../{BAD}", "", "diffusers", "")
    assert "Wrote" in shown and BAD not in shown and str(server.folder) not in shown
    after = {path for path in server.folder.rglob("*.safetensors") if "morelora-" not in str(path)}
    assert [path.parent for path in after - before] == [server.folder / "files"] and server.is_well()


@pytest.mark.parametrize("name", ["../runs", "/etc", "..", None])
def test_only_files_of_runs_are_given_to_others(server, name):
    answer = server.call("export/write.click", name, "x.safetensors", "x", "", "", "", "", -1, "bare")
    assert not answer["success"] and is_harmless(json.dumps(answer))
    assert not (server.folder / "files" / "x.safetensors").exists() and server.is_well()
