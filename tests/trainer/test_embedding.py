"""Textual inversion in whole runs on a tiny base, alone and with an adapter, and each of its settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor

from morelora import AdapterSet, load, load_embedding
from morelora.formats.container import read_metadata
from morelora.formats.embedding import WORD_KEY, encode
from tests.trainer import tiny
from trainer import console, models, settings
from trainer.config import Config
from trainer.embedding import Word, add_word, init_rows
from trainer.errors import InputError, StoppedError, TrainerError
from trainer.events import Event, Started, Step
from trainer.run import RunDir
from trainer.train import resume, train
from trainer.verify_word import verify_word

ALONE = {
    "train__unet": False,
    "train__text_encoder": False,
    "embedding__vectors": 2,
    "checkpoint__every": 1,
    "checkpoint__keep": 9,
    "checkpoint__export": True,
    "checkpoint__keep_exports": 1,
}
PIVOTAL = {
    "train__text_encoder": False,
    "train__accumulation": 2,
    "train__ema": 0.9,
    "embedding__vectors": 2,
    "embedding__init": "fox cat",
    "embedding__freeze_after": 0.5,
    "embedding__bundle": True,
    "embedding__weight_decay": 0.1,
    "checkpoint__every": 1,
    "checkpoint__keep": 9,
}
WORD = "my style"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    return tiny.save_base(folder / "base"), tiny.save_pictures(folder / "pictures")


def config(inputs: tuple[Path, Path], output: Path, **changes: Any) -> Config:
    return settings.parse(tiny.values(*inputs, output, **changes), "test")


def run(inputs: tuple[Path, Path], output: Path, listener=lambda event: None, **changes: Any) -> Path:  # noqa: ANN001
    return train(config(inputs, output, **changes), listener=listener)


def vectors_at(path: Path, step: int) -> Tensor:
    return load_file(path / "checkpoints" / f"step-{step:06d}" / "tensors.safetensors")["word/text_encoder.vectors"]


def table_of(base: Path) -> Tensor:
    return StableDiffusionPipeline.from_pretrained(base).text_encoder.get_input_embeddings().weight.detach()


@pytest.fixture(scope="module")
def alone(inputs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    events: list[Event] = []
    return run(inputs, tmp_path_factory.mktemp("alone"), events.append, **ALONE), events


@pytest.fixture(scope="module")
def pivotal(inputs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(inputs, tmp_path_factory.mktemp("pivotal"), **PIVOTAL)


def test_a_word_alone_trains_its_vectors_and_nothing_else(alone):
    path, events = alone
    names = ["tiny-000005-embedding.safetensors", "tiny-embedding.safetensors"]
    assert sorted(file.name for file in path.glob("*.safetensors")) == names, "of the numbered files the newest stays"
    saved = load_file(path / "checkpoints" / "step-000006" / "tensors.safetensors")
    assert not [name for name in saved if name.startswith("adapter/")]
    written = load_file(path / "tiny-embedding.safetensors")
    assert list(written) == ["emb_params"] and torch.equal(written["emb_params"], saved["word/text_encoder.vectors"])
    moved = (vectors_at(path, 6) - vectors_at(path, 1)).abs().max()
    assert 0.1 * 1e-3 < moved < 10 * 1e-3, "five steps of AdamW at the rate of 1e-3, falling"
    assert not list((path / "cache").glob("text-*")), "captions are encoded in the loop"
    assert [event.lr for event in events if isinstance(event, Step)][0] == pytest.approx(1e-3)
    assert events[-1].file == "tiny-embedding.safetensors"


def test_the_plan_says_what_a_word_is(alone):
    plan = next(event for event in alone[1] if isinstance(event, Started)).plan
    assert plan["trained"] == [
        {"component": "text_encoder", "algorithm": "word 'my style'", "layers": 2, "parameters": 48, "lr": 1e-3}
        | {"strength": None, "usual": None}
    ]
    assert any("no adapter file" in note for note in plan["notes"])
    assert not any("export.format" in note for note in plan["notes"]), "nothing of a file that is not written"
    assert ("text_encoder", "word 'my style': 2 vectors, 48 parameters, lr 0.001") in console.statement_rows(plan)
    last = "\n".join(console.result_lines(RunDir(alone[0]), "tiny-embedding.safetensors"))
    assert "into embeddings" in last and "Embedding file:" in last and "<lora:" not in last


@pytest.mark.acts("embedding.bundle")
def test_the_adapters_file_has_the_word_where_that_is_asked_for(inputs, pivotal, tmp_path):
    assert any(name.startswith("bundle_emb.") for name in load_file(pivotal / "tiny.safetensors"))
    alone = run(inputs, tmp_path, **PIVOTAL | {"embedding__bundle": False})
    assert not any(name.startswith("bundle_emb.") for name in load_file(alone / "tiny.safetensors"))


def test_both_files_are_named_at_the_end(pivotal):
    last = "\n".join(console.result_lines(RunDir(pivotal), "tiny.safetensors"))
    assert "<lora:tiny:1>" in last and "prompt:  tiny-embedding" in last and "Adapter file:" in last


def test_the_file_is_read_back_by_both_readers_and_tells_its_word(alone):
    path = alone[0]
    verdicts = json.loads((path / "verify.json").read_text())
    assert [verdict["reader"] for verdict in verdicts] == ["morelora", "diffusers"]
    assert all(verdict["error"] < 1e-5 for verdict in verdicts)
    found = read_metadata(path / "tiny-embedding.safetensors")
    assert found[WORD_KEY] == WORD and found["modelspec.architecture"] == "stable-diffusion-v1/textual-inversion"


def test_the_pipeline_gets_the_trained_meaning_from_the_file(inputs, alone):
    pipe = StableDiffusionPipeline.from_pretrained(inputs[0])
    load_embedding(pipe, alone[0] / "tiny-embedding.safetensors")
    ids = pipe.tokenizer("My style, fox", return_tensors="pt").input_ids
    rows = pipe.text_encoder.get_input_embeddings()(ids)[0]
    assert torch.equal(rows[1:3], vectors_at(alone[0], 6))


def test_base_pictures_show_the_word_as_it_started(inputs, alone):
    """Step 0's picture is the base's own with the starting vectors, and the last one's with the learnt ones."""
    bundle = models.load(config(inputs, Path()).model)
    made = RunDir(alone[0])
    assert made.preview_file(0, 0).read_bytes() != made.preview_file(6, 0).read_bytes()
    word = add_word(config(inputs, Path(), **ALONE), bundle)
    start = word.vectors.vectors()["text_encoder"].clone()
    word.vectors.load_state({"text_encoder.vectors": vectors_at(alone[0], 6)})
    word.vectors.learnt = False
    ids = torch.tensor([bundle.pipeline.tokenizer(WORD, add_special_tokens=False).input_ids])
    assert torch.equal(bundle.pipeline.text_encoder.get_input_embeddings()(ids)[0], start)


