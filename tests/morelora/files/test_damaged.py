"""Damaged layers: whatever shape a tensor of any algorithm is given, a file is read or refused, and nothing else happens."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from morelora import ALGORITHMS
from morelora.errors import AdapterError, FormatError, MoreLoraError
from morelora.files.inspect import inspect, lines
from morelora.files.opened import Outline, change_of, open_adapter
from morelora.formats.names import kohya
from morelora.formats.vocabulary import layer_names
from morelora.load import adapter_from
from morelora.site import Site
from tests.morelora.formats import sd

SETTINGS: dict[str, dict[str, object]] = {
    "dora": {"algorithm": "lora", "weight_decompose": True},
    "tucker": {"algorithm": "lora", "tucker": True},
    "loha tucker": {"algorithm": "loha", "tucker": True},
    "lokr both": {"algorithm": "lokr", "decompose_both": True},
    "residual": {"algorithm": "lora", "start": "residual"},
    **{name: {"algorithm": name} for name in ALGORITHMS},
    "krona_res": {"algorithm": "krona_res", "layers": "attention", "rules": [{"match": "attn2.to_[kv]", "algorithm": "krona"}]},
}
HURT: dict[str, Callable[[Tensor], Tensor]] = {
    "one number": lambda tensor: torch.tensor(1.0),
    "a line": lambda tensor: tensor.flatten(),
    "two more dimensions": lambda tensor: tensor[..., None, None],
    "no rows": lambda tensor: tensor[:0] if tensor.dim() else tensor.flatten()[:0],
    "a row more": lambda tensor: torch.cat([tensor, tensor[:1]]) if tensor.dim() else tensor.repeat(2),
    "turned": lambda tensor: tensor.transpose(0, -1),
    "not a number": lambda tensor: tensor * torch.nan,
}


def modules(kind: str) -> Iterator[tuple[str, Site, dict[str, Tensor]]]:
    """Name in kohya's spelling, layer and tensors: one module of each set of leaf names and dimensions."""
    settings = {"rank": 3} if "rank" in ALGORITHMS[str(SETTINGS[kind]["algorithm"])].Options.model_fields else {}
    seen = set()
    for name, layer in sd.trained({"unet": sd.small()["unet"]}, **settings, **SETTINGS[kind]).layers.items():
        leaves = {leaf: tensor.detach().clone() for leaf, tensor in layer.adapter.tensors(1.0).items()}
        look = str(sorted((leaf, tensor.dim()) for leaf, tensor in leaves.items()))
        if look not in seen:
            seen.add(look)
            yield kohya(name, False), layer.site, leaves


def hurt(leaves: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The module as it is, and with one fault each."""
    yield leaves
    yield leaves | {"strange": torch.ones(2)}
    for leaf, tensor in leaves.items():
        yield {other: value for other, value in leaves.items() if other != leaf} or leaves
        yield from (leaves | {leaf: change(tensor).contiguous()} for change in HURT.values())


def alike(name: str) -> list[str]:
    """Layers of the same kind that models have, in kohya's names."""
    end = re.sub(r".*_\d_", "", name)
    return [other for other in (f"lora_{layer.replace('.', '_')}" for layer in layer_names()) if other.endswith(end)]


@pytest.mark.parametrize("kind", SETTINGS)
def test_damaged_tensors_of_a_known_layer_are_read_or_refused(kind):
    for _, site, leaves in modules(kind):
        outline = Outline("x", site)
        assert adapter_from(outline, leaves)
        for damaged in hurt(leaves):
            with suppress(AdapterError):
                adapter_from(outline, damaged)


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_damaged_layer_is_read_or_listed(kind, tmp_path):
    path = tmp_path / "x.safetensors"
    for name, _, leaves in modules(kind):
        variants, places = list(hurt(leaves)), alike(name)
        for first in range(0, len(variants), len(places)):
            part = dict(zip(places, variants[first : first + len(places)], strict=False))
            tensors = {
                f"{place}.{leaf}": tensor.clone(memory_format=torch.contiguous_format)
                for place, damaged in part.items()
                for leaf, tensor in damaged.items()
            }
            save_file(tensors, path, {"ss_base_model_version": "sd_v1"})
            found = inspect(path)
            assert len(found["layers"]) + len(found["unread"]) == len(part) and lines(found, all_layers=True)
            for layer in open_adapter(path, finite=False).adapters.layers.values():
                with suppress(MoreLoraError):
                    change_of(layer)


@pytest.mark.parametrize(
    "entries",
    [
        {"morelora": "{torn"},
        {"morelora": "[" * 100_000},
        {"morelora": "[1]"},
        {"morelora": json.dumps({"base": [1], "config": [1], "pictures": 3})},
        {"morelora": json.dumps({"base": "x", "config": {"a": 1, "b": {"c": None}}})},
        {"lora_adapter_metadata": "[1]"},
        {"lora_adapter_metadata": json.dumps({"unet.alpha_pattern": {"(": 1}})},
        {"morelora.export": "[1]"},
        {"morelora.export": "{torn"},
    ],
    ids=lambda entries: str(entries)[:60],
)
def test_damaged_text_is_shown_as_it_is_or_refused(tmp_path, entries):
    path, name = tmp_path / "x.safetensors", "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    save_file({f"{name}.lora_A.weight": torch.ones(1, 4), f"{name}.lora_B.weight": torch.ones(4, 1)}, path, entries)
    try:
        assert lines(inspect(path))
    except FormatError as error:
        assert "lora_adapter_metadata is damaged" in str(error)


def test_numbers_of_8_bits_are_read_and_written_in_16(tmp_path):
    path, name = tmp_path / "x.safetensors", "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    values = torch.tensor([[0.5], [1.75], [-3.0]])
    tensors = {"lora_up.weight": values, "lora_down.weight": torch.ones(1, 3)}
    save_file({f"{name}.{leaf}": tensor.to(torch.float8_e4m3fn) for leaf, tensor in tensors.items()}, path)
    opened = open_adapter(path)
    assert opened.dtype == torch.float16
    layer = next(iter(opened.adapters.layers.values()))
    assert torch.equal(layer.adapter.delta(torch.empty(0)), values.expand(3, 3))


def test_a_name_that_is_no_path_is_refused():
    with pytest.raises(FormatError, match="is no path"):
        open_adapter(Path("a\0b"))
