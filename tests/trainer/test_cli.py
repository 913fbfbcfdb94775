"""The command line: where settings come from, what each door prints, what each failure ends with."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from morelora import AdapterError, FormatError
from trainer import cli, train
from trainer.errors import DiskError, ExitCode, InputError, LockedError, NonFiniteError, OutOfMemoryError, StoppedError
from trainer.run import RunDir
from trainer.schema import walk


def config_of(*argv: str):  # noqa: ANN201
    return cli.config_of(cli.build_parser().parse_args(argv))


def test_set_beats_short_options_which_beat_the_preset():
    config = config_of("--preset", "pocket-loha", "--name", "mine", "--trigger", "word", "--set", "run.name=yours")
    assert (config.run.name, config.data.trigger, config.adapter.algorithm) == ("yours", "word", "loha")


def test_short_options_are_the_settings_of_the_schema():
    config = config_of("--images", "a b", "--base", "c", "--name", "7", "--trigger", "none", "--output", "out")
    assert (config.data.images, config.model.base, config.run.name) == ("a b", "c", "7")
    assert (config.data.trigger, config.run.output) == ("none", "out")


def test_help_holds_the_basic_settings_and_their_help(capsys):
    assert cli.main(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for setting in walk():
        if setting.level == "basic" and (setting.algorithms in ((), ("lora", "lokr"), ("lora", "loha", "lokr"))):
            assert setting.path in shown and setting.help in shown, setting.path


def test_list_presets_prints_name_and_title(capsys):
    assert cli.main(["--list-presets"]) == 0
    assert "pocket-loha      Pocket demo, LoHa" in capsys.readouterr().out


def test_the_module_is_a_command():
    done = subprocess.run([sys.executable, "-m", "trainer", "--list-presets"], capture_output=True, text=True)
    assert done.returncode == 0 and "pocket-lora" in done.stdout
    done = subprocess.run([sys.executable, "-m", "trainer", "--preset", "x"], capture_output=True, text=True)
    assert done.returncode == 2 and "there is no preset 'x'" in done.stderr and not done.stdout


FAILURES = [
    (InputError("bad folder", "give another"), 2, ["Error: bad folder", "What to do: give another"]),
    (AdapterError("rules[0] matches no layer"), 2, ["rules[0] matches no layer", "docs/settings.md"]),
    (FormatError("torn file"), 2, ["torn file"]),
    (OutOfMemoryError("no memory", "less"), 4, ["no memory"]),
    (MemoryError(), 4, ["train.batch_size", "data.resolution", "train.gradient_checkpointing"]),
    (torch.OutOfMemoryError("CUDA out of memory"), 4, ["train.batch_size"]),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 4, ["train.batch_size"]),
    (NonFiniteError("loss is nan", "lower lr", "kept"), 5, ["loss is nan", "lower lr", "kept"]),
    (DiskError("disk is full"), 6, ["disk is full"]),
    (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 6, ["/x/y", "No space left on device", "free some space"]),
    (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 6, ["/x/y", "Permission denied", "rights"]),
    (OSError(errno.EDQUOT, "Quota exceeded"), 6, ["Quota exceeded"]),
    (OSError(errno.EIO, "Input/output error"), 6, ["Input/output error"]),
    (LockedError("another process is working", "wait"), 7, ["another process", "wait"]),
    (StoppedError("stopped after step 3", "go on", ExitCode.INTERRUPTED), 130, ["stopped after step 3", "go on"]),
    (StoppedError("stopped after step 3", "go on", ExitCode.TERMINATED), 143, ["stopped after step 3"]),
    (KeyboardInterrupt(), 130, ["stopped at once"]),
]


@pytest.fixture
def failing(monkeypatch, tmp_path):  # noqa: ANN201
    """A run that begins and then ends with an error."""

    def start(error: BaseException) -> RunDir:
        run = RunDir(tmp_path / "run")
        run.path.mkdir()
        run.config_file.write_text("", encoding="utf-8")
        error.run_path = run.path  # type: ignore[attr-defined]

        def fail(config: object, **rest: object) -> Path:
            raise error

        monkeypatch.setattr(train, "train", fail)
        return run

    return start


@pytest.mark.parametrize(("error", "code", "words"), FAILURES, ids=lambda value: type(value).__name__)
def test_each_failure_has_its_exit_code_and_one_message(failing, capsys, error, code, words):
    run = failing(error)
    assert cli.main(["--name", "x"]) == code
    shown = capsys.readouterr().err
    assert all(word in shown for word in words), shown
    assert "Traceback" not in shown
    failed = [event for event in run.events() if event["event"] == "Failed"]
    assert [event["code"] for event in failed] == ([] if code in (7, 130, 143) else [code])
    assert not run.log_file.exists()


def test_a_failure_that_no_event_can_be_written_of_ends_with_its_message(failing, capsys, monkeypatch):
    def full(self: RunDir, event: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    failing(DiskError("the checkpoint of step 3 cannot be written", "free some space"))
    monkeypatch.setattr(RunDir, "emit", full)
    assert cli.main(["--name", "x"]) == 6
    shown = capsys.readouterr().err
    assert "step 3 cannot be written" in shown and "Traceback" not in shown


def test_a_fault_of_ours_keeps_its_traceback_in_the_log(failing, capsys):
    run = failing(ZeroDivisionError("division by zero"))
    assert cli.main(["--name", "x"]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" not in shown and str(run.log_file) in shown and "ZeroDivisionError: division by zero" in shown
    log = run.log_file.read_text(encoding="utf-8")
    assert log.startswith("Traceback") and "ZeroDivisionError: division by zero" in log
    assert run.events()[-1]["code"] == 1


def test_a_fault_before_the_run_folder_keeps_its_traceback_too(monkeypatch, capsys, tmp_path):
    def fail(config: object, **rest: object) -> Path:
        raise ZeroDivisionError

    monkeypatch.setattr(train, "train", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cli.main(["--name", "x"]) == 1
    (log,) = tmp_path.iterdir()
    assert str(log) in capsys.readouterr().err and "Traceback" in log.read_text(encoding="utf-8")


def test_a_ctrl_c_that_a_library_turned_into_an_error_is_still_one(monkeypatch, capsys):
    def load(config: object, **rest: object) -> Path:
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException as error:
            raise OSError("Unable to load weights from checkpoint file") from error
        raise AssertionError

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(train, "train", load)
    assert cli.main(["--name", "x"]) == 130
    assert "stopped at once" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("option", [["--lint", ".", "--json"], ["--plot-timesteps"]])
def test_a_file_without_a_place_is_refused_before_the_work(tmp_path, capsys, option):
    assert cli.main([*option, str(tmp_path / "gone" / "x.png")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert cli.main([*option, str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err


@pytest.mark.parametrize("extra", [["--name", "x"], ["--set", "train.steps=5"], ["--dry-run"]])
def test_a_resumed_run_keeps_its_own_settings(tmp_path, capsys, extra):
    assert cli.main(["--resume", str(tmp_path), *extra]) == 2
    assert f"{extra[0]} cannot stand beside --resume" in capsys.readouterr().err


@pytest.mark.parametrize("door", ["--doctor", "--list-presets"])
@pytest.mark.parametrize(
    "extra", [["--images", "x"], ["--set", "train.steps=5"], ["--dry-run"], ["--lint"], ["--caption", "x"]], ids=lambda e: e[0]
)
def test_an_option_that_would_be_ignored_is_refused(capsys, door, extra):
    assert cli.main([door, *extra]) == 2
    shown = capsys.readouterr()
    assert f"{extra[0]} cannot stand beside {door}" in shown.err and "take out one of the two" in shown.err and not shown.out
