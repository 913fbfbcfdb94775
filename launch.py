#!/usr/bin/env python3
"""MoreLoRA: style files for Stable Diffusion from a few pictures. Standard library only: it installs what it needs.

  python3 launch.py                                 the browser page (options: --host --port --auth --share --folder --language)
  python3 launch.py --preset pocket-loha            a shipped example, from pictures to file
  python3 launch.py --images DIR --base MODEL_DIR --name NAME --trigger WORD [--set key=value ...]
  python3 launch.py --dry-run --preset ...          say what would be trained
  python3 launch.py --resume RUN_DIR | --list-presets | --doctor
  python3 launch.py --test [pytest options]         the tests

The first start makes the folder .venv beside this file and installs requirements.txt into it; later starts do not.
--no-venv uses the Python that runs this file, with what is installed there.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
BROWSER_OPTIONS = ("--host", "--port", "--auth", "--share", "--folder", "--language")
WORKERS = ("-n", "2", "--dist", "loadfile")
"""How the whole suite is run: a test file at a time on each of two processes."""
ENVIRONMENT = {
    "PYTHONUTF8": "1",
    "HF_HUB_OFFLINE": "1",  # base models are folders on disk
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "TOKENIZERS_PARALLELISM": "false",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}


def main(argv: list[str]) -> int:
    """Install what is missing, then hand over; returns the exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036
        return stop(f"MoreLoRA needs Python 3.11 or newer; this is {sys.version.split()[0]}.")
    if argv[:1] in (["-h"], ["--help"]) and not is_installed(ROOT / "requirements.txt"):
        print(__doc__)
        return 0
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    testing = "--test" in argv
    if "--no-venv" not in argv:
        for requirements in ["requirements.txt", *["requirements-dev.txt"] * testing]:
            failure = install(ROOT / requirements)
            if failure:
                return stop(failure)
        if Path(sys.prefix).resolve() != VENV.resolve():
            return become([str(PYTHON), str(ROOT / "launch.py"), *argv])
    return hand_over([word for word in argv if word not in ("--no-venv", "--test")], testing)


def hand_over(argv: list[str], testing: bool) -> int:
    """Run the tests, the browser page or the command line in this Python."""
    if testing:
        os.chdir(ROOT)
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # each worker has a core
        return become([sys.executable, "-m", "pytest", *(argv or WORKERS)])
    sys.path.insert(0, str(ROOT))
    try:
        if not argv or argv[0].partition("=")[0] in BROWSER_OPTIONS:
            from app.main import main as run
        else:
            from trainer.cli import main as run
    except ModuleNotFoundError as error:
        fix = f"{sys.executable} -m pip install -r {ROOT / 'requirements.txt'}"
        return stop(f"{error.name} is not installed. Start without --no-venv, or install it:\n  {fix}")
    return run(argv)


def is_installed(requirements: Path) -> bool:
    """Whether .venv holds what a requirements file wants, by its stamp."""
    stamp = stamp_of(requirements)
    return PYTHON.exists() and stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted(requirements)


def install(requirements: Path) -> str:
    """Install a requirements file into .venv unless its stamp says that it is there; returns what failed, or ''."""
    if is_installed(requirements):
        return ""
    if not PYTHON.exists() or quiet([PYTHON, "-m", "pip", "--version"]):
        print(f"Making {VENV} ...", flush=True)
        failure = run_shown([sys.executable, "-m", "venv", "--clear", VENV])
        if failure:
            return failure + "\n(On Debian and Ubuntu: sudo apt install python3-venv)"
    print(f"Installing {requirements.name} (once; this can take some minutes) ...", flush=True)
    failure = run_shown([PYTHON, "-m", "pip", "install", "-r", requirements])
    if not failure:
        unfinished = VENV / "stamp.part"
        unfinished.write_text(wanted(requirements), encoding="utf-8")
        unfinished.replace(stamp_of(requirements))
    return failure


def stamp_of(requirements: Path) -> Path:
    """The file whose presence says that a requirements file was installed to its end."""
    return VENV / f"{requirements.stem}.stamp"


def wanted(requirements: Path) -> str:
    """What the stamp holds when the file is installed: a hash of it, of what it includes, and of .venv's Python."""
    files = [requirements, ROOT / "requirements.txt", VENV / "pyvenv.cfg"]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files if file.is_file())).hexdigest()


def run_shown(command: list[object]) -> str:
    """Run with its output on the screen; returns '' or what failed, with its last lines and how to repeat it."""
    words = [str(word) for word in command]
    last: list[str] = []
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, errors="replace") as process:  # noqa: S603
        for line in process.stderr or ():
            print(line, end="", file=sys.stderr, flush=True)
            last = [*last, line.rstrip()][-8:]
    if not process.returncode:
        return ""
    tail = "\n".join(f"  {line}" for line in last if line)
    repeat = subprocess.list2cmdline(words)
    return f"The installation failed (exit code {process.returncode}):\n{tail}\nTo repeat it: {repeat}"


def quiet(command: list[object]) -> int:
    """Run without output; returns the exit code."""
    silent = subprocess.DEVNULL
    return subprocess.run([str(word) for word in command], stdout=silent, stderr=silent, check=False).returncode


def become(command: list[str]) -> int:  # noqa: RET503
    """Go on as another program: same process, so signals and exit code are its own (Windows: wait for it)."""
    sys.stdout.flush()
    if os.name == "nt":
        return subprocess.run(command, check=False).returncode
    os.execv(command[0], command)  # noqa: S606


def stop(message: str) -> int:
    """Say why nothing was started."""
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
