"""What a user can get wrong, through the real command line: exit code, one message with the thing and the fix, no traceback."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path

import pytest

from tests.trainer import tiny
from trainer import cli
from trainer.run import RunDir

ROOT = Path(__file__).resolve().parents[2]


class Place:
    """A tiny base model, two good pictures, and a command line over both, in a folder of their own."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder, self.base, self.output = folder, base, folder / "runs"
        self.images = tiny.save_pictures(folder / "pictures", count=2)

    def copy_base(self) -> Path:
        return Path(shutil.copytree(self.base, self.folder / "base", dirs_exist_ok=True))

    def argv(self, *extra: str, base: Path | None = None, images: Path | None = None) -> list[str]:
        places = ["--images", str(images or self.images), "--base", str(base or self.base), "--output", str(self.output)]
        pairs = ["train.steps=1", "data.resolution=64", "data.bucket_step=8", "preview.steps=1"]
        sets = [word for pair in pairs for word in ("--set", pair)]
        return [*places, "--name", "bad", *sets, *extra]


Case = Callable[[Place], list[str]]


@dataclass(frozen=True)
class Bad:
    """One mistake: its command line, what the message must hold, the exit code."""

    name: str
    make: Case
    words: tuple[str, ...]
    code: int = 2


def setting(*pairs: str) -> Case:
    return lambda place: place.argv(*(word for pair in pairs for word in ("--set", pair)))


def preset(text: str) -> Case:
    def make(place: Place) -> list[str]:
        file = place.folder / "mine.toml"
        file.write_text(text, encoding="utf-8")
        return ["--preset", str(file)]

    return make


def picture(name: str, content: bytes) -> Case:
    def make(place: Place) -> list[str]:
        (place.images / name).write_bytes(content)
        return place.argv()

    return make


