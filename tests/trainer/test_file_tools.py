"""The tools as the browser asks for them: what is told of a file, where new ones go, and refusals that name no folder."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from morelora.formats import FORMS
from morelora.formats.container import write
from morelora.formats.precision import cast
from tests.morelora.formats import sd
from trainer import answers, file_tools, presets, settings

RANK = 4


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    """A LoRA with the recipe of a preset and hostile text."""
    file = tmp_path_factory.mktemp("secret-folder") / "style.safetensors"
    adapters = sd.trained({"unet": sd.small()["unet"]}, layers="attention", rank=RANK)
    recipe = {"config": settings.to_values(settings.parse(presets.load("pocket-loha"), "x"))}
    write(file, cast(FORMS["webui"](adapters), torch.float32), {"morelora": json.dumps(recipe), "ss_base_model_version": "sd_v1"})
    return file


def place(folder: Path, name: str = "new", **more: str) -> dict[str, str]:
    return {"folder": str(folder), "name": name, **more}


def change(file: str | Path, layer: str) -> torch.Tensor:
    """``up @ down * alpha / rank`` of kohya's keys, in double precision."""
    tensors = {key.rpartition(layer)[2]: value.double() for key, value in load_file(file).items() if layer in key}
    up, down = tensors[".lora_up.weight"], tensors[".lora_down.weight"]
    return up.flatten(1) @ down.flatten(1) * tensors[".alpha"] / down.shape[0]


LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


def test_a_file_is_told_whole_as_plain_values(adapter):
    found = file_tools.examine(str(adapter))
    content = adapter.read_bytes()
    data = content[8 + struct.unpack("<Q", content[:8])[0] :]
    assert found["file"] == "style.safetensors" and json.loads(json.dumps(found)) == found
    assert found["names"] == ["kohya"] and found["ranks"] == {str(RANK): len(found["layers"])}
    digest = hashlib.sha256(content).hexdigest()
    assert found["checksums"] == {
        "sha256": digest,
        "autov2": digest[:10].upper(),
        "autov3": hashlib.sha256(data).hexdigest()[:12],
    }
    layer = next(each for each in found["layers"] if each["name"].replace(".", "_") in LAYER)
    values = torch.linalg.svdvals(change(adapter, LAYER))
    assert layer["singular_values"][:RANK] == pytest.approx(values[:RANK].tolist(), rel=1e-4)
    needed = [layer["rank_of_energy"] for layer in found["layers"]]
    assert found["keep"] == max(needed) <= RANK


def test_the_recipe_comes_back_as_toml_that_can_be_trained(adapter):
    found = file_tools.examine(str(adapter))
    config = settings.parse(presets.read_toml(found["toml"], "x"), "x")
    assert config == settings.parse(presets.load("pocket-loha"), "x") and found["no_recipe"] == ""


def test_a_file_of_others_has_no_recipe_and_says_why(adapter, tmp_path):
    file = tmp_path / "other.safetensors"
    save_file(load_file(adapter), file, {"ss_network_dim": "4"})
    found = file_tools.examine(str(file))
    assert found["toml"] == "" and found["no_recipe"].startswith("other.safetensors holds no recipe")


def test_new_files_get_safe_names_and_take_no_others_place(adapter, tmp_path):
    before = adapter.read_bytes()
    made = [
        file_tools.convert_file(str(adapter), place(tmp_path / "files", "../../<evil>.safetensors", form="diffusers"))["file"]
        for _ in range(2)
    ]
    assert [Path(file).name for file in made] == ["evil.safetensors", "evil-2.safetensors"]
    assert {Path(file).parent for file in made} == {tmp_path / "files"}
    assert all(".lora_A." in key or ".lora_B." in key for key in load_file(made[0])) and adapter.read_bytes() == before


