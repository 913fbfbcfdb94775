"""Parts of a document that commands write: replaced whole, all else left as it is."""

import pytest

from bench.report import part, write_part

TEXT = "# Head\n\n<!-- one -->\nold\n<!-- end of one -->\n\nProse.\n<!-- two -->\n<!-- end of two -->\n"


def test_a_part_is_replaced_and_the_rest_stays(tmp_path):
    file = tmp_path / "page.md"
    file.write_text(TEXT)
    write_part("one", "new\nlines\n\n", file)
    write_part("two", "| a |", file)
    wanted = TEXT.replace("old\n", "new\nlines\n").replace("<!-- two -->\n", "<!-- two -->\n| a |\n")
    assert file.read_text() == wanted
    assert part("one", file) == "new\nlines" and part("two", file) == "| a |"
    write_part("one", "new\nlines", file)
    assert file.read_text() == wanted


@pytest.mark.parametrize("text", ["no marks", "<!-- end of one -->\n<!-- one -->\n", TEXT + TEXT])
def test_marks_that_are_not_once_each_are_refused(tmp_path, text):
    file = tmp_path / "page.md"
    file.write_text(text)
    with pytest.raises(ValueError, match="once each"):
        write_part("one", "new", file)
    assert file.read_text() == text
