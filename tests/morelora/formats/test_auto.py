"""The form by who is to read it, the dense form, and the approximate one with its error."""

import copy

import pytest
import torch

from morelora import FormatError
from morelora.formats import FORMS, Encoded, encode, recorded, rehearse
from morelora.formats.names import kohya
from morelora.formats.readers import READERS
from morelora.lowrank import Cut
from tests.morelora.formats import sd
from tests.morelora.formats.test_forms import SETTINGS, by_module, client_weight, rebuilt

WEB = ("a1111", "forge", "comfyui")


def trained(**settings):
    return sd.trained({"unet": sd.small()["unet"]}, **{"layers": "attention"} | settings)


@pytest.mark.parametrize(
    ("settings", "readers", "form"),
    [
        ({"rank": 4}, WEB, "lora"),
        ({"rank": 4}, ("diffusers", "a1111"), "lora"),
        ({"algorithm": "loha", "rank": 3}, WEB, "webui"),
        ({"algorithm": "loha", "rank": 3}, (*WEB, "diffusers"), "lora"),
        ({"algorithm": "loha", "rank": 1}, WEB, "lora"),
        ({"algorithm": "lokr", "factor": 4, "full_matrix": True}, WEB, "webui"),
        ({"algorithm": "lokr", "factor": 4, "full_matrix": True}, ("diffusers",), "svd"),
        ({"algorithm": "lokr", "rank": 1, "factor": 4}, ("invokeai",), "lora"),
        ({"rank": 4, "weight_decompose": True}, WEB, "webui"),
        ({"rank": 4, "weight_decompose": True}, ("lycoris",), "diff"),
        ({"rank": 4, "weight_decompose": True, "decompose_axis": "output"}, ("a1111",), "diff"),
        ({"rank": 4, "weight_decompose": True, "decompose_axis": "output"}, ("diffusers",), "diffusers"),
        ({"algorithm": "oft", "block_size": 4}, ("a1111", "lycoris"), "webui"),
        ({"algorithm": "oft", "block_size": 4}, ("forge",), "diff"),
        ({"algorithm": "serial"}, ("morelora",), "sidecar"),
        ({"algorithm": "norm"}, ("a1111", "invokeai"), "webui"),
        ({"algorithm": "bitfit"}, WEB, "webui"),
        ({"algorithm": "bitfit"}, ("morelora",), "sidecar"),
    ],
)
def test_auto_takes_the_smallest_form_that_all_readers_read(settings, readers, form):
    adapters = trained(**settings)
    encoded = encode(adapters, "auto", readers, Cut(8))
    assert encoded.form == form and encoded.reason
    assert form == "svd" or encoded.tensors.keys() == FORMS[form](adapters).keys()
    assert rehearse(adapters, "auto", readers).form == form
    assert f"'{form}'" in encoded.statement and bool(encoded.errors) == (form == "svd")


def test_auto_names_who_reads_what_not():
    reason = encode(trained(weight_decompose=True), "auto", ("diffusers", "a1111"), Cut(2)).reason
    assert "webui: diffusers does not read lora, input axis" in reason
    with pytest.raises(FormatError, match="'fooocus' is no reader known here: choose from a1111"):
        encode(trained(), "auto", ("fooocus",))


def test_auto_has_nothing_for_serial_adapters_and_web_uis():
    with pytest.raises(FormatError, match="serial adapter.*write the 'sidecar' form"):
        encode(trained(algorithm="serial"), "auto", WEB)


@pytest.mark.parametrize("case", SETTINGS)
@torch.no_grad()
def test_the_dense_form_gives_clients_our_weight(case):
    adapters = trained(**{"layers": "all"} | SETTINGS[case])
    modules = by_module(FORMS["diff"](adapters))
    for name, layer in adapters.layers.items():
        adapter, base = copy.deepcopy(layer.adapter).double(), layer.base.weight.double()
        ours, theirs = base + 0.7 * adapter.delta(base), client_weight(base, modules[kohya(name)], 0.7)
        assert float((ours - theirs).norm() / (ours - base).norm()) < 5e-6, name


@pytest.mark.parametrize("settings", [{"rank": 6}, {"rank": 6, "weight_decompose": True}, {"algorithm": "full", "bias": False}])
@torch.no_grad()
def test_the_approximate_forms_error_is_the_one_told(settings):
    adapters = trained(**settings)
    encoded = encode(adapters, "svd", cut=Cut(3))
    modules = by_module(encoded.tensors)
    for name, change in adapters.deltas():
        leaves = modules[kohya(name)]
        assert leaves["lora_down.weight"].shape[0] <= 3
        direct = float((rebuilt(leaves, change.shape) - change).norm() / change.norm())
        assert encoded.errors[name] == pytest.approx(direct, abs=2e-6) and direct > 0.1
    assert f"{encoded.largest_error:.2g} at most" in encoded.statement
    assert recorded(encoded.metadata()).errors == encoded.errors


def test_at_the_full_rank_the_approximate_form_is_exact():
    encoded = encode(trained(rank=4, weight_decompose=True), "svd")
    assert encoded.largest_error < 1e-5
    assert encode(trained(rank=4), "svd", cut=Cut(4)).errors.keys() and encode(trained(), "svd", cut=Cut(8)).largest_error == 0


@pytest.mark.parametrize(("settings", "what"), [({"algorithm": "norm"}, "norm"), ({"algorithm": "bitfit"}, "bias")])
def test_the_approximate_form_refuses_what_no_lora_can(settings, what):
    for make in (encode, rehearse):
        with pytest.raises(FormatError, match=r"changes a bias or a norm.*'diff'"):
            make(trained(**settings), "svd")


def test_the_forms_entry_is_read_with_distrust():
    assert recorded({}) == Encoded("", {})
    for text in ("{", "[]", '{"errors": {"a": "much"}}'):
        with pytest.raises(FormatError, match="morelora.export is damaged"):
            recorded({"morelora.export": text})


def test_every_reader_reads_something_that_is_known():
    kinds = set().union(*(reads for reads in READERS.values() if reads))
    assert all(reads is None or reads <= kinds for reads in READERS.values()) and READERS["morelora"] is None
