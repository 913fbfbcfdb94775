"""A base model in one ``.safetensors`` file in the original (LDM, SGM) layout. Offline: configs and vocabulary ship.

What the file is shows in its header alone: the text encoder's place tells the family, shapes tell the sizes.
"""

from __future__ import annotations

from pathlib import Path

from morelora.formats.original import LAYOUTS, MARKS, UNET, VAE, standard_names
from trainer.errors import InputError
from trainer.models import shapes
from trainer.models.clip import ASSETS
from trainer.models.parts import FilePart, Part
from trainer.models.source import NAMES, Family, Source
from trainer.models.weights import Weights

EDM = "edm_mean"
SIGNS: tuple[tuple[str, str, str], ...] = (
    ("lora_unet_", "an adapter (LoRA or LyCORIS)", "give the base model that it was made for"),
    ("lora_te", "an adapter (LoRA or LyCORIS)", "give the base model that it was made for"),
    (".lora_A.", "an adapter (LoRA)", "give the base model that it was made for"),
    (".lora_down.", "an adapter (LoRA)", "give the base model that it was made for"),
    ("control_model.", "a ControlNet", "give the base model that it was made for"),
    ("input_hint_block.", "a ControlNet", "give the base model that it was made for"),
    ("double_blocks.", "a Flux model", "use an SD 1.x, SD 2.x or SDXL model"),
    ("joint_blocks.", "a Stable Diffusion 3 model", "use an SD 1.x, SD 2.x or SDXL model"),
    (EDM, "an EDM model (Playground 2.5), whose noise is another", "use an SDXL model"),
    ("conditioner.embedders.0.model.", "the SDXL refiner", "train on the SDXL base model"),
    ("string_to_param", "an embedding (textual inversion)", "give the base model that it was made for"),
    ("clip_g", "an embedding (textual inversion)", "give the base model that it was made for"),
    ("emb_params", "an embedding (textual inversion)", "give the base model that it was made for"),
    (UNET, "a UNet alone, without a text encoder", "give the whole checkpoint, or a model folder"),
    (VAE, "a VAE alone", "give it as model.vae, and a whole model as model.base"),
    ("down_blocks.0.resnets.", "a part in diffusers form", "give the whole model folder, with model_index.json"),
    ("decoder.up", "a VAE alone", "give it as model.vae, and a whole model as model.base"),
    ("text_model.", "a text encoder alone", "give the whole checkpoint, or a model folder"),
)
"""Part of a key, what has it, what to do instead; the first that is found counts."""


def open_file(path: Path, forced: str = "auto") -> Source:
    """Read the header of a single file.

    Raises:
        InputError: it is damaged, no base model, one of another kind, or ``forced`` is not its family.
    """
    weights = Weights(path)
    family = _family(weights, forced)
    weights.view(standard_names(weights.shapes))
    configs = shapes.configs(family, weights.shapes)
    parts: dict[str, Part] = {name: FilePart(name, configs[name], weights, layout) for name, layout in LAYOUTS[family].items()}
    folder = ASSETS / shapes.FOLDERS[family]
    names = [name.replace("text_encoder", "tokenizer") for name in parts if name.startswith("text_encoder")]
    marks = {key: "" for key in ("v_pred", "ztsnr") if key in weights.shapes}
    return Source(
        path, family, parts, {name: folder / name for name in names}, shapes.shipped(family, "scheduler"),
        weights.metadata | marks, is_file=True,
    )  # fmt: skip


def _family(weights: Weights, forced: str) -> Family:
    told = next((family for family, prefix in MARKS.items() if any(key.startswith(prefix) for key in weights.shapes)), None)
    if told is None or EDM in weights.shapes or not any(key.startswith(UNET) for key in weights.shapes):
        raise _not_a_base(weights)
    if forced not in ("auto", told):
        raise InputError(
            f"model.family = {forced!r} does not fit {weights.path}: its text encoder lies at {MARKS[told]}, "
            f"as {NAMES[told]} has it",
            f"use model.family = 'auto' or {told!r}",
        )
    return told


def _not_a_base(weights: Weights) -> InputError:
    """What the file is instead of a base model."""
    what, fix = next(
        ((what, fix) for sign, what, fix in SIGNS if any(sign in key for key in weights.shapes)),
        ("no base model that is known", "use an SD 1.x, SD 2.x or SDXL checkpoint"),
    )
    few = ", ".join(sorted(weights.shapes)[:3])
    return InputError(f"{weights.path} is {what} ({len(weights.shapes)} tensors, such as {few})", fix)
