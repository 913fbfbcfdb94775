"""Names and what they are, as a table of two columns. Every text is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """The table; rows without a value are left out, and '' where none is left."""
    shown = [(name, value) for name, value in rows if value]
    cells = "".join(f"<tr><th scope='row'>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in shown)
    return f"<table class='plain'>{cells}</table>" if cells else ""
