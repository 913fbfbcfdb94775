"""The text of a picture as it is drawn: dropout, one of the alternatives, its choices, then its tags in another order.

Of a caption ``fixed ||| tags ||| fixed`` only the middle is shuffled and dropped. Without ``|||`` what stays in its place is the
trigger where it stands first, the prefix and the suffix of the folder, and the first ``keep_tags`` tags after them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from trainer.config.data import FolderConfig
from trainer.data import captions, tags, wildcards
from trainer.data.items import Dataset, Item

MOST_TEXTS = 256
"""Texts of one caption with choices that are encoded ahead; beyond it captions are encoded when they are drawn."""


def phrase(item: Item, settings: FolderConfig, draw: random.Random) -> str:
    """One text of the picture; empty where caption dropout strikes."""
    if draw.random() < settings.caption_dropout:
        return ""
    template = draw.choice(item.captions) if len(item.captions) > 1 else item.captions[0]
    text = wildcards.expand(template, draw)
    return moved(text, settings, draw) if _moves(settings) else tags.whole(text)


def twin(item: Item, settings: FolderConfig, draw: random.Random) -> tuple[str, str]:
    """One text of the picture, and by the same draws the one without the trigger."""
    state = draw.getstate()
    text = phrase(item, settings, draw)
    again = random.Random()  # noqa: S311
    again.setstate(state)
    return text, phrase(replace(item, captions=item.plain), settings, again)


def moved(text: str, settings: FolderConfig, draw: random.Random) -> str:
    """The text with its tags shuffled and dropped as the settings say."""
    before, movable, after = _marked(text) if tags.SEPARATOR in text else _told(text, settings)
    if settings.shuffle_tags:
        draw.shuffle(movable)
    chance, trigger = settings.tag_dropout, settings.trigger
    left = [tag for tag in movable if draw.random() >= chance or (trigger and captions.has_trigger(tag, trigger))]
    return f"{before}{', '.join(left)}{after}".strip(" ,") if left else tags.joined([before, after])


def texts(dataset: Dataset, plain: bool = False) -> tuple[str, ...] | None:
    """Every text that ``phrase`` can give, the empty one first; None where they are too many to be encoded ahead.

    With ``plain`` those without the trigger too.
    """
    found = [""]
    for item in dataset.items:
        for template in (*item.captions, *item.plain) if plain else item.captions:
            if _moves(dataset.sources[item.source].settings) or wildcards.count(template) > MOST_TEXTS:
                return None
            found += [tags.whole(text) for text in wildcards.all_texts(template, MOST_TEXTS)]
    return tuple(dict.fromkeys(found))


def notes(dataset: Dataset, live: bool, plain: bool = False) -> Iterator[str]:
    """What the draws mean for text encoders, where nothing in them is trained (``live``: something is)."""
    if not live:
        known = texts(dataset, plain)
        yield (
            f"The text encoder is not trained: {len(known)} texts are encoded once."
            if known is not None
            else "The text encoder is not trained, but captions change at every step (tags or choices): it stays on the device."
        )


def _moves(settings: FolderConfig) -> bool:
    return settings.shuffle_tags or settings.tag_dropout > 0


def _marked(text: str) -> tuple[str, list[str], str]:
    """What stays before, the tags that move and what stays after, as the text's own marks say."""
    first, middle, last = (*text.split(tags.SEPARATOR, 2), "")[:3]
    before, after = tags.joined([first]), tags.joined(last.split(tags.SEPARATOR))
    return before and f"{before}, ", tags.split(middle), after and f", {after}"


def _told(text: str, settings: FolderConfig) -> tuple[str, list[str], str]:
    """The same by the settings: trigger, prefix and first tags before, the suffix after."""
    start = _prefix_end(text, settings)
    end = max(start, _suffix_start(text, settings))
    body = text[start:end]
    start, end = end - len(body.lstrip(" ,")), start + len(body.rstrip(" ,"))
    found = tags.split(text[start:end])
    kept, movable = found[: settings.keep_tags], found[settings.keep_tags :]
    before = text[:start] + ", ".join(kept) + (", " if kept and movable else "")
    return before, movable, text[end:]


def _prefix_end(text: str, settings: FolderConfig) -> int:
    """Where trigger and prefix end, if the text starts with them."""
    end = 0
    for fixed in (settings.trigger, settings.caption_prefix):
        rest = text[end:].lstrip(" ,")
        fixed = " ".join(fixed.split())
        if fixed and rest.lower().startswith(fixed.lower()) and not rest[len(fixed) : len(fixed) + 1].isalnum():
            end = len(text) - len(rest) + len(fixed)
    return end


def _suffix_start(text: str, settings: FolderConfig) -> int:
    """Where the suffix begins, if the text ends with it."""
    fixed = " ".join(settings.caption_suffix.split())
    return len(text) - len(fixed) if fixed and text.endswith(fixed) else len(text)
