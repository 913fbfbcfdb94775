"""Pictures and captions of the recipe being edited: uploads into a folder of their own, edits, and a way back from each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.desk import Desk
from app.draft import Draft
from app.store import Store
from trainer.presets import ROOT, SHIPPED
from trainer.run import free, slug

DATASETS = "datasets"
"""Folder beside the runs: one folder a set of uploaded pictures, and ``.thumbs``."""
THUMBS = ".thumbs"
ENDINGS = (
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".avif",
    ".heic",
    ".txt",
    ".caption",
    ".json",
    ".jsonl",
)
"""Files that are taken: pictures, and captions beside them."""
MOST_STEPS = 100
"""Edits that can be taken back."""

Values = dict[str, Any]


class Pictures:
    """The album of a draft. Every method raises ``Refused`` with the reason where it cannot do what is asked."""

    def __init__(self, folder: Path, draft: Draft, desk: Desk) -> None:
        self.folder = folder
        self._draft, self._desk = draft, desk
        self._undo = Store(folder / ".undo.json")

    def album(self) -> Values:
        """See ``trainer.album.album``."""
        return self._desk.ask("album", self._draft.values, str(self.folder / THUMBS))

    def upload(self, files: Sequence[str], name: str) -> tuple[Path, int, list[str]]:
        """Copy uploaded files into the set ``name`` and make it the recipe's folder, name and trigger.

        Returns the folder, the number of files, and the names of those that are neither pictures nor captions.
        """
        folder = self.folder / slug(name)
        folder.mkdir(parents=True, exist_ok=True)
        taken, refused = 0, []
        for file in map(Path, files):
            if file.suffix.lower() not in ENDINGS:
                refused.append(file.name)
                continue
            shutil.copyfile(file, folder / slug(file.name.lstrip(".")))
            taken += 1
        if str(folder) != self._draft.values.get("data", {}).get("images"):
            self._draft.put({"data.images": str(folder), "data.trigger": f"{folder.name} style", "run.name": folder.name})
        return folder, taken, refused

    @property
    def ships(self) -> bool:
        """Whether the recipe's folder is one of the program's own, in which nothing may be changed."""
        folder = self._draft.values.get("data", {}).get("images", "")
        return bool(folder) and (ROOT / folder).resolve().is_relative_to(SHIPPED)

    def copy(self, name: str) -> None:
        """Copy the files of the recipe's folder into the set ``name``, or ``name-2`` …, and make that the recipe's folder."""
        source = ROOT / self._draft.values["data"]["images"]
        folder = free(self.folder / slug(name))
        folder.mkdir(parents=True)
        for file in source.iterdir():
            if file.suffix.lower() in ENDINGS:
                shutil.copyfile(file, folder / file.name)
        self._draft.put({"data.images": str(folder)})

    def write(self, captions: Mapping[str, str]) -> None:
        """Write captions by picture."""
        before = self._desk.ask("write_captions", self._draft.values, dict(captions))
        self._remember({"captions": before})

    def change_all(self, pictures: Sequence[Values], change: Callable[[list[str]], list[str]]) -> int:
        """Change the tags of every caption; returns how many captions are now another one."""
        new = {}
        for picture in pictures:
            tags = [tag for part in picture["caption"].split(",") if (tag := part.strip())]
            text = ", ".join(change(tags))
            if text != picture["caption"]:
                new[picture["file"]] = text
        if new:
            self.write(new)
        return len(new)

    def leave_out(self, files: Sequence[str]) -> None:
        """Take pictures out of the folder, with their captions; they are kept in a hidden folder beside."""
        back = self._desk.ask("leave_out", self._draft.values, list(files))
        self._remember({"moves": back})

    def undo(self) -> bool:
        """Take the last edit back; False where there is none."""
        with self._undo.change() as kept:
            steps = kept.get("steps", [])
            step = steps.pop() if steps else None
        if step is None:
            return False
        if "captions" in step:
            self._desk.ask("write_captions", self._draft.values, step["captions"])
        else:
            self._desk.ask("move", [tuple(move) for move in step["moves"]])
        return True

    def _remember(self, step: Values) -> None:
        with self._undo.change() as kept:
            kept["steps"] = [*kept.get("steps", []), step][-MOST_STEPS:]
