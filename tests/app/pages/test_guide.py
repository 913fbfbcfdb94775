"""The guide's page: what an address opens, and the list beside it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from app.documents import FOLDER
from app.pages import guide


def asked(**query: str):
    return SimpleNamespace(query_params=query)


@pytest.mark.parametrize("name", ["", "../secret.md", "/etc/passwd", "none.md", "guide.md"])
def test_an_unknown_name_opens_the_guide(name):
    contents, text = guide.enter(asked(doc=name))
    assert text.startswith("# Guide\n") and "href='./guide?doc=guide.md' aria-current='page'" in contents


def test_the_documents_are_listed_once_a_view(monkeypatch):
    walked, walk = [], Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda folder, pattern: walked.append(folder) or walk(folder, pattern))
    guide.enter(asked(doc="guide.md"))
    assert walked == [FOLDER]


def test_a_document_is_opened_with_its_parts_in_the_list():
    contents, text = guide.enter(asked(doc="formats.md"))
    assert text.startswith("# Adapter files\n")
    assert "<a class='part' href='./guide?doc=formats.md#h-reading-files'>Reading files</a>" in contents
    assert contents.count("aria-current") == 1 and contents.count("<a href=") == len(list(FOLDER.glob("*.md")))


def test_a_file_that_a_document_links_to_is_opened_too():
    contents, text = guide.enter(asked(doc="accelerate/two-gpus.yaml"))
    assert text.startswith("# accelerate/two-gpus.yaml\n```yaml\n") and "aria-current" not in contents
