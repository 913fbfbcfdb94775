"""Another VAE than the base model's own: ``model.vae``, a folder or one file, in diffusers' or in the original naming."""

from __future__ import annotations

from pathlib import Path

from morelora.formats.original import VAE, vae
from trainer.errors import InputError
from trainer.models import shapes
from trainer.models.parts import FilePart, FolderPart, Part
from trainer.models.weights import Weights, refuse_pickle

PREFIXES = ("vae.", "first_stage_model.", "")


def open_vae(name: str, family: str) -> Part:
    """The VAE at ``name``, with ``family``'s scale of latents where the file cannot tell.

    Raises:
        InputError: there is none.
    """
    path = Path(name).expanduser()
    refuse_pickle(path)
    if path.is_dir():
        folder = path / "vae" if (path / "vae" / "config.json").is_file() else path
        if not (folder / "config.json").is_file():
            raise InputError(f"model.vae = {name!r} has no config.json", "give the VAE's own folder, or its .safetensors file")
        return FolderPart("vae", folder)
    if not path.is_file():
        raise InputError(
            f"model.vae = {name!r}: there is no such file or folder", "give an existing VAE, or leave model.vae empty"
        )
    weights = Weights(path)
    weights.view(_standard_names(list(weights.shapes)))
    if not any(key.startswith(f"{VAE}decoder.") for key in weights.shapes):
        few = ", ".join(sorted(weights.shapes)[:3])
        raise InputError(f"model.vae = {name!r} is no VAE (it has tensors such as {few})", "give a VAE's .safetensors file")
    return FilePart("vae", shapes.vae(shapes.shipped(family, "vae"), weights.shapes), weights, vae)


def _standard_names(keys: list[str]) -> dict[str, str]:
    """Each key as the original layout has it in a whole checkpoint."""
    prefix = next(prefix for prefix in PREFIXES if any(key.startswith(prefix) for key in keys) or not prefix)
    own = {key: key.removeprefix(prefix) for key in keys if key.startswith(prefix)}
    if any(name.startswith("decoder.up_blocks.") for name in own.values()):
        places = vae(own.values())
        return {key: places[name].key for key, name in own.items()}
    return {key: VAE + name for key, name in own.items()}
