"""Captions with choices: ``a {red|blue} fox`` stands for two texts. Pure; choices may be nested.

A brace pair without a bar at its own level, and a brace without its partner, are text like any other. What an empty
option leaves behind (a second space, a comma without a tag) is tidied away; captions without choices stay as they are.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product
from typing import TypeVar

Value = TypeVar("Value")


def expand(template: str, draw: random.Random) -> str:
    """One of the template's texts: each choice is drawn evenly and by itself."""
    return _tidy(template, _fold(template, str, str.__add__, draw.choice))


def count(template: str) -> int:
    """How many ways there are to choose: 1 where there is no choice."""
    return _fold(template, lambda text: 1, int.__mul__, sum)


def all_texts(template: str, limit: int) -> tuple[str, ...]:
    """Every distinct text, in the template's order. Raises ``ValueError`` where there are more than ``limit`` ways."""
    if (ways := count(template)) > limit:
        raise ValueError(f"{ways if ways < 10**9 else 'more than 1,000,000,000'} texts, of which {limit} are the most")
    texts = _fold(template, lambda text: (text,), _each_with_each, lambda options: sum(options, ()))
    return tuple(dict.fromkeys(_tidy(template, text) for text in texts))


def has_choices(template: str) -> bool:
    """Whether the caption stands for more than itself."""
    return _fold(template, lambda text: False, bool.__or__, lambda options: True)


def _fold(
    template: str,
    text: Callable[[str], Value],
    both: Callable[[Value, Value], Value],
    one_of: Callable[[Sequence[Value]], Value],
) -> Value:
    """The template's value: of plain ``text``, of two pieces one after the other, and of a choice between options."""
    levels: list[list[list[Value]]] = [[[]]]  # the braces that are open, the options of each, the pieces of each option
    for mark in re.split(r"([{|}])", template):
        if mark == "{":
            levels.append([[]])
        elif mark == "|" and len(levels) > 1:
            levels[-1].append([])
        elif mark == "}" and len(levels) > 1:
            options = [reduce(both, pieces, text("")) for pieces in levels.pop()]
            levels[-1][-1] += [one_of(options)] if len(options) > 1 else [text("{"), options[0], text("}")]
        elif mark:
            levels[-1][-1].append(text(mark))
    while len(levels) > 1:  # what is never closed was no choice
        first, *others = levels.pop()
        levels[-1][-1] += [text("{"), *first, *(piece for option in others for piece in (text("|"), *option))]
    return reduce(both, levels[0][0], text(""))


def _each_with_each(left: tuple[str, ...], right: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(a + b for a, b in product(left, right))


def _tidy(template: str, text: str) -> str:
    if not has_choices(template):
        return text
    tags = (" ".join(tag.split()) for tag in text.split(","))
    return ", ".join(tag for tag in tags if tag)
