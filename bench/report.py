"""Parts of documents that a command writes, of ``docs/benchmarks.md`` above all: each between two comment lines with its name.

<!-- bench.speed sd15 -->
... what the command wrote ...
<!-- end of bench.speed sd15 -->
"""

from __future__ import annotations

import datetime
import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from morelora.atomic import write_text

RESULTS = Path(__file__).parent / "results"
BENCHMARKS = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


def write_part(name: str, text: str, file: Path = BENCHMARKS) -> None:
    """Put ``text`` between the marks of part ``name``. Raises ``ValueError`` where the file has them not once each, in order."""
    before, _, after = _split(name, file)
    write_text(file, f"{before}{text.rstrip()}\n{after}")


def part(name: str, file: Path = BENCHMARKS) -> str:
    """What stands between the marks of part ``name``. Raises as ``write_part``."""
    return _split(name, file)[1].rstrip()


def _split(name: str, file: Path) -> tuple[str, str, str]:
    """A file before a part, with its first mark; the part; and the rest, from the last mark."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    old = file.read_text(encoding="utf-8")
    before, found, rest = old.partition(begin)
    inside, closed, after = rest.partition(end)
    if not found or not closed or old.count(begin) != 1 or old.count(end) != 1:
        raise ValueError(
            f"{file} needs the lines {begin!r} and {end!r} once each, in this order: add them where the part belongs"
        )
    return before + begin, inside, end + after


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    cpu = platform.processor() or "unknown"
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"model name\s*: (.*)", info.read_text())
        cpu = found.group(1).strip() if found else cpu
    names = ("torch", "diffusers", "lycoris-lora", "peft")
    return {
        "cpu": cpu,
        "flags": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
        "command": " ".join([f"python -m bench.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def setting(head: dict[str, Any]) -> str:
    """``machine`` as a sentence."""
    versions = ", ".join(f"{name} {number}" for name, number in head["versions"].items())
    return f"`{head['command']}`, {head['date']}, {head['cpu']} ({head['flags']}), {head['threads']} thread(s), {versions}."
