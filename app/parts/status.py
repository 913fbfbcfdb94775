"""A run's state as HTML: bar, numbers, what is trained, what went wrong and the way out. Everything from outside is escaped."""

from __future__ import annotations

import html

from app.page import note
from app.queue import RETRY_SECONDS, Job, Queue
from app.text import say
from app.watch import View


def status(view: View, last_words: str = "") -> str:
    """The whole block."""
    if view.state == "none" and last_words:
        return f"<div class='status failed'><b>{html.escape(say('state.failed'))}</b><pre>{html.escape(last_words)}</pre></div>"
    parts = [f"<b>{html.escape(say(f'state.{view.state}'))}</b>"]
    if view.steps:
        share = 100 * view.step / view.steps
        parts.append(
            f"<div class='bar' role='progressbar' aria-valuenow='{share:.0f}'><div style='width:{share:.1f}%'></div></div>"
        )
        parts.append(f"<div>{' · '.join(numbers(view))}</div>")
    if view.message:
        parts.append(f"<pre>{html.escape(view.message)}</pre>")
    parts += [f"<div class='quiet'>{html.escape(line)}</div>" for line in details(view)]
    return f"<div class='status {view.state}'>{''.join(parts)}</div>"


def key(view: View, job: Job | None) -> str:
    """Of the state's text: a run's own state, or that of the job that has no run yet, or no more."""
    if view.state != "none" or job is None:
        return view.state
    return "waiting" if job.waits else "failed" if job.has_ended else "starting"


def numbers(view: View) -> list[str]:
    """``step 120 of 200``, the loss, the time left."""
    found = [say("status.step", step=view.step, steps=view.steps)]
    if view.loss is not None:
        found.append(say("status.loss", loss=view.loss))
    if view.state == "running" and view.seconds_left is not None:
        found.append(say("status.left", time=clock(view.seconds_left)))
    return found


def clock(seconds: float) -> str:
    """``4:05``, or ``1:02:09`` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def details(view: View) -> list[str]:
    """What is trained, and the checks of the finished file."""
    plan = view.plan
    lines = [say("status.part", **part) for part in plan.get("trained", [])]
    if plan:
        lines.append(say("status.pictures", pictures=plan["pictures"], dropped=plan["dropped"], device=plan["device"]))
    return lines + [say("status.read_back", check=check) for check in view.checks]


def cannot_start(queue: Queue) -> str:
    """Why nothing is started, where something should be."""
    told = say("runs.cannot_start", seconds=round(RETRY_SECONDS))
    return note(f"{told}\n{queue.problem}", "bad") if queue.problem else ""
