"""``--doctor``: what this machine offers, what is missing and what that costs. Never fails because an extra is absent."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil
import torch

from trainer.presets import ROOT

LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "gradio")
GIB = 1 << 30
DISK_WARNING = 5 * GIB


@dataclass(frozen=True)
class Extra:
    """A package that is used only where a setting asks for it."""

    package: str
    cost: str


EXTRAS = (
    Extra("peft", "a finished file is not checked by loading it with diffusers' own loader"),
    Extra("lycoris-lora", "a finished file is not checked by loading it with LyCORIS"),
    Extra("xformers", "device.attention = 'xformers' is refused; PyTorch's own attention serves as well on most cards"),
    Extra("bitsandbytes", "no base in 8 or 4 bits (device.quantize) and no 8-bit optimisers"),
    Extra("deepspeed", "no ZeRO-1 or ZeRO-2 over several devices; plain data parallelism needs nothing"),
)


def report() -> str:
    """The whole report as text, the device first."""
    lines = [f"device       {device_line()}", f"memory       {memory_line()}", f"disk         {disk_line()}"]
    lines += [f"python       {platform.python_version()} ({sys.executable})"]
    lines += [f"{name:<12} {version_of(name) or 'missing: ' + _install(name)}" for name in LIBRARIES]
    lines += [extra_line(extra) for extra in EXTRAS]
    lines += [f"warning      {text}" for text in warnings()]
    return "\n".join(lines)


def device_line() -> str:
    """The device that a run would train on."""
    count = usable_cores()
    cores = f"{count} CPU core{'s' * (count != 1)}"
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        more = f" and {torch.cuda.device_count() - 1} more" if torch.cuda.device_count() > 1 else ""
        return f"{card.name}, {card.total_memory / GIB:.1f} GiB{more}; {cores}"
    if torch.backends.mps.is_available():
        return f"Apple GPU (mps); {cores}"
    return f"CPU, {cores}: enough for the shipped small base model; SD 1.5 and larger want a GPU"


def memory_line() -> str:
    """The machine's memory."""
    memory = psutil.virtual_memory()
    return f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"


def disk_line(folder: Path | None = None) -> str:
    """Room where runs are made."""
    usage = shutil.disk_usage(folder or Path.cwd())
    return f"{usage.free / GIB:.1f} of {usage.total / GIB:.1f} GiB free in {folder or Path.cwd()}"


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def extra_line(extra: Extra) -> str:
    """An extra's version, or what its absence costs and how to install it."""
    version = version_of(extra.package)
    return f"{extra.package:<12} {version or f'not installed; {extra.cost}. To add it: {_install(extra.package)}'}"


def warnings() -> list[str]:
    """What may break a run, each with what to do."""
    found = [torchvision_warning(version_of("torchvision"), requirement_of("torchvision", "torch"), torch.__version__)]
    if shutil.which("nvidia-smi") and not torch.backends.cuda.is_built():
        found.append(
            "there is an NVIDIA driver, but this torch was built for the CPU: training would be far slower than it could be. "
            f"Take the command for your system from pytorch.org, with torch=={torch.__version__.partition('+')[0]}, "
            f"and run it with {sys.executable}"
        )
    if shutil.disk_usage(Path.cwd()).free < DISK_WARNING:
        found.append("less than 5 GiB of disk is free here: checkpoints of large runs may not fit. Make room, or set run.output")
    found += [f"{name} is {have}, but was tested with {want}" for name, have, want in other_versions()]
    return [text for text in found if text]


def torchvision_warning(torchvision: str | None, wants: str | None, torch_version: str) -> str:
    """What an installed torchvision means: it is not needed, and one for another torch breaks every import."""
    if torchvision is None:
        return ""
    base = torch_version.partition("+")[0]
    remedy = f"{sys.executable} -m pip uninstall torchvision"
    if wants and wants != base:
        return (
            f"torchvision {torchvision} is made for torch {wants}, but torch is {base}: "
            f"diffusers and transformers cannot be imported beside it. MoreLoRA does not need it: {remedy}"
        )
    return f"torchvision {torchvision} is installed; MoreLoRA does not need it. Should imports fail: {remedy}"


def other_versions() -> list[tuple[str, str, str]]:
    """Pinned packages that are here in another version: name, installed, pinned."""
    pinned = re.findall(r"^([\w-]+)==(\S+)", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    found = [(name, (version_of(name) or "").partition("+")[0], want) for name, want in pinned]
    return [(name, have, want) for name, have, want in found if have and have != want]


def version_of(package: str) -> str | None:
    """The installed version, None where there is none. Imports nothing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def requirement_of(package: str, other: str) -> str | None:
    """The exact version of ``other`` that an installed package asks for, if it asks for one."""
    try:
        wanted = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return None
    matches = (re.match(rf"{other}\s*\(?==\s*([\w.]+)", line) for line in wanted)
    return next((match.group(1) for match in matches if match), None)


def _install(package: str) -> str:
    return f"{sys.executable} -m pip install {package}"
