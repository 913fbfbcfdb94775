"""Verdicts on exported files: right ones pass with figures, damaged ones fail."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from morelora import AdapterSet
from morelora.site import Site
from tests.morelora.formats import sd
from tests.trainer.test_export import provenance
from trainer import verify as verification
from trainer.errors import ExitCode, TrainerError
from trainer.events import Verified
from trainer.export import export
from trainer.verify import probe, verify

LORA = {"layers": "all", "rank": 4, "alpha": 2.0}
LOHA = {"layers": "all", "algorithm": "loha", "rank": 3, "alpha": 1.5}
GLORA = {"layers": "all", "algorithm": "glora", "rank": 2, "alpha": 1.0}
LOKR = {"layers": "all", "algorithm": "lokr", "rank": 2, "alpha": 1.0, "factor": 4}
DORA = {"layers": "all", "rank": 4, "alpha": 2.0, "weight_decompose": True}
DORA_OUT = DORA | {"decompose_axis": "output"}
MIXED = LORA | {
    "conv_rank": 3,
    "rules": [
        {"match": "attn2", "rank": 6, "alpha": 1.0},
        {"match": "resnets", "algorithm": "loha", "rank": 2, "alpha": 5.0},
        {"match": "mlp", "algorithm": "lokr", "rank": 2, "factor": 4},
    ],
}
OURS, DIFFUSERS, LYCORIS = "morelora", "diffusers", "lycoris"


def verdicts(
    folder: Path, models: dict[str, nn.Module], adapters: AdapterSet, settings: dict[str, Any], **form: str
) -> dict[str, Verified]:
    path = export(adapters, folder / "x.safetensors", provenance(settings, export=form))
    found = verify(adapters, path, models)
    return {verdict.reader: verdict for verdict in found}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(
    ("settings", "form", "exact"),
    [
        (LORA, "webui", {OURS, DIFFUSERS, LYCORIS}),
        (LOHA, "webui", {OURS, LYCORIS}),
        (LOHA, "lora", {OURS, DIFFUSERS, LYCORIS}),
        (LOKR, "webui", {OURS, LYCORIS}),
        (LOKR, "lora", {OURS, DIFFUSERS, LYCORIS}),
        (GLORA, "webui", {OURS, DIFFUSERS, LYCORIS}),
        (GLORA, "sidecar", {OURS, LYCORIS}),
        (DORA, "webui", {OURS}),
        (DORA_OUT, "webui", {OURS, LYCORIS}),
        (LORA, "diffusers", {OURS, DIFFUSERS}),
        (MIXED, "webui", {OURS, LYCORIS}),
        (MIXED, "lora", {OURS, DIFFUSERS, LYCORIS}),
        (LORA | {"tucker": True}, "webui", {OURS, LYCORIS}),
        (LORA | {"tucker": True}, "lora", {OURS, DIFFUSERS, LYCORIS}),
        (LOHA | {"tucker": True}, "webui", {OURS, LYCORIS}),
    ],
)
def test_readers_make_our_change(tmp_path, settings, form, precision, exact):
    """UNet, text encoder and convolutions, alpha different from rank: at most 1e-3 in fp16, 1e-5 in fp32."""
    models = sd.small()
    adapters = sd.trained(models, **settings)
    found = verdicts(tmp_path, models, adapters, settings, format=form, dtype=precision)
    limit = {"fp32": 1e-5, "fp16": 1e-3}[precision]
    assert found.keys() == {OURS, DIFFUSERS, LYCORIS}
    for reader in exact:
        assert found[reader].error is not None and found[reader].error <= limit, found[reader]
        assert found[reader].layers == len(adapters)
        assert "makes the same change" in found[reader].message
    for reader in found.keys() - exact:
        assert found[reader].error is None or found[reader].error > 0.1, found[reader]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_dora_in_pipelines(tmp_path, precision):
    """Output axis, UNet only: the form that diffusers reads exactly."""
    models = sd.small()
    adapters = sd.trained({"unet": models["unet"]}, **DORA_OUT)
    found = verdicts(tmp_path, models, adapters, DORA_OUT, format="diffusers", dtype=precision)
    assert found[DIFFUSERS].error <= {"fp32": 1e-5, "fp16": 1e-3}[precision]
    assert found[DIFFUSERS].layers == len(adapters)


def test_sd15s_topology_through_all_readers(tmp_path):
    models = sd.sd15()
    adapters = sd.trained(models, **LORA)
    found = verdicts(tmp_path, models, adapters, LORA, format="webui", dtype="fp16")
    assert {reader: verdict.layers for reader, verdict in found.items()} == {OURS: 296, DIFFUSERS: 296, LYCORIS: 296}
    assert max(verdict.error for verdict in found.values()) <= 1e-3


@pytest.mark.parametrize("form", ["webui", "diffusers"])
def test_sdxls_names_through_all_readers(tmp_path, form):
    """LDM names and two text encoders in the web-UI form; diffusers maps them back itself."""
    models = sd.sdxl()
    adapters = sd.trained(models, **LORA)
    found = verdicts(tmp_path, models, adapters, LORA, format=form, dtype="fp16")
    keys = load_file(tmp_path / "x.safetensors").keys()
    assert any(key.startswith("lora_unet_input_blocks_4_1_" if form == "webui" else "unet.down_blocks.1.") for key in keys)
    assert found[DIFFUSERS].layers == len(adapters)
    assert max(verdict.error for reader, verdict in found.items() if reader != LYCORIS) <= 1e-3


def test_a_base_in_bf16_is_judged_as_such(tmp_path):
    """diffusers rounds the adapters that it loads to the base's precision: bf16's limit counts then, not fp16's."""
    models = {name: model.bfloat16() for name, model in sd.small().items()}
    found = verdicts(tmp_path, models, sd.trained(models, **LORA), LORA, format="webui", dtype="fp16")
    assert 1e-3 < found[DIFFUSERS].error < 1e-2
    assert "makes the same change" in found[DIFFUSERS].message
    assert found[OURS].error < 1e-3


