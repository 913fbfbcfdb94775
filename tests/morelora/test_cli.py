"""``python -m morelora``: every command once from the outside, and one message with exit code 2 for bad input."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from morelora.cli import build_parser, main
from morelora.formats import FORMS
from morelora.formats.container import write
from morelora.formats.precision import cast
from tests.morelora.formats import sd

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tmp_path):
    def make(name: str, form: str = "webui", **settings) -> str:
        adapters = sd.trained({"unet": sd.small()["unet"]}, **{"layers": "attention"} | settings)
        write(tmp_path / name, cast(FORMS[form](adapters), torch.float16), {"ss_base_model_version": "sd_v1"})
        return str(tmp_path / name)

    return make


def test_it_runs_without_a_model_library(file):
    code = (
        "import sys\nfrom morelora.cli import main\n"
        f"code = main(['inspect', {file('a.safetensors')!r}])\n"
        "print(code, sorted({'diffusers', 'transformers', 'accelerate', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
    assert "algorithms  lora (32)" in done.stdout and "inspecting: 32 of 32" in done.stderr


def test_every_command_on_adapter_files(file, tmp_path, capsys):
    a, b = file("a.safetensors", rank=4), file("b.safetensors", algorithm="loha", rank=2)
    out = [str(tmp_path / f"{name}.safetensors") for name in ("converted", "merged", "resized")]
    assert main(["convert", b, "--out", out[0], "--form", "auto", "--readers", "diffusers,a1111"]) == 0
    assert main(["merge", f"{a}=0.5", b, "--out", out[1], "--rank", "6", "--dtype", "fp32"]) == 0
    assert main(["resize", out[1], "--out", out[2], "--energy", "0.5"]) == 0
    assert main(["inspect", out[2], "--json"]) == 0
    assert main(["analyse", a, out[1], "--vectors", "4"]) == 0
    found = capsys.readouterr()
    assert "form lora; rank 4 on 32" in found.out and "rank 6 on 32" in found.out and "mean" in found.out
    assert found.out.count("Relative error of the change on 32 layers") == 3
    assert "merging: 32 of 32" in found.err
    assert {tensor.dtype for tensor in load_file(out[1]).values()} == {torch.float32}
    told = json.loads(found.out[found.out.index("{\n") : found.out.rindex("}") + 1])
    assert max(map(int, told["ranks"])) < 6


def test_models_are_merged_into_and_extracted_from(file, tmp_path, capsys):
    pocket, merged, back = ROOT / "assets" / "pocket", str(tmp_path / "model"), str(tmp_path / "back.safetensors")
    unet = load_file(next((pocket / "unet").glob("*.safetensors")))
    key = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    m, n = unet[f"{key}.weight"].shape
    tensors = {"lora_up.weight": torch.ones(m, 1) / 8, "lora_down.weight": torch.ones(1, n) / 8, "alpha": torch.tensor(1.0)}
    one = tmp_path / "one.safetensors"
    save_file({f"lora_unet_{key.replace('.', '_')}.{leaf}": tensor for leaf, tensor in tensors.items()}, one)
    assert main(["merge", f"{one}=2", "--into", str(pocket), "--out", merged]) == 0
    changed = load_file(next((tmp_path / "model" / "unet").glob("*.safetensors")))
    difference = changed[f"{key}.weight"].float() - unet[f"{key}.weight"].float()
    assert float((difference - 1 / 32).abs().max()) < 1e-3
    assert all(torch.equal(changed[other], unet[other]) for other in unet if other != f"{key}.weight")
    assert main(["extract", str(pocket), merged, "--out", back, "--rank", "1", "--dtype", "fp32"]) == 0
    assert "rank 1 on 1" in capsys.readouterr().out
    assert main(["analyse", back, "--base", str(pocket)]) == 0
    assert "amplification" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "nowhere.safetensors"], "nowhere.safetensors cannot be read"),
        (["inspect", "{text}"], "no whole safetensors file"),
        (["inspect", "{pickle}"], "is a pickle"),
        (["inspect", "{folder}"], "cannot be read (Is a directory)"),
        (["inspect", "{empty}"], "no whole safetensors file (0 bytes)"),
        (["inspect", "a\0b"], "is no path"),
        (["inspect", ""], "cannot be read"),
        (["inspect", "{a}", "--base", "{folder}"], "has no unet/*.safetensors"),
        (["convert", "{folder}", "--out", "{new}"], "cannot be read (Is a directory)"),
        (["convert", "{a}", "--out", "a\0b"], "is no path"),
        (["convert", "{a}", "--out", ""], "is no path"),
        (["convert", "{a}", "--out", "{folder}", "--overwrite"], "is there already"),
        (["merge", "{a}", "{empty}", "--out", "{new}"], "no whole safetensors file (0 bytes)"),
        (["merge", "{a}", "{huge}", "--out", "{new}", "--rank", "2"], "has no singular values"),
        (["convert", "{glora}", "--out", "{new}", "--form", "svd"], "depends on the base's weights"),
        (["extract", "{folder}", "{a}", "--out", "{new}", "--rank", "2"], "has no unet/*.safetensors"),
        (["convert", "{a}", "--out", "{a}"], "which is read: give another name"),
        (["convert", "{a}", "--out", "{b}"], "is there already: give another name, or --overwrite"),
        (["convert", "{a}", "--out", "{new}", "--form", "auto", "--readers", "fooocus"], "'fooocus' is not known"),
        (["convert", "{a}", "--out", "{missing}"], "is no folder: make it first"),
        (["convert", "{full}", "--out", "{new}", "--form", "lora"], "write the 'webui' form"),
        (["merge", "{a}=much", "--out", "{new}"], "'much' is no weight"),
        (["merge", "{a}", "--into", "{a}", "--out", "{new}"], "is no whole SD 1.x, 2.x or XL checkpoint"),
        (["resize", "{a}", "--out", "{new}"], "say how much to keep"),
        (["resize", "{a}", "--out", "{new}", "--rank", "0"], "at least 1"),
        (["resize", "{a}", "--out", "{new}", "--energy", "1.5"], "not between 0 and 1"),
        (["extract", "{a}", "{b}", "--out", "{new}"], "say how much to keep"),
        (["analyse"], "give one of: a file (or two), --forms, --costs"),
        (["analyse", "{a}"], "give a second file"),
        (["squeeze", "{a}"], "invalid choice"),
        ([], "COMMAND"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_ends_with_one_message_and_exit_code_2(file, tmp_path, capsys, arguments, message):
    places = {"a": file("a.safetensors"), "b": file("b.safetensors"), "new": str(tmp_path / "new.safetensors")}
    places |= {"full": file("full.safetensors", algorithm="full"), "missing": str(tmp_path / "none" / "x.safetensors")}
    places |= {"glora": file("glora.safetensors", form="sidecar", algorithm="glora"), "folder": str(tmp_path / "folder")}
    (tmp_path / "folder").mkdir()
    places["huge"] = str(tmp_path / "huge.safetensors")
    save_file({key: torch.full(tensor.shape, 1e38) for key, tensor in load_file(places["a"]).items()}, places["huge"])
    for name, content in (("text", b"hello, this is text"), ("pickle", b"PK\x03\x04 and more"), ("empty", b"")):
        places[name] = str(tmp_path / name)
        Path(places[name]).write_bytes(content)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main([argument.format(**places) for argument in arguments]) == 2
    found = capsys.readouterr()
    errors = [line for line in found.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0] and not found.out
    assert "Traceback" not in found.err and sorted(path.name for path in tmp_path.iterdir()) == before


def test_what_cannot_be_written_is_told_and_nothing_is_left(tmp_path, capsys, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device", str(tmp_path / "new.safetensors"))

    monkeypatch.setattr("morelora.atomic.fsync", full)
    adapters = cast(FORMS["webui"](sd.trained({"unet": sd.small()["unet"]}, layers="attention")), torch.float16)
    save_file(adapters, tmp_path / "b.safetensors")
    assert main(["resize", str(tmp_path / "b.safetensors"), "--out", str(tmp_path / "new.safetensors"), "--rank", "2"]) == 6
    assert "No space left on device" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.safetensors"]


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("inspect", "convert", "merge", "extract", "resize", "analyse"))
    assert build_parser().prog == "python -m morelora"
