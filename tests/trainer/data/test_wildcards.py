"""Choices in captions, against texts written out by hand and against counting."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.wildcards import all_texts, count, expand, has_choices

WRITTEN_OUT = [
    ("a fox", ["a fox"]),
    ("a {red|blue} fox", ["a red fox", "a blue fox"]),
    ("{a|the} {red|blue} fox", ["a red fox", "a blue fox", "the red fox", "the blue fox"]),
    ("a {{light|dark} red|blue} fox", ["a light red fox", "a dark red fox", "a blue fox"]),
    ("fox, {|at night}, snow", ["fox, snow", "fox, at night, snow"]),
    ("fox {very |}red", ["fox very red", "fox red"]),
    ("{a|a|b}", ["a", "b"]),
    ("{赤い|🦊}狐", ["赤い狐", "🦊狐"]),
]
AS_THEY_ARE = ["", "a | b", "||| a", "{{{fox}}}", "a {fox}", "}{", "{a|b", "a|b}", "a,  b ,c", "{", "{{a|b"]


@pytest.mark.parametrize(("template", "texts"), WRITTEN_OUT)
def test_all_texts_in_order(template, texts):
    assert list(all_texts(template, 100)) == texts


@pytest.mark.parametrize("template", AS_THEY_ARE)
def test_what_is_no_choice_is_text(template):
    assert not has_choices(template) and count(template) == 1
    assert all_texts(template, 1) == (template,)
    assert expand(template, random.Random(0)) == template


def test_a_choice_behind_an_open_brace_still_counts():
    assert all_texts("{ a {b|c}", 9) == ("{ a b", "{ a c")


def test_each_choice_is_drawn_evenly_and_by_itself():
    draw = random.Random(0)
    found = Counter(expand("{a|b} {c|{d|e}}", draw) for _ in range(8000))
    expected = {"a c": 2000, "b c": 2000, "a d": 1000, "a e": 1000, "b d": 1000, "b e": 1000}
    assert found.keys() == expected.keys()
    assert all(abs(found[text] - number) < 5 * number**0.5 for text, number in expected.items())


def test_too_many_texts_are_counted_and_not_made():
    assert count("{a|b}" * 100) == 2**100
    with pytest.raises(ValueError, match="8 texts, of which 7 are the most"):
        all_texts("{a|b}{a|b}{a|b}", 7)
    with pytest.raises(ValueError, match="more than 1,000,000,000 texts"):
        all_texts("{a|b}" * 10000, 1000)


def test_depth_is_no_limit():
    assert expand("{" * 20000 + "x" + "|y}" * 20000, random.Random(1)) in ("x", "y")


@given(st.text("{}|ab, ", max_size=30), st.integers())
def test_every_draw_is_one_of_all_texts(template, seed):
    assert expand(template, random.Random(seed)) in all_texts(template, 10**6)
    assert has_choices(template) == (count(template) > 1)
