"""docs/algorithms.md from the algorithms' docstrings, their options, and what was measured of them."""

from __future__ import annotations

import json
from typing import Any

from morelora import ALGORITHMS
from morelora.analysis.commands import form_rows
from morelora.analysis.costs import described, title

HEAD = """# Algorithms

Written by `python -m bench.algorithms` from the code: formulas, starts and sources stand at the head of each file in
`morelora/algorithms/`, numbers are counted on fresh adapters. Do not edit by hand.

A layer has a weight `W (m, c)`: `m` outputs and `c = n` inputs, of a convolution `c = n kh kw`; `N` positions go through it.
`r` is the rank, `s` the scale. Every algorithm starts as the unchanged model, and strength `t` means `W + t (W' - W)`. What each
option does is in [settings.md](settings.md), which program reads which file in [formats.md](formats.md), how well and how fast
they learn in [benchmarks.md](benchmarks.md).

## Which one

{uses}

## What they cost

Default options, on the layers of the UNet that are adapted by default (`adapter.layers = "transformer"`) and bear the algorithm.
*Trained*: numbers that get a gradient. *Rank*: of a change by random values on a layer of 640 x 640; in brackets the effective
rank, which counts directions by their weight. *Operations*: of products, with 1,024 positions through that layer, beside those of
the frozen layer and of the gradient of its input; what is no product counts nothing, and the time of a step is in the benchmarks.
*Kept*: bytes for backward on the shipped base (batch 8), beyond the frozen model's. *File*: for web UIs, of the shipped base, in
fp16. In brackets: beside LoRA's.

{costs}

![Numbers, rank and operations of every algorithm](algorithms-cost.png)

## Rank of the forms

Random factors against the bound of the rank, in the cases of MoreLoRA's design notes. `tanh` has no bound by its form.

{forms}

![Singular values of random changes](algorithms-spectrum.png)

Above: one random change of 256 x 256 by each form, of 16 (256 + 256) numbers each (Kronecker: fewer; k = 4). The products of
Hadamard's form spread over more directions than LoRA's; the more they are, the less falls on each.

"""


def page(report: dict[str, Any]) -> str:
    """The whole page."""
    rows = report["algorithms"]
    uses = "\n".join(f"- **[{name}](#{name})**: {_use(name)}" for name in ALGORITHMS)
    head = HEAD.format(uses=uses, costs="\n".join(_costs(rows)), forms="\n".join(_forms()))
    return head + "\n".join(_section(name, rows[name]) for name in ALGORITHMS)


def _table(heads: list[str], lines: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *lines)]


def _costs(rows: dict[str, dict[str, Any]]) -> list[str]:
    lora = rows["lora"]
    heads = [
        "",
        "trained, SD 1.5",
        "trained, shipped base",
        "rank",
        "operations, forward",
        "with backward",
        "kept, MB",
        "file, KiB",
    ]
    lines = [
        [
            f"[{name}](#{name})",
            f"{row['sd15']:,} ({_beside(row, lora, 'sd15')})",
            f"{row['pocket']:,}",
            "" if row["rank"] is None else f"{row['rank']} ({row['effective']:.3g})",
            f"+{100 * row['forward']:.1f}%",
            f"+{100 * row['training']:.1f}% ({_beside(row, lora, 'training')})",
            f"{row['kept'] / 1e6:.1f} ({_beside(row, lora, 'kept')})",
            f"{row['file'] / 1024:,.0f} ({_beside(row, lora, 'file')})",
        ]
        for name, row in rows.items()
    ]
    return _table(heads, lines)


def _beside(row: dict[str, Any], lora: dict[str, Any], key: str) -> str:
    return f"{row[key] / lora[key]:.2g}" if row[key] < 10 * lora[key] else f"{row[key] / lora[key]:.0f}"


def _forms() -> list[str]:
    lines = []
    for row in form_rows():
        size, share = f"{row['m']} x {row['n']}", f"{100 * row['share']:.1f}%"
        told = [row["form"], size, row["r"], row["k"], f"{row['parameters']:,}", share, row["bound"], row["rank"]]
        lines.append([*map(str, told), f"{row['effective']:.0f}"])
    return _table(["form", "m x n", "r", "k", "numbers", "of the weight's", "bound", "rank", "effective"], lines)


def _use(name: str) -> str:
    return plain(described(ALGORITHMS[name]).get("Use", title(ALGORITHMS[name])))


def _section(name: str, row: dict[str, Any]) -> str:
    kind = ALGORITHMS[name]
    told = described(kind)
    options = [_option(key, field.get_default(call_default_factory=True)) for key, field in kind.Options.model_fields.items()]
    decomposed = "possible" if kind.decomposes else f"has no meaning around {name}, {kind.undecomposed}"
    trained = f"{row['sd15']:,} numbers on SD 1.5's UNet, {row['pocket']:,} on the shipped base's"
    lines = [
        f"## {name}",
        "",
        f"{plain(title(kind))}.",
        "",
        *(f"- **{field}**: {plain(text)}" for field, text in told.items()),
        f"- **Options**: {', '.join(options)}",
        f"- **Weight decomposition (DoRA)**: {decomposed}",
        f"- **Trained tensors**, on {_layer(row)}: {_shapes(row['trained'])}; {trained}",
        f"- **In the file{'' if kind.mergeable else ' (sidecar)'}**, of the same layer: {_shapes(row['written'])}",
        "",
    ]
    return "\n".join(lines)


def _layer(row: dict[str, Any]) -> str:
    return "a norm of 640" if row["rank"] is None and "w_norm" in row["written"] else "a linear layer of 640 x 640"


def _option(name: str, value: Any) -> str:
    return f"`{name}` empty" if value is None else f"`{name} = {json.dumps(value)}`"


def _shapes(tensors: dict[str, list[int]]) -> str:
    return ", ".join(f"`{leaf} ({', '.join(map(str, shape))})`" if shape else f"`{leaf}`" for leaf, shape in tensors.items())


def plain(text: str) -> str:
    """A docstring's text as Markdown."""
    return text.replace("``", "`")