def test_a_reader_that_fails_at_its_work_is_told_and_ends_nothing(tmp_path, monkeypatch):
    def fails(x):  # noqa: ANN001, ANN202
        raise RuntimeError("no kernel for this")

    monkeypatch.setitem(verification.READERS, DIFFUSERS, lambda models, path: lambda name, base: fails)
    models = sd.small()
    found = verdicts(tmp_path, models, sd.trained(models, **LORA), LORA, format="lora", dtype="fp16")
    assert found[DIFFUSERS].error is None
    assert found[DIFFUSERS].message == "cannot read it: RuntimeError: no kernel for this"


def test_known_limits_are_told_honestly(tmp_path):
    models = sd.small()
    found = verdicts(tmp_path, models, sd.trained(models, **DORA), DORA, format="webui", dtype="fp16")
    assert found[LYCORIS].error is None
    assert found[LYCORIS].message == "cannot read it: it writes DoRA along the input axis, but has no way to load it"
    assert found[DIFFUSERS].error > 0.1
    assert "makes another change: relative error" in found[DIFFUSERS].message
    assert "It leaves out DoRA's magnitudes" in found[DIFFUSERS].message and "morelora.load" in found[DIFFUSERS].message
    models = sd.small()
    found = verdicts(tmp_path, models, sd.trained(models, **LOHA), LOHA, format="webui", dtype="fp16")
    assert found[DIFFUSERS].error is None
    assert found[DIFFUSERS].message == "cannot read it: it reads plain LoRA only (export.format = 'lora', where that is exact)"


def test_an_untrained_adapter_passes(tmp_path):
    from morelora import AdapterConfig, inject, resolve

    models = sd.small()
    adapters = inject(models, resolve(models, AdapterConfig.model_validate(DORA)))
    found = verdicts(tmp_path, models, adapters, DORA, format="webui", dtype="fp16")
    assert found[OURS].error <= 1e-3


