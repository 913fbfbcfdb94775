"""The commit protocol: whole or absent, whatever fails and whenever."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from trainer import checkpoint
from trainer.checkpoint import Checkpoint, committed, load_newest, save
from trainer.errors import DiskError


def make(step: int) -> Checkpoint:
    held = Checkpoint(step, values={"lr": 0.1 + step, "nested": {"betas": [0.9, 0.99]}})
    held.put("adapter", {"a.up": torch.full((3, 2), float(step)), "a.down": torch.arange(4.0)})
    held.put("rng", {"cpu": torch.get_rng_state()})
    return held


def test_round_trip(tmp_path):
    save(tmp_path, make(7), keep=2)
    found, skipped = load_newest(tmp_path)
    assert found and found.step == 7 and not skipped
    assert found.values == {"lr": 7.1, "nested": {"betas": [0.9, 0.99]}}
    assert torch.equal(found.group("adapter")["a.up"], torch.full((3, 2), 7.0))
    assert found.group("rng")["cpu"].dtype == torch.uint8
    assert set(found.group("adapter")) == {"a.up", "a.down"}


def test_keeps_the_newest(tmp_path):
    for step in (5, 10, 1_000_000, 15):
        save(tmp_path, make(step), keep=2)
    assert [path.name for path in committed(tmp_path)] == ["step-1000000", "step-000015"]


def test_nothing_there(tmp_path):
    assert load_newest(tmp_path / "none") == (None, [])


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.STATE, checkpoint.MANIFEST])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "empty"])
def test_a_damaged_checkpoint_is_passed_over_by_name(tmp_path, name, damage):
    save(tmp_path, make(1), keep=2)
    file = save(tmp_path, make(2), keep=2) / name
    content = bytearray(file.read_bytes())
    if damage == "delete":
        file.unlink()
    elif damage == "flip":
        content[len(content) // 2] ^= 0x10
        file.write_bytes(content)
    else:
        file.write_bytes(content[: len(content) // 2] if damage == "truncate" else b"")
    found, skipped = load_newest(tmp_path)
    assert found and found.step == 1
    assert len(skipped) == 1 and "step-000002" in skipped[0]


def fail_at(monkeypatch: pytest.MonkeyPatch, target: object, name: str, number: int, code: int) -> Callable[[], bool]:
    """Make the ``number``-th call of ``target.name`` raise; tells whether it was reached."""
    real, calls = getattr(target, name), [0]

    def call(*args: object, **kwargs: object) -> object:
        calls[0] += 1
        if calls[0] == number:
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    monkeypatch.setattr(target, name, call)
    return lambda: calls[0] >= number


@pytest.mark.parametrize(
    ("target", "name"), [(os, "fsync"), (Path, "rename"), (Path, "mkdir"), (Path, "write_text"), (checkpoint, "save_file")]
)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_failure_at_any_call_leaves_a_whole_checkpoint(tmp_path, monkeypatch, target, name, code):
    save(tmp_path, make(1), keep=1)
    for number in range(1, 50):
        with monkeypatch.context() as patch:
            reached = fail_at(patch, target, name, number, code)
            try:
                save(tmp_path, make(2), keep=1)
            except OSError:  # in pruning, after the commit
                pass
            except DiskError as error:
                assert error.code == 6 and "step 2" in error.what and error.fix
            was_reached = reached()
        found, skipped = load_newest(tmp_path)
        assert found and found.step in (1, 2) and not skipped
        assert not list(tmp_path.glob(".tmp-*"))
        if not was_reached:
            return
    pytest.fail("the save never passed")


def test_a_full_disk_that_safetensors_hides_in_an_error_of_its_own_is_told(tmp_path, monkeypatch):
    def full(*given: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    save(tmp_path, make(1), keep=1)
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(DiskError, match="step 2 cannot be written: No space left on device\n.*\n.*free some space, then go on"):
        save(tmp_path, make(2), keep=1)
    assert load_newest(tmp_path)[0].step == 1 and not list(tmp_path.glob(".tmp-*"))


def test_leftovers_are_swept(tmp_path):
    save(tmp_path, make(1), keep=1)
    for name in (".tmp-000002-99", ".dead-step-000000-99"):
        (tmp_path / name).mkdir()
    load_newest(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000001"]


def test_it_is_json_and_safetensors_only(tmp_path):
    path = save(tmp_path, make(3), keep=1)
    assert sorted(file.suffix for file in path.iterdir()) == [".json", ".json", ".safetensors"]
    assert json.loads((path / "state.json").read_text())["step"] == 3
