"""An adapter file as HTML, from what ``trainer.file_tools.examine`` found. Everything in a file is foreign, and is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from app.page import note
from app.parts.chart import COLOURS, Series, chart
from app.parts.facts import facts
from app.text import say

SHOWN = 6
"""Layers and tensors that are named of a kind of fault."""
LONGEST = 2000
"""Characters of a metadata entry."""

Values = Mapping[str, Any]


def what(found: Values) -> str:
    """What the file is, who reads it, and what is wrong with it."""
    base = f"{found['family'] or say('inspect.unknown')}{', ' * bool(found['base'])}{found['base']}"
    rows = [
        ("file", f"{found['file']}, {found['bytes'] / 2**20:.2f} MiB"),
        ("algorithm", counted(found["algorithms"])),
        ("base", base),
        ("format", f"{', '.join(found['names'])} ({', '.join(found['kinds'])})"),
        ("rank", counted(found["ranks"])),
        ("alpha", counted(found["alphas"])),
        ("dtype", counted(found["precision"])),
        ("layers", f"{len(found['layers'])}, {found['numbers']:,}"),
        ("words", ", ".join(found["words"])),
        ("readers", ", ".join(found["read_by"])),
        ("hashes", hashes(found["checksums"])),
    ]
    return facts((say(f"inspect.fact.{key}"), value) for key, value in rows) + "".join(faults(found))


def faults(found: Values) -> Iterable[str]:
    """Layers without a change, values that are no numbers, tensors that belong nowhere."""
    for key, kind in (("not_finite", "bad"), ("unread", "warn"), ("dead", "warn")):
        names = found[key]
        if names:
            more = f" (+{len(names) - SHOWN})" if len(names) > SHOWN else ""
            yield note(f"{say(f'inspect.fault.{key}', count=len(names))}: {', '.join(names[:SHOWN])}{more}", kind)


def counted(counts: Mapping[str, int]) -> str:
    """``8, 16``; with how many of each where there are several."""
    return next(iter(counts)) if len(counts) == 1 else ", ".join(f"{key} ({count}×)" for key, count in counts.items())


def hashes(found: Mapping[str, str]) -> str:
    """As web UIs and model sites name the file."""
    return f"sha256 {found['sha256']} · AutoV2 {found['autov2']} · AutoV3 {found['autov3']}"


def metadata(found: Values) -> str:
    """The file's text, without the recipe, which stands beside it."""
    entries = sorted(found["metadata"].items())
    title = f"<h3>{html.escape(say('inspect.metadata'))}</h3>"
    return (
        f"{title}<div class='scroll'>{facts((key, clipped(text)) for key, text in entries) or note(say('inspect.no_text'))}</div>"
    )


def clipped(text: str) -> str:
    """A long text's beginning."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … (+{len(text) - LONGEST})"


def norms(found: Values) -> str:
    """How much each block is changed, as bars beside the largest."""
    blocks = found["blocks"]
    most = max((block["norm"] for block in blocks.values()), default=0.0)
    if not 0 < most < float("inf"):
        return ""
    rows = "".join(
        f"<tr><th scope='row'>{html.escape(name)}</th>"
        f"<td class='wide'><div class='bar'><div style='width:{100 * block['norm'] / most:.1f}%'></div></div></td>"
        f"<td>{block['norm']:.3g}</td></tr>"
        for name, block in blocks.items()
    )
    title = html.escape(say("inspect.norms"))
    return f"<figure class='chart'><figcaption><b>{title}</b></figcaption><table class='bars'>{rows}</table></figure>"


def spectrum(found: Values) -> str:
    """The singular values of the layers that change most, and how many of them matter."""
    layers = [layer for layer in found["layers"] if layer.get("singular_values")]
    strongest = sorted(layers, key=lambda layer: -layer["norm"])[:COLOURS]
    curves = [Series(layer["name"], list(enumerate(layer["singular_values"], 1))) for layer in strongest]
    drawn = chart(curves, say("inspect.index"), say("inspect.spectrum"), from_zero=True)
    return drawn + note(summary(layers)) if layers else note(say("inspect.no_spectrum"))


def summary(layers: Sequence[Values]) -> str:
    """Ranks as medians over the layers, and the one that keeps most of all of them."""
    return say(
        "inspect.ranks",
        effective=median(layer["effective_rank"] for layer in layers),
        needed=median(layer["rank_of_energy"] for layer in layers),
        keep=max(layer["rank_of_energy"] for layer in layers),
    )
