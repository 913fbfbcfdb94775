"""The project's documents as the guide's page shows them: links between them work there, nothing comes from elsewhere."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from app.page import address
from trainer.presets import ROOT, read_text

FOLDER = ROOT / "docs"
FIRST = "guide.md"
TEXTS = (".md", ".yaml", ".toml")
"""Files that are shown; all but the first kind as they stand."""
PICTURES = (".png", ".jpg", ".webp")
CODE = r"^```.*?^```[^\n]*$|`[^`\n]*`"
LINK = r"(?P<mark>!?)\[(?P<words>[^\]\n]*)\]\((?P<target>[^)\s]+)\)"
PARTS = re.compile(f"{CODE}|{LINK}", re.DOTALL | re.MULTILINE)
"""Code, in which nothing is a link, and links."""
HEADING = re.compile(r"^(#{1,2}) +(.+?) *$", re.MULTILINE)


@dataclass(frozen=True)
class Document:
    """A text below ``docs``; its name is its path there, such as ``accelerate/two-gpus.yaml``."""

    name: str
    file: Path

    @property
    def title(self) -> str:
        """The first heading, or the name where there is none."""
        return next((text for _, text in headings(read_text(self.file))), self.name) if self.is_page else self.name

    @property
    def is_page(self) -> bool:
        """Whether it is written to be read, and stands in the list."""
        return self.file.suffix == ".md"


def documents(folder: Path = FOLDER) -> dict[str, Document]:
    """Every document by name, the guide first. Links out of the folder are none."""
    inside = folder.resolve()
    files = [file for file in folder.rglob("*") if file.suffix in TEXTS and file.resolve().is_relative_to(inside)]
    names = [file.relative_to(folder).as_posix() for file in files if file.is_file()]
    names.sort(key=lambda name: (name != FIRST, name))
    return {name: Document(name, folder / name) for name in names}


def shown(document: Document, known: Mapping[str, Document], folder: Path = FOLDER) -> str:
    """Its Markdown, with pictures and links to ``known`` documents as the page needs them."""
    text = read_text(document.file)
    if not document.is_page:
        return f"# {document.name}\n```{document.file.suffix[1:]}\n{text}\n```"
    return _linked(text, document.name, known, folder)


def _linked(text: str, name: str, known: Mapping[str, Document], folder: Path) -> str:
    def placed(found: re.Match[str]) -> str:
        is_picture, words, target = bool(found["mark"]), found["words"], found["target"]
        if target is None or (not is_picture and "://" in target):
            return found[0]
        path, _, place = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
        if is_picture:
            file = (folder / path).resolve()
            held = file.suffix in PICTURES and file.is_relative_to(folder.resolve()) and file.is_file()
            return f"![{words}]({address(file)})" if held else words
        return f"[{words}]({reference(path, place)})" if path in known else words

    return PARTS.sub(placed, text)


def reference(name: str, place: str = "") -> str:
    """The address of a document in the page, and of a heading in it by its ``slug``: gradio puts ``h-`` before those."""
    return f"./guide?doc={quote(name, safe='')}{f'#h-{place}' * bool(place)}"


def headings(text: str) -> Iterator[tuple[int, str]]:
    """Depth and text of the headings of the first two depths, outside of code."""
    for part in re.sub(
        CODE, lambda found: found[0].strip("`") if "\n" not in found[0] else "", text, flags=re.DOTALL | re.MULTILINE
    ).splitlines():
        found = HEADING.match(part)
        if found:
            yield len(found[1]), found[2]


def slug(heading: str) -> str:
    """What a link names a heading by, as on GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
