"""The launcher: standard library only, installs once, says what failed, keeps exit codes."""

from __future__ import annotations

import ast
import base64
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

FAKE_CLI = """
import os, sys
import tinypackage
def main(argv):
    print("cli", tinypackage.NAME, argv, os.environ["PYTHONUTF8"], os.environ["HF_HUB_OFFLINE"], sys.prefix)
    return 7
"""


@pytest.fixture
def launch():  # noqa: ANN201
    spec = importlib.util.spec_from_file_location("launch_under_test", ROOT / "launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_wheel(folder: Path, name: str) -> Path:
    """A wheel with one module, made by hand so that nothing has to be downloaded."""
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": f"NAME = {name!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text)}\n"
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in (files | {f"{info}/RECORD": record + f"{info}/RECORD,,\n"}).items():
            archive.writestr(path, text)
    return wheel


def start(project: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """``python launch.py`` in another folder, with none of this test's environment."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PYTHON"))}
    command = [sys.executable, str(project / "launch.py"), *argv]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=project.parent, timeout=300)


def test_it_imports_the_standard_library_alone():
    tree = ast.parse((ROOT / "launch.py").read_text(encoding="utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    foreign = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert foreign == {"app", "trainer"}, "only the two doors it hands over to may come from the project"
    at_top = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert not at_top & {"app", "trainer"}


def test_it_installs_once_hands_over_and_says_what_failed(tmp_path):
    project = tmp_path / "project with a space"
    (project / "trainer").mkdir(parents=True)
    shutil.copy(ROOT / "launch.py", project)
    (project / "trainer" / "__init__.py").touch()
    (project / "trainer" / "cli.py").write_text(FAKE_CLI)
    requirements = project / "requirements.txt"
    requirements.write_text("./missing-1.0-py3-none-any.whl\n")
    stamp = project / ".venv" / "requirements.stamp"

    failed = start(project, "--preset", "x")
    assert failed.returncode == 1
    assert "missing-1.0-py3-none-any.whl" in failed.stderr
    assert "To repeat it: " in failed.stderr and "-m pip install -r" in failed.stderr
    assert not stamp.exists()

    requirements.write_text(f"{write_wheel(tmp_path, 'tinypackage').as_uri()}\n")
    first = start(project, "--preset", "x", "--set", "a.b=c d")
    assert first.returncode == 7, first.stderr
    assert "Installing requirements.txt" in first.stdout and "Making" not in first.stdout
    assert f"cli tinypackage ['--preset', 'x', '--set', 'a.b=c d'] 1 1 {project / '.venv'}" in first.stdout

    second = start(project, "--list-presets")
    assert second.returncode == 7 and "Installing" not in second.stdout

    requirements.write_text(requirements.read_text() + "# changed\n")
    assert "Installing" in start(project, "--doctor").stdout

    stamp.unlink()  # as after an interrupted installation
    assert "Installing" in start(project, "--doctor").stdout and stamp.is_file()


def test_help_comes_before_any_installation(tmp_path):
    shutil.copy(ROOT / "launch.py", tmp_path)
    (tmp_path / "requirements.txt").touch()
    shown = start(tmp_path, "--help")
    assert shown.returncode == 0 and "--preset pocket-loha" in shown.stdout
    assert not (tmp_path / ".venv").exists()


def test_an_old_python_is_named(launch, monkeypatch, capsys):
    monkeypatch.setattr(launch.sys, "version_info", (3, 10, 4))
    assert launch.main([]) == 1
    assert "needs Python 3.11 or newer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "door"),
    [
        ([], "app.main"),
        (["--port", "8000"], "app.main"),
        (["--host=0.0.0.0", "--auth", "a:b"], "app.main"),
        (["--share"], "app.main"),
        (["--preset", "pocket-loha"], "trainer.cli"),
        (["--resume", "runs/x"], "trainer.cli"),
        (["--dry-run"], "trainer.cli"),
        (["--images", "x"], "trainer.cli"),
    ],
)
def test_each_option_goes_to_its_door(launch, monkeypatch, argv, door):
    called = []
    for name in ("app.main", "trainer.cli"):
        fake = types.ModuleType(name)
        fake.main = lambda given, name=name: called.append((name, given)) or 3
        monkeypatch.setitem(sys.modules, name, fake)
    assert launch.main(["--no-venv", *argv]) == 3
    assert called == [(door, argv)]


def test_no_venv_names_the_install_command(launch, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "trainer.cli", None)
    assert launch.hand_over(["--doctor"], testing=False) == 1
    message = capsys.readouterr().err
    assert "pip install -r" in message and "requirements.txt" in message


def test_the_tests_get_their_options(launch, monkeypatch):
    seen = []
    monkeypatch.setattr(launch, "become", lambda command: seen.append(command) or 0)
    monkeypatch.setattr(launch, "install", lambda requirements: seen.append(requirements.name) or "")
    monkeypatch.setattr(launch.sys, "prefix", str(launch.VENV))
    assert launch.main(["--test", "-k", "lora"]) == 0
    assert seen == ["requirements.txt", "requirements-dev.txt", [sys.executable, "-m", "pytest", "-k", "lora"]]


def test_pins_name_exact_versions_with_torch_first_and_no_torchvision():
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()]
    pins = [line for line in lines if line]
    assert pins[0] == "torch==2.13.0"
    assert all("==" in pin for pin in pins)
    every = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("requirements*.txt"))
    assert "torchvision" not in every
    assert importlib.util.find_spec("torchvision") is None, "nothing may pull torchvision in"
