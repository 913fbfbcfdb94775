"""What a page's fields become before the tools are asked; refusals come at once, without a process."""

from __future__ import annotations

from typing import Any

import pytest

from app.desk import Refused
from app.files import SMALL, Files, numbers


@pytest.fixture
def asked() -> list[tuple[Any, ...]]:
    return []


@pytest.fixture
def files(tmp_path, asked) -> Files:
    return Files(tmp_path / "files", lambda *given: asked.append(("at once", *given)), lambda *given: asked.append(given))


def test_fields_become_plain_questions(files, asked, tmp_path):
    place = {"folder": str(tmp_path / "files"), "name": "x", "base": ""}
    files.convert("a", "x", " ", "lora", "fp16")
    files.merge(["a", "b", "c"], "0.5; 2", "x", str(tmp_path), None)
    files.resize("a", "x", "", 8.0)
    files.extract(str(tmp_path), f" {tmp_path} ", "x", 4)
    assert asked == [
        ("convert_file", "a", place | {"form": "lora", "dtype": "fp16"}),
        ("merge_files", [("a", 0.5), ("b", 2.0), ("c", 1.0)], place | {"base": str(tmp_path)}, None),
        ("resize_file", "a", place, {"rank": 8}),
        ("extract_file", str(tmp_path), str(tmp_path), place, 4),
    ]


def test_a_small_file_is_looked_into_at_once_and_a_large_one_apart(files, asked, tmp_path):
    file = tmp_path / "x"
    for size in (SMALL, SMALL + 1):
        with file.open("wb") as stream:
            stream.truncate(size)
        files.examine(str(file))
    assert asked == [("at once", "examine", str(file)), ("examine", str(file))]


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda files: files.convert(None, "x", "", "lora", ""), "Drop an adapter file"),
        (lambda files: files.convert("a", "  ", "", "lora", ""), "name"),
        (lambda files: files.convert("a", "x", "/no/where", "lora", ""), "/no/where is not there"),
        (lambda files: files.merge(["a"], "", "x", "", None), "at least one other"),
        (lambda files: files.merge(["a", "b"], "1, 1, 1", "x", "", None), "at most 2 numbers"),
        (lambda files: files.merge(["a", "b"], "one", "x", "", None), "at most 2 numbers"),
        (lambda files: files.merge(["a", "b"], "nan", "x", "", None), "at most 2 numbers"),
        (lambda files: files.resize("a", "x", "", None), "whole number"),
        (lambda files: files.resize("a", "x", "", 2.5), "whole number"),
        (lambda files: files.resize("a", "x", "", float("nan")), "whole number"),
        (lambda files: files.extract("", "", "x", 4), "is not there"),
        (lambda files: files.extract("../\0", "", "x", 4), "is not there"),
    ],
)
def test_what_cannot_be_asked_is_refused_at_once(files, asked, ask, words):
    with pytest.raises(Refused, match=words):
        ask(files)
    assert asked == []


def test_weights_that_are_left_out_are_one():
    assert numbers("", 2) == [1.0, 1.0] and numbers("0.5,", 2) == [0.5, 1.0]
