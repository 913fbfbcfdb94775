"""Settings of what a run leaves: its name, its place, its file."""

from __future__ import annotations

from typing import Literal

from trainer.config.base import Precision, Section, setting


class ExportConfig(Section):
    """The adapter file."""

    format: Literal["webui", "lora", "diffusers", "sidecar"] = setting(
        "webui",
        "webui: the algorithm's own keys for A1111, Forge, ComfyUI, InvokeAI; "
        "lora: plain LoRA for every client; diffusers: PEFT keys; "
        "sidecar: for morelora.load alone, the one form of serial adapters.",
    )
    dtype: Precision = setting("fp16", "Precision of the file.")
    private_paths: bool = setting(False, "Write local paths into the file's metadata.")


class RunConfig(Section):
    """Name and place."""

    name: str = setting("my-style", "Name of the run and of the file.", "basic", min_length=1, max_length=200)
    output: str = setting("runs", "Folder that run folders are made in.")
