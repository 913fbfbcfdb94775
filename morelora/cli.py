"""The command line for files. Bad input ends with one message and exit code 2; standard output holds results alone."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from morelora.analysis import commands as analysis
from morelora.errors import FormatError, MoreLoraError
from morelora.files.checkpoint import Checkpoint
from morelora.files.convert import convert
from morelora.files.extract import Extraction, extract
from morelora.files.inspect import inspect, lines
from morelora.files.merge import Weighted, merge, merge_into
from morelora.files.opened import Opened, open_adapter
from morelora.files.resize import resize
from morelora.files.writing import DTYPES, Output, Report
from morelora.formats import FORMS
from morelora.formats.readers import READERS
from morelora.lowrank import Cut

BAD_INPUT, DISK = 2, 6
FORM_NAMES = ("auto", *FORMS, "svd")


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ``FormatError``."""

    def error(self, message: str) -> NoReturn:
        raise FormatError(f"{message} ({self.prog} --help shows every option)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 2 bad input, 6 not written, 130 interrupted."""
    try:
        options = build_parser().parse_args(argv)
        options.run(options)
    except SystemExit as leave:  # --help
        return int(leave.code or 0)
    except MoreLoraError as error:
        return _fail(str(error), BAD_INPUT)
    except OSError as error:
        return _fail(f"{error.filename or 'the file'} cannot be written: {error.strerror or error}", DISK)
    except KeyboardInterrupt:
        return _fail("interrupted; no file was left half written", 130)
    return 0


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def build_parser() -> Parser:
    """All commands."""
    parser = Parser(prog="python -m morelora", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    _add_inspect(commands)
    _add_convert(commands)
    _add_merge(commands)
    _add_extract(commands)
    _add_resize(commands)
    analysis.add_analyse(commands)
    return parser


def _add_inspect(commands: Any) -> None:
    command = commands.add_parser("inspect", help="what a file holds: algorithms, ranks, norms, spectra, faults, text")
    command.add_argument("file", type=Path)
    command.add_argument("--json", action="store_true", help="everything as JSON")
    command.add_argument("--layers", action="store_true", help="a line for each layer")
    _add_base(command)
    command.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> None:
    told = inspect(options.file, _base(options))
    print(json.dumps(told, indent=1, ensure_ascii=False) if options.json else "\n".join(lines(told, options.layers)))


def _add_convert(commands: Any) -> None:
    command = commands.add_parser("convert", help="the same change in another form")
    command.add_argument("file", type=Path)
    _add_output(command, form="webui")
    _add_cut(command)
    command.set_defaults(run=_convert)


def _convert(options: argparse.Namespace) -> None:
    base = _base(options)
    opened = open_adapter(options.file, base)
    _print(convert(opened, _output(options, [options.file], opened, _cut(options)), base))


def _add_merge(commands: Any) -> None:
    command = commands.add_parser("merge", help="several files as one, or files into a base model")
    command.add_argument("files", nargs="+", metavar="FILE[=WEIGHT]", help="adapter files; a weight of 1 needs not be written")
    _add_output(command, form="webui")
    _add_cut(command, "the rank of the sum; without one of these it is exact")
    command.add_argument("--into", type=Path, metavar="MODEL", help="a base model, folder or file, of which --out becomes a copy")
    command.set_defaults(run=_merge)


def _merge(options: argparse.Namespace) -> None:
    if options.into is not None and options.base is not None:
        raise FormatError("--into names the base model already: leave --base out")
    base = Checkpoint.open(options.into) if options.into else _base(options)
    files: list[Weighted] = [(open_adapter(path, base), weight) for path, weight in map(_weighted, options.files)]
    if options.into is not None:
        _refuse_overwrite(options, [options.into, *(opened.path for opened, _ in files)])
        print("\n".join(merge_into(Checkpoint.open(options.into), files, options.out)))
        return
    output = _output(options, [opened.path for opened, _ in files], files[0][0], None)
    _print(merge(files, output, _cut(options), base))


def _weighted(text: str) -> tuple[Path, float]:
    """``style.safetensors=0.8`` as path and weight."""
    path, equals, weight = text.rpartition("=")
    if not equals or Path(text).is_file():
        return Path(text), 1.0
    try:
        return Path(path), float(weight)
    except ValueError as error:
        raise FormatError(f"{text}: {weight!r} is no weight; write FILE=0.8") from error


def _add_extract(commands: Any) -> None:
    command = commands.add_parser("extract", help="the difference of two base models as an adapter")
    command.add_argument("model", type=Path, help="the base model, folder or file")
    command.add_argument("tuned", type=Path, help="the model that was trained from it")
    _add_output(command, form="webui", base=False)
    _add_cut(command)
    command.add_argument("--algorithm", choices=("lora", "lokr"), default="lora")
    command.add_argument("--factor", type=int, default=8, help="LoKr: side of the small matrix [8]")
    command.add_argument("--layers", choices=("attention", "transformer", "all"), default="all")
    command.set_defaults(run=_extract)


def _extract(options: argparse.Namespace) -> None:
    cut = _cut(options)
    if cut is None and options.algorithm == "lora":
        raise FormatError("say how much to keep: --rank, --error, --ratio, --energy or --frobenius")
    output = _output(options, [options.model, options.tuned], None, None)
    how = Extraction(cut or Cut(), options.algorithm, options.factor, options.layers)
    _print(extract(Checkpoint.open(options.model), Checkpoint.open(options.tuned), output, how))


def _add_resize(commands: Any) -> None:
    command = commands.add_parser("resize", help="the nearest LoRA of another rank")
    command.add_argument("file", type=Path)
    _add_output(command, form="webui")
    _add_cut(command)
    command.set_defaults(run=_resize)


def _resize(options: argparse.Namespace) -> None:
    cut, base = _cut(options), _base(options)
    if cut is None:
        raise FormatError("say how much to keep: --rank, --energy, --frobenius, --error or --ratio")
    opened = open_adapter(options.file, base)
    _print(resize(opened, _output(options, [options.file], opened, None), cut, base))


# shared options


def _add_base(command: Any) -> None:
    command.add_argument("--base", type=Path, metavar="MODEL", help="the base model, where its weights or shapes are needed")


def _add_output(command: Any, form: str, base: bool = True) -> None:
    command.add_argument("--out", type=_path, required=True, help="the file to write")
    command.add_argument("--form", choices=FORM_NAMES, default=form, help=f"see docs/formats.md [{form}]")
    command.add_argument("--readers", default="a1111,forge,comfyui", help="for --form auto: programs, with commas between")
    command.add_argument("--dtype", choices=tuple(DTYPES), help="precision [as the file's; fp16 for what is extracted]")
    command.add_argument("--overwrite", action="store_true", help="replace --out where it is there")
    if base:
        _add_base(command)


def _add_cut(command: Any, what: str = "how much of each layer's change to keep") -> None:
    group = command.add_argument_group(what)
    group.add_argument("--rank", type=_positive, help="at most this rank")
    group.add_argument("--energy", type=_share, help="least share of the squared singular values")
    group.add_argument("--frobenius", type=_share, help="least share of the Frobenius norm")
    group.add_argument("--error", type=_share, help="largest relative error")
    group.add_argument("--ratio", type=_share, help="least singular value, as a share of the largest")


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no path")
    return Path(text)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no rank: at least 1")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _cut(options: argparse.Namespace) -> Cut | None:
    cut = Cut(options.rank, options.energy, options.frobenius, options.error, options.ratio)
    return None if cut == Cut() else cut


def _base(options: argparse.Namespace) -> Checkpoint | None:
    return None if options.base is None else Checkpoint.open(options.base)


def _output(options: argparse.Namespace, sources: list[Path], like: Opened | None, cut: Cut | None) -> Output:
    _refuse_overwrite(options, sources)
    readers = tuple(filter(None, options.readers.split(",")))
    unknown = [reader for reader in readers if reader not in READERS]
    if unknown:
        raise FormatError(f"--readers: {unknown[0]!r} is not known; choose from {', '.join(READERS)}")
    dtype = DTYPES.get(options.dtype) or (like.dtype if like else DTYPES["fp16"])
    return Output(options.out, options.form, dtype, readers, cut)


def _refuse_overwrite(options: argparse.Namespace, sources: list[Path]) -> None:
    out = options.out
    if any(out.exists() and out.samefile(source) for source in sources if source.exists()):
        raise FormatError(f"--out is {out}, which is read: give another name")
    if out.exists() and (out.is_dir() or not options.overwrite):
        raise FormatError(f"{out} is there already: give another name{'' if out.is_dir() else ', or --overwrite'}")
    if not out.parent.is_dir():
        raise FormatError(f"{out.parent} is no folder: make it first")


def _print(report: Report) -> None:
    print("\n".join(report.lines()))
