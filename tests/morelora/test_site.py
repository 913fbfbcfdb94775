"""Sites are read from layers, and layers that cannot be adapted are refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from morelora.errors import AdapterError
from morelora.site import Site
from tests.morelora.grid import LAYERS, example, operate


@pytest.mark.parametrize("name", LAYERS)
def test_shape_and_operation_are_the_layers(name: str) -> None:
    layer, site, x = LAYERS[name], Site.of(LAYERS[name]), example(LAYERS[name])
    assert site.weight_shape == tuple(layer.weight.shape)
    assert site.c == layer.weight[0].numel() and site.taps * site.n == site.c
    torch.testing.assert_close(site.apply(x, layer.weight, layer.bias), operate(layer, x, layer.weight), rtol=0, atol=1e-12)


def test_padding_words_become_numbers() -> None:
    assert Site.of(nn.Conv2d(4, 4, 3, padding="valid")).padding == (0, 0)
    assert Site.of(nn.Conv2d(4, 4, (3, 5), padding="same", dilation=(2, 1))).padding == (2, 2)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Embedding(3, 4), "Embedding cannot be adapted"),
        (nn.Conv1d(3, 4, 3), "Conv1d cannot be adapted"),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), "padding_mode='reflect'"),
        (nn.Conv2d(3, 4, 2, padding="same"), "even kernel"),
    ],
)
def test_other_layers_are_refused_by_name(layer: nn.Module, message: str) -> None:
    with pytest.raises(AdapterError, match=message):
        Site.of(layer)
