"""The doctor: never fails for want of an extra, names what a lack costs, knows a torchvision that breaks imports."""

from __future__ import annotations

from importlib import metadata
from types import SimpleNamespace

import pytest
import torch

from trainer import cli, doctor


def test_the_report_names_device_memory_and_versions(capsys):
    assert cli.main(["--doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("device ")
    assert lines[1].startswith("memory ") and lines[1].endswith("GiB free")
    assert f"torch        {torch.__version__}" in lines


def test_nothing_installed_is_no_failure(monkeypatch):
    monkeypatch.setattr(doctor, "version_of", lambda package: None)
    text = doctor.report()
    for extra in doctor.EXTRAS:
        assert f"{extra.package} " in text and extra.cost in text and f"-m pip install {extra.package}" in text
    assert "-m pip install torch" in text


@pytest.mark.parametrize(
    ("torchvision", "wants", "have", "words"),
    [
        (None, None, "2.13.0+cpu", []),
        ("0.28.0", "2.13.0", "2.13.0+cpu", ["does not need it", "pip uninstall torchvision"]),
        ("0.28.1", "2.13.1", "2.13.0+cpu", ["made for torch 2.13.1, but torch is 2.13.0", "pip uninstall torchvision"]),
        ("0.28.0", None, "2.13.0", ["does not need it"]),
    ],
)
def test_torchvision(torchvision, wants, have, words):
    text = doctor.torchvision_warning(torchvision, wants, have)
    assert all(word in text for word in words)
    assert bool(text) == bool(words)


@pytest.mark.parametrize("line", ["torch==2.13.0", "torch (==2.13.0)", "torch ==2.13.0 ; python_version > '3'"])
def test_the_torch_that_a_package_wants_is_read_from_its_metadata(monkeypatch, line):
    monkeypatch.setattr(metadata, "requires", lambda package: ["numpy", "torchaudio==1.0", line])
    assert doctor.requirement_of("torchvision", "torch") == "2.13.0"


def test_a_missing_package_wants_nothing():
    assert doctor.requirement_of("no-such-package-anywhere", "torch") is None
    assert doctor.version_of("no-such-package-anywhere") is None


def test_other_versions_than_the_pinned_ones_are_told(monkeypatch):
    monkeypatch.setattr(doctor, "version_of", lambda name: {"torch": "2.13.0+cpu", "gradio": "5.0.0"}.get(name))
    assert doctor.other_versions() == [("gradio", "5.0.0", "6.31.0")]


def test_a_cpu_build_beside_an_nvidia_driver_is_told(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(doctor.torch.backends.cuda, "is_built", lambda: False)
    assert any("built for the CPU" in text and "torch==2.13.0" in text for text in doctor.warnings())


def test_a_gpu_is_named_with_its_memory(monkeypatch):
    card = SimpleNamespace(name="Test GPU", total_memory=8 << 30)
    monkeypatch.setattr(doctor.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(doctor.torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(doctor.torch.cuda, "device_count", lambda: 2)
    assert doctor.device_line().startswith("Test GPU, 8.0 GiB and 1 more; ")


def test_a_full_disk_is_told(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 30, total=8 << 30))
    assert any("disk" in text for text in doctor.warnings())
