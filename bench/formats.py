"""Which program reads which form of every algorithm: the table of docs/formats.md.

    python -m bench.formats                    two minutes

Every algorithm of the registry, by itself, with weight decomposition where it has any, and with the options of ``OPTIONS``,
stands with random values on a few layers of the shipped base. Each form that can hold it is written in fp32 and read by morelora,
lycoris-lora and diffusers, whose largest relative error is measured; what the other programs read is
``morelora.formats.readers``, and what they do with the rest is told below. A new algorithm is in the tables by itself.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Generator, nn

from bench.fitting import fitting
from bench.report import RESULTS, machine, write_part
from bench.step import POCKET
from morelora import ALGORITHMS, AdapterSet, inject
from morelora.errors import FormatError
from morelora.formats import FORMS, auto, svd
from morelora.formats.container import write
from morelora.formats.readers import NATIVE, READERS, kinds
from morelora.weight_decompose import Axis
from trainer.config.output import WEB_UIS
from trainer.verify import LIMITS, OURS, verify

FILE = Path(__file__).resolve().parents[1] / "docs" / "formats.md"
REPORT = RESULTS / "formats.json"
PART = "bench.formats"
UNET = (
    r"^unet\.down_blocks\.0\.(resnets\.0\.(conv1|norm1)|attentions\.0\.(proj_in|.*(norm1|attn\d\.(to_[qk]|to_out\.0)|net\.2)))$"
)
TEXT = r"^text_encoder\..*layers\.0\.(self_attn|mlp)\.\w+(proj|\d)$"
RANK = 4
"""So small that LoKr's block is low-rank on these layers, as it is on real ones."""


@dataclass(frozen=True)
class Row:
    """What a line of a table is about."""

    algorithm: str
    axis: Axis | None = None
    options: dict[str, Any] = field(default_factory=dict)


OPTIONS = {
    "lora, `tucker`": Row("lora", None, {"tucker": True}),
    "lora, another `start`": Row("lora", None, {"start": "residual"}),
    "lora, DoRA on the output axis": Row("lora", "output"),
    "loha, `tucker`": Row("loha", None, {"tucker": True}),
    "loha, DoRA on the output axis": Row("loha", "output"),
    "lokr, `full_matrix`": Row("lokr", None, {"full_matrix": True}),
    "hadamard, `nonlinear`": Row("hadamard", None, {"k": 2, "nonlinear": "tanh"}),
    "ia3, `on_input = false`": Row("ia3", None, {"on_input": False}),
    "oft, `rescale`": Row("oft", None, {"rescale": True}),
    "boft, `rescale`": Row("boft", None, {"rescale": True}),
}
"""What makes another file of an algorithm."""

INPUT, OUTPUT = "input axis", "output axis"
INSTEAD: dict[str, tuple[tuple[str, str], ...]] = {
    "a1111": ((OUTPUT, "**wrong**"), ("glora", "ignored: it reads an older order of them"), ("own", "refused (s)")),
    "forge": ((OUTPUT, "**wrong**"), ("oft", "**dropped**"), ("own", "ignored (s)")),
    "comfyui": (
        (OUTPUT, "**wrong**"),
        ("oft", "right at strength 1, between 0 and 1 otherwise than here"),
        ("own", "ignored, logged (s)"),
    ),
    "invokeai": (
        (f"lora, {OUTPUT}", "**wrong**"),
        ("axis", "refused"),
        ("lokr", "applied, but its import refuses SD 1.5 files"),
        ("oft", "refused"),
        ("bias", "refused (s)"),
        ("glora", "refused"),
        ("own", "refused (s)"),
    ),
    "sdcpp": (
        (f"lora, {INPUT}", "magnitudes dropped, logged"),
        (f"lora, {OUTPUT}", "**wrong**"),
        ("axis", "**wrong** (s)"),
        ("lokr full", "read on linear layers, **wrong** on convolutions"),
        ("norm", "ignored (s)"),
        ("oft", "ignored (s)"),
        ("bias", "not tried"),
        ("glora", "ignored (s)"),
        ("own", "ignored (s)"),
    ),
}
"""What programs that are not run here do with a kind of tensors that they do not read: the first entry that is a part of its
name. Found once by running their own loading code; (s): read in their source alone."""

NAMES = {"a1111": "A1111", "forge": "Forge", "comfyui": "ComfyUI", "invokeai": "InvokeAI", "sdcpp": "sd.cpp"}
"""Programs whose users know them by another name."""


def rows() -> dict[str, dict[str, Row]]:
    """The lines of each table by its title."""
    return {
        "Algorithms with their default options": {name: Row(name) for name in ALGORITHMS},
        "With weight decomposition (DoRA) along the input axis, the default": {
            f"{name}, DoRA": Row(name, "input") for name, kind in ALGORITHMS.items() if kind.decomposes
        },
        "Options that make another file": OPTIONS,
    }


