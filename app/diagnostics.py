"""What someone who helps needs to know of a run, as text to be copied: without private paths, names of user and machine."""

from __future__ import annotations

import getpass
import platform
import re
import socket
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from app.watch import View
from trainer.presets import ROOT
from trainer.run import RunDir

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "pillow", "gradio")
LEAST_NAME = 3
"""Letters of a user's or a machine's name; shorter ones are parts of other words."""
COMMON = ("root", "user", "localhost")
START = r"(?:file://)?(?:/|~[/\\]|[A-Za-z]:[\\/]|\\\\)"
QUOTED = re.compile(rf"(?P<quote>['\"]){START}(?P<rest>[^'\"\n]*)(?P=quote)")
PART = r"[^\s'\"<>|*?()\[\],;"
BARE = re.compile(
    r"(?:file://|(?<![\w<>~./])/(?!/)|(?<![\w<>~./:])//|(?<![\w~])~[/\\]|(?<!\w)[A-Za-z]:[\\/]|(?<![\\\w])\\\\(?=\w))"
    rf"(?P<rest>(?:{PART}]*{PART}:.])?)"
)
"""A path that begins at a root. What follows a blank in one without quotes is only known where the recipe names it."""
ENDING = re.compile(r"\.\w{1,12}$")


def report(run: RunDir | None, view: View, log: str) -> str:
    """The text. ``log`` are the last lines of what the run wrote."""
    recipe = _text(run.config_file) if run else ""
    state = f"{view.state}, step {view.step} of {view.steps}"
    parts = {
        "Program": f"MoreLoRA {_own_version()}, Python {platform.python_version()}, {platform.platform()}\n{_packages()}",
        "Run": f"{state}, on {view.plan.get('device', 'an unknown device')}\n{view.message}".strip(),
        "Recipe": recipe,
        "Log": log,
    }
    text = "\n\n".join(f"## {title}\n{part.strip()}" for title, part in parts.items() if part.strip())
    return without_private(text, _paths_of(recipe, run))


def without_private(text: str, known: Mapping[str, str] | None = None) -> str:
    """``text`` with every path from a root replaced, and the names of user and machine.

    ``known`` paths have a word of their own, as ``{"/home/anna/my pictures": "data.images"}``; of others only the ending stays.
    """
    words = {str(ROOT): "program", **(known or {})}
    for path in sorted(words, key=len, reverse=True):
        text = text.replace(path, f"<{words[path]}>")
    text = QUOTED.sub(lambda found: f"{found['quote']}{_word(found['rest'])}{found['quote']}", text)
    text = BARE.sub(lambda found: _word(found["rest"]) if found["rest"] else found[0], text)
    for name, word in ((_user(), "user"), (socket.gethostname(), "machine")):
        if len(name) >= LEAST_NAME and name.lower() not in COMMON:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", f"<{word}>", text, flags=re.IGNORECASE)
    return text


def _word(rest: str) -> str:
    package = re.search(r"site-packages[\\/](.*)", rest)
    if package:
        return f"<packages>/{package[1]}"
    ending = ENDING.search(rest)
    return f"<path>{ending[0] if ending else ''}"


def _paths_of(recipe: str, run: RunDir | None) -> dict[str, str]:
    """Paths that the recipe names, by their setting, and the run's own folder."""
    try:
        values = tomllib.loads(recipe)
    except tomllib.TOMLDecodeError:
        values = {}
    found = {text: path for path, text in _texts(values) if Path(text).is_absolute() and len(text) > 1}
    return found | ({str(run.path): "run"} if run else {})


def _texts(values: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(values, str):
        yield prefix, values
    elif isinstance(values, Mapping):
        for name, value in values.items():
            yield from _texts(value, f"{prefix}.{name}".strip("."))
    elif isinstance(values, list):
        for value in values:
            yield from _texts(value, prefix)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _own_version() -> str:
    return str(tomllib.loads(_text(ROOT / "pyproject.toml")).get("project", {}).get("version", "unknown"))


def _packages() -> str:
    return ", ".join(f"{name} {_version(name)}" for name in PACKAGES)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
