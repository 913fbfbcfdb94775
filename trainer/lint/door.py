"""``--lint``: the findings and notes of a folder on the terminal and, where asked, in a JSON file."""

from __future__ import annotations

import json
from pathlib import Path

import rich.console

from morelora import atomic
from trainer.config import Config
from trainer.console import PLAIN_WIDTH
from trainer.errors import ExitCode
from trainer.lint.report import plain, summary, table
from trainer.lint.survey import lint_folder


def lint_and_show(config: Config, file: Path | None) -> ExitCode:
    """``DONE`` without errors and warnings, ``FAULTS`` with any; remarks and notes are none. Raises ``InputError``."""
    findings, notes = lint_folder(config)
    shown = plain(findings)
    out = rich.console.Console(highlight=False)
    if not out.is_terminal:
        out.width = PLAIN_WIDTH
    if shown:
        out.print(table(shown))
    for line in (*(f"Note: {note}" for note in notes), summary(shown)):
        out.print(line, markup=False, soft_wrap=True)
    if file:
        told = {"findings": shown, "notes": notes}
        atomic.write_text(file, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    return ExitCode.FAULTS if any(finding.is_fault for finding in findings) else ExitCode.DONE