def test_a_merge_is_the_weighed_sum(adapter, tmp_path):
    made = file_tools.merge_files([(str(adapter), 1.0), (str(adapter), -0.25)], place(tmp_path, dtype="fp32"), None)
    assert torch.allclose(change(made["file"], LAYER), 0.75 * change(adapter, LAYER), atol=1e-6)
    assert made["lines"][0].startswith("Wrote new.safetensors") and str(tmp_path) not in "".join(made["lines"])


def test_a_resize_is_the_nearest_of_its_rank(adapter, tmp_path):
    made = file_tools.resize_file(str(adapter), place(tmp_path, dtype="fp32"), {"rank": 2})
    left, values, right = torch.linalg.svd(change(adapter, LAYER), full_matrices=False)
    assert torch.allclose(change(made["file"], LAYER), left[:, :2] * values[:2] @ right[:2], atol=1e-6)


def test_the_difference_of_two_models_comes_out(tmp_path):
    pocket = presets.ROOT / "assets" / "pocket"
    refused, reason = answers.answer("extract_file", (str(pocket), str(pocket), place(tmp_path), 4))
    assert refused and "do not differ" in reason and str(presets.ROOT) not in reason and not list(tmp_path.iterdir())


def bad(name: str, content: bytes, folder: Path) -> str:
    file = folder / name
    file.write_bytes(content)
    return str(file)


HUGE = struct.pack("<Q", 50_000_000) + bytes(50_000_100)
WRONG = [
    ("pickle", pickle.dumps({"a": 1}), "is a pickle"),
    ("zip", b"PK\x03\x04 and more", "is a pickle"),
    ("empty", b"", "no whole safetensors file"),
    ("text", b"hello, this is text", "no whole safetensors file"),
    ("huge header", HUGE, "has a header of 50000000 bytes"),
    ("no json", struct.pack("<Q", 4) + b"[1,2", "no readable safetensors header"),
    ("list", struct.pack("<Q", 5) + b"[1,2]", "no readable safetensors header"),
    ("nothing in it", struct.pack("<Q", 2) + b"{}", "holds no tensors of an adapter"),
]


@pytest.mark.parametrize(("content", "words"), [each[1:] for each in WRONG], ids=[each[0] for each in WRONG])
def test_what_is_no_adapter_is_refused_in_words_without_its_folder(tmp_path, content, words):
    file = bad("x.safetensors", content, tmp_path)
    refused, reason = answers.answer("examine", (file,))
    assert refused and words in reason and reason.startswith("x.safetensors") and str(tmp_path) not in reason


def test_a_torn_file_and_a_whole_model_are_refused(adapter, tmp_path):
    torn = bad("torn.safetensors", adapter.read_bytes()[:-10], tmp_path)
    foreign = tmp_path / "model.safetensors"
    save_file({"model.diffusion_model.out.2.weight": torch.ones(4, 4)}, foreign)
    for file, words in ((torn, "torn.safetensors should hold"), (str(foreign), "model.safetensors holds no layer of an adapter")):
        refused, reason = answers.answer("examine", (file,))
        assert refused and words in reason and str(tmp_path) not in reason


@pytest.mark.parametrize(
    ("question", "given", "words"),
    [
        ("convert_file", ("{file}", {"form": "nonsense"}), "there is no form 'nonsense'"),
        ("convert_file", ("{file}", {"dtype": "int8"}), "there is no precision 'int8'"),
        ("convert_file", ("{file}", {"name": "///"}), "has no character"),
        ("convert_file", ("{file}", {"base": "nowhere"}), "nowhere"),
        ("merge_files", ([("{file}", 1.0)], {}, None), "two files or more"),
        ("merge_files", ([("{file}", 1.0), ("{file}", float("nan"))], {}, None), "finite weight"),
    ],
)
def test_wrong_wishes_are_refused_and_nothing_is_written(adapter, tmp_path, question, given, words):
    first, wanted, *rest = given
    first = [(str(adapter), weight) for _, weight in first] if isinstance(first, list) else str(adapter)
    refused, reason = answers.answer(question, (first, place(tmp_path) | wanted, *rest))
    assert refused and words in reason and not list(tmp_path.iterdir())
