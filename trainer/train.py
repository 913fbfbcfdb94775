"""One run, top to bottom."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from morelora import atomic
from trainer import memory, settings
from trainer.config import Config
from trainer.data import Cache, Dataset, hold_out, scan
from trainer.data.looks import Known, Watch
from trainer.data.sources import labels
from trainer.duration import settle_steps, steps_note
from trainer.embedding import init_rows
from trainer.errors import DiskError, ExitCode, InputError, StoppedError
from trainer.estimate import estimate, notes, refuse_hopeless, sample_of
from trainer.events import Event, Finished, Linted, Started, Warned
from trainer.keeper import Keeper
from trainer.lint.report import plain
from trainer.lint.survey import lint
from trainer.loop import train_steps
from trainer.metadata import PictureFolder, Provenance
from trainer.models import Bundle, find, load
from trainer.optim import check_optimizer
from trainer.plan import Plan, state_plan
from trainer.preview import check_size
from trainer.run import RunDir
from trainer.search import search
from trainer.session import Session, build_accelerator, build_session
from trainer.stop import StopRequests
from trainer.team import Team
from trainer.trackers import Trackers, check_trackers
from trainer.trigger import put_in

Listener = Callable[[Event], None]

PROMPTS = 4
"""Captions that serve as preview prompts where none are given."""


def train(asked: Config, *, listener: Listener, dry_run: bool = False) -> Path:
    """Start a new run and bring it to its end.

    Args:
        asked: all settings.
        listener: is told every event, as ``events.jsonl`` is.
        dry_run: only check everything and state the plan; writes nothing.

    Returns:
        The run folder (with ``dry_run``: where it would be made).

    Raises:
        TrainerError: of the kind that names the cause; ``StoppedError`` after a stop that saved everything.
    """
    with memory.deterministic(asked.device):
        accelerator = build_accelerator(asked)
        known = Known()
        config, bundle, dataset = _open_inputs(asked, accelerator, known)
        if dry_run:
            if config.data.lint:
                listener(Linted(plain(lint(dataset, config, bundle.overflow))))
            _rehearse(config, bundle, dataset, accelerator, listener)
            return Path(config.run.output) / config.run.name
        run = _create(asked, accelerator)
        return _Run(run, config, accelerator, listener).go(bundle, dataset, known)


def _rehearse(config: Config, bundle: Bundle, dataset: Dataset, accelerator: Accelerator, listener: Listener) -> None:
    """State the plan, with a few pictures encoded in a folder that is gone afterwards."""
    notice: Callable[[str], None] = lambda text: listener(Warned(text))  # noqa: E731
    sample = sample_of(config, dataset)
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(Path(folder), notice)
        session = build_session(config, bundle, sample, accelerator, cache, notice)
        session.begin()
        listener(Started(asdict(_plan(session, dataset, cache)), 0))


def _plan(session: Session, dataset: Dataset, cache: Cache) -> Plan:
    """The statement of a session that is ready, with its estimate."""
    config, bundle, accelerator = session.config, session.bundle, session.accelerator
    plan = state_plan(config, bundle, dataset, session.targets, session.adapters, accelerator.num_processes)
    plan = plan.with_word(session.word, dataset)
    if not config.device.estimate:
        return plan
    found = estimate(session, dataset, cache, _prompts(config, dataset))
    lacks = notes(found, config, bundle.source, dataset, accelerator.device)
    return replace(plan, estimate=asdict(found), notes=[*plan.notes, *lacks])


def resume(run_dir: Path, *, listener: Listener) -> Path:
    """Go on with a run from its newest whole checkpoint, with the same result as if it had never stopped.

    Raises:
        TrainerError: as ``train``; ``InputError`` where settings or pictures are no longer those of the run.
    """
    run = RunDir.open(run_dir)
    config = settings.load(run.config_file)
    with memory.deterministic(config.device):
        accelerator = build_accelerator(config)
        if accelerator.is_main_process:
            run.lock()
            run.clear_stop()
        known = Known.read(run.looks_file)
        config, bundle, dataset = _open_inputs(config, accelerator, known, run.stop_requested)
        return _Run(run, config, accelerator, listener).go(bundle, dataset, known)


def _open_inputs(
    config: Config, accelerator: Accelerator, known: Known, should_stop: Callable[[], bool] = lambda: False
) -> tuple[Config, Bundle, Dataset]:
    """Everything the user gave, checked before anything is written; pictures first, since weights take longer to read.
    In the settings that come back, the number of steps is settled."""
    _check_given(config)
    check_trackers(config.track)
    check_optimizer(config.optimizer, accelerator.device, forgets=config.relora.every > 0)
    memory.check(config.device, accelerator.device)
    source = find(config.model)
    factor = source.pixel_factor
    check_size(config.preview, factor)
    dataset = hold_out(scan(config.data, factor, Watch(should_stop), known=known), config.validation, config.data, factor)
    refuse_hopeless(config, source, dataset, accelerator.device)
    pictures = sum(not item.regularization for item in dataset.items)
    settled = settle_steps(config, pictures)
    bundle = load(config.model, source)
    init_rows(config.embedding, bundle)
    bundle.notes += steps_note(config.train, settled.train.steps, pictures)
    return settled, bundle, dataset


def _check_given(config: Config) -> None:
    """A preset leaves the base model, the pictures or both to the user."""
    lacks = [] if config.model.base.strip() else [("base model", "--base FILE_OR_FOLDER")]
    if lacks and not (config.data.images.strip() or config.data.sources):
        lacks.append(("pictures", "--images DIR"))
    if lacks:
        what, options = (" and ".join(words) for words in zip(*lacks, strict=True))
        raise InputError(f"this run has no {what.replace(' and ', ' and no ')} yet", f"give {options}")


def _create(config: Config, accelerator: Accelerator) -> RunDir:
    """The run folder, made by the main process and known to all."""
    path: list[Path | None] = [None]
    if accelerator.is_main_process:
        run = RunDir.create(Path(config.run.output), config.run.name)
        run.lock()
        atomic.write_text(run.config_file, settings.to_toml(config))
        if accelerator.num_processes == 1:
            return run
        path = [run.path]
    broadcast_object_list(path)
    return run if accelerator.is_main_process else RunDir(path[0])


class _Run:
    """A run in its folder."""

    def __init__(self, run: RunDir, config: Config, accelerator: Accelerator, listener: Listener) -> None:
        self.run, self.config, self.accelerator, self.listener = run, config, accelerator, listener
        self.trackers: Trackers | None = None

    def emit(self, event: Event) -> None:
        """Tell the event to the run folder and to whoever listens; only the main process speaks.

        Raises:
            FileNotFoundError: the folder was emptied: what is written into it now would be nobody's run.
        """
        if self.accelerator.is_main_process:
            self.run.config_file.stat()
            self.run.emit(event)
            self.listener(event)
            if self.trackers is not None:
                self.trackers(event)

    def _warn(self, text: str) -> None:
        self.emit(Warned(text))

    def go(self, bundle: Bundle, dataset: Dataset, known: Known) -> Path:
        """Train from the newest checkpoint, or from the start."""
        try:
            self._record(dataset, known)
            with StopRequests(self.run) as stop:
                try:
                    self._train(bundle, dataset, stop)
                except StoppedError as stopped:
                    stopped.code = stop.code or stopped.code
                    raise
            return self.run.path
        except Exception as error:
            if not self.run.config_file.is_file():
                what = f"{self.run.path} was deleted or moved while the run went on"
                raise DiskError(what, "put it back and go on with --resume, or start the run again") from error
            error.run_path = self.run.path  # type: ignore[attr-defined]  # so that whoever reports it knows the folder
            raise
        finally:
            if self.trackers is not None:
                self.trackers.finish()
            if self.accelerator.is_main_process:
                self.run.unlock()

    def _lint(self, bundle: Bundle, dataset: Dataset) -> None:
        """Faults of the pictures, looked for once a run."""
        if self.config.data.lint and self.accelerator.is_main_process and not self.run.findings_file.exists():
            findings = plain(lint(dataset, self.config, bundle.overflow))
            atomic.write_text(self.run.findings_file, json.dumps(findings, indent=1, ensure_ascii=False))
            self.emit(Linted(findings))

    def _record(self, dataset: Dataset, known: Known) -> None:
        """What each picture is trained with, for the user; and what need not be looked at again, for the next start."""
        if self.accelerator.is_main_process:
            rows = [json.dumps(row, ensure_ascii=False) for row in dataset.rows()]
            atomic.write_text(self.run.pictures_file, "".join(f"{row}\n" for row in rows))
            self.run.cache.mkdir(exist_ok=True)
            known.write(self.run.looks_file)

    def _train(self, bundle: Bundle, dataset: Dataset, stop: StopRequests) -> None:
        self._lint(bundle, dataset)
        cache = Cache(self.run.cache, notice=self._warn, should_stop=stop.requested, team=Team.of(self.accelerator))
        session = build_session(self.config, bundle, dataset, self.accelerator, cache, self._warn)
        keeper = Keeper(self.run, session, self.emit, _provenance(self.config, bundle, dataset))
        if not keeper.load_checkpoint():
            session.begin()
        if self.accelerator.is_main_process:
            self.run.rewind_events(session.step)
            if self.config.track.trackers:
                self.trackers = Trackers(self.accelerator, self.run, self.config.track, session)
        plan = _plan(session, dataset, cache)
        self.emit(Started(asdict(plan), session.step))
        keeper.prompts = _prompts(self.config, dataset)
        if self.accelerator.is_main_process:
            keeper.write_base_previews()
        if session.step == 0:
            keeper.validate(strength=0.0)
        done = train_steps(session, self.emit, keeper.is_due(stop), keeper.pause())
        if done:
            for event in search(session):
                self.emit(event)
            keeper.validate()
        keeper.save_checkpoint()
        if self.accelerator.is_main_process:
            self._finish(keeper, done)
        self.accelerator.wait_for_everyone()
        if not done:
            raise StoppedError(
                f"stopped after step {session.step} of {self.config.train.steps}; everything is saved",
                f"go on with --resume {self.run.path}",
                ExitCode.INTERRUPTED,
            )

    def _finish(self, keeper: Keeper, done: bool) -> None:
        """The file, its check and the pictures; the checkpoint came first."""
        step = keeper.session.step
        file = keeper.write_export(None if done else step)
        keeper.verify_export(file)
        if done:
            keeper.write_before_after()
        self.emit(Finished(step, self.run.relative(file), "done" if done else "stopped"))


def _prompts(config: Config, dataset: Dataset) -> list[str]:
    """The preview prompts, with the trigger word in place; some captions where none are given."""
    given = list(config.preview.prompts) or list(dict.fromkeys(item.caption for item in dataset.items))[:PROMPTS]
    return [put_in(prompt, config.data.trigger) for prompt in given]


def _provenance(config: Config, bundle: Bundle, dataset: Dataset) -> Provenance:
    return Provenance(
        config=config,
        family=bundle.family,
        base_name=bundle.path.name,
        base_hash=bundle.base_hash,
        prediction_type=bundle.schedule.objective,
        picture_hashes={dataset.name(item.path): item.sha256 for item in dataset.items},
        buckets=dataset.report.buckets,
        folders={name: _folder(dataset, index) for index, name in enumerate(labels(dataset.sources))},
    )


def _folder(dataset: Dataset, index: int) -> PictureFolder:
    captions = [item.caption for item in dataset.items if item.source == index]
    tags = Counter(tag.strip() for caption in captions for tag in caption.split(",") if tag.strip())
    return PictureFolder(dataset.sources[index].settings.repeats, len(captions), tags)