def test_pivotal_trains_both_and_the_vectors_rest_after_their_share(inputs, pivotal):
    chosen = config(inputs, Path(), **PIVOTAL)
    start = table_of(inputs[0])[init_rows(chosen.embedding, models.load(chosen.model))["text_encoder"]]
    at = [vectors_at(pivotal, step) for step in range(1, 7)]
    assert not torch.equal(at[0], start) and not torch.equal(at[2], at[1])
    assert all(torch.equal(later, at[2]) for later in at[3:])
    states = [load_file(pivotal / "checkpoints" / f"step-00000{step}" / "tensors.safetensors") for step in (3, 6)]
    adapters = [{name: tensor for name, tensor in state.items() if name.startswith("adapter/")} for state in states]
    assert adapters[0] and all(not torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])


def test_the_average_is_what_the_files_hold(pivotal):
    state = load_file(pivotal / "checkpoints" / "step-000006" / "tensors.safetensors")
    averages = [tensor for name, tensor in state.items() if name.startswith("ema/") and tensor.shape == (2, 24)]
    written = load_file(pivotal / "tiny-embedding.safetensors")["emb_params"]
    assert any(torch.equal(written, average) for average in averages)
    assert not torch.equal(written, vectors_at(pivotal, 6))


def test_the_bundle_holds_the_same_word(inputs, pivotal):
    key = "bundle_emb.my style.string_to_param.*"
    written = load_file(pivotal / "tiny-embedding.safetensors")["emb_params"]
    assert torch.equal(load_file(pivotal / "tiny.safetensors")[key], written)
    pipe = StableDiffusionPipeline.from_pretrained(inputs[0])
    loaded = load(pipe, pivotal / "tiny.safetensors")
    assert [words.word for words in loaded.embeddings] == [WORD]
    readers = {verdict["reader"]: verdict["error"] for verdict in json.loads((pivotal / "verify.json").read_text())[:3]}
    assert readers["morelora"] < 1e-3 and readers["diffusers"] is None


