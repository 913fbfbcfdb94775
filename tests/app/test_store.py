"""The server's own files: whole or absent, changed by one at a time, and a broken one is put aside."""

from __future__ import annotations

import threading

import pytest

from app.store import Store, write_text


def test_changes_are_kept_and_a_failed_one_is_not(tmp_path):
    store = Store(tmp_path / "sub" / "a.json")
    assert store.read() == {}
    with store.change() as values:
        values["name"] = "Fläche"
    assert Store(store.file).read() == {"name": "Fläche"}
    with pytest.raises(KeyError), store.change() as values:
        values["name"] = "other"
        raise KeyError
    assert store.read() == {"name": "Fläche"}


def test_changes_from_many_threads_are_all_kept(tmp_path):
    store = Store(tmp_path / "a.json")

    def add(number: int) -> None:
        with Store(store.file).change() as values:
            values[str(number)] = number

    threads = [threading.Thread(target=add, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.read()) == 16


@pytest.mark.parametrize("text", ["{torn", "[1]", ""])
def test_a_broken_file_is_put_aside(tmp_path, text):
    file = tmp_path / "a.json"
    file.write_text(text)
    assert Store(file).read() == {}
    assert (tmp_path / "a.broken").read_text() == text


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "a.txt"
    write_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "\ud800")
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]
