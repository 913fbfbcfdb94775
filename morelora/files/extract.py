"""The difference of two base models as an adapter: of each layer the nearest product, or the nearest Kronecker product.

Kronecker  ``min ||D - w1 (x) w2||``: with the entries of ``D`` in the order ``(p q, m c / p q)`` a product of two vectors, so the
           first singular triplet is the nearest. Source: Van Loan, Pitsianis 1993.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from morelora.adapted import Adapted
from morelora.adapter import Tensors
from morelora.errors import FormatError
from morelora.factors import divisors_near
from morelora.files.changes import built, low_rank
from morelora.files.checkpoint import Checkpoint
from morelora.files.opened import Outline, adapter_set
from morelora.files.progress import progress
from morelora.files.writing import MADE, Output, Report, write_adapter
from morelora.lowrank import Cut, Spectrum
from morelora.site import NormSite
from morelora.targets import GROUPS, TEXT_GROUP

VERSION = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}


@dataclass(frozen=True)
class Extraction:
    """How differences become adapters."""

    cut: Cut
    algorithm: str = "lora"
    """``lora`` or ``lokr``."""
    factor: int = 8
    """Of LoKr: the divisor nearest to it is the small matrix's side."""
    layers: str = "all"
    """A group of ``morelora.targets``."""


def extract(base: Checkpoint, tuned: Checkpoint, output: Output, how: Extraction) -> Report:
    """Write ``tuned - base``. Layers without a difference are left out; what no layer of an adapter holds is counted and said.

    Raises:
        FormatError: the models are of different kinds, or do not differ.
    """
    _refuse_others(base, tuned)
    chosen = re.compile(f"{GROUPS[how.layers]}|{TEXT_GROUP}")
    common = [name for name in base.layers if name in tuned.layers and chosen.search(name)]
    names = [name for name in common if not isinstance(base.layers[name], NormSite)]
    layers: dict[str, Adapted] = {}
    for name in progress(names, "extracting"):
        change = tuned.weight(name) - base.weight(name)
        if change.any():
            layers[name] = _extracted(Outline(name, base.layers[name]), change, how)
    if not layers:
        raise FormatError(f"{base.path} and {tuned.path} do not differ in any of {len(names)} layers: nothing to extract")
    told = {"command": "extract", "from": [base.path.name, tuned.path.name], "algorithm": how.algorithm}
    version = VERSION.get(base.family, "")
    metadata = {MADE: json.dumps(told, ensure_ascii=False), "ss_base_model_version": version, "ss_v2": str(base.family == "sd2")}
    adapters = adapter_set(layers, base.family)
    report = write_adapter(adapters, output, metadata, lambda name: tuned.weight(name) - base.weight(name))
    return replace(report, notes=[*report.notes, *_left_out(base, tuned, set(layers))])


def _refuse_others(base: Checkpoint, tuned: Checkpoint) -> None:
    if base.family != tuned.family:
        raise FormatError(f"{base.path} is {base.family} and {tuned.path} is {tuned.family}: they have no difference")
    odd = [name for name in base.layers.keys() & tuned.layers.keys() if base.layers[name] != tuned.layers[name]]
    if odd:
        raise FormatError(f"{base.path} and {tuned.path} have different shapes at {min(odd)}: they have no difference")


def _extracted(outline: Outline, change: Tensor, how: Extraction) -> Adapted:
    if how.algorithm == "lokr":
        return built(outline, nearest_kronecker(change, how.factor, how.cut))
    spectrum = Spectrum.of(change)
    return low_rank(outline, spectrum.cut(how.cut.rank_of(spectrum.values)))


def nearest_kronecker(change: Tensor, factor: int, cut: Cut) -> Tensors:
    """LoKr's tensors with the smallest ``||change - w1 (x) w2||``, the block then cut in rank; full where no cut is asked for."""
    (p, rows), (q, columns) = divisors_near(change.shape[0], factor), divisors_near(change.shape[1], factor)
    blocks = change.flatten(1).view(p, rows, q, -1).permute(0, 2, 1, 3).reshape(p * q, -1)
    vectors = torch.linalg.eigh((blocks @ blocks.T).double()).eigenvectors[:, -1].to(blocks.dtype)
    small, block = vectors.view(p, q), (vectors @ blocks).view(rows, -1)
    root = block.norm().sqrt()
    small, block = small * root, block / root
    if cut == Cut():
        return {"lokr_w1": small, "lokr_w2": block.view(rows, columns, *change.shape[2:])}
    spectrum = Spectrum.of(block)
    left, right = spectrum.cut(cut.rank_of(spectrum.values))
    return {"lokr_w1": small, "lokr_w2_a": left, "lokr_w2_b": right, "alpha": torch.tensor(float(left.shape[1]))}


def _left_out(base: Checkpoint, tuned: Checkpoint, held: set[str]) -> list[str]:
    """What differs and stands in no layer of the adapter, counted."""
    rest: list[str] = []
    squares = {True: 0.0, False: 0.0}
    for key in progress(list(base.entries), "comparing the rest"):
        if key not in tuned.entries or base.shape(key) != tuned.shape(key):
            continue
        is_held = key.endswith(".weight") and key.removesuffix(".weight") in held
        square = float((tuned.read(key).double() - base.read(key).double()).square().sum())
        squares[is_held] += square
        rest += [key] if square and not is_held else []
    if not rest:
        return []
    share = squares[False] / (squares[True] + squares[False])
    return [
        f"Left out: {len(rest)} tensors that differ and that an adapter of these layers does not hold (norms, biases, input and "
        f"output layers), such as {rest[0]}: {share:.2g} of the squared difference"
    ]