def test_nothing_of_the_caller_changes(tmp_path):
    models = sd.small()
    adapters = sd.trained(models, **LORA)
    for model in models.values():
        model.requires_grad_(True).train()
    before = {f"{name}.{key}": tensor.clone() for name, model in models.items() for key, tensor in model.state_dict().items()}
    modules = {name: dict(model.named_modules()) for name, model in models.items()}
    torch.manual_seed(3)
    verdicts(tmp_path, models, adapters, LORA, format="webui", dtype="fp16")
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3))
    after = {f"{name}.{key}": tensor for name, model in models.items() for key, tensor in model.state_dict().items()}
    assert all(torch.equal(before[key], after[key]) for key in before) and before.keys() == after.keys()
    for name, model in models.items():
        assert dict(model.named_modules()) == modules[name]
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert all(module.training for module in model.modules())


def test_readers_work_on_models_without_adapters_that_share_the_bases_memory():
    plain, models = sd.small(), sd.small()
    adapters = sd.trained(models, **LORA)
    copies = verification.twins(adapters, models)
    for name, model in copies.items():
        names = {key.replace(".base.", ".") for key, _ in models[name].named_parameters() if ".adapter." not in key}
        assert dict(model.named_parameters()).keys() == dict(plain[name].named_parameters()).keys() == names
    own = models["unet"].get_submodule("down_blocks.0.resnets.0.conv1").base.weight
    copied = copies["unet"].get_submodule("down_blocks.0.resnets.0.conv1").weight
    assert copied.data_ptr() == own.data_ptr() and copied is not own


def test_absent_readers_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "find_spec", lambda name: None)
    models = sd.small()
    assert verdicts(tmp_path, models, sd.trained(models, **LORA), LORA, format="webui", dtype="fp16").keys() == {OURS}


KEY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
UP, DOWN, ALPHA = (f"{KEY}.{leaf}" for leaf in ("lora_up.weight", "lora_down.weight", "alpha"))
SQUARE = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