def torn_picture(place: Place) -> list[str]:
    whole = (place.images / "0.png").read_bytes()
    return picture("torn.png", whole[: len(whole) // 2])(place)


def empty_folder(place: Place) -> list[str]:
    (place.folder / "empty").mkdir()
    return place.argv(images=place.folder / "empty")


def one_level_deeper(place: Place) -> list[str]:
    place.images.rename(place.folder / "outer-pictures")
    (place.folder / "outer").mkdir()
    (place.folder / "outer-pictures").rename(place.folder / "outer" / "style")
    return place.argv(images=place.folder / "outer")


def torn_weights(place: Place) -> list[str]:
    base = place.copy_base()
    weights = base / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    return place.argv(base=base)


def pickle_weights(place: Place) -> list[str]:
    base = place.copy_base()
    (base / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (base / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Trap(place.folder / "executed")))
    return place.argv(base=base)


def pickle_file(place: Place) -> list[str]:
    file = place.folder / "model.ckpt"
    file.write_bytes(pickle.dumps(Trap(place.folder / "executed")))
    return place.argv(base=file)


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):  # noqa: ANN204
        return Path.touch, (self.mark,)


def no_model_folder(place: Place) -> list[str]:
    return place.argv(base=place.images)


def run_without_checkpoints(place: Place) -> list[str]:
    run = place.output / "torn"
    run.mkdir(parents=True)
    (run / "config.toml").write_text("[train]\nsteps = ", encoding="utf-8")
    return ["--resume", str(run)]


def output_is_a_file(place: Place) -> list[str]:
    place.output.write_text("", encoding="utf-8")
    return place.argv()


CASES = [
    Bad("misspelt setting", setting("adapter.ranck=4"), ("adapter.ranck", "did you mean adapter.rank")),
    Bad("misspelt section", preset("[optimzer]\nlr = 1e-4\n"), ("optimzer", "did you mean optimizer", "mine.toml")),
    Bad("setting in the wrong section", setting("train.lr=1e-4"), ("train.lr", "did you mean optimizer.lr")),
    Bad("wrong type", setting("train.steps=many"), ("train.steps = 'many'", "whole number")),
    Bad("not a number", setting("optimizer.lr=nan"), ("optimizer.lr", "finite number")),
    Bad("out of bounds", setting("adapter.rank=0"), ("adapter.rank = 0", "at least 1")),
    Bad("unknown algorithm", setting("adapter.algorithm=lohaa"), ("lohaa", "did you mean 'loha'")),
    Bad("unknown choice", setting("export.format=a1111"), ("export.format = 'a1111'", "webui | lora | diffusers")),
    Bad("unknown preset", lambda place: ["--preset", "pocket-lohaa"], ("pocket-lohaa", "did you mean pocket-loha")),
    Bad("missing preset file", lambda place: ["--preset", "gone.toml"], ("gone.toml", "cannot be read")),
    Bad("unknown option", lambda place: ["--prset", "x"], ("--prset", "--help")),
    Bad("no key=value", setting("optimizer.lr"), ("optimizer.lr", "key=value")),
    Bad("option the algorithm lacks", setting("adapter.factor=4"), ("adapter.factor", "lora has no such option", "lokr")),
    Bad(
        "combination without effect",
        setting("train.text_encoder=false", "optimizer.text_encoder_lr=1e-4"),
        ("optimizer.text_encoder_lr", "no effect"),
    ),
    Bad("nothing to train", setting("train.unet=false", "train.text_encoder=false"), ("nothing would be trained",)),
    Bad("bad TOML", preset("[train\nsteps = 3"), ("mine.toml", "not valid TOML", "line 1")),
    Bad("bad expression in a rule", setting("adapter.rules=[{match='('}]"), ("adapter.rules[0].match", "regular expression")),
    Bad("misspelt option in a rule", setting("adapter.rules=[{match='attn2', ranks=3}]"), ("'attn2'", "ranks", "mean 'rank'")),
    Bad("wrong option in a rule", setting("adapter.rules=[{match='attn2', rank='x'}]"), ("'attn2'", "rank = 'x'", "integer")),
    Bad("preview size that the VAE cannot draw", setting("preview.width=33"), ("preview.width = 33", "multiples of 8", "32")),
    Bad("unknown loss", setting("loss.kind=huberr"), ("loss.kind = 'huberr'", "l2 | huber | smooth_l1")),
    Bad("delta of a loss that has none", setting("loss.huber_delta=0.2"), ("loss.huber_delta", "no effect", "l2")),
    Bad("two weightings", setting("loss.min_snr_gamma=5", "loss.debiased=true"), ("min_snr_gamma", "debiased", "choose one")),
    Bad("empty range of timesteps", setting("loss.timestep_min=900", "loss.timestep_max=100"), ("timestep_min (900)", "(100)")),
    Bad("optimiser that its package lacks", setting("optimizer.name=torch.optim.Nope"), ("torch.optim.Nope", "imported")),
    Bad("optimiser of a missing package", setting("optimizer.name=nope.Class"), ("nope.Class", "install its package")),
    Bad("misspelt optimiser", setting("optimizer.name=adamm"), ("adamm", "did you mean 'adamw'")),
    Bad("argument that the optimiser lacks", setting("optimizer.arguments={foo=1}"), ("arguments.foo", "AdamW", "eps")),
    Bad("warm-up longer than the run", setting("optimizer.warmup=5"), ("optimizer.warmup (5)", "train.steps (1)")),
    Bad("power of a schedule that has none", setting("optimizer.power=3"), ("optimizer.power", "no effect", "polynomial")),
    Bad("folder without a path", setting("data.images=none", "data.sources=[{repeats=2}]"), ("data.sources[0].path", "missing")),
    Bad(
        "misspelt setting of a folder",
        setting("data.images=none", "data.sources=[{path='x', repeets=2}]"),
        ("data.sources[0].repeets", "did you mean data.sources[0].repeats"),
    ),
    Bad("one folder and several", setting("data.sources=[{path='x'}]"), ("data.images", "data.sources", "both")),
    Bad("several folders, one missing", setting("data.images=none", "data.sources=[{path='gone'}]"), ("gone", "not exist")),
    Bad("no colour", setting("data.background=reddish"), ("data.background = 'reddish'", "#8080ff")),
    Bad("half precision on a CPU", setting("train.precision=fp16"), ("train.precision = 'fp16'", "GPU", "bf16")),
    Bad("negative steps", setting("checkpoint.every=-1"), ("checkpoint.every = -1", "at least 0")),
    Bad("empty name", setting("run.name="), ("run.name = ''", "1 or more characters")),
    Bad("rule that matches nothing", setting("adapter.rules=[{match='attn9'}]"), ("attn9", "matches no layer")),
    Bad(
        "rank above both sides of a layer",
        setting("adapter.rank=4000"),
        ("unet.", "rank 4000 is larger than both sides", "lower it"),
    ),
    Bad("rank too large", setting("adapter.rank=5000"), ("adapter.rank = 5000", "at most 4096")),
    Bad(
        "rank too large for loha",
        setting("adapter.algorithm=loha", "adapter.rank=300"),
        ("adapter.rank = 300", "at most 256"),
    ),
    Bad("bucket step that the model cannot divide", setting("data.bucket_step=12"), ("data.bucket_step", "12", "8")),
    Bad("no pictures named", lambda place: ["--base", str(place.base)], ("data.images", "empty")),
    Bad("missing folder", lambda place: place.argv(images=place.folder / "gone"), ("gone", "does not exist")),
    Bad("empty folder", empty_folder, ("empty", "no picture")),
    Bad("file in place of a folder", lambda place: place.argv(images=place.images / "0.png"), ("0.png", "folder")),
    Bad("pictures one level deeper", one_level_deeper, ("outer/style", "10_cat")),
    Bad("torn picture", torn_picture, ("torn.png",)),
    Bad("text named as a picture", picture("note.png", b"hello"), ("note.png",)),
    Bad("empty picture", picture("void.png", b""), ("void.png",)),
    Bad("caption that is no UTF-8", picture("0.txt", b"caf\xe9"), ("0.txt", "UTF-8")),
    Bad("missing base", lambda place: place.argv(base=place.folder / "no-base"), ("no-base", "model.base")),
    Bad("base that is no model", no_model_folder, ("model.base", "model_index.json")),
    Bad("torn safetensors", torn_weights, ("unet",)),
    Bad("pickle in the base", pickle_weights, ("unet", "safetensors")),
    Bad("pickle as the base", pickle_file, ("model.ckpt", "safetensors")),
    Bad("output that is a file", output_is_a_file, ("run.output",)),
    Bad("name without a letter", lambda place: place.argv("--name", "///"), ("run.name",)),
    Bad("resume of a folder that is no run", lambda place: ["--resume", str(place.images)], ("pictures", "no run folder")),
    Bad("resume of a missing folder", lambda place: ["--resume", str(place.folder / "gone")], ("gone", "no run folder")),
    Bad("resume of a torn config", run_without_checkpoints, ("config.toml", "not valid TOML")),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_base(tmp_path_factory.mktemp("base") / "tiny-base")


@pytest.fixture
def place(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, base)


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder by the hash of its bytes, and every folder."""
    paths = folder.rglob("*")
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in paths}


def save_earlier_run(place: Place) -> None:
    """A finished run under the name that every case asks for."""
    run = place.output / "bad"
    (run / "checkpoints" / "000001").mkdir(parents=True)
    for name in ("config.toml", "events.jsonl", "bad.safetensors", "checkpoints/000001/adapters.safetensors"):
        (run / name).write_text(f"earlier {name}", encoding="utf-8")


def test_the_table_holds_sixty_mistakes():
    assert len({bad.name for bad in CASES}) == len(CASES) >= 60
    assert {bad.code for bad in CASES} == {2}


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.name.replace(" ", "-"))
def test_bad_input_is_named_with_its_fix_and_nothing_is_lost(place, capsys, bad):
    argv = bad.make(place)
    if not place.output.is_file():
        save_earlier_run(place)
    before, base = content(place.folder), content(place.base)
    code = cli.main(argv)
    shown = capsys.readouterr()
    after = content(place.folder)
    assert {name: after.get(name) for name in before} == before, "a file of the user was changed or is gone"
    assert content(place.base) == base
    assert code == bad.code, shown.err
    assert shown.err.count("Error: ") == 1 and shown.err.startswith("Error: ")
    assert "What to do: " in shown.err
    assert "Traceback" not in shown.err + shown.out
    for word in bad.words:
        assert word in shown.err, shown.err
    assert not (place.folder / "executed").exists(), "a pickle was run"
    assert not [name for name in after.keys() - before.keys() if fnmatch(name, "runs/*/bad*.safetensors")], "a file was exported"


def test_the_good_command_line_of_the_table_works(place, capsys):
    """The control: without a mistake the same command line trains, so no case above fails for another reason."""
    assert cli.main(place.argv()) == 0, capsys.readouterr().err
    assert (place.output / "bad" / "bad.safetensors").is_file()


def test_a_dry_run_finds_the_same_mistakes_and_writes_nothing(place, capsys):
    (place.images / "torn.png").write_bytes(b"\x89PNG")
    assert cli.main(place.argv("--dry-run")) == 2
    assert "torn.png" in capsys.readouterr().err
    (place.images / "torn.png").unlink()
    assert cli.main(place.argv("--dry-run")) == 0
    assert "What will be trained" in capsys.readouterr().out
    assert not place.output.exists()


def test_a_locked_run_is_refused(place, capsys):
    assert cli.main(place.argv()) == 0
    run = place.output / "bad"
    code = "import sys, time; from pathlib import Path; from trainer.run import RunDir; r = RunDir(Path(sys.argv[1])); r.lock()"
    code += "; print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(run)], stdout=subprocess.PIPE, cwd=ROOT) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        before = RunDir(run).events()
        capsys.readouterr()
        assert cli.main(["--resume", str(run)]) == 7
        holder.kill()
    message = capsys.readouterr().err
    assert str(run) in message and "another process" in message and "What to do: " in message
    assert RunDir(run).events() == before, "the events are the other process's"


def test_a_full_disk_is_told_and_leaves_no_half_file(place, capsys, monkeypatch):
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place.output))

    monkeypatch.setattr("morelora.atomic.fsync", full)
    assert cli.main(place.argv()) == 6
    assert "No space left on device" in capsys.readouterr().err
    assert not list(place.output.rglob(".tmp-*"))
