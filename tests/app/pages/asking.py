"""A studio whose questions are answered in the test's own process: the other one is tested with the desk."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.desk import Refused
from app.files import Files
from app.studio import Studio
from app.trials import Trials
from trainer import answers


def answered_here(output: Path, monkeypatch: pytest.MonkeyPatch) -> Studio:
    """The studio over ``output``."""

    def ask(question: str, *given: object, **options: object) -> object:
        refused, answer = answers.answer(question, given)
        if refused:
            raise Refused(answer)
        return answer

    studio = Studio(output)
    monkeypatch.setattr(studio.desk, "ask", ask)
    monkeypatch.setattr(studio, "files", Files(studio.files.folder, ask, ask))
    monkeypatch.setattr(studio, "trials", Trials(studio.trials.folder, ask))
    return studio
