"""The file that users get: form, precision, metadata, and what happens when it cannot be written."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from morelora import AdapterSet
from morelora.formats.container import data_hash
from tests.morelora.formats import sd
from trainer.config import Config, ExportConfig
from trainer.errors import DiskError, ExitCode, InputError, NonFiniteError
from trainer.export import check, export
from trainer.metadata import PictureFolder, Provenance, read_recipe
from trainer.settings import parse

ADAPTER = {"layers": "all", "rank": 4, "alpha": 2.0}


def provenance(adapter: dict[str, Any] | None = None, **changes: Any) -> Provenance:
    export_settings = changes.pop("export", {})
    values = {
        "run": {"name": "my style", "output": "/home/anna/runs"},
        "model": {
            "base": "/home/anna/models/some-base",
            "vae": "/home/anna/vae.safetensors",
            "clip_skip": 2,
            "caption_chunks": 3,
        },
        "data": {"images": "/home/anna/pictures/style", "trigger": "zxq style", "resolution": 64, "repeats": 3},
        "adapter": adapter or ADAPTER,
        "export": export_settings,
    }
    facts: dict[str, Any] = {
        "family": "sd1",
        "base_name": "/home/anna/models/some-base",
        "base_hash": "ab" * 32,
        "picture_hashes": {"/home/anna/pictures/style/a.png": "11" * 32, "b.png": "22" * 32},
        "buckets": {"64x96": 2},
        "folders": {"style": PictureFolder(3, 2, {"fox": 2}), "more": PictureFolder(1, 4, {})},
        "step": 120,
        "started_at": 1.7e9,
    }
    return Provenance(Config.model_validate(values), **facts | changes)


@pytest.fixture
def adapters() -> AdapterSet:
    return sd.trained(sd.small(), **ADAPTER)


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.mark.acts("export.dtype")
@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_precision_and_layout(tmp_path, adapters, precision, dtype):
    path = export(adapters, tmp_path / "x.safetensors", provenance(export={"dtype": precision}))
    tensors = load_file(path)
    assert len(tensors) == 3 * len(adapters)
    assert {tensor.dtype for key, tensor in tensors.items() if not key.endswith("alpha")} == {dtype}
    assert all(tensor.shape == () and tensor == 2.0 for key, tensor in tensors.items() if key.endswith("alpha"))


def test_metadata_for_other_programs(tmp_path, adapters):
    found = metadata_of(export(adapters, tmp_path / "my style.safetensors", provenance()))
    expected = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": "my style",
        "modelspec.resolution": "64x64",
        "modelspec.date": "2023-11-14T22:13:20Z",
        "modelspec.prediction_type": "epsilon",
        "modelspec.trigger_phrase": "zxq style",
        "ss_base_model_version": "sd_v1",
        "ss_v2": "False",
        "ss_output_name": "my style",
        "ss_sd_model_name": "some-base",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "4",
        "ss_network_alpha": "2",
        "ss_num_train_images": "10",
    }
    assert {key: found.get(key) for key in expected} == expected
    assert json.loads(found["ss_dataset_dirs"]) == {
        "style": {"n_repeats": 3, "img_count": 2},
        "more": {"n_repeats": 1, "img_count": 4},
    }
    assert json.loads(found["ss_bucket_info"]) == {"buckets": {"0": {"resolution": [96, 64], "count": 2}}}
    assert json.loads(found["ss_tag_frequency"]) == {"style": {"fox": 2}, "more": {}}
    assert float(found["ss_training_started_at"]) == 1.7e9
    assert found["sshs_model_hash"] == data_hash(tmp_path / "my style.safetensors")


@pytest.mark.parametrize(
    ("family", "prediction", "version", "architecture", "v2"),
    [
        ("sd2", "epsilon", "sd_v2", "stable-diffusion-v2-512/lora", "True"),
        ("sd2", "v_prediction", "sd_v2_v", "stable-diffusion-v2-768-v/lora", "True"),
        ("sdxl", "epsilon", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora", "False"),
        ("pocket", "epsilon", "morelora_pocket", "morelora-pocket/lora", "False"),
    ],
)
def test_metadata_tells_the_family(tmp_path, adapters, family, prediction, version, architecture, v2):
    facts = provenance(family=family, prediction_type=prediction)
    found = metadata_of(export(adapters, tmp_path / "x.safetensors", facts))
    assert found["ss_base_model_version"] == version
    assert found["modelspec.architecture"] == architecture
    assert found["ss_v2"] == v2


@pytest.mark.parametrize(
    ("adapter", "form", "module", "arguments"),
    [
        ({"algorithm": "loha", "rank": 3}, "webui", "lycoris.kohya", {"algo": "loha"}),
        ({"algorithm": "loha", "rank": 3}, "lora", "networks.lora", {}),
        ({"algorithm": "lokr", "rank": 2}, "webui", "lycoris.kohya", {"algo": "lokr"}),
        ({"weight_decompose": True}, "webui", "lycoris.kohya", {"algo": "lora", "dora_wd": True, "wd_on_output": False}),
    ],
)
def test_metadata_tells_the_algorithm(tmp_path, adapter, form, module, arguments):
    trained = sd.trained(sd.small(), **adapter)
    found = metadata_of(export(trained, tmp_path / "x.safetensors", provenance(adapter, export={"format": form})))
    assert found["ss_network_module"] == module
    assert json.loads(found["ss_network_args"]) == arguments


def test_metadata_tells_the_condition(tmp_path, adapters):
    found = metadata_of(export(adapters, tmp_path / "x.safetensors", provenance()))
    assert (found["ss_clip_skip"], found["ss_max_token_length"]) == ("2", "225")
    assert "ss_zero_terminal_snr" not in found


@pytest.mark.acts("export.format")
def test_pipeline_form_has_no_web_ui_entries(tmp_path, adapters):
    found = metadata_of(export(adapters, tmp_path / "x.safetensors", provenance(export={"format": "diffusers"})))
    assert not [key for key in found if key.startswith("ss_")]
    assert "lora_adapter_metadata" not in found


@pytest.mark.acts("export.private_paths")
def test_recipe_gives_the_settings_back(tmp_path, adapters):
    facts = provenance(export={"private_paths": True})
    path = export(adapters, tmp_path / "x.safetensors", facts)
    assert read_recipe(path) == facts.config
    found = json.loads(metadata_of(path)["morelora"])
    assert found["pictures"] == {"a.png": "11" * 32, "b.png": "22" * 32}
    assert found["base"] == {"name": "some-base", "sha256": "ab" * 32}
    assert found["step"] == 120
    assert found["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["versions"].keys() >= {"torch", "diffusers", "transformers"}


def test_local_paths_stay_out(tmp_path, adapters):
    path = export(adapters, tmp_path / "x.safetensors", provenance())
    assert b"anna" not in path.read_bytes()
    config = read_recipe(path)
    assert config.adapter == provenance().config.adapter
    assert config.model.vae == "vae.safetensors"
    assert (config.model.base, config.data.images, config.run.output) == ("some-base", "", "runs")


def test_windows_paths_stay_out_too(tmp_path, adapters):
    facts = provenance(base_name=r"C:\Users\anna\base", picture_hashes={r"C:\Users\anna\a.png": "00"})
    assert b"anna" not in export(adapters, tmp_path / "x.safetensors", facts).read_bytes()


def test_a_file_without_recipe_is_named(tmp_path, adapters):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="holds no recipe"):
        read_recipe(tmp_path / "x.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors", {"morelora": "{"})
    with pytest.raises(InputError, match="recipe is damaged"):
        read_recipe(tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(tmp_path / "nowhere.safetensors")


def test_file_mode_follows_the_umask(tmp_path, adapters):
    before = os.umask(0o022)
    try:
        path = export(adapters, tmp_path / "x.safetensors", provenance())
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_the_same_adapters_give_the_same_data(tmp_path, adapters):
    one = export(adapters, tmp_path / "one.safetensors", provenance())
    time.sleep(0.01)
    other = export(adapters, tmp_path / "two.safetensors", provenance(step=5))
    assert data_hash(one) == data_hash(other)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_non_finite_is_refused_and_the_old_file_stays(tmp_path, adapters, value):
    path = export(adapters, tmp_path / "x.safetensors", provenance())
    before = path.read_bytes()
    with torch.no_grad():
        adapters.parameters()[3].view(-1)[0] = value
    with pytest.raises(NonFiniteError, match="lora_(up|down).weight") as caught:
        export(adapters, path, provenance())
    assert caught.value.code == ExitCode.NON_FINITE
    assert path.read_bytes() == before


def test_a_disk_that_refuses_is_exit_6(tmp_path, adapters, monkeypatch):
    with pytest.raises(DiskError, match="No such file") as caught:
        export(adapters, tmp_path / "gone" / "x.safetensors", provenance())
    assert caught.value.code == ExitCode.DISK

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskError, match="No space left on device.*\n.*\n.*free some space, then go on with --resume"):
        export(adapters, tmp_path / "x.safetensors", provenance())
    assert not list(tmp_path.iterdir())


def test_check_refuses_before_the_training():
    adapter = {"algorithm": "lokr", "full_matrix": True}
    with pytest.raises(InputError, match="export.format = 'lora' cannot hold.*full-matrix LoKr.*'webui'"):
        check(sd.trained(sd.small(), **adapter), provenance(adapter, export={"format": "lora"}).config.export)


@pytest.mark.parametrize(
    ("adapter", "form", "words"),
    [
        ({"rank": 4}, "webui", []),
        ({"rank": 4}, "lora", []),
        ({"rank": 4}, "diffusers", ["web UIs do not"]),
        ({"rank": 4, "tucker": True, "layers": "all"}, "webui", ["Tucker"]),
        ({"algorithm": "loha"}, "webui", ["reads LoRA only"]),
        ({"algorithm": "loha"}, "lora", []),
        ({"algorithm": "full"}, "webui", ["reads LoRA only"]),
        ({"weight_decompose": True}, "webui", ["drops the magnitudes"]),
        ({"weight_decompose": True, "decompose_axis": "output"}, "webui", ["drops the magnitudes", "misread DoRA"]),
        ({"rank": 4, "rules": [{"match": "out_proj", "algorithm": "none"}]}, "webui", ["without out_proj"]),
    ],
)
def test_check_tells_the_consequences(adapter, form, words):
    told = check(sd.trained(sd.small(), **adapter), provenance(adapter, export={"format": form}).config.export)
    assert len(told) == len(words)
    assert all(word in sentence for word, sentence in zip(words, told, strict=True))


@pytest.mark.parametrize(("bias", "told"), [(True, True), (False, False)])
def test_biases_of_the_second_text_encoder_are_told(bias, told):
    adapter = {"algorithm": "full", "bias": bias, "layers": "attention"}
    found = check(sd.trained(sd.sdxl(), **adapter), provenance(adapter, export={"format": "webui"}).config.export)
    assert any("A1111 loses the biases" in sentence for sentence in found) == told


@pytest.mark.acts("export.readers")
def test_auto_writes_what_its_readers_read(tmp_path):
    trained = sd.trained(sd.small(), algorithm="loha", rank=3)
    for readers, leaf in (([], "hada_w1_a"), (["diffusers", "a1111"], "lora_up")):
        facts = provenance({"algorithm": "loha", "rank": 3}, export={"format": "auto", "readers": readers})
        path = export(trained, tmp_path / "x.safetensors", facts)
        assert any(leaf in key for key in load_file(path))
        told = json.loads(metadata_of(path)["morelora.export"])
        assert told["form"] == ("lora" if readers else "webui") and "read exactly" in told["reason"]
    assert metadata_of(path)["ss_network_dim"] == metadata_of(path)["ss_network_alpha"] == "9"


@pytest.mark.acts("export.svd_rank")
def test_the_approximate_form_has_its_rank_and_tells_its_errors(tmp_path):
    settings = {"layers": "attention", "rank": 8, "weight_decompose": True}
    trained = sd.trained({"unet": sd.small()["unet"]}, **settings)
    path = export(trained, tmp_path / "x.safetensors", provenance(settings, export={"format": "svd", "svd_rank": 5}))
    assert {len(tensor) for key, tensor in load_file(path).items() if "lora_down" in key} == {5}
    told = json.loads(metadata_of(path)["morelora.export"])
    assert told["errors"].keys() == trained.layers.keys()
    assert 0.1 < told["largest_error"] == max(told["errors"].values()) < 1


def test_what_readers_and_rank_are_for_is_told():
    for values, message in (
        ({"readers": ["a1111"]}, "export.readers has no effect"),
        ({"svd_rank": 4}, "export.svd_rank has no effect"),
    ):
        with pytest.raises(InputError, match=message):
            parse({"data": {"images": "x"}, "export": values}, "a test")


def test_the_choice_is_told_before_the_training():
    trained = sd.trained(sd.small(), weight_decompose=True)
    notes = check(trained, ExportConfig(format="auto", readers=("diffusers",)))
    assert any("writes the form 'svd': no form is read exactly by all of diffusers" in note for note in notes)
    assert any("approximate" in note for note in notes)
