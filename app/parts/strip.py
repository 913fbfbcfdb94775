"""Pictures with their names, in rows and columns or one after the other, as HTML.

Every text is escaped, and every file is asked for by its address.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.page import address


@dataclass(frozen=True)
class Row:
    """A row's name and its pictures; None leaves a place empty."""

    name: str
    files: Sequence[Path | None]


def grid(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """A table of pictures; '' where there are no rows."""
    if not rows:
        return ""
    head = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in columns)
    body = "".join(f"<tr><th scope='row'>{html.escape(row.name)}</th>{_cells(row)}</tr>" for row in rows)
    return f"<div class='grid'><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def strip(pictures: Sequence[tuple[str, Path]]) -> str:
    """Pictures beside each other, as many in a line as there is room for."""
    figures = (f"<figure>{picture(file, name)}<figcaption>{html.escape(name)}</figcaption></figure>" for name, file in pictures)
    return f"<div class='strip'>{''.join(figures)}</div>"


def row(files: Sequence[Path], alt: str) -> str:
    """Pictures beside each other without names; '' where there are none."""
    return f"<div class='strip'>{''.join(picture(file, alt) for file in files)}</div>" if files else ""


def download(file: Path, text: str) -> str:
    """A link that saves a file of a run."""
    return f"<a class='download' href='{html.escape(address(file))}' download>{html.escape(text)}</a>"


def _cells(row: Row) -> str:
    return "".join(f"<td>{picture(file, row.name)}</td>" for file in row.files)


def picture(file: Path | None, alt: str) -> str:
    """One picture, which a click opens by itself."""
    if file is None:
        return ""
    place = html.escape(address(file))
    return f"<a class='picture' href='{place}' target='_blank'><img loading='lazy' alt='{html.escape(alt)}' src='{place}'></a>"
