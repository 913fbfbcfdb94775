"""Figures of ``docs/benchmarks.md`` that a command writes: each part stands between two comment lines with its name.

<!-- bench.speed sd15 -->
... what the command wrote ...
<!-- end of bench.speed sd15 -->
"""

from __future__ import annotations

from pathlib import Path

from morelora.atomic import write_text

BENCHMARKS = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


def write_part(name: str, text: str, file: Path = BENCHMARKS) -> None:
    """Put ``text`` between the marks of part ``name``. Raises ``ValueError`` where the file has them not once each, in order."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    old = file.read_text(encoding="utf-8")
    before, found, rest = old.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed or old.count(begin) != 1 or old.count(end) != 1:
        raise ValueError(
            f"{file} needs the lines {begin!r} and {end!r} once each, in this order: add them where the part belongs"
        )
    write_text(file, f"{before}{begin}{text.rstrip()}\n{end}{after}")
