"""The house rules, read from the source: who may import whom, sizes, docstrings, forbidden calls, settings that are read.

The exceptions below may only shrink: a stale or too generous one fails too.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests import ignoring
from trainer import docs
from trainer.schema import walk

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("morelora", "trainer", "app")

ALLOWED = {"morelora": {"morelora"}, "trainer": {"trainer", "morelora"}, "app": {"app", "trainer", "morelora"}}
"""Arrows: launch.py -> app -> trainer -> morelora."""

MORELORA_NEEDS = {"torch", "safetensors", "pydantic"}
MORELORA_LOADS = {"diffusers", "transformers"}
"""Named by morelora only inside functions that are handed such a model."""

FORBIDDEN_ARROWS = [
    (r"trainer\.diffusion\b", r"trainer\.(config|settings|presets)\b", "diffusion is mathematics without settings"),
    (r"morelora\.algorithms\.", r"morelora\.(inject|registry|adapted|targets)\b", "an algorithm is a formula alone"),
    (r"morelora\.algorithms\.(?!_)", r"morelora\.algorithms\.", "algorithms do not know each other"),
    (r"app\.", r"(torch|diffusers|transformers|accelerate|morelora)\b", "the browser's process holds no model"),
    (r"app\.", r"trainer\.(config|settings|schema|train|loop)\b", "what imports torch stays out of the browser's process"),
]

FUNCTION_LIMIT, LOOP_LIMIT, FILE_LIMIT, ALGORITHM_LIMIT, PARAMETER_LIMIT = 60, 120, 400, 150, 6
LOOP = "trainer/loop.py:train_steps"
LARGE: dict[str, int] = {}
"""Files and functions beyond a limit, with their size now. Never add one; lower the number when one shrinks."""
MANY_PARAMETERS: dict[str, int] = {}

PATTERNS = [r"shell\s*=\s*True", r"weights_only\s*=\s*False", r"allow_pickle\s*=\s*True", r"yaml\.load\(", r"extractall\("]


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@cache
def tracked() -> tuple[Path, ...]:
    """Python files of the tree: those git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    names = listed.stdout.splitlines() if listed.returncode == 0 else []
    files = [ROOT / name for name in names] or [file for top in (*PACKAGES, "bench") for file in (ROOT / top).rglob("*.py")]
    return tuple(file for file in files if file.is_file())


