"""A trial as HTML: how far it is or why it ended, and what was tried before. Everything from outside is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from app.page import link, note
from app.parts.strip import picture
from app.text import say
from app.trials import Tried
from trainer.trial import ADAPTED


def progress(tried: Tried | None) -> str:
    """The state, with a bar while it is drawn."""
    if tried is None:
        return note(say("tryit.none"))
    if tried.state == "failed":
        return note(tried.message or say("tryit.state.failed"), "bad")
    if tried.state != "drawing":
        return note(f"{say(f'tryit.state.{tried.state}')}\n{told(tried)}", "good" if tried.state == "done" else "warn")
    share = 50 * (tried.step / max(tried.steps, 1) + (tried.stage == ADAPTED))
    words = say(f"tryit.stage.{tried.stage or 'loading'}", step=tried.step, steps=tried.steps)
    bar = f"<div class='bar' role='progressbar' aria-valuenow='{share:.0f}'><div style='width:{share:.1f}%'></div></div>"
    return f"<div class='status'><b>{html.escape(words)}</b>{bar}<div class='quiet'>{html.escape(told(tried))}</div></div>"


def told(tried: Tried) -> str:
    """Adapters with their strengths, and the settings that were given."""
    adapters = [f"{Path(file).stem} × {strength:g}" for file, strength in tried.adapters]
    given = [f"{name} {value}" for name, value in tried.sampling.items() if name != "prompts"]
    return " · ".join([*(adapters or [say("tryit.no_adapter")]), *given])


def figure(title: str, file: Path | None) -> str:
    """One of the two pictures, or the place where it will be."""
    shown = picture(file, title) or "<div class='no-picture'></div>"
    return f"<figure class='of-trial'><figcaption>{html.escape(title)}</figcaption>{shown}</figure>"


def history(trials: Sequence[Tried]) -> str:
    """What was tried, a card each that opens it again."""
    if not trials:
        return ""
    return f"<h3>{html.escape(say('tryit.history'))}</h3><div class='cards'>{''.join(map(card, trials))}</div>"


def card(tried: Tried) -> str:
    """One trial: both pictures, the prompt as a link, and what it was drawn with."""
    pictures = picture(tried.base, say("tryit.base")) + picture(tried.adapted, say("tryit.with"))
    state = (
        "" if tried.state == "done" else f"<span class='{tried.state}'>{html.escape(say(f'tryit.state.{tried.state}'))}</span>"
    )
    words = f"{link('tryit', tried.prompt or tried.name, trial=tried.name)}{state}<span>{html.escape(told(tried))}</span>"
    return f"<div class='run-card tried'><div class='pair'>{pictures}</div><div>{words}</div></div>"
