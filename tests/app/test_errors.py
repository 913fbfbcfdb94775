"""What a user is told of an error, and that every function of a page says it."""

from __future__ import annotations

import asyncio
import errno
import os

import gradio as gr
import pytest
from filelock import Timeout

from app import errors
from app.desk import Refused
from app.site import Site
from trainer.errors import InputError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Refused("no <picture>"), ["no <picture>"]),
        (InputError("no such name", "choose another"), ["no such name", "What to do: choose another"]),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/b"), ["/a/b cannot be written: No space left", "free some space"]),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), ["a file of the page's own cannot be written"]),
        (FileNotFoundError(errno.ENOENT, "x", "/a/b"), ["/a/b is no longer there", "load the page again"]),
        (Timeout("/a/queue.lock"), ["/a/queue.lock is held", "another server"]),
    ],
)
def test_an_expected_error_is_told_in_its_own_words_and_not_logged(error, told, caplog):
    shown = errors.words(error)
    assert all(part in shown for part in told) and "Errno" not in shown and not caplog.records


def test_an_unexpected_error_is_told_by_its_kind_and_logged_with_its_traceback(caplog):
    try:
        {}["secret"]
    except KeyError as error:
        shown = errors.words(error)
    assert "fault of the program (KeyError)" in shown and "secret" not in shown
    assert caplog.records[0].exc_info and caplog.records[0].exc_info[0] is KeyError


@pytest.mark.parametrize("raised", [Refused("<b>no</b>"), OSError(errno.ENOSPC, "full"), ValueError("x")])
def test_every_function_of_a_page_says_what_went_wrong_as_text(raised):
    def fails() -> None:
        raise raised

    with Site() as site:
        gr.Button().click(fails)
    with pytest.raises(gr.Error) as caught:
        asyncio.run(site.process_api(site.fns[0], []))
    assert caught.value.message and "<b>" not in caught.value.message and not caught.value.print_exception


def test_gradios_own_errors_stay_as_they_are():
    def fails() -> None:
        raise gr.Error("mine")

    with Site() as site:
        gr.Button().click(fails)
    with pytest.raises(gr.Error, match="mine"):
        asyncio.run(site.process_api(site.fns[0], []))
