"""The place of the trigger word in a prompt."""

from __future__ import annotations

import pytest

from trainer.trigger import put_in, take_out


@pytest.mark.parametrize(
    ("prompt", "trigger", "written"),
    [("{trigger}, fox", "duo style", "duo style, fox"), ("a {trigger} of {trigger}", "x", "a x of x"), ("a fox", "duo", "a fox")],
)
def test_what_is_put_in_is_taken_out(prompt, trigger, written):
    assert put_in(prompt, trigger) == written and take_out(written, trigger) == prompt


def test_without_a_word_the_place_is_empty_and_nothing_is_taken_out():
    assert put_in("{trigger}, fox", "") == ", fox" and take_out("a fox", "") == "a fox"
