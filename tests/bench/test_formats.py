"""The table of docs/formats.md: fresh, with every algorithm, and true of the readers that run here."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("lycoris")
pytest.importorskip("peft")

from bench import formats  # noqa: E402
from bench.report import part  # noqa: E402
from morelora.formats.readers import READERS  # noqa: E402

REPORT = json.loads(formats.REPORT.read_text(encoding="utf-8"))
ROWS = {(title, name): row for title, lines in formats.rows().items() for name, row in lines.items()}
AGAIN = "run: python -m bench.formats"


@pytest.fixture(scope="module")
def frozen() -> dict[str, Any]:
    return formats.models()


def test_the_page_shows_what_was_measured_and_every_algorithm_is_there() -> None:
    assert part(formats.PART, formats.FILE) == formats.table(REPORT), AGAIN
    assert [(title, name) for title, found in REPORT["tables"].items() for name in found] == list(ROWS), AGAIN


@pytest.mark.parametrize(("title", "name"), ROWS, ids=lambda text: text.replace(" ", "-"))
def test_what_was_measured_is_still_so(frozen: dict[str, Any], title: str, name: str) -> None:
    """Forms, kinds and verdicts to the letter; errors are figures of a machine, and whether they are exact is a verdict."""
    stored = REPORT["tables"][title].get(name)
    assert stored is not None and without_errors(formats.measured(frozen, ROWS[title, name])) == without_errors(stored), AGAIN
    assert all(told["read"]["morelora"]["verdict"] == "exact" for told in stored["forms"].values())


def without_errors(told: dict[str, Any]) -> dict[str, Any]:
    forms = {
        form: (found["kinds"], {reader: read["verdict"] for reader, read in found["read"].items()})
        for form, found in told["forms"].items()
    }
    return told | {"forms": forms}


def test_each_fact_is_of_a_program_that_is_not_run_and_of_tensors_that_it_does_not_read() -> None:
    ran = {
        reader
        for told in REPORT["tables"].values()
        for row in told.values()
        for form in row["forms"].values()
        for reader in form["read"]
    }
    assert formats.INSTEAD.keys() == READERS.keys() - ran
    every = set().union(*(known for known in READERS.values() if known)) | {"own", "loha, output axis", "lokr, output axis"}
    for reader, facts in formats.INSTEAD.items():
        unread = {kind for kind in every - (READERS[reader] or set()) if not kind.startswith("peft")}
        first = {kind: next(part for part, _ in facts if part in kind) for kind in unread}
        assert set(first.values()) == {part for part, _ in facts}, reader


def test_a_cell_tells_the_exact_forms_and_what_becomes_of_the_default() -> None:
    read = {"diffusers": {"verdict": "refused", "error": None}, "morelora": {"verdict": "exact", "error": 3e-8}}
    exact = {reader: {"verdict": "exact", "error": 2e-8} for reader in read}
    oft = {
        "webui": {"kinds": ["oft"], "read": read},
        "diff": {"kinds": ["diff"], "read": read},
        "sidecar": {"kinds": ["oft"], "read": read},
    }
    assert formats.cell("a1111", oft) == "`webui`, `diff`"
    assert formats.cell("forge", oft) == "`diff`; `webui` **dropped**"
    assert formats.cell("diffusers", oft) == "`webui` refused"
    assert formats.cell("morelora", oft) == "every form (3e-08)"
    assert formats.cell("diffusers", oft | {"lora": {"kinds": ["lora"], "read": exact}}) == "`lora` (2e-08); `webui` refused"
    assert formats.cell("sdcpp", {"webui": {"kinds": ["lokr", "lokr full"], "read": read}, "sidecar": oft["sidecar"]}) == (
        "`webui` read on linear layers, **wrong** on convolutions"
    )
