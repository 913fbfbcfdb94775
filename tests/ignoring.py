"""A setting that acts has a test that fails where it is ignored. Such a test says so: ``@pytest.mark.acts("optimizer.lr")``.

  python -m tests.ignoring              every setting: run what its tests are, with the setting read as its default; all must fail
  python -m tests.ignoring loss. data.  the settings that begin so

That every setting has such a test is held by ``tests/test_architecture.py``, by the source alone; whether these tests notice is
held here, in some minutes.
"""

from __future__ import annotations

import ast
import importlib
import io
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from pydantic import BaseModel

TESTS = Path(__file__).resolve().parent
MARK = "acts"
Place = tuple[type[BaseModel], str]


def places() -> dict[str, list[Place]]:
    """Every setting with the classes and fields that hold it; of a list's entries what is theirs alone."""
    from morelora import ALGORITHMS
    from trainer.config import Config
    from trainer.config.data import FolderConfig
    from trainer.schema import OPTIONS, walk

    found: dict[str, list[Place]] = defaultdict(list)
    for setting in walk():
        section, _, name = setting.path.partition(".")
        owner: Any = Config.model_fields[section].annotation
        owners = [ALGORITHMS[algorithm].Options for algorithm in setting.algorithms] or [owner]
        found[setting.path] += [(kind, name) for kind in owners]
        if setting.item is not None:
            own = [key for key in setting.item.model_fields if key not in FolderConfig.model_fields and key != OPTIONS]
            found |= {f"{setting.path}.{key}": [(setting.item, key)] for key in own}
    return {path: held for path, held in found.items() if not any(kind.model_fields[name].is_required() for kind, name in held)}


def ignore(held: list[Place]) -> None:
    """From now on, in this process, these fields read as their defaults wherever they are read."""
    for kind, name in held:
        first = next(base for base in reversed(kind.__mro__) if name in getattr(base, "model_fields", ()))
        setattr(first, name, _default(name))


def _default(name: str) -> property:
    return property(lambda self: type(self).model_fields[name].get_default(call_default_factory=True))


def marked() -> dict[str, list[str]]:
    """Settings by the tests that say they need them, read from the source."""
    found: dict[str, list[str]] = defaultdict(list)
    for file in sorted(TESTS.rglob("test_*.py")):
        for test, paths in _marks(ast.parse(file.read_text(encoding="utf-8"))):
            for path in paths:
                found[path].append(f"{file.relative_to(TESTS.parent).as_posix()}::{test}")
    return dict(found)


def _marks(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    for node in tree.body:
        for mark in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
            if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Attribute) and mark.func.attr == MARK:
                yield node.name, [ast.literal_eval(argument) for argument in mark.args]


def notices(held: list[Place], test: str) -> bool:
    """Whether a test fails where a setting is ignored; asked in a child process, which alone is changed."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    import pytest

    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        ignore(held)
        code = pytest.main(["-x", "-p", "no:cacheprovider", test])
    os._exit(int(code))


def main(prefixes: list[str]) -> int:
    """Say which tests do not notice; returns the exit code."""
    importlib.import_module("tests.conftest")
    importlib.import_module("tests.trainer.tiny")  # once for all children: it takes seconds
    held, blind = places(), 0
    for path, chosen in sorted(marked().items()):
        for test in chosen if path.startswith(tuple(prefixes)) or not prefixes else ():
            seen = notices(held[path], test)
            blind += not seen
            print(f"{'ok   ' if seen else 'BLIND'} {path:<32} {test}", flush=True)
    return 1 if blind else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