SOURCES = [file for file in tracked() if relative(file).partition("/")[0] in PACKAGES]
SIZED = [file for file in tracked() if relative(file).partition("/")[0] in (*PACKAGES, "bench", "launch.py")]


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(file: Path, at_top_only: bool = False) -> Iterator[str]:
    """Dotted names of what a file imports; ``from a import b`` gives ``a.b`` (and so also ``a``)."""
    for node in tree(file).body if at_top_only else ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide the arrows"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def functions(file: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function with its dotted name, methods and inner ones too."""

    def visit(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{prefix}{child.name}", child
            inner = f"{prefix}{child.name}." if hasattr(child, "name") and not isinstance(child, ast.alias) else prefix
            yield from visit(child, inner)

    return visit(tree(file), "")


# arrows


@pytest.mark.parametrize("file", SOURCES, ids=relative)
def test_imports_point_down(file):
    package = module_name(file).partition(".")[0]
    for name in imports(file):
        top = name.partition(".")[0]
        assert top not in {*PACKAGES, "launch", "bench", "tests"} - ALLOWED[package], f"{package} may not import {name}"
        for source, target, why in FORBIDDEN_ARROWS:
            if re.match(source, f"{module_name(file)}.") and re.match(target, name):
                pytest.fail(f"{relative(file)} imports {name}: {why}")


def test_the_ground_floor_needs_three_packages():
    for file in SOURCES:
        if module_name(file).startswith("morelora"):
            at_top = {name.partition(".")[0] for name in imports(file, at_top_only=True)}
            anywhere = {name.partition(".")[0] for name in imports(file)}
            known = set(sys.stdlib_module_names) | MORELORA_NEEDS | {"morelora"}
            assert at_top <= known, f"{relative(file)} needs {at_top - known}"
            assert anywhere <= known | MORELORA_LOADS, f"{relative(file)} needs {anywhere - known - MORELORA_LOADS}"


def test_families_do_not_know_each_other():
    folder = ROOT / "trainer" / "models"
    families = {file.stem for file in folder.glob("*.py") if re.search(r"^class \w+\(Bundle\):", file.read_text("utf-8"), re.M)}
    assert families
    for name in families:
        others = {f"trainer.models.{other}" for other in families - {name}}
        found = {target for target in imports(folder / f"{name}.py") if any(target.startswith(other) for other in others)}
        assert not found, f"family {name} imports {found}"


@pytest.mark.parametrize(
    ("modules", "large"),
    [
        ("app.main, app.site", {"torch", "diffusers", "transformers"}),
        ("trainer.answers", {"diffusers", "transformers"}),  # the page waits for the first answer
    ],
)
def test_what_a_page_waits_for_imports_nothing_large(modules, large):
    code = f"import sys, {modules}; print(sorted({large!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


# sizes


def sizes() -> dict[str, tuple[int, int]]:
    """Size and limit of every file and function."""
    found = {}
    for file in SIZED:
        limit = ALGORITHM_LIMIT if file.parent.name == "algorithms" else FILE_LIMIT
        found[relative(file)] = (len(file.read_text(encoding="utf-8").splitlines()), limit)
        for name, node in functions(file):
            key = f"{relative(file)}:{name}"
            found[key] = ((node.end_lineno or 0) - node.lineno + 1, LOOP_LIMIT if key == LOOP else FUNCTION_LIMIT)
    return found


def test_files_and_functions_stay_small():
    too_large = {key: size for key, (size, limit) in sizes().items() if size > LARGE.get(key, limit)}
    assert not too_large, "split these; do not add them to LARGE"


def test_size_exceptions_only_shrink():
    now = sizes()
    for key, allowed in LARGE.items():
        size, limit = now.get(key, (0, 0))
        assert limit < size == allowed, f"LARGE[{key!r}]: it has {size} lines now; lower the number, or remove the line"


def test_functions_take_few_parameters():
    counts = {f"{relative(file)}:{name}": count_parameters(node) for file in SIZED for name, node in functions(file)}
    many = {key: count for key, count in counts.items() if count > MANY_PARAMETERS.get(key, PARAMETER_LIMIT)}
    assert not many
    for key, allowed in MANY_PARAMETERS.items():
        assert PARAMETER_LIMIT < counts.get(key, 0) == allowed, f"MANY_PARAMETERS[{key!r}] is stale"


def count_parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return len([argument for argument in every if argument.arg not in ("self", "cls")])


# words


@pytest.mark.parametrize("file", SOURCES, ids=relative)
def test_public_names_have_docstrings(file):
    assert ast.get_docstring(tree(file)), f"{relative(file)} has no docstring"
    missing = []
    for node in tree(file).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node):
            missing.append(node.name)
    assert not missing, f"{relative(file)}: {missing}"


def test_no_forbidden_call_is_in_the_tree():
    here = Path(__file__)
    for file in tracked():
        if file != here:
            text = file.read_text(encoding="utf-8")
            found = [pattern for pattern in PATTERNS if re.search(pattern, text)]
            assert not found, f"{relative(file)}: {found}"


# settings


def test_every_setting_is_read():
    """A field of the schema that no code mentions as an attribute is a promise that is not kept."""
    read: set[str] = set()
    for file in SOURCES:
        if file.parent.name != "config" and file.name not in ("schema.py", "settings.py"):
            nodes = list(ast.walk(tree(file)))
            read |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
            read |= {str(node.args[1].value) for node in nodes if is_getattr(node)}
    unread = {setting.path for setting in walk() if setting.path.rpartition(".")[2] not in read}
    assert not unread


def test_every_setting_has_a_test_that_it_acts():
    """See ``tests/ignoring.py``: such a test fails where the setting is ignored, and names it in its mark."""
    settings, tests = ignoring.places(), ignoring.marked()
    assert not settings.keys() - tests.keys(), 'mark a test of each with @pytest.mark.acts("SETTING"), or write one'
    assert not tests.keys() - settings.keys(), "there are no such settings"


def is_getattr(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr"):
        return False
    return len(node.args) > 1 and isinstance(node.args[1], ast.Constant)


def test_the_settings_page_is_fresh():
    assert docs.FILE.read_text(encoding="utf-8") == docs.settings_page(), "run: python -m trainer.docs"


def test_torchvision_is_not_installed():
    """One that does not match torch breaks every import of diffusers; nothing here may pull it in."""
    assert importlib.util.find_spec("torchvision") is None
