"""Every setting of a run, once. Command line, presets, GUI controls, validation and docs derive from this schema."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from morelora import AdapterConfig

Precision = Literal["fp32", "bf16", "fp16"]
Level = Literal["basic", "advanced"]


def setting(default: Any, help_text: str, level: Level = "advanced", unit: str = "", **bounds: Any) -> Any:
    """A field of the schema: default, help, level, unit and bounds."""
    return Field(default, description=help_text, json_schema_extra={"level": level, "unit": unit}, **bounds)


class Section(BaseModel):
    """A group of settings. Frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class ModelConfig(Section):
    """The base model."""

    base: str = setting("pocket", "Folder of the base model in diffusers form, or 'pocket' for the one that ships.", "basic")
    dtype: Precision = setting("fp32", "Precision that the frozen base model is held in.")


class DataConfig(Section):
    """Pictures and captions."""

    images: str = setting("", "Folder of the training pictures.", "basic")
    trigger: str = setting("", "Word that calls the style in a prompt; put before every caption that lacks it.", "basic")
    resolution: int = setting(
        512, "Side of a square training picture; buckets keep about this area.", "basic", "pixels", ge=32, le=4096
    )
    bucket_step: int = setting(64, "Bucket sides are multiples of this.", unit="pixels", ge=8, le=512)
    upscale: bool = setting(False, "Enlarge pictures smaller than their bucket instead of making a smaller bucket.")
    flip: bool = setting(False, "Also train on mirrored pictures; not for text or one-sided subjects.")
    repeats: int = setting(1, "Times each picture is seen in an epoch.", ge=1, le=10000)
    caption_dropout: float = setting(0.05, "Share of steps that train without a caption.", ge=0, le=1)
    background: str = setting("white", "Colour put under transparent pictures.")


class OptimizerConfig(Section):
    """Optimiser and learning-rate schedule."""

    name: Literal["adamw", "prodigy"] = setting(
        "adamw", "Optimiser: adamw, or prodigy, which finds the rate itself (lr = 1).", "basic"
    )
    lr: float = setting(1e-4, "Learning rate of the UNet's adapters.", "basic", gt=0, le=10)
    text_encoder_lr: float | None = setting(None, "Learning rate of the text encoder's adapters; empty means lr.", gt=0, le=10)
    weight_decay: float = setting(0.01, "Decoupled weight decay.", ge=0, le=1)
    beta1: float = setting(0.9, "Decay of the first moment.", ge=0, lt=1)
    beta2: float = setting(0.99, "Decay of the second moment.", ge=0, lt=1)
    schedule: Literal["constant", "linear", "cosine"] = setting("cosine", "Course of the learning rate after warm-up.")
    warmup: int = setting(0, "Steps over which the learning rate rises from zero.", unit="steps", ge=0)
    clip_norm: float = setting(1.0, "Largest norm of the whole gradient; 0 means no clipping.", ge=0)


class LossConfig(Section):
    """The diffusion loss."""

    min_snr_gamma: float | None = setting(None, "min-SNR weighting of the timesteps; 5 is usual, empty means off.", gt=0)
    noise_offset: float = setting(0.0, "Noise that is constant over the picture; shifts brightness. Usually 0.", ge=0, le=1)


class TrainConfig(Section):
    """The training itself."""

    steps: int = setting(1000, "Optimiser steps.", "basic", "steps", ge=1)
    batch_size: int = setting(1, "Pictures in one micro step on one device.", "basic", ge=1, le=1024)
    accumulation: int = setting(1, "Micro steps whose gradients make one step.", ge=1, le=1024)
    seed: int = setting(42, "Seed of everything random.", ge=0, lt=2**32)
    unet: bool = setting(True, "Train adapters in the UNet.")
    text_encoder: bool = setting(True, "Train adapters in the text encoder.")
    precision: Precision = setting("fp32", "Mixed precision of the computation; the adapters stay fp32.")
    gradient_checkpointing: bool = setting(False, "Compute activations again in the backward pass: less memory, more time.")
    ema: float = setting(0.0, "Decay of an average of the adapter that is exported in its place; 0 means off.", ge=0, lt=1)


class PreviewConfig(Section):
    """Pictures made during training at fixed prompts and seeds."""

    every: int = setting(0, "Steps between previews; 0 means only base and end.", unit="steps", ge=0)
    prompts: tuple[str, ...] = setting((), "Prompts; {trigger} stands for the trigger word. Empty: a few of the captions.")
    negative: str = setting("", "Negative prompt.")
    steps: int = setting(25, "Sampling steps.", unit="steps", ge=1, le=1000)
    guidance: float = setting(7.0, "Classifier-free guidance; 1 means none.", ge=1, le=50)
    seed: int = setting(1234, "Seed of the first prompt's noise; the next prompts count on.", ge=0, lt=2**32)
    strength: float = setting(1.0, "Strength of the adapter in previews.", ge=0, le=2)
    width: int | None = setting(None, "Width; empty means data.resolution.", unit="pixels", ge=32, le=4096)
    height: int | None = setting(None, "Height; empty means data.resolution.", unit="pixels", ge=32, le=4096)


class CheckpointConfig(Section):
    """Resumable state."""

    every: int = setting(200, "Steps between checkpoints; 0 means only at the end or on a stop.", unit="steps", ge=0)
    keep: int = setting(2, "Newest checkpoints that are kept.", ge=1)
    export: bool = setting(False, "Also write an adapter file at each checkpoint.")


class ExportConfig(Section):
    """The adapter file."""

    format: Literal["webui", "lora", "diffusers"] = setting(
        "webui",
        "webui: the algorithm's own keys for A1111, Forge, ComfyUI, InvokeAI; "
        "lora: plain LoRA for every client; diffusers: PEFT keys.",
    )
    dtype: Precision = setting("fp16", "Precision of the file.")
    private_paths: bool = setting(False, "Write local paths into the file's metadata.")


class RunConfig(Section):
    """Name and place."""

    name: str = setting("my-style", "Name of the run and of the file.", "basic", min_length=1, max_length=200)
    output: str = setting("runs", "Folder that run folders are made in.")


class Config(Section):
    """All settings of a run, in the order of the GUI."""

    run: RunConfig = RunConfig()
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    adapter: AdapterConfig = AdapterConfig()
    train: TrainConfig = TrainConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossConfig = LossConfig()
    preview: PreviewConfig = PreviewConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    export: ExportConfig = ExportConfig()

    @model_validator(mode="after")
    def _has_effect(self) -> Config:
        if not (self.train.unet or self.train.text_encoder):
            raise ValueError("train.unet and train.text_encoder are both off: nothing would be trained")
        if self.optimizer.text_encoder_lr is not None and not self.train.text_encoder:
            raise ValueError("optimizer.text_encoder_lr has no effect while train.text_encoder = false")
        if self.optimizer.warmup >= self.train.steps:
            raise ValueError(f"optimizer.warmup ({self.optimizer.warmup}) must be less than train.steps ({self.train.steps})")
        if self.export.format == "diffusers" and self.adapter.weight_decompose and self.adapter.decompose_axis == "input":
            raise ValueError("export.format = 'diffusers' can hold DoRA only with adapter.decompose_axis = 'output'")
        if self.export.format == "lora" and self.adapter.weight_decompose:
            raise ValueError(
                "export.format = 'lora' cannot hold DoRA (it is not low-rank): use 'webui', or 'diffusers' with the output axis"
            )
        return self
