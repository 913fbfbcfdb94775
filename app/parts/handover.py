"""What goes with a file that is given to others: lines to paste, checksums, and the programs that read it back."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from app.page import note
from app.parts.facts import facts
from app.text import say
from trainer.errors import InputError
from trainer.run import slug

PROGRAMS = ("a1111", "comfyui", "diffusers")
FAITHFUL = 0.05
"""Largest relative error of the change with which a reader still shows the style; rounding makes a thousandth."""

Verdict = Mapping[str, Any]


def lines(name: str, trigger: str, verdicts: Sequence[Verdict]) -> list[str]:
    """What to paste in ``PROGRAMS``' order; where diffusers does not read the file, Python that does."""
    try:
        stem = slug(name)
    except InputError:
        return [""] * len(PROGRAMS)
    file, words = f"{stem}.safetensors", " ".join(trigger.split())
    python = f"pipe.load_lora_weights('.', weight_name={file!r})"
    if any(each["reader"] == "diffusers" and not is_faithful(each) for each in verdicts):
        python = f"import morelora\nmorelora.load(pipe, {file!r})"
    return [
        f"<lora:{stem}:1>{', ' * bool(words)}{words}",
        say("export.comfyui", file=file) + (f" · {words}" if words else ""),
        python + (f"\npipe({f'{words}, …'!r})" if words else ""),
    ]


def is_faithful(verdict: Verdict) -> bool:
    """Whether a reader makes about the change that was learnt."""
    return isinstance(verdict["error"], int | float) and verdict["error"] <= FAITHFUL


def checksum(found: Mapping[str, str]) -> str:
    """The file's own, and the short ones that model sites and web UIs show."""
    rows = facts([("SHA-256", found["sha256"]), ("AutoV2", found["autov2"]), ("AutoV3, A1111", found["autov3"])])
    return f"<h3>{html.escape(say('export.checksum'))}</h3>{rows}"


def readers(verdicts: Sequence[Verdict]) -> str:
    """Which programs loaded the file, and what they made of it."""
    shown = [note(f"{each['reader']}: {each['message']}", "good" if is_faithful(each) else "warn") for each in verdicts]
    read = "".join(shown) or note(say("export.not_read"), "warn")
    return f"<h3>{html.escape(say('export.readers'))}</h3>{read}<p class='quiet'>{html.escape(say('export.others'))}</p>"
