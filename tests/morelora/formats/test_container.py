"""Reading with distrust, writing whole."""

import hashlib
import json
import os
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from morelora import FormatError
from morelora.formats import container


def good(path: Path) -> Path:
    save_file({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.float16)}, path, {"note": "x"})
    return path


def with_header(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_reads_what_safetensors_wrote(tmp_path):
    tensors, metadata = container.read(good(tmp_path / "x.safetensors"))
    assert metadata == {"note": "x"}
    assert torch.equal(tensors["a"], torch.arange(6.0).view(2, 3))
    assert tensors["b"].dtype == torch.float16


def test_hash_is_that_of_the_finished_files_data(tmp_path):
    path = tmp_path / "x.safetensors"
    container.write(path, {"a": torch.randn(5, 3), "b": torch.ones(2)}, {"note": "long " * 100})
    content = path.read_bytes()
    header = struct.unpack("<Q", content[:8])[0]
    expected = hashlib.sha256(content[8 + header :]).hexdigest()
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"note": "long " * 100, "sshs_model_hash": expected}
    assert container.data_hash(path) == expected


def test_one_tensor_under_two_keys_is_written_under_both(tmp_path):
    one = torch.arange(6.0).view(2, 3)
    container.write(tmp_path / "x.safetensors", {"a": one, "b": one, "c": one.view(3, 2)}, {})
    tensors, _ = container.read(tmp_path / "x.safetensors")
    assert all(torch.equal(tensors[key].flatten(), one.flatten()) for key in "abc") and tensors["c"].shape == (3, 2)


def test_mode_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        container.write(tmp_path / "x.safetensors", {"a": torch.ones(1)}, {})
    finally:
        os.umask(before)
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == 0o640


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = good(tmp_path / "x.safetensors")
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        container.write(path, {"a": torch.zeros(2)}, {})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


def truncated(path):
    path.write_bytes(good(path).read_bytes()[:-3])


def longer(path):
    path.write_bytes(good(path).read_bytes() + b"xx")


def renamed_pickle(path):
    with path.open("wb") as stream:
        pickle.dump({"a": 1}, stream)


def renamed_checkpoint(path):
    torch.save({"a": torch.ones(2)}, path)


def many_tensors(path):
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    with_header(path, {f"t{i}": entry for i in range(container.MAX_TENSORS + 1)})


def not_finite(path):
    save_file({"fine": torch.ones(2), "broken.lora_up.weight": torch.tensor([1.0, float("nan")])}, path)


def large_header(path):
    path.write_bytes(struct.pack("<Q", container.MAX_HEADER + 1) + b" " * (container.MAX_HEADER + 2))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: None, "cannot be read .No such file"),
        (lambda path: path.mkdir(), "cannot be read"),
        (lambda path: path.write_bytes(b""), "no whole safetensors file .0 bytes"),
        (lambda path: path.write_bytes(b"1234"), "no whole safetensors file"),
        (lambda path: path.write_bytes(b"<html>" * 100), "no whole safetensors file"),
        (truncated, "should hold 28 bytes of tensors but holds 25"),
        (longer, "should hold 28 bytes of tensors but holds 30"),
        (renamed_pickle, "is a pickle"),
        (renamed_checkpoint, "is a pickle"),
        (lambda path: with_header(path, b"{" * 5000), "no readable safetensors header"),
        (lambda path: with_header(path, b"[" * 90000), "no readable safetensors header"),
        (lambda path: with_header(path, ["a"]), "no readable safetensors header"),
        (lambda path: with_header(path, {"a": 3}), "no readable safetensors header"),
        (
            lambda path: with_header(path, {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 4]}}, b"1234"),
            "cannot be read",
        ),
        (lambda path: with_header(path, {"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}, b"1234"), "cannot be read"),
        (large_header, "more than 10000000 are not safe"),
        (many_tensors, "20001 tensors"),
        (not_finite, "broken.lora_up.weight holds NaN or infinite values"),
        (lambda path: save_file({"ids": torch.arange(3)}, path), "ids holds torch.int64"),
    ],
)
def test_broken_files_are_named_with_their_fault(tmp_path, damage, message):
    path = tmp_path / "broken.safetensors"
    damage(path)
    with pytest.raises(FormatError, match=message) as caught:
        container.read(path)
    assert str(path) in str(caught.value)
