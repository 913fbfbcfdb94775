"""Load an exported file back through every reader that is installed and compare the change it makes with our own.

For each layer, known inputs go through the reader's layer and through the frozen one, in float64; the difference of the two
outputs is the reader's change. Up to ``PROBES`` inputs the comparison is exact (unit vectors); beyond that many columns it
is made on ``PROBES`` random inputs, whose expected squared outputs are the squared Frobenius norm.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor, nn

from morelora import AdapterSet, EmbeddingSet, load
from morelora.errors import MoreLoraError
from morelora.formats import recorded
from morelora.formats.container import read
from morelora.formats.names import is_sdxl, kohya
from morelora.site import NormSite, Site
from morelora.weight_decompose import WeightDecomposed
from trainer.errors import TrainerError
from trainer.events import Verified

PROBES = 64
ROTATIONS = ("diag-oft", "boft")
"""Modules of LyCORIS that run in float32 alone."""
NO_CHANGE = 1e-6
"""A change below this share of the weight's norm counts as none, so that an untrained layer gives no 0 / 0."""
LIMITS = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}
"""Largest relative error of the change that rounding explains."""
PROBED = 1.5
"""How much larger than it is an error of many directions may look on ``PROBES`` inputs."""
WRONG = 10
"""Our own reading beyond this many limits is no rounding: the file is wrong."""
MAGNITUDES = (
    "It leaves out DoRA's magnitudes, so that its pictures will differ from the previews: load it with morelora.load there, or "
    "write a form that it reads whole (export.format = 'svd', or 'diffusers' with adapter.decompose_axis = 'output')"
)
OTHER_FORM = "Its pictures will differ from the previews: load the file with morelora.load there, or write another export.format"
"""What it means that a reader makes another change, and what to do."""

T = TypeVar("T")
LayerOf = Callable[[str, Any], Any]
"""Layer name and frozen float64 layer -> the layer as the reader makes it, in float64; None where it has no adapter."""


def verify(
    adapters: AdapterSet, path: Path, models: Mapping[str, nn.Module] | None = None, words: EmbeddingSet | None = None
) -> list[Verified]:
    """One verdict for each installed reader: morelora itself, diffusers, lycoris-lora.

    Args:
        adapters: the adapters that were exported, in place in their models. Nothing of them is changed.
        path: the file.
        models: all components of the pipeline by name (``unet``, ``text_encoder``); default: those of ``adapters``.
        words: the vectors that stand in the text encoders, if any; readers start without them.

    Returns:
        ``Verified.error`` is the largest ``||D_reader - D|| / ||D||`` over the layers, None where the reader cannot read
        the file (``message`` says why). A reader that is not installed is left out.

    Raises:
        TrainerError: our own reader cannot read the file, or its change is another than the one that was learnt.
    """
    models = dict(adapters.models if models is None else models)
    devices = {layer.base.weight.device for layer in adapters.layers.values()}
    with torch.random.fork_rng([device for device in devices if device.type == "cuda"]), torch.no_grad(), quiet():
        trials = [_open(name, path, twins(adapters, models, words)) for name in installed(NEEDS)]
        for name in adapters.layers:
            _compare(name, adapters, trials)
    ours = trials[0]
    limit = math.inf if ours.reason else _limit(path, adapters)
    if ours.reason or ours.lost(adapters) or not ours.error <= WRONG * limit:
        raise TrainerError(
            f"{path} does not give back what was learnt: {OURS} {ours.message(adapters, limit)}",
            "the last checkpoint is whole; export it again, and report this with the run's train.log",
        )
    return [trial.verdict(adapters, limit) for trial in trials]


class CannotReadError(Exception):
    """A foreign reader is known not to read this."""


@dataclass
class Trial:
    """One reader's work on one file."""

    reader: str
    layer_of: LayerOf | None
    reason: str = ""
    """Why it cannot read the file."""
    error: float = 0.0
    worst: str = ""
    read: list[str] = field(default_factory=list)
    """Layers that it found an adapter for."""

    def lost(self, adapters: AdapterSet) -> list[str]:
        """Layers that it found no adapter for."""
        return [name for name in adapters.layers if name not in set(self.read)]

    def message(self, adapters: AdapterSet, limit: float) -> str:
        """The verdict in words."""
        if self.reason:
            return f"cannot read it: {self.reason}"
        lost = self.lost(adapters)
        if lost:
            return f"finds only {len(self.read)} of {len(adapters)} layers; {lost[0]} is missing"
        if not self.error <= limit:
            return f"makes another change: relative error {self.error:.2g} on {self.worst}, expected at most {limit:g}"
        return f"makes the same change on {len(self.read)} layers: relative error at most {self.error:.2g}"

    def verdict(self, adapters: AdapterSet, limit: float) -> Verified:
        message = self.message(adapters, limit)
        if not self.reason and not self.lost(adapters) and not self.error <= limit:
            drops = self.reader == "diffusers" and any(isinstance(adapter, WeightDecomposed) for _, adapter in adapters)
            message += f". {MAGNITUDES if drops else OTHER_FORM}"
        return Verified(self.reader, len(self.read), None if self.reason else self.error, message)


