"""Findings in words: a table for people, JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from trainer.data.problems import count, some
from trainer.lint.finding import Finding

COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}


def plain(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Findings as JSON has them: ``rule``, ``severity``, ``pictures``, ``problem``, ``fix``."""
    return [asdict(finding) | {"severity": str(finding.severity), "pictures": list(finding.pictures)} for finding in findings]


def table(findings: Sequence[dict[str, Any]]) -> Table:
    """One row a finding, as ``plain`` gives them."""
    shown = Table(title="Faults in pictures and captions", title_justify="left", show_lines=False)
    shown.add_column("severity", no_wrap=True)
    for title in ("pictures", "rule", "problem", "what to do"):
        shown.add_column(title, overflow="fold")
    for finding in findings:
        severity = f"[{COLOURS[finding['severity']]}]{finding['severity']}[/]"
        cells = (some(finding["pictures"]) or "the set", finding["rule"], finding["problem"], finding["fix"])
        shown.add_row(severity, *(cell.replace("[", r"\[") for cell in cells))
    return shown


def summary(findings: Sequence[dict[str, Any]]) -> str:
    """``2 errors, 3 warnings, 1 remark``."""
    counts = Counter(finding["severity"] for finding in findings)
    words = {"error": "error", "warning": "warning", "info": "remark"}
    parts = [count(counts[severity], word) for severity, word in words.items() if counts[severity]]
    return ", ".join(parts) or "no fault found"
