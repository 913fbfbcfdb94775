"""The file for others: the same weights, what is told of it, and that nothing private is left in its header."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from morelora.formats.container import data_hash, write
from tests.trainer.test_export import provenance
from trainer import answers
from trainer.export import export
from trainer.metadata import read_recipe
from trainer.publish import publish
from trainer.settings import to_values

CARD = {
    "name": "Ink wash", "author": "Anna <b>", "license": "CC-BY-4.0", "trigger_phrase": "inkwash style",
    "description": "Soft ink.", "privacy": "all",
}  # fmt: skip


@pytest.fixture
def file(tmp_path) -> Path:
    """A file that was told to keep its paths, and one more entry with a path."""
    from tests.morelora.formats import sd

    adapters = sd.trained({"unet": sd.small()["unet"]}, layers="attention", rank=2)
    facts = provenance({"layers": "attention", "rank": 2}, export={"private_paths": True, "dtype": "fp32"})
    path = export(adapters, tmp_path / "run.safetensors", facts)
    tensors, entries = load_file(path), header(path)
    entries |= {"note": "/home/anna/notes.txt", "sources": json.dumps(["C:\\Users\\anna\\x.png"])}
    write(path, tensors, entries)
    return path


def header(path: str | Path) -> dict[str, str]:
    with safe_open(path, "pt") as opened:
        return dict(opened.metadata())


def made_of(file: Path, folder: Path, **changes: str) -> Path:
    return Path(publish(str(file), str(folder), CARD | changes)["file"])


def test_the_weights_stay_and_the_text_is_what_was_told(file, tmp_path):
    answer = publish(str(file), str(tmp_path / "files"), CARD)
    new = Path(answer["file"])
    assert new == tmp_path / "files" / "Ink wash.safetensors"
    before, after = load_file(file), load_file(new)
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    told = header(new)
    assert told["sshs_model_hash"] == data_hash(file) and told["ss_output_name"] == "Ink wash"
    for key in ("author", "license", "trigger_phrase", "description"):
        assert told[f"modelspec.{key}"] == CARD[key]
    assert told["modelspec.title"] == "Ink wash" and "modelspec.thumbnail" not in told
    assert answer["checksums"]["sha256"] == hashlib.sha256(new.read_bytes()).hexdigest()
    assert made_of(file, tmp_path / "files").name == "Ink wash-2.safetensors"
    assert header(tmp_path / "files" / "Ink wash-2.safetensors")["ss_output_name"] == "Ink wash-2"


@pytest.mark.parametrize("privacy", ["all", "names", "bare"])
def test_no_level_leaves_a_path(file, tmp_path, privacy):
    assert b"/home/anna" in file.read_bytes() and b"Users" in file.read_bytes()
    content = made_of(file, tmp_path / "files", privacy=privacy).read_bytes()
    assert not any(word in content for word in (b"/home", b"anna/", b"Users", str(tmp_path).encode()))


def test_levels_keep_what_they_say(file, tmp_path):
    everything, unnamed, bare = (header(made_of(file, tmp_path / "files", privacy=key)) for key in ("all", "names", "bare"))
    assert json.loads(everything["ss_tag_frequency"]) == {"style": {"fox": 2}, "more": {}}
    assert json.loads(unnamed["ss_tag_frequency"]) == {"1": {"fox": 2}, "2": {}}
    assert list(json.loads(everything["morelora"])["pictures"]) == ["a.png", "b.png"]
    assert json.loads(unnamed["morelora"])["pictures"] == {"1": "11" * 32, "2": "22" * 32}
    assert "morelora" not in bare and not any("tag" in key or "dataset" in key or "seed" in key for key in bare)
    for key in ("ss_base_model_version", "ss_network_module", "ss_network_dim", "modelspec.architecture", "sshs_model_hash"):
        assert everything[key] == unnamed[key] == bare[key]


@pytest.mark.parametrize("privacy", ["all", "names"])
def test_the_recipe_can_still_be_trained(file, tmp_path, privacy):
    before, after = read_recipe(file), read_recipe(made_of(file, tmp_path / "files", privacy=privacy))
    assert before.model.base == "/home/anna/models/some-base" and after.model.base == "some-base"
    ours, theirs = to_values(before), to_values(after)
    assert all(ours[part] == theirs[part] for part in ("adapter", "optimizer", "train", "loss"))


def test_the_picture_is_small_and_says_nothing_of_its_camera(file, tmp_path):
    picture = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x010F] = "secret-camera"
    Image.new("RGB", (900, 300), (200, 40, 40)).save(picture, exif=exif)
    assert b"secret-camera" in picture.read_bytes()
    told = header(made_of(file, tmp_path / "files", picture=str(picture)))
    start, _, encoded = told["modelspec.thumbnail"].partition(",")
    content = base64.b64decode(encoded)
    assert start == "data:image/jpeg;base64" and json.loads(told["ssmd_cover_images"]) == [encoded]
    image = Image.open(io.BytesIO(content))
    red, green, _ = image.convert("RGB").getpixel((10, 10))
    assert image.size == (256, 85) and red > 180 and green < 70 and b"secret-camera" not in content


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "../"}, "has no character"),
        ({"privacy": "most"}, "there is no privacy 'most'"),
        ({"description": "x" * 10_001}, "the description has 10001 characters"),
        ({"picture": "{text}"}, "note.png cannot be the preview picture"),
    ],
)
def test_what_cannot_be_told_is_refused_and_nothing_is_written(file, tmp_path, changes, words):
    text = tmp_path / "note.png"
    text.write_text("no picture")
    card = CARD | {key: value.format(text=text) for key, value in changes.items()}
    refused, reason = answers.answer("publish", (str(file), str(tmp_path / "files"), card))
    assert refused and words in reason and not list((tmp_path / "files").glob("*"))


def test_a_file_that_would_change_its_hash_is_refused(file, tmp_path):
    """Another program's order of tensors gives other bytes, and so another name on model sites."""
    reordered = tmp_path / "other.safetensors"
    content = file.read_bytes()
    save_file(load_file(file), reordered)
    assert reordered.read_bytes() != content
    swapped(reordered)
    refused, reason = answers.answer("publish", (str(reordered), str(tmp_path / "files"), CARD))
    assert refused and "other.safetensors is not stored as this program does" in reason
    assert not list((tmp_path / "files").iterdir())


def swapped(path: Path) -> None:
    """The same tensors, the last one first."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + length])
    entries.pop("__metadata__", None)
    data, offset, parts, new = content[8 + length :], 0, [], {}
    for key, entry in sorted(entries.items(), key=lambda each: -each[1]["data_offsets"][0]):
        first, last = entry["data_offsets"]
        parts.append(data[first:last])
        new[key] = entry | {"data_offsets": [offset, offset + last - first]}
        offset += last - first
    text = json.dumps(new).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))