def relative_error(found: Tensor, expected: Tensor, weight_norm: float) -> float:
    """``||found - expected|| / ||expected||`` with the smallest denominator ``NO_CHANGE * weight_norm``; NaN becomes inf."""
    error = float((found - expected).norm()) / max(float(expected.norm()), NO_CHANGE * weight_norm, 1e-300)
    return error if math.isfinite(error) else math.inf


def probe(site: Site, device: torch.device) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Inputs that show a layer's whole weight, and what to take of its outputs.

    For a convolution each input is a picture that holds one kernel-sized patch where exactly one output position sees all
    of it; that position is taken. A norm's outputs are all taken.
    """
    if isinstance(site, NormSite):
        shape = (PROBES, site.m, 2) if site.channel_groups else (PROBES, site.m)
        return torch.randn(shape, dtype=torch.float64, generator=Generator().manual_seed(0)).to(device), lambda y: y
    patch = (site.n * site.groups, *(site.kernel or ()))
    columns = math.prod(patch)
    if columns <= PROBES:
        x = torch.eye(columns, dtype=torch.float64).view(columns, *patch)
    else:
        x = torch.randn(PROBES, *patch, dtype=torch.float64, generator=Generator().manual_seed(0))
    if not site.is_conv:
        return x.to(device), lambda y: y
    height, width = (_place(site, axis) for axis in (0, 1))
    picture = torch.zeros(*x.shape[:2], height.size, width.size, dtype=torch.float64)
    picture[:, :, height.start :: height.step, width.start :: width.step] = x
    return picture.to(device), lambda y: y[:, :, height.output, width.output]


@dataclass(frozen=True)
class _Place:
    """Where a patch lies along one axis, and which output position sees all of it."""

    size: int
    start: int
    step: int
    output: int


def _place(site: Site, axis: int) -> _Place:
    padding = site.padding[axis]
    output = -(-padding // site.stride[axis])
    start = output * site.stride[axis] - padding
    step = site.dilation[axis]
    return _Place(start + step * ((site.kernel or (1, 1))[axis] - 1) + 1, start, step, output)


def _compare(name: str, adapters: AdapterSet, trials: list[Trial]) -> None:
    """Measure every reader's change of one layer against ours."""
    layer = adapters.layers[name]
    base = _wide(layer.base)
    x, take = probe(layer.site, base.weight.device)
    adapter = copy.deepcopy(layer.adapter).to(base.weight.device, torch.float64).eval()
    before, size = take(base(x)), float(base.weight.norm())
    if adapter.mergeable:
        expected = take(layer.site.apply(x, adapter.delta(base.weight), adapter.bias_delta(base.bias)))
    else:
        expected = take(adapter(x, base)) - before
    for trial in trials:
        after = _attempt(trial, lambda trial=trial: _output(trial, name, base, x)) if not trial.reason else None
        if after is not None:
            trial.read.append(name)
        error = relative_error(before * 0 if after is None else take(after) - before, expected, size)
        if error > trial.error:
            trial.error, trial.worst = error, name


def _output(trial: Trial, name: str, base: Any, x: Tensor) -> Tensor | None:
    """What the layer gives as the reader makes it; None where it has no adapter."""
    changed = trial.layer_of(name, base)
    return None if changed is None else changed(x)


def _attempt(trial: Trial, action: Callable[[], T]) -> T | None:
    """What ``action`` returns. Whatever a foreign reader raises is its verdict; our own errors are ours alone."""
    try:
        return action()
    except (MoreLoraError, CannotReadError) as error:
        trial.reason = str(error)
    except Exception as error:  # other programs raise anything on files they cannot read
        if trial.reader == OURS:
            raise
        trial.reason = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
    return None