def reordered(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Up and down of a square layer exchanged: every shape still fits."""
    up, down = (tensors[f"{SQUARE}.{leaf}.weight"] for leaf in ("lora_up", "lora_down"))
    return tensors | {f"{SQUARE}.lora_up.weight": down.T.contiguous(), f"{SQUARE}.lora_down.weight": up.T.contiguous()}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t | {UP: t[UP] * 1.1}, "another change: relative error 0.1 on .*attn2.to_k"),
        (lambda t: t | {ALPHA: t[ALPHA] * 2}, "another change: relative error 1 on .*attn2.to_k"),
        (
            lambda t: {key: tensor for key, tensor in t.items() if key != ALPHA},
            "another change: relative error 1 on .*attn2.to_k",
        ),
        (reordered, "another change: relative error 1.* on .*attn1.to_q"),
        (lambda t: t | {DOWN: t[DOWN].roll(1, 1)}, "another change: relative error 1.* on .*attn2.to_k"),
        (lambda t: t | {DOWN: t[DOWN].T.contiguous()}, "lora_up.weight has shape"),
        (lambda t: {key: tensor for key, tensor in t.items() if key != UP}, "lora_up.weight is missing"),
        (
            lambda t: {key: tensor for key, tensor in t.items() if not key.startswith(KEY)},
            "finds only .* layers; .*attn2.to_k is missing",
        ),
        (lambda t: t | {"lora_unet_extra.lora_up.weight": torch.ones(2)}, "lora_unet_extra"),
        (lambda t: t | {UP: t[UP] * float("nan")}, "NaN or infinite"),
    ],
)
def test_a_damaged_file_fails(tmp_path, damage, message):
    models = sd.small()
    adapters = sd.trained(models, **LORA)
    path = export(adapters, tmp_path / "x.safetensors", provenance(LORA))
    save_file(damage(load_file(path)), path)
    with pytest.raises(TrainerError, match=message) as caught:
        verify(adapters, path, models)
    assert caught.value.code == ExitCode.BUG


@pytest.mark.parametrize("cut", [1, 1000])
def test_a_truncated_file_fails(tmp_path, cut):
    models = sd.small()
    adapters = sd.trained(models, **LORA)
    path = export(adapters, tmp_path / "x.safetensors", provenance(LORA))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(TrainerError, match="damaged or not fully copied"):
        verify(adapters, path, models)


@pytest.mark.parametrize("name", ["diffusers", "lycoris"])
def test_a_foreign_reader_that_reads_wrongly_is_seen(tmp_path, name, monkeypatch):
    """The comparison does not trust a reader that loads without an error: here one doubles a single layer."""
    models = sd.small()
    adapters = sd.trained(models, **LORA)
    read = verification.READERS[name]
    victim = "unet.down_blocks.0.resnets.0.conv1"

    def doubled(twins: dict[str, nn.Module], path: Path) -> verification.LayerOf:
        layer_of = read(twins, path)

        class Twice(nn.Module):
            def __init__(self, layer: nn.Module, base: nn.Module) -> None:
                super().__init__()
                self.layer, self.base = layer, base

            def forward(self, x: Tensor) -> Tensor:
                return 2 * self.layer(x) - self.base(x)

        return lambda layer, base: Twice(layer_of(layer, base), base) if layer == victim else layer_of(layer, base)

    monkeypatch.setitem(verification.READERS, name, doubled)
    found = verdicts(tmp_path, models, adapters, LORA, format="webui", dtype="fp16")
    assert found[name].error == pytest.approx(1, abs=0.01)
    assert f"makes another change: relative error 1 on {victim}" in found[name].message


def test_our_own_bugs_are_not_taken_for_verdicts(tmp_path, monkeypatch):
    def broken(twins: dict[str, nn.Module], path: Path) -> verification.LayerOf:
        raise ZeroDivisionError("a bug")

    monkeypatch.setitem(verification.READERS, OURS, broken)
    models = sd.small()
    with pytest.raises(ZeroDivisionError):
        verdicts(tmp_path, models, sd.trained(models, **LORA), LORA, format="webui", dtype="fp16")


LAYERS = {
    "linear": nn.Linear(7, 5),
    "wide linear": nn.Linear(200, 5),
    "conv 1x1": nn.Conv2d(6, 4, 1),
    "conv 3x3": nn.Conv2d(4, 6, 3, padding=1),
    "stride 2": nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "stride 2 without padding": nn.Conv2d(4, 6, 3, stride=2),
    "dilated": nn.Conv2d(3, 6, 3, padding=2, dilation=2),
    "grouped": nn.Conv2d(8, 4, 3, padding=1, groups=2),
    "oblong": nn.Conv2d(5, 4, (1, 3), stride=(2, 1), padding=(0, 1)),
    "many columns": nn.Conv2d(40, 4, 3, padding=1),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_probe_sees_the_whole_weight(layer):
    """The squared outputs add up to the weight's squared norm: exactly, or on average over random inputs."""
    layer = copy.deepcopy(layer).double()
    site = Site.of(layer)
    x, take = probe(site, torch.device("cpu"))
    with torch.no_grad():
        outputs = take(site.apply(x, layer.weight))
        seen = float(outputs.square().sum())
        whole = float(layer.weight.square().sum())
    columns = site.c * site.groups
    if columns <= verification.PROBES:
        assert seen == pytest.approx(whole, rel=1e-12)
    else:
        assert seen / len(x) == pytest.approx(whole, rel=0.4)


def test_the_error_of_an_approximate_form_is_expected_and_no_more(tmp_path):
    settings = {"layers": "attention", "rank": 8, "weight_decompose": True}
    models = {"unet": sd.small()["unet"]}
    adapters = sd.trained(models, **settings)
    path = export(adapters, tmp_path / "x.safetensors", provenance(settings, export={"format": "svd", "svd_rank": 12}))
    for verdict in verify(adapters, path, models):
        assert 0.01 < verdict.error < 0.9 and "makes the same change" in verdict.message, verdict
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.mul_(3.0)
    assert "makes another change" in verify(adapters, path, models)[1].message
