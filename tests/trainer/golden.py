"""The keys that web UIs know, written out from the published architectures: a full LoCon with its text encoders."""

from __future__ import annotations

from tests.morelora.formats.test_names import golden_text, golden_unet

RESNET = ("in_layers_2", "out_layers_3", "emb_layers_1")
SKIPS = ("input_blocks_4_0", "input_blocks_7_0", *(f"output_blocks_{i}_0" for i in range(9)))
"""Blocks of SDXL whose width changes, so that they have a convolution beside."""


def keys(family: str, text_layers: tuple[int, ...], depths: tuple[int, int] = (2, 10)) -> set[str]:
    """Every key of a family, without the tensors' suffixes.

    Args:
        text_layers: layers of each text encoder that have adapters.
        depths: transformer blocks of SDXL's second and third level.
    """
    if family != "sdxl":
        return golden_unet() | golden_text(text_layers[0])
    texts = {key.replace("lora_te_", f"lora_te{n}_") for n, layers in enumerate(text_layers, 1) for key in golden_text(layers)}
    return _sdxl_unet(*depths) | texts


def _sdxl_unet(second: int, third: int) -> set[str]:
    resnets = [f"{side}_blocks_{i}_0" for side, places in (("input", (1, 2, 4, 5, 7, 8)), ("output", range(9))) for i in places]
    leaves = {f"{resnet}_{leaf}" for resnet in [*resnets, "middle_block_0", "middle_block_2"] for leaf in RESNET}
    leaves |= {f"{place}_skip_connection" for place in SKIPS}
    leaves |= {"input_blocks_3_0_op", "input_blocks_6_0_op", "output_blocks_2_2_conv", "output_blocks_5_2_conv"}
    depth = dict.fromkeys(("input_blocks_4_1", "input_blocks_5_1", *(f"output_blocks_{i}_1" for i in (3, 4, 5))), second)
    depth |= dict.fromkeys(("input_blocks_7_1", "input_blocks_8_1", *(f"output_blocks_{i}_1" for i in (0, 1, 2))), third)
    depth |= {"middle_block_1": third}
    for place, blocks in depth.items():
        leaves |= {f"{place}_proj_in", f"{place}_proj_out"}
        leaves |= {f"{place}_transformer_blocks_{i}_{leaf}" for i in range(blocks) for leaf in _transformer()}
    return {f"lora_unet_{leaf}" for leaf in leaves}


def _transformer() -> list[str]:
    attention = [f"attn{n}_{leaf}" for n in (1, 2) for leaf in ("to_q", "to_k", "to_v", "to_out_0")]
    return [*attention, "ff_net_0_proj", "ff_net_2"]