def models() -> dict[str, Any]:
    """The shipped base in fp32."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

    unet: Any = UNet2DConditionModel.from_pretrained(POCKET, torch_dtype=torch.float32)
    text: Any = CLIPTextModel.from_pretrained(POCKET.parent / "text_encoder", dtype=torch.float32)
    return {"unet": unet.eval().requires_grad_(False), "text_encoder": text.eval().requires_grad_(False)}


def adapted(frozen: Mapping[str, nn.Module], row: Row) -> AdapterSet:
    """The row's adapters with random values, on those layers that suit them."""
    schema = ALGORITHMS[row.algorithm].Options
    options = schema(**({"rank": RANK} if "rank" in schema.model_fields else {}) | row.options)
    adapters = inject(frozen, fitting(_layers(frozen), row.algorithm, options, row.axis), Generator().manual_seed(0))
    generator = Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return adapters


def _layers(frozen: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    named = {f"{component}.{path}": layer for component, model in frozen.items() for path, layer in model.named_modules()}
    return {name: layer for name, layer in named.items() if re.search(f"{UNET}|{TEXT}", name)}


def measured(frozen: Mapping[str, nn.Module], row: Row) -> dict[str, Any]:
    """Which forms hold the row, what ``auto`` takes for web UIs, and how each form is read."""
    adapters = adapted(frozen, row)
    possible = [form for form, encode in FORMS.items() if _can(encode, adapters)]
    report = {
        "auto": auto.choose(adapters, WEB_UIS)[0],
        "svd": _can(svd.refuse, adapters),
        "forms": {form: _form(adapters, form) for form in possible},
    }
    adapters.remove()
    return report


def _can(action: Callable[[AdapterSet], Any], adapters: AdapterSet) -> bool:
    try:
        action(adapters)
    except FormatError:
        return False
    return True


@torch.no_grad()
def _form(adapters: AdapterSet, form: str) -> dict[str, Any]:
    """The kinds of a form's tensors, and what the readers that run here make of its file."""
    tensors = {name: tensor.contiguous() for name, tensor in FORMS[form](adapters).items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter.safetensors"
        write(path, tensors, {})
        read = {
            found.reader: {"verdict": verdict(found, len(adapters)), "error": found.error} for found in verify(adapters, path)
        }
    return {"kinds": sorted(kinds(tensors)), "read": read}


def verdict(found: Any, layers: int) -> str:
    """What a reader made of a file, in few words."""
    if found.error is None:
        return "refused"
    if found.layers < layers:
        return "finds a part" if found.layers else "finds nothing"
    return "exact" if found.error <= LIMITS[torch.float32] else "**another change**"


def measure() -> dict[str, Any]:
    """All rows of all tables."""
    frozen = models()
    return {title: {name: measured(frozen, row) for name, row in lines.items()} for title, lines in rows().items()}


def fate(reader: str, told: dict[str, Any]) -> str:
    """``"exact"``, or what becomes of a form in a program."""
    if reader in told["read"]:
        return told["read"][reader]["verdict"]
    unread = [kind for kind in told["kinds"] if kind not in (READERS[reader] or ())]
    whats = [next(what for part, what in INSTEAD[reader] if part in kind) for kind in unread if not kind.startswith("peft")]
    return ", ".join(dict.fromkeys(whats)) if whats else "ignored" if unread else "exact"


def cell(reader: str, forms: dict[str, Any]) -> str:
    """The forms that a program reads exactly; where the default is none of them, what becomes of it; the error where measured."""
    fates = {form: fate(reader, told) for form, told in forms.items()}
    if reader != OURS and len(fates) > 1 and not NATIVE.issuperset(forms["sidecar"]["kinds"]):
        del fates["sidecar"]
    exact = [form for form, what in fates.items() if what == "exact"]
    every = reader == OURS and len(exact) == len(forms) > 1
    parts = ["every form" if every else ", ".join(f"`{form}`" for form in exact)] * bool(exact)
    errors = [forms[form]["read"][reader]["error"] for form in exact if reader in forms[form]["read"]]
    if errors:
        parts[0] += f" ({max(errors):.0e})"
    usual = next(iter(fates))
    return "; ".join([*parts, *[f"`{usual}` {fates[usual]}"] * (fates[usual] != "exact")])


def table(report: dict[str, Any]) -> str:
    """All tables as Markdown."""
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    lines = [f"Written by `python -m bench.formats` ({versions}); do not edit by hand."]
    heads = ["trained as", "`auto`", *(NAMES.get(reader, reader) for reader in READERS), "approximate"]
    for title, found in report["tables"].items():
        lines += ["", f"### {title}", "", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
        for name, told in found.items():
            chosen = "none" if told["auto"] == "svd" and not told["svd"] else f"`{told['auto']}`"
            cells = [name, chosen, *(cell(reader, told["forms"]) for reader in READERS), "`svd`" if told["svd"] else "none"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Measure, write the JSON and the tables."""
    report = {"versions": machine()["versions"], "tables": measure()}
    REPORT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    write_part(PART, table(report), FILE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
