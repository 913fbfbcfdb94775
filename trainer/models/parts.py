"""One network of a base model on disk: config and files now, weights on demand. A folder's part, or a part of one file."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from morelora.formats.original import UNET, Layout
from trainer.errors import InputError
from trainer.models.weights import Weights, sha256

CLASSES: dict[str, Any] = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}
ALIGNMENT = 64
"""Bytes, as torch's own allocator has it on the CPU."""
FEW = 4
"""Keys that a message names."""


class Part(ABC):
    """A network that can be loaded."""

    def __init__(self, name: str, config: Mapping[str, Any]) -> None:
        self.name, self.config = name, config

    @property
    @abstractmethod
    def files(self) -> dict[str, Path]:
        """Weight files by a name that stays when the model is moved."""

    @abstractmethod
    def load(self, dtype: torch.dtype) -> nn.Module:
        """The network on the CPU in evaluation mode. Raises ``InputError`` where the files are not whole."""

    def update(self, digest: Any) -> None:
        """Add the identity of the weights to a hash."""
        for name, file in self.files.items():
            digest.update(self.name.encode() + name.encode())
            digest.update(bytes.fromhex(sha256(file)))


class FolderPart(Part):
    """A sub-folder in diffusers form: ``config.json`` and safetensors files, whole or in shards, perhaps the fp16 variant."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name, read_json(folder / "config.json"))
        self.folder = folder
        plain = sorted(file for file in folder.glob("*.safetensors") if not _is_variant(file))
        self.variant = None if plain else "fp16"
        self.weights = plain or sorted(folder.glob("*.fp16*.safetensors"))
        if not self.weights:
            pickled = list(folder.glob("*.bin"))
            what = f"holds only {pickled[0].name}, a pickle, which is not read" if pickled else "holds no .safetensors file"
            raise InputError(f"{folder} {what}", "save the model again as safetensors")
        for file in self.weights:
            Weights(file)  # a torn one is refused before pictures are read

    @property
    def files(self) -> dict[str, Path]:
        return {file.name: file for file in self.weights}

    def load(self, dtype: torch.dtype) -> nn.Module:
        try:
            options = {"dtype": dtype, "local_files_only": True, "use_safetensors": True, "variant": self.variant}
            model, report = CLASSES[self.name].from_pretrained(self.folder, output_loading_info=True, **options)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise InputError(
                f"{self.folder} cannot be loaded: {error}", "check that the folder is a whole diffusers model"
            ) from error
        refuse_missing(self.folder, self.name, report["missing_keys"], len(model.state_dict()))
        return _aligned(model.eval())


class FilePart(Part):
    """A part of a single file: built empty from its config, then filled with the tensors that the layout points at."""

    def __init__(self, name: str, config: Mapping[str, Any], weights: Weights, layout: Layout) -> None:
        super().__init__(name, config)
        self.weights, self.layout = weights, layout

    @property
    def files(self) -> dict[str, Path]:
        return {"": self.weights.path}

    def load(self, dtype: torch.dtype) -> nn.Module:
        model = build_empty(self.name, self.config)
        wanted = model.state_dict()
        places = self.layout(wanted)
        keys = {place.key for place in places.values()}
        refuse_missing(self.weights.path, self.name, keys - self.weights.shapes.keys(), len(keys))
        if self.name == "unet":
            self._refuse_strangers(keys)
        with self.weights.reading() as handle:
            state = {key: self.weights.read(handle, place, wanted[key].shape).to(dtype) for key, place in places.items()}
        self._refuse_shapes(state, wanted)
        model.load_state_dict({key: tensor.contiguous() for key, tensor in state.items()}, assign=True)
        return _aligned(model.eval())

    def _refuse_strangers(self, known: set[str]) -> None:
        """A UNet with layers that the family has not is another model, whatever else fits."""
        strangers = sorted(key for key in self.weights.shapes if key.startswith(UNET) and key not in known)
        if strangers:
            raise InputError(
                f"{self.weights.path} has {len(strangers)} UNet tensors that this family does not have: {_some(strangers)}",
                "it is another kind of model: use one of the families sd1, sd2, sdxl",
            )

    def _refuse_shapes(self, state: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
        odd = [key for key, tensor in state.items() if tensor.shape != wanted[key].shape]
        if odd:
            found, expected = tuple(state[odd[0]].shape), tuple(wanted[odd[0]].shape)
            raise InputError(
                f"{self.weights.path}: {len(odd)} tensors of the {self.name} have other shapes than the family's, "
                f"such as {odd[0]} with {found} in place of {expected}",
                "it is another kind of model: use one of the families sd1, sd2, sdxl",
            )


def build_empty(name: str, config: Mapping[str, Any]) -> nn.Module:
    """A part without memory for its weights (on the meta device)."""
    kind = CLASSES[name]
    with init_empty_weights():
        if name.startswith("text_encoder"):
            return kind(CLIPTextConfig(**{key: value for key, value in config.items() if key != "model_type"}))
        return kind.from_config(dict(config))


@torch.no_grad()
def _aligned(model: nn.Module) -> nn.Module:
    """Every tensor in memory of its own: in a mapped file it would lie where its offset puts it, and the last bits of a product
    depend on how its factors are aligned. So a folder and a file of the same weights train to the same bits."""
    for parameter in model.parameters():
        if parameter.data_ptr() % ALIGNMENT:
            parameter.data = parameter.data.clone()
    return model


def fingerprint(parts: Iterable[Part]) -> str:
    """sha256 over the weight files of some parts."""
    digest = hashlib.sha256()
    for part in parts:
        part.update(digest)
    return digest.hexdigest()


def read_json(file: Path) -> dict[str, Any]:
    """A config. Raises ``InputError`` where it is missing or no JSON object."""
    try:
        loaded = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{file.parent.parent} has no {file.parent.name}/{file.name}", "copy the whole model folder again"
        ) from error
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not JSON: {error}", "copy the model folder again") from error
    if not isinstance(loaded, dict):
        raise InputError(f"{file} is not a config", "copy the model folder again")
    return loaded


def refuse_missing(path: Path, part: str, missing: Iterable[str], total: int) -> None:
    """Raises ``InputError`` with the count and the first few, where anything is missing."""
    names = sorted(missing)
    if names:
        raise InputError(
            f"{path} lacks {len(names)} of the {total} tensors of the {part}: {_some(names)}",
            "copy or download it again; if it was made without this part, "
            + ("give one with model.vae" if part == "vae" else "use a whole model"),
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:FEW]) + (" …" if len(names) > FEW else "")


def _is_variant(file: Path) -> bool:
    return ".fp16" in file.name or ".non_ema" in file.name