def test_a_stopped_and_resumed_run_gives_the_same_bits(inputs, pivotal, tmp_path):
    for step in (2, 4):  # while the vectors train, and while they rest
        cut = tmp_path / str(step) / "tiny"

        def stop(event: Event, step: int = step, cut: Path = cut) -> None:
            if isinstance(event, Step) and event.step == step:
                (cut / "stop").touch()

        with pytest.raises(StoppedError):
            run(inputs, tmp_path / str(step), stop, **PIVOTAL)
        assert (cut / f"tiny-00000{step}-embedding.safetensors").is_file()
        resume(cut, listener=lambda event: None)
        for name in ("tiny.safetensors", "tiny-embedding.safetensors"):
            one, other = load_file(cut / name), load_file(pivotal / name)
            assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_word_that_rests_early_is_measured_and_put_back(inputs, tmp_path):
    """The steps that are measured before the run reach beyond the vectors' share; they leave no trace."""
    changes = ALONE | {"train__unet": True, "train__steps": 4, "embedding__freeze_after": 0.25, "embedding__lr": 1e-9}
    path = run(inputs, tmp_path, **changes)
    start = word(inputs, embedding__vectors=2)[0].vectors.parameters()[0]
    assert torch.allclose(vectors_at(path, 4), start, atol=1e-6)


def test_resume_refuses_another_word(inputs, tmp_path):
    path = run(inputs, tmp_path, **ALONE, train__steps=1)
    file = path / "config.toml"
    file.write_text(file.read_text().replace("vectors = 2", "vectors = 3"))
    with pytest.raises(InputError, match="embedding.vectors"):
        resume(path, listener=lambda event: None)


# settings one by one


def word(inputs: tuple[Path, Path], **changes: Any) -> tuple[Word, Any]:
    chosen = config(inputs, Path(), **{"embedding__vectors": 3} | changes)
    bundle = models.load(chosen.model)
    found = add_word(chosen, bundle)
    assert found is not None
    return found, bundle


@pytest.mark.acts("embedding.vectors", "embedding.token")
def test_vectors_and_token(inputs):
    found, bundle = word(inputs, embedding__vectors=5, embedding__token="style")
    tokens = bundle.pipeline.tokenizer("my style, fox").input_ids
    assert found.vectors.word == "style" and found.vectors.parameters()[0].shape == (5, 24)
    plain = models.load(config(inputs, Path()).model)
    assert len(tokens) == len(plain.pipeline.tokenizer("my style, fox").input_ids) + 4
    caption = "style, fox, cat, key, fox, cat"
    assert (plain.overflow(caption), bundle.overflow(caption)) == ("", "cat"), "14 places: 5 for the word, 9 for what follows"


