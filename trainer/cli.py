"""The command line: presets and ``--set``, dry run, resume, lists, doctor. Help and options come from the schema."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from trainer import presets, settings
from trainer.config import Config
from trainer.console import Console
from trainer.errors import ExitCode, InputError, StoppedError, TrainerError
from trainer.events import Event, Failed
from trainer.run import RunDir
from trainer.schema import Setting, named, walk

SHORT = ("data.images", "model.base", "run.name", "data.trigger", "run.output")
"""Settings that have an option of their own, named after the last part of their path."""

Listener = Callable[[Event], None]

DESCRIPTION = """Train LoRA, LoHa, LoKr and DoRA adapters for Stable Diffusion from a few pictures.

  python3 launch.py                                the browser page (options: --host --port --auth --share)
  python3 launch.py --preset pocket-loha           a shipped example, from pictures to file
  python3 launch.py --images DIR --base MODEL_DIR --name NAME --trigger WORD
  python3 launch.py --plot-timesteps FILE.png ...  draw which timesteps these settings train
  python3 launch.py --lint DIR                     look for faults in pictures and captions
  python3 launch.py --caption DIR --captioner MODEL_DIR   write captions with a model on disk
  python3 launch.py --try TRIAL.toml               a prompt with the base and with adapters
  python3 launch.py --resume runs/NAME             go on where a run stopped
  python3 launch.py --test                         the tests"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ``InputError``."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message, "python3 launch.py --help shows every option")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Nothing that is expected to happen shows a traceback."""
    argv = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # else it advises to install torchvision
    run: Path | None = None
    with CtrlC() as interrupt:
        try:
            options = build_parser().parse_args(argv)
            run = options.resume
            return _dispatch(options)
        except SystemExit as leave:  # --help
            return int(leave.code or 0)
        except BaseException as error:
            cause = KeyboardInterrupt() if interrupt.pressed and not isinstance(error, StoppedError) else error
            return _fail(cause, getattr(error, "run_path", None) or run)


class CtrlC:
    """Remembers a Ctrl-C while it is entered: a library that is loading a file may turn it into an error of its own."""

    pressed = False

    def __enter__(self) -> CtrlC:
        with contextlib.suppress(ValueError):  # only the main thread can listen to signals
            self.before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        if hasattr(self, "before"):
            signal.signal(signal.SIGINT, self.before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        raise KeyboardInterrupt


def build_parser() -> Parser:
    """The options; those that are settings take name and help from the schema."""
    parser = Parser(
        prog="launch.py", description=DESCRIPTION, epilog=_basic_settings(),
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    doors = parser.add_argument_group("what to do").add_mutually_exclusive_group()
    doors.add_argument(
        "--preset", metavar="NAME|FILE.toml", help="start from a shipped preset, one of your own in recipes/, or a TOML file"
    )
    doors.add_argument("--resume", metavar="RUN_DIR", type=Path, help="go on with a run that stopped")
    doors.add_argument(
        "--try", metavar="TRIAL.toml", type=Path, dest="trial",
        help="draw a trial's prompt with the base and with its adapters, into the file's folder",
    )  # fmt: skip
    doors.add_argument("--list-presets", action="store_true", help="list the shipped presets and your own")
    doors.add_argument("--doctor", action="store_true", help="show device, memory, versions and missing extras")
    group = parser.add_argument_group("settings")
    for setting in _short_settings():
        help_text = f"{setting.help} [{setting.path}]".replace("%", "%%")
        group.add_argument(_flag(setting), metavar=_flag(setting)[2:].upper(), help=help_text)
    group.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments",
        help="any setting, as in TOML; may be repeated, the last one counts. 'none' empties one",
    )  # fmt: skip
    instead = parser.add_argument_group("instead of training, with the same settings").add_mutually_exclusive_group()
    instead.add_argument("--dry-run", action="store_true", help="say what would be trained and train nothing")
    instead.add_argument(
        "--lint", nargs="?", const="", metavar="DIR",
        help="look for faults in pictures and captions; exit code 3 if there are. Without DIR: in data.images or data.sources",
    )  # fmt: skip
    instead.add_argument("--caption", metavar="DIR", help="write captions beside the pictures, with the model of --captioner")
    instead.add_argument("--plot-timesteps", type=Path, metavar="FILE.png", help="draw how often each timestep would be trained")
    findings = parser.add_argument_group("beside --lint")
    findings.add_argument("--json", type=Path, metavar="FILE", help="write findings and notes into a file too")
    words = parser.add_argument_group("beside --caption")
    words.add_argument("--captioner", type=Path, metavar="MODEL_DIR", help="folder of a BLIP, Florence-2 or WD14 (ONNX) model")
    words.add_argument("--overwrite", action="store_true", help="write captions anew where there are some")
    words.add_argument("--threshold", type=float, metavar="P", help="least probability of a tag (WD14) [0.35]")
    return parser


def config_of(options: argparse.Namespace) -> Config:
    """The settings of a new run: preset, then short options, then ``--set``. Raises ``InputError``."""
    values = presets.load(options.preset) if options.preset else {}
    for setting in _short_settings():
        value = getattr(options, _flag(setting)[2:])
        if value is not None:
            settings.put(values, setting.path, value)
    if options.lint or options.caption:
        settings.put(values, "data.images", options.lint or options.caption)
    values = settings.apply(values, options.assignments)
    source = f"preset {options.preset} and the command line" if options.preset else "the command line"
    return settings.parse(values, source)


def _dispatch(options: argparse.Namespace) -> int:
    _only_beside(options, "caption", ("captioner", "overwrite", "threshold"))
    _only_beside(options, "lint", ("json",))
    _has_a_place(options, ("json", "plot_timesteps"))
    if options.list_presets:
        _only(options, "--list-presets", "it lists presets and reads no settings")
        for preset in [*presets.list_presets(), *presets.list_own()]:
            print(f"{preset.name:<16} {preset.title}")
    elif options.doctor:
        _only(options, "--doctor", "it looks at the machine and reads no settings")
        from trainer import doctor

        print(doctor.report())
    elif options.trial:
        _only(options, "--try", "a trial's settings stand in its file")
        _try(options.trial)
    elif options.resume:
        _only(options, "--resume", "a resumed run keeps its own settings")
        _train(lambda listener: _resume(options.resume, listener))
    elif options.caption is not None:
        _caption(config_of(options), options)
    elif options.lint is not None:
        return _lint(config_of(options), options.json)
    elif options.plot_timesteps:
        _plot_timesteps(config_of(options), options.plot_timesteps)
    else:
        config = config_of(options)
        _train(lambda listener: _start(config, options.dry_run, listener))
    return ExitCode.DONE


def _start(config: Config, dry_run: bool, listener: Listener) -> Path:
    from trainer.train import train  # after the settings are checked: it takes seconds to import

    return train(config, listener=listener, dry_run=dry_run)


def _caption(config: Config, options: argparse.Namespace) -> None:
    from trainer.tagger.door import Wish, caption_and_show

    if options.captioner is None:
        raise InputError("--caption needs a model", "give --captioner MODEL_DIR: a folder with BLIP, Florence-2 or a WD14 tagger")
    threshold = 0.35 if options.threshold is None else options.threshold
    if not 0 < threshold <= 1:
        raise InputError(f"--threshold {threshold:g} is no probability", "give a number above 0 and at most 1, such as 0.35")
    caption_and_show(config.data, Wish(options.captioner, options.overwrite, threshold))


def _lint(config: Config, file: Path | None) -> ExitCode:
    from trainer.lint.door import lint_and_show

    return lint_and_show(config, file)


def _try(file: Path) -> None:
    from trainer.try_out import draw

    print(f"Base and adapters, side by side:  {draw(file)}")


def _plot_timesteps(config: Config, file: Path) -> None:
    from trainer.objective import density
    from trainer.plot import timesteps_plot
    from trainer.preview import save_image

    if file.suffix.lower() != ".png":
        raise InputError(f"--plot-timesteps {file}: the picture is a PNG", "give a name that ends in .png")
    save_image(file, timesteps_plot(density(config.loss)))
    print(f"How often each timestep is trained: {file}")


def _resume(run: Path, listener: Listener) -> Path:
    RunDir.open(run)
    from trainer.train import resume

    return resume(run, listener=listener)


def _train(work: Callable[[Listener], Path]) -> None:
    with Console() as console:
        console.show_result(work(console))


def _only(options: argparse.Namespace, door: str, why: str) -> None:
    """Refuse settings, and what is done with them instead of training, beside a door that reads none."""
    given = [_flag(setting) for setting in _short_settings() if getattr(options, _flag(setting)[2:]) is not None]
    given += ["--set"] * bool(options.assignments) + ["--dry-run"] * options.dry_run
    given += ["--plot-timesteps"] * bool(options.plot_timesteps) + ["--lint"] * (options.lint is not None)
    given += ["--caption"] * (options.caption is not None)
    if given:
        raise InputError(f"{given[0]} cannot stand beside {door}", f"take out one of the two: {why}")


def _only_beside(options: argparse.Namespace, door: str, names: tuple[str, ...]) -> None:
    """Refuse options that nothing but ``door`` reads where it is not given."""
    given = [f"--{name}" for name in names if getattr(options, name) not in (None, False)]
    if given and getattr(options, door) is None:
        raise InputError(f"{given[0]} has no effect without --{door}", f"take it out, or give --{door}")


def _has_a_place(options: argparse.Namespace, names: tuple[str, ...]) -> None:
    """Refuse files that cannot be written before there is anything to write."""
    for name in names:
        file = getattr(options, name)
        if file is not None and (file.is_dir() or not file.parent.is_dir()):
            what = "is a folder" if file.is_dir() else f"cannot be written: there is no folder {file.parent}"
            raise InputError(f"--{name.replace('_', '-')} {file} {what}", "give the name of a file in a folder that exists")


def _fail(error: BaseException, run: Path | None) -> int:
    """Say the error once, on stderr and in the run's events; returns its exit code."""
    from trainer.failures import explain

    run = run if run is not None and RunDir(run).config_file.is_file() else None
    shown = explain(error, run)
    if run and shown.code not in (ExitCode.LOCKED, ExitCode.INTERRUPTED, ExitCode.TERMINATED):
        with contextlib.suppress(OSError):  # a disk without room for this line
            RunDir(run).emit(Failed(code=int(shown.code), message=str(shown)))
    with contextlib.suppress(OSError):  # the screen may be a file on that disk
        print(f"{_head(shown)}{shown}", file=sys.stderr, flush=True)
    return int(shown.code)


def _head(error: TrainerError) -> str:
    return "" if error.code in (ExitCode.INTERRUPTED, ExitCode.TERMINATED) else "Error: "


def _short_settings() -> list[Setting]:
    return [setting for path in SHORT if (setting := named(path))]


def _flag(setting: Setting) -> str:
    return f"--{setting.path.rpartition('.')[2].replace('_', '-')}"


def _basic_settings() -> str:
    """The most used settings, for the end of the help text."""
    basic = {setting.path: setting for setting in reversed(walk()) if setting.level == "basic"}
    lines = [f"  {path:<20} {setting.help} ({setting.allowed})" for path, setting in reversed(basic.items())]
    return "\n".join(["settings used most (all of them: docs/settings.md):", *lines])
