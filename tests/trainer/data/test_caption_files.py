"""Files of captions: encodings, JSON of several kinds, tables, and files that serve no picture."""

import json
import unicodedata
from pathlib import Path

import pytest

from trainer.data.caption_files import lines_of, read_all, read_text
from trainer.data.problems import Unusable


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a red fox", "a red fox"),
        (b"\xef\xbb\xbfa red fox", "a red fox"),
        ("füchse im schnee 🦊".encode(), "füchse im schnee 🦊"),
        ("赤い狐".encode(), "赤い狐"),
        ("ثعلب أحمر".encode(), "ثعلب أحمر"),
        (unicodedata.normalize("NFD", "é").encode(), "é"),
        (b"", ""),
        (b"one\r\ntwo", "one\r\ntwo"),
    ],
)
def test_text_is_read_as_utf8(tmp_path, data, text):
    file = tmp_path / "a.txt"
    file.write_bytes(data)
    assert read_text(file) == text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"caf\xe9 in paris", "is not UTF-8: byte 3 is 0xe9"),
        (b"\xef\xbb\xbfcaf\xe9", "is not UTF-8: byte 6 is 0xe9"),  # the place in the file, mark and all
        ("fox".encode("utf-16"), r"is UTF-16 \(byte 0\): save it as UTF-8"),
        ("fox".encode("utf-16-be"), "has a zero at byte 0, as UTF-16 has"),
        ("fox".encode("utf-16-le"), "has a zero at byte 1, as UTF-16 has"),
        (b"x" * 1_000_000, "has 1,000,000 bytes, which is no caption"),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(tmp_path, data, reason):
    file = tmp_path / "a.txt"
    file.write_bytes(data)
    with pytest.raises(Unusable, match=reason):
        read_text(file)


def captions_of(folder: Path, *pictures: str) -> dict[str, list[tuple[tuple[str, ...], str]]]:
    found = read_all([folder / name for name in pictures], sorted(folder.rglob("*.*")))
    assert not found.unusable
    return {name: [(written.lines, written.kind) for written in found.written[folder / name]] for name in pictures}


def notes_of(folder: Path, *pictures: str) -> list[str]:
    return read_all([folder / name for name in pictures], sorted(folder.iterdir())).notes


def refused(folder: Path, *pictures: str) -> list[tuple[str, str]]:
    found = read_all([folder / name for name in pictures], sorted(folder.iterdir()))
    return [(file.name, reason) for file, reason in found.unusable]


def write(file: Path, *lines: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ({"caption": "a fox"}, ["a fox"]),
        ({"text": "a fox"}, ["a fox"]),
        ({"caption": "a fox", "text": "other", "width": 3}, ["a fox"]),
        ({"tags": "red, snow"}, ["red, snow"]),
        ({"tags": ["red", "snow"]}, ["red, snow"]),
        ({"caption": "a fox", "tags": ["red", "snow"]}, ["a fox, red, snow"]),
        ({"caption": ["a fox", "a red\nfox"], "tags": "snow"}, ["a fox, snow", "a red fox, snow"]),
        ({"caption": "one\ntwo"}, ["one", "two"]),
        ({"caption": ""}, [""]),
        ({"caption": None, "tags": []}, [""]),
        ("a fox", ["a fox"]),
        (["a fox", "a dog"], ["a fox", "a dog"]),
        ({"width": 3}, None),
        ({"caption": unicodedata.normalize("NFD", "é")}, ["é"]),
    ],
)
def test_a_json_value_holds_captions(value, lines):
    assert lines_of(value) == lines


@pytest.mark.parametrize("value", [5, None, [1], {"caption": 5}, {"caption": {}}, {"tags": [1]}, {"caption": "a", "tags": 5}])
def test_a_caption_that_is_no_text_is_refused(value):
    with pytest.raises(Unusable, match="which is no text"):
        lines_of(value)


def test_files_beside_a_picture_in_their_order(tmp_path):
    write(tmp_path / "a.json", {"caption": "from json"})
    write(tmp_path / "a.caption", "from caption")
    write(tmp_path / "a.TXT", "from txt", "second")
    write(tmp_path / "metadata.jsonl", {"file_name": "a.png", "text": "from jsonl"})
    assert captions_of(tmp_path, "a.png", "b.png") == {
        "a.png": [
            (("from txt", "second"), ".txt"),
            (("from caption",), ".caption"),
            (("from json",), ".json"),
            (("from jsonl",), "metadata.jsonl"),
        ],
        "b.png": [],
    }


