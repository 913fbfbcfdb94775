"""What a run keeps: checkpoints, previews, exports. Called by the loop between steps; only the main process writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from morelora import atomic
from morelora.formats import recorded
from morelora.formats.container import read_metadata
from trainer import checkpoint, preview, settings
from trainer.checkpoint import Checkpoint
from trainer.config import Config
from trainer.errors import InputError, NonFiniteError
from trainer.events import Event, Formed, Preview, Saved, Verified, Warned
from trainer.export import export, export_embedding
from trainer.loop import Session
from trainer.memory import uncompiled
from trainer.metadata import Provenance
from trainer.optim import pack_optimizer, unpack_optimizer
from trainer.run import REQUESTS, RunDir
from trainer.stop import StopRequests
from trainer.team import Team
from trainer.validation import measure
from trainer.verify import verify
from trainer.verify_word import verify_word

FIXED = ("model", "data", "adapter", "embedding", "train", "device", "optimizer", "relora", "loss", "validation")
"""Sections that a resumed run may not change: its result would not be the same run's."""


class Keeper:
    """Files of one run."""

    def __init__(self, run: RunDir, session: Session, emit: Callable[[Event], None], provenance: Provenance) -> None:
        self.run, self.session, self.emit, self.provenance = run, session, emit, provenance
        self.config = session.config
        self.saving = session.saving
        self.prompts: list[str] = []
        self.base_pictures: list[Image.Image] = []
        self.saved_step = -1
        self.stopping = False
        self.asked: set[str] = set()

    def is_due(self, stop: StopRequests) -> Callable[[int], bool]:
        """For the loop: whether ``pause`` has anything to do after a step."""
        config = self.config
        looks = config.validation.every if self.session.held else 0
        team = Team.of(self.session.accelerator)

        def due(step: int) -> bool:
            self.stopping, self.asked = False, set()
            if team.any(stop.requested() or bool(self.run.requests())):
                self.stopping = team.any(stop.requested())
                self.asked = {what for what in REQUESTS if team.any(what in self.run.requests())}
            return (
                self.stopping
                or bool(self.asked)
                or self.saving.is_due(step)
                or _comes(config.preview.every, step)
                or _comes(looks, step)
            )

        return due

    def pause(self) -> Callable[[int], bool]:
        """For the loop: make what is due after a step; True where ``is_due`` found all agreed to stop."""

        def act(step: int) -> bool:
            config, is_last = self.config, step >= self.config.train.steps
            saves = self.saving.is_due(step)
            is_numbered = saves and config.checkpoint.export and not is_last
            if saves or "save" in self.asked:
                self.save_checkpoint()
            if is_numbered or "save" in self.asked:
                self.write_export(step)
            if is_numbered:
                self._prune_exports()
            if "sample" in self.asked or (_comes(config.preview.every, step) and not is_last):
                self.write_previews()
            if self.session.accelerator.is_main_process:
                self.run.clear_requests(self.asked)
            if _comes(config.validation.every, step) and not is_last:
                self.validate()
            return self.stopping

        return act

    def validate(self, strength: float = 1.0) -> None:
        """Say the loss on the held-out pictures, if there are any. All processes take part."""
        if self.session.held is not None:
            with self.session.averaged(), self.session.at_strength(strength), uncompiled():
                self.emit(measure(self.session, self.session.held))

    # checkpoints

    def save_checkpoint(self) -> None:
        """Commit the whole state; all processes take part. Raises ``NonFiniteError`` instead of saving damaged weights."""
        session = self.session
        if self.saved_step == session.step:
            return
        tensors, values = pack_optimizer(session.optimizer)
        if not session.accelerator.is_main_process:
            self.saved_step = session.step
            return
        state = session.adapters.state()
        word = session.word.vectors.state() if session.word else {}
        bad = [name for name, tensor in (state | word).items() if not bool(torch.isfinite(tensor).all())]
        if bad:
            raise NonFiniteError(
                f"after step {session.step} {len(bad)} trained tensors are not finite, such as {bad[0]}",
                "lower optimizer.lr or use train.precision = 'fp32', then start again",
                "They were not saved: the last checkpoint is from before.",
            )
        held = Checkpoint(session.step)
        held.put("adapter", state)
        held.put("word", word)
        held.put("optimizer", tensors)
        held.put("procedure", session.procedures.state())
        if session.ema is not None:
            held.put("ema", session.ema.state())
        scaler = session.accelerator.scaler
        held.values = {
            "optimizer": values,
            "schedule": session.schedule.last_epoch,
            "scaler": None if scaler is None else scaler.state_dict(),
            "settings": self._fixed_settings(self.config),
            "pictures": session.dataset.fingerprint,
            "machine": self._machine(),
        }
        path = checkpoint.save(self.run.checkpoints, held, self.config.checkpoint.keep)
        self.saved_step = session.step
        self.emit(Saved(session.step, "checkpoint", self.run.relative(path)))

    def load_checkpoint(self) -> bool:
        """Go back to the newest whole checkpoint; False where there is none.

        Raises:
            InputError: settings or pictures are not those of the checkpoint; the message says which.
        """
        held, skipped = checkpoint.load_newest(self.run.checkpoints)
        for line in skipped:
            self.emit(Warned(line))
        if held is None:
            return False
        self._refuse_changes(held.values)
        if held.values["machine"] != self._machine():
            then, now = held.values["machine"], self._machine()
            differs = ", ".join(f"{key} {then[key]} then, {now[key]} now" for key in now if then[key] != now[key])
            self.emit(Warned(f"not the machine of the checkpoint ({differs}): the run goes on, but not bit for bit the same"))
        session = self.session
        session.adapters.load_state(held.group("adapter"))
        if session.word is not None:
            session.word.vectors.load_state(held.group("word"))
        session.procedures.load_state(held.group("procedure"))
        unpack_optimizer(session.optimizer, held.group("optimizer"), held.values["optimizer"])
        session.schedule.load_state_dict(session.schedule.state_dict() | self._schedule_state(held.values["schedule"]))
        if session.ema is not None:
            session.ema.load_state(held.group("ema"))
        if session.accelerator.scaler is not None and held.values["scaler"]:
            session.accelerator.scaler.load_state_dict(held.values["scaler"])
        session.step = self.saved_step = held.step
        return True

    def _machine(self) -> dict[str, Any]:
        """What the last bits of a result depend on, beside settings and pictures."""
        accelerator = self.session.accelerator
        return {
            "torch": torch.__version__,
            "device": _device_name(accelerator.device),
            "processes": accelerator.num_processes,
            "threads": torch.get_num_threads() if accelerator.device.type == "cpu" else 0,
        }

    def _schedule_state(self, last: int) -> dict[str, Any]:
        rates = [group["lr"] for group in self.session.optimizer.param_groups]
        return {"last_epoch": last, "_step_count": last + 1, "_last_lr": rates}

    def _fixed_settings(self, config: Config) -> dict[str, Any]:
        values = settings.to_values(config)
        return json.loads(json.dumps({section: values[section] for section in FIXED}))

    def _refuse_changes(self, values: dict[str, Any]) -> None:
        then = settings.parse(values["settings"], "the checkpoint")  # which may be older than a setting: that has its default
        now, before = self._fixed_settings(self.config), self._fixed_settings(then)
        changed = [
            f"{section}.{key}"
            for section in FIXED
            for key in now[section].keys() | before[section].keys()
            if now[section].get(key) != before[section].get(key)
        ]
        if changed:
            raise InputError(
                f"{self.run.config_file} differs from the checkpoint in {', '.join(sorted(changed))}",
                "put the old values back, or start a new run with the new ones",
            )
        if values["pictures"] != self.session.dataset.fingerprint:
            raise InputError(
                f"the pictures or captions in {self.config.data.images} are not those that this run was started with",
                "put them back as they were, or start a new run",
            )

    # pictures

    def write_base_previews(self) -> None:
        """Pictures of the unchanged base model, step 0; a resumed run has them already."""
        files = [self.run.preview_file(0, i) for i in range(len(self.prompts))]
        if all(file.is_file() for file in files):
            self.base_pictures = [Image.open(file).convert("RGB") for file in files]
            return
        self.base_pictures = self._sample(0.0)
        self._save_pictures(self.base_pictures, 0)

    def write_previews(self) -> list[Image.Image]:
        """Pictures with the adapter as it is now, on the main process."""
        if not self.session.accelerator.is_main_process:
            return []
        with self.session.averaged():
            pictures = self._sample(self.config.preview.strength)
        self._save_pictures(pictures, self.session.step)
        return pictures

    def write_before_after(self) -> None:
        """The sheet of the base's pictures over the adapter's."""
        sheet = preview.before_after(self.prompts, self.base_pictures, self.write_previews())
        preview.save_image(self.run.before_after, sheet)

    def _sample(self, strength: float) -> list[Image.Image]:
        """The prompts' pictures; at strength 0 a word has the vectors that it started from."""
        config = self.config
        with self.session.at_strength(strength), self.session.resting.awake(), uncompiled():
            return preview.sample(self.session.bundle, config.preview, self.prompts, config.data.resolution)

    def _save_pictures(self, pictures: list[Image.Image], step: int) -> None:
        self.run.previews.mkdir(exist_ok=True)
        files = [self.run.preview_file(step, i) for i in range(len(pictures))]
        for file, picture in zip(files, pictures, strict=True):
            preview.save_image(file, picture)
        self.emit(Preview(step, [self.run.relative(file) for file in files], self.prompts))

    # files for users

    def write_export(self, step: int | None = None) -> Path:
        """The files for users: adapter, word, or both; with ``step``, under the step's number. Returns the first of them."""
        session, made = self.session, []
        words = session.word.vectors if session.word else None
        with self.session.averaged():
            if len(session.adapters):
                made.append(self.run.export_file(self.config.run.name, step))
                bundled = words if self.config.embedding.bundle else None
                encoded = recorded(read_metadata(export(session.adapters, made[0], self._provenance(), bundled)))
                if encoded.statement:
                    self.emit(Formed(session.step, encoded.form, encoded.statement, encoded.errors))
            if words is not None:
                made.append(self.run.embedding_file(self.config.run.name, step))
                export_embedding(words, made[-1], self._provenance())
        for path in made:
            is_word = words is not None and path == made[-1]
            self.emit(Saved(session.step, "embedding" if is_word else "export", self.run.relative(path)))
        return made[0]

    def _prune_exports(self) -> None:
        """Of the numbered files that checkpoints left, only the newest stay where ``keep_exports`` says so."""
        keep = self.config.checkpoint.keep_exports
        for files in self.run.numbered_exports(self.config.run.name)[keep:] if keep else ():
            for file in files:
                file.unlink()

    def verify_export(self, path: Path) -> list[Verified]:
        """Read the file back with every reader that is here; verdicts are kept in ``verify.json``."""
        with self.session.averaged():
            verdicts = self._verdicts(path)
        for verdict in verdicts:
            self.emit(verdict)
        lines = [json.loads(verdict.to_json()) for verdict in verdicts]
        atomic.write_text(self.run.verify_file, json.dumps(lines, indent=1) + "\n")
        return verdicts

    def _verdicts(self, path: Path) -> list[Verified]:
        session, verdicts = self.session, []
        adapters, words = session.adapters, session.word.vectors if session.word else None
        if len(adapters):
            verdicts += verify(adapters, path, session.bundle.components(unet=True, text_encoder=True), words)
        if words is not None:
            step = None if session.step == self.config.train.steps else session.step
            file = self.run.embedding_file(self.config.run.name, step)
            verdicts += verify_word(words, file, adapters, session.bundle.text_encoders)
        return verdicts

    def _provenance(self) -> Provenance:
        step = self.session.step
        epochs = self.session.loader.epochs(step * self.config.train.accumulation)
        return replace(self.provenance, step=step, epochs=round(epochs, 2))


def _comes(every: int, step: int) -> bool:
    return bool(every) and step % every == 0


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
