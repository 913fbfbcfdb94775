"""Settings of what a run leaves: its name, its place, its file."""

from __future__ import annotations

from typing import Literal

from trainer.config.base import Precision, Section, setting

Reader = Literal["a1111", "forge", "comfyui", "invokeai", "sdcpp", "lycoris", "diffusers", "morelora"]
WEB_UIS: tuple[Reader, ...] = ("a1111", "forge", "comfyui")


class ExportConfig(Section):
    """The adapter file."""

    format: Literal["auto", "webui", "lora", "diffusers", "diff", "svd", "sidecar"] = setting(
        "webui",
        "webui: the algorithm's own keys for A1111, Forge, ComfyUI, InvokeAI; "
        "lora: plain LoRA for every client; diffusers: PEFT keys; diff: the whole change, as large as the layers; "
        "svd: the nearest plain LoRA of svd_rank, with its error; sidecar: for morelora.load alone, the one form of serial "
        "adapters; auto: the smallest form that all of readers read exactly, else svd.",
    )
    readers: tuple[Reader, ...] = setting((), "Programs that auto has in mind; empty means a1111, forge, comfyui.")
    svd_rank: int | None = setting(None, "Rank of the svd form, also where auto comes to it; empty means 32.", ge=1, le=4096)
    dtype: Precision = setting("fp16", "Precision of the file.")
    private_paths: bool = setting(False, "Write local paths into the file's metadata.")


class RunConfig(Section):
    """Name and place."""

    name: str = setting("my-style", "Name of the run and of the file.", "basic", min_length=1, max_length=200)
    output: str = setting("runs", "Folder that run folders are made in.")