def test_pictures_of_one_stem_share_a_file_and_composed_names_meet(tmp_path):
    write(tmp_path / f"{unicodedata.normalize('NFD', 'é')}.txt", "accent")
    found = captions_of(tmp_path, "é.png", "é.jpg", "e.png")
    assert found == {"é.png": [(("accent",), ".txt")], "é.jpg": [(("accent",), ".txt")], "e.png": []}


def test_lines_of_jsonl_by_name_place_and_key(tmp_path):
    write(
        tmp_path / "metadata.jsonl",
        {"file_name": "a.png", "text": "a fox\u2028in snow"},
        "",
        {"file": "sub/b.png", "caption": "b", "tags": ["c"]},
        {"image": "C:\\pictures\\d.png", "text": "d"},
        {"file_name": "a.png", "text": "again"},
        {"file_name": "gone.png", "text": "nobody"},
        {"step": 3},
    )
    assert captions_of(tmp_path, "a.png", "sub/b.png", "d.png") == {
        "a.png": [(("a fox", "in snow", "again"), "metadata.jsonl")],
        "sub/b.png": [(("b, c",), "metadata.jsonl")],
        "d.png": [(("d",), "metadata.jsonl")],
    }
    assert notes_of(tmp_path, "a.png", "sub/b.png", "d.png") == ["1 caption in metadata.jsonl without a picture: gone.png"]


def test_the_place_decides_between_pictures_of_one_name(tmp_path):
    write(tmp_path / "metadata.jsonl", {"file_name": "x/a.png", "text": "x"}, {"file_name": "y/a.png", "text": "y"})
    found = captions_of(tmp_path, "x/a.png", "y/a.png")
    assert [written[0][0] for written in found.values()] == [("x",), ("y",)]


def test_a_table_of_names_as_kohya_writes_it(tmp_path):
    table = {
        "/home/me/img/a.png": {"caption": "a fox", "tags": "red, snow", "train_resolution": [512, 512]},
        "b": {"tags": "dog"},
        "c.png": "a cat",
        "d": {"train_resolution": [64, 64]},
    }
    write(tmp_path / "meta_cap.json", table)
    assert captions_of(tmp_path, "a.png", "b.webp", "c.png", "d.png") == {
        "a.png": [(("a fox, red, snow",), "meta_cap.json")],
        "b.webp": [(("dog",), "meta_cap.json")],
        "c.png": [(("a cat",), "meta_cap.json")],
        "d.png": [],
    }


def test_files_that_serve_no_picture_are_said(tmp_path):
    write(tmp_path / "b.txt", "orphan")
    write(tmp_path / "a.json", {"width": 3})
    write(tmp_path / "events.jsonl", {"step": 3}, {"file_name": 5})
    write(tmp_path / "config.json", [1, 2])
    write(tmp_path / "metadata.csv", "file_name,text")
    assert notes_of(tmp_path, "a.png") == [
        "1 caption file without a picture of that name: b.txt",
        "3 JSON files without a caption of a picture here: a.json, config.json, events.jsonl",
        "1 file not read (captions are read from .txt, .caption, .json and .jsonl): metadata.csv",
    ]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.json", "{oh", "is not JSON: "),
        ("a.json", '{"caption": 5}', "holds the caption as 5, which is no text"),
        ("a.json", "[" * 100_000, "is not JSON: "),
        ("a.txt", "caf\xe9", "is not UTF-8: byte 3"),
        ("t.jsonl", '{"file_name": "a.png", "text": "x"}\n{oh', "line 2 is not JSON: "),
        ("t.jsonl", '{"file_name": "a.png", "text": 5}', "line 1 holds the caption as 5"),
        ("t.json", '{"a.png": {"tags": {}}}', "'a.png' holds tags as {}, which is no text"),
        ("t.json", "", "is not JSON: "),
    ],
)
def test_damaged_files_are_refused_with_their_place(tmp_path, name, text, reason):
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    (file, found), *others = refused(tmp_path, "a.png")
    assert file == name and found.startswith(reason) and not others