@pytest.mark.acts("embedding.init")
def test_init_takes_known_words_in_turn(inputs):
    found, _ = word(inputs, embedding__init="fox cat")
    table = table_of(inputs[0])
    fox, cat = (row for row in init_rows(found.config, models.load(config(inputs, Path()).model))["text_encoder"])
    assert torch.equal(found.vectors.parameters()[0], table[[fox, cat, fox]])


def test_without_init_the_start_is_random_by_the_seed_and_spread_as_the_table(inputs):
    one, same, other = (
        word(inputs, embedding__vectors=60, train__seed=seed)[0].vectors.parameters()[0].detach() for seed in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
    table = table_of(inputs[0])
    assert torch.allclose(one.mean(0), table.mean(0), atol=0.6 * table.std()) and 0.8 < one.std() / table.std() < 1.2


@pytest.mark.parametrize(
    ("init", "count", "message"),
    [("fox zzq", 2, "'zzq' is no word of .* vocabulary; it is read as z \\+ z \\+ q"), ("fox cat key", 2, "3 words")],
)
def test_a_wrong_init_is_told_before_anything_is_written(inputs, tmp_path, init, count, message):
    with pytest.raises(InputError, match=message):
        run(inputs, tmp_path / "out", embedding__vectors=count, embedding__init=init)
    assert not (tmp_path / "out").exists()


@pytest.mark.acts("embedding.lr", "embedding.weight_decay")
def test_rate_and_weight_decay_are_the_words_own(inputs):
    group = word(inputs, embedding__lr=5e-3, embedding__weight_decay=0.2)[0].group()
    assert (group["lr"], group["weight_decay"]) == (5e-3, 0.2)
    found, _ = word(inputs, embedding__lr=5e-3, embedding__weight_decay=0.2, optimizer__lr=1e-2)
    built = embedding_optimizer(found)
    before = found.vectors.parameters()[0].detach().clone()
    found.vectors.parameters()[0].grad = torch.zeros_like(before)
    built.step()
    assert torch.allclose(found.vectors.parameters()[0], before * (1 - 5e-3 * 0.2), rtol=1e-6)


def embedding_optimizer(found: Word) -> torch.optim.Optimizer:
    from trainer.optim import build_optimizer

    return build_optimizer(AdapterSet({}, {}), [], Config().optimizer, [found.group()])


def test_norm_pull_is_its_formula(inputs):
    found, _ = word(inputs, embedding__norm_pull=0.25)
    with torch.no_grad():
        found.vectors.parameters()[0].mul_(torch.tensor([[1.0], [3.0], [0.2]]))
    before = found.vectors.parameters()[0].detach().clone()
    found.pull()
    mean = table_of(inputs[0]).norm(dim=1).mean()
    after = found.vectors.parameters()[0].detach()
    assert torch.allclose(after.norm(dim=1), 0.75 * before.norm(dim=1) + 0.25 * mean)
    assert torch.allclose(torch.cosine_similarity(after, before), torch.ones(3))
    still, _ = word(inputs)
    before = still.vectors.parameters()[0].detach().clone()
    still.pull()
    assert torch.equal(still.vectors.parameters()[0], before)


@pytest.mark.acts("embedding.norm_pull", "embedding.freeze_after")
def test_norm_pull_acts_in_a_run_until_the_vectors_rest(inputs, tmp_path):
    changes = ALONE | {"train__unet": True, "embedding__norm_pull": 1.0, "embedding__freeze_after": 0.5, "train__steps": 2}
    path = run(inputs, tmp_path, **changes)
    assert torch.allclose(vectors_at(path, 1).norm(dim=1), table_of(inputs[0]).norm(dim=1).mean())
    assert torch.equal(vectors_at(path, 1), vectors_at(path, 2))


def test_captions_without_the_word_are_counted(inputs, tmp_path):
    changed = tiny.values(*inputs, tmp_path, embedding__vectors=1, embedding__token="my style")

    def notes(folder: Path) -> list[str]:
        changed["data"] |= {"images": "", "sources": [{"path": str(folder), "trigger": "other"}]}
        events: list[Event] = []
        train(settings.parse(changed, "test"), listener=events.append, dry_run=True)
        return next(event for event in events if isinstance(event, Started)).plan["notes"]

    assert not any("learns nothing" in note for note in notes(inputs[1])), "the caption files have the word"
    for file in (pictures := tiny.save_pictures(tmp_path / "pictures")).glob("*.txt"):
        file.write_text("fox")
    assert any("4 of 4 captions lack 'my style'" in note for note in notes(pictures))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding__lr": 1e-4}, "embedding.lr has no effect while embedding.vectors = 0"),
        ({"embedding__vectors": 1, "embedding__token": "zzq"}, "'zzq' is not in data.trigger = 'my style'"),
        ({"embedding__vectors": 1, "embedding__token": "styl"}, "'styl' is not in data.trigger"),
        (ALONE | {"embedding__freeze_after": 0.5}, "leave nothing to train"),
        (ALONE | {"embedding__bundle": True}, "embedding.bundle has no effect without an adapter"),
        (ALONE | {"loss__prior_preservation": 1.0}, "prior_preservation has no effect without an adapter"),
        (ALONE | {"train__init_from": "x.safetensors"}, "init_from has no effect without an adapter"),
        ({"embedding__vectors": 1, "embedding__bundle": True, "export__format": "diffusers"}, "needs it off"),
        ({"embedding__vectors": 1, "optimizer__name": "prodigy", "optimizer__lr": 1.0}, "set embedding.lr = 1"),
    ],
)
def test_settings_that_contradict_each_other(inputs, changes, message):
    with pytest.raises(InputError, match=message):
        config(inputs, Path(), **changes)


