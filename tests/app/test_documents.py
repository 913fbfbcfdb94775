"""The project's documents: every link of theirs leads somewhere, and nothing comes from outside the folder."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest

from app import documents
from app.documents import FOLDER, PARTS, Document, headings, shown, slug

KNOWN = documents.documents()
PAGES = [document for document in KNOWN.values() if document.is_page]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    (tmp_path / "secret.md").write_text("# secret")
    (tmp_path / "secret.png").touch()
    (folder / "away.md").symlink_to(tmp_path / "secret.md")
    (folder / "away.png").symlink_to(tmp_path / "secret.png")
    (folder / "own.png").touch()
    (folder / "deep" / "set.yaml").write_text("a: 1\n")
    (folder / "guide.md").write_text("# The `guide`\n\n## One, two\n")
    return folder


def told(folder, text: str, name: str = "a.md") -> str:
    (folder / name).write_text(text)
    return shown(Document(name, folder / name), documents.documents(folder), folder)


def test_the_guide_comes_first_and_titles_are_headings(folder):
    (folder / "a.md").write_text("```\n# no heading\n```\n# Another\n")
    found = documents.documents(folder)
    assert [each.title for each in found.values()] == ["The guide", "Another", "deep/set.yaml"]


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("[x](guide.md)", "[x](./guide?doc=guide.md)"),
        ("[x](guide.md#one-two)", "[x](./guide?doc=guide.md#h-one-two)"),
        ("[x](deep/../deep/set.yaml)", "[x](./guide?doc=deep%2Fset.yaml)"),
        ("[x](#one-two)", "[x](./guide?doc=a.md#h-one-two)"),
        ("[x](https://example.org/a)", "[x](https://example.org/a)"),
        ("[`x`](guide.md)", "[`x`](./guide?doc=guide.md)"),
        ("`[x](guide.md)`", "`[x](guide.md)`"),
        ("```\n[x](guide.md)\n```\n", "```\n[x](guide.md)\n```\n"),
        ("[x](missing.md)", "x"),
        ("[x](away.md)", "x"),
        ("[x](../secret.md)", "x"),
        ("[x](/etc/passwd)", "x"),
        ("![x](https://example.org/a.png)", "x"),
        ("![x](away.png)", "x"),
        ("![x](../secret.png)", "x"),
        ("![x](guide.md)", "x"),
    ],
)
def test_links_stay_in_the_page_and_pictures_in_the_folder(folder, link, expected):
    assert told(folder, link) == expected


def test_a_picture_of_the_folder_is_asked_for_by_its_address(folder):
    assert told(folder, "![x](own.png)") == f"![x](./gradio_api/file={folder}/own.png)"


def test_links_are_read_from_where_a_document_stands(folder):
    assert told(folder, "[x](../guide.md) ![y](../own.png) [z](guide.md)", "deep/b.md") == (
        f"[x](./guide?doc=guide.md) ![y](./gradio_api/file={folder}/own.png) z"
    )


def test_a_file_that_is_no_page_is_shown_as_it_stands(folder):
    assert shown(Document("deep/set.yaml", folder / "deep" / "set.yaml"), {}, folder) == "# deep/set.yaml\n```yaml\na: 1\n\n```"


@pytest.mark.parametrize("document", PAGES, ids=lambda document: document.name)
def test_every_link_and_picture_of_the_projects_own_documents_is_there(document):
    """Links to files that are no documents of this folder would be shown as mere words."""
    found = [each for each in PARTS.finditer(document.file.read_text(encoding="utf-8")) if each["target"]]
    links = [(each["mark"], each["target"]) for each in found if "://" not in each["target"]]
    text = shown(document, KNOWN)
    assert text.count("](./gradio_api/file=") == sum(bool(mark) for mark, _ in links)
    found = re.findall(r"\]\(\./guide\?doc=([^)#]+)(?:#h-)?([^)]*)\)", text)
    assert len(found) == sum(not mark for mark, _ in links)
    for name, place in found:
        other = KNOWN[unquote(name)]
        assert not place or place in {slug(words) for _, words in headings(other.file.read_text(encoding="utf-8"))}


def test_nothing_is_fetched_from_elsewhere():
    places = re.findall(r"!\[[^\]]*\]\(([^)]*)", "".join(shown(page, KNOWN) for page in PAGES))
    assert places and all(place.startswith("./gradio_api/file=") for place in places)
    assert not [path for path in FOLDER.rglob("*.md") if re.search(r"<(img|script|iframe|link)\b", path.read_text("utf-8"))]