def installed(needs: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The readers whose packages are here."""
    return [name for name, packages in needs.items() if all(map(find_spec, packages))]


def _open(reader: str, path: Path, models: dict[str, Any]) -> Trial:
    trial = Trial(reader, None)
    trial.layer_of = _attempt(trial, lambda: READERS[reader](models, path))
    return trial


def twins(adapters: AdapterSet, models: Mapping[str, nn.Module], words: EmbeddingSet | None = None) -> dict[str, Any]:
    """The models without adapters and words, as separate modules that share the frozen tensors' memory.

    With ``words`` the tokenizers as they were before stand beside them.
    """
    memo: dict[int, object] = {}
    for model in models.values():
        for parameter in model.parameters():
            memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
        for buffer in model.buffers():
            memo[id(buffer)] = buffer.detach()
    for layer in [*adapters.layers.values(), *(words.layers.values() if words else ())]:
        memo[id(layer)] = copy.deepcopy(layer.base, memo)
    tokenizers = words.plain_tokenizers() if words else {}
    return {name: copy.deepcopy(model, memo).eval() for name, model in models.items()} | {
        name.replace("text_encoder", "tokenizer"): tokenizer for name, tokenizer in tokenizers.items()
    }


def _wide(layer: Any) -> Any:
    """A float64 copy; on the CPU where the device has no float64."""
    device = layer.weight.device
    return copy.deepcopy(layer).eval().to(device if device.type == "cuda" else "cpu", torch.float64)


def _with_morelora(models: dict[str, nn.Module], path: Path) -> LayerOf:
    layers = load(models, path).layers
    return lambda name, base: _wide(layers[name]) if name in layers else None


def _with_diffusers(models: dict[str, nn.Module], path: Path) -> LayerOf:
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
    from peft.tuners.tuners_utils import BaseTunerLayer

    others = {"vae": None, "tokenizer": None, "scheduler": None, "feature_extractor": None}
    pipe: Any
    if is_sdxl(models):
        text = {"text_encoder": None, "text_encoder_2": None, "tokenizer_2": None}
        pipe = StableDiffusionXLPipeline(**others | text | models, add_watermarker=False)
    else:
        pipe = StableDiffusionPipeline(**others | {"text_encoder": None} | models, safety_checker=None)
    try:
        pipe.load_lora_weights(str(path.parent), weight_name=path.name, local_files_only=True)
    except ValueError as error:
        if "not been correctly renamed" not in str(error):
            raise
        raise CannotReadError("it reads plain LoRA only (export.format = 'lora', where that is exact)") from error

    def layer_of(name: str, base: Any) -> Any:
        component, _, inner = name.partition(".")
        layer = models[component].get_submodule(inner)
        return _wide(layer) if isinstance(layer, BaseTunerLayer) else None

    return layer_of


def _with_lycoris(models: dict[str, nn.Module], path: Path) -> LayerOf:
    """Module by module, as LyCORIS' own loader does once it has found a key; its forward, since its merge of LoHa and LoKr
    applies the scale twice."""
    from lycoris.modules import get_module, make_module

    logging.getLogger("LyCORIS").setLevel(logging.ERROR)
    tensors, _ = read(path)
    if not any(key.startswith("lora_") for key in tensors):
        raise CannotReadError("it reads kohya's key names only")
    sdxl = is_sdxl(models)

    def layer_of(name: str, base: Any) -> Any:
        key = kohya(name, sdxl)
        _refuse_input_axis(tensors.get(f"{key}.dora_scale"), base)
        algorithm, parameters = get_module(tensors, key)
        if algorithm is not None and algorithm.name in ROTATIONS:
            single = make_module(algorithm, parameters, key, copy.deepcopy(base).float()).eval()
            return lambda x: single(x.float()).double()
        module = None if algorithm is None else make_module(algorithm, parameters, key, base)
        return None if module is None else module.double().eval()

    return layer_of


def _refuse_input_axis(dora_scale: Tensor | None, base: Any) -> None:
    if dora_scale is not None and dora_scale.shape[0] != base.weight.shape[0]:
        raise CannotReadError("it writes DoRA along the input axis, but has no way to load it")


def _limit(path: Path, adapters: AdapterSet) -> float:
    """The limit of the coarsest precision: the file's, or the base's, to which diffusers rounds the adapters it loads; and
    the error that the file's form is known to make."""
    tensors, metadata = read(path)
    dtypes = {tensor.dtype for tensor in tensors.values()}
    dtypes |= {layer.base.weight.dtype for layer in adapters.layers.values()}
    rounding = max(LIMITS[dtype] for dtype in dtypes)
    return rounding + PROBED * recorded(metadata).largest_error


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings or bars of other readers on the screen: what they cannot do is in the verdicts."""
    from diffusers.utils import logging
    from transformers.utils import logging as text_logging

    before, bar = logging.get_verbosity(), text_logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    text_logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            text_logging.enable_progress_bar()


OURS = "morelora"
NEEDS: dict[str, tuple[str, ...]] = {OURS: (), "diffusers": ("diffusers", "peft"), "lycoris": ("lycoris",)}
READERS: dict[str, Callable[[dict[str, nn.Module], Path], LayerOf]] = {
    OURS: _with_morelora,
    "diffusers": _with_diffusers,
    "lycoris": _with_lycoris,
}