def test_a_word_needs_a_trigger(inputs):
    values = tiny.values(*inputs, Path(), embedding__vectors=1)
    values["data"]["trigger"] = ""
    with pytest.raises(InputError, match="needs a word: set data.trigger"):
        settings.parse(values, "test")


def test_a_damaged_file_is_an_error(inputs, tmp_path):
    found, bundle = word(inputs)
    from morelora.formats.container import write

    good = {name: tensor.detach() for name, tensor in found.vectors.vectors().items()}
    write(tmp_path / "x.safetensors", encode({name: -tensor for name, tensor in good.items()}), {})
    with pytest.raises(TrainerError, match="does not give back what was learnt"):
        verify_word(found.vectors, tmp_path / "x.safetensors", AdapterSet({}, {}), bundle.text_encoders)


# Stable Diffusion XL


def test_sdxl_has_one_set_of_vectors_for_each_text_encoder(places, inputs, tmp_path):
    changes = {"train__steps": 2, "data__bucket_step": 32, "preview__steps": 1, "embedding__init": "style"}
    path = run((places["sdxl", "folder"], inputs[1]), tmp_path, **ALONE | changes)
    written = load_file(path / "tiny-embedding.safetensors")
    bundle = models.load(settings.load(path / "config.toml").model)
    widths = {name: encoder.get_input_embeddings().weight.shape[1] for name, encoder in bundle.text_encoders.items()}
    assert {key: tuple(tensor.shape) for key, tensor in written.items()} == {
        "clip_l": (2, widths["text_encoder"]),
        "clip_g": (2, widths["text_encoder_2"]),
    }
    start = {name: encoder.get_input_embeddings().weight for name, encoder in bundle.text_encoders.items()}
    rows = init_rows(settings.load(path / "config.toml").embedding, bundle)
    for key, name in (("clip_l", "text_encoder"), ("clip_g", "text_encoder_2")):
        moved = (written[key] - start[name][rows[name] * 2]).abs().amax(dim=1)
        assert bool((moved > 1e-4).all()), f"both vectors of {name} learn"
    verdicts = json.loads((path / "verify.json").read_text())
    assert [(verdict["reader"], verdict["layers"]) for verdict in verdicts] == [("morelora", 2), ("diffusers", 2)]
    assert all(verdict["error"] < 1e-5 for verdict in verdicts)
