"""Layer names in files, against SD 1.5's key list written out from its architecture."""

import pytest
import torch

from morelora import AdapterConfig, resolve
from morelora.formats.names import dotted, kohya, ldm_path, spellings
from tests.morelora.formats import sd

ATTENTION = [
    "proj_in",
    "proj_out",
    *(f"transformer_blocks_0_attn{n}_{leaf}" for n in (1, 2) for leaf in ("to_q", "to_k", "to_v", "to_out_0")),
    "transformer_blocks_0_ff_net_0_proj",
    "transformer_blocks_0_ff_net_2",
]
RESNET = ["conv1", "conv2", "time_emb_proj"]


def golden_unet() -> set[str]:
    """The 278 keys of a full LoCon on SD 1.5, which every web UI knows."""
    down_resnets = {
        f"down_blocks_{i}_resnets_{j}": RESNET + ["conv_shortcut"] * (j == 0 and i in (1, 2)) for i in range(4) for j in range(2)
    }
    up_resnets = {f"up_blocks_{i}_resnets_{j}": [*RESNET, "conv_shortcut"] for i in range(4) for j in range(3)}
    attentions = [f"down_blocks_{i}_attentions_{j}" for i in range(3) for j in range(2)]
    attentions += ["mid_block_attentions_0"] + [f"up_blocks_{i}_attentions_{j}" for i in range(1, 4) for j in range(3)]
    blocks = down_resnets | up_resnets | {f"mid_block_resnets_{j}": RESNET for j in range(2)}
    blocks |= dict.fromkeys(attentions, ATTENTION)
    blocks |= {f"down_blocks_{i}_downsamplers_0": ["conv"] for i in range(3)}
    blocks |= {f"up_blocks_{i}_upsamplers_0": ["conv"] for i in range(3)}
    return {f"lora_unet_{block}_{leaf}" for block, leaves in blocks.items() for leaf in leaves}


def golden_text(layers: int) -> set[str]:
    leaves = [*(f"self_attn_{part}_proj" for part in ("q", "k", "v", "out")), "mlp_fc1", "mlp_fc2"]
    return {f"lora_te_text_model_encoder_layers_{i}_{leaf}" for i in range(layers) for leaf in leaves}


def test_keys_are_sd15s():
    assert len(golden_unet()) == 278
    names = [target.name for target in resolve(sd.sd15(), AdapterConfig(layers="all"))]
    assert {kohya(name) for name in names} == golden_unet() | golden_text(3)
    assert len(names) == 296


def test_text_model_level_is_kept_whatever_transformers_calls_it():
    golden = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    assert kohya("text_encoder.encoder.layers.0.mlp.fc1") == golden
    assert kohya("text_encoder.text_model.encoder.layers.0.mlp.fc1") == golden
    assert dotted("text_encoder.encoder.layers.0.mlp.fc1") == "text_encoder.text_model.encoder.layers.0.mlp.fc1"
    assert dotted("text_encoder_2.text_projection") == "text_encoder_2.text_projection"


def test_sdxl_has_ldm_names_and_two_text_encoders():
    assert kohya("unet.down_blocks.1.attentions.0.proj_in", sdxl=True) == "lora_unet_input_blocks_4_1_proj_in"
    assert kohya("unet.up_blocks.0.upsamplers.0.conv", sdxl=True) == "lora_unet_output_blocks_2_2_conv"
    assert kohya("text_encoder.encoder.layers.0.mlp.fc1", sdxl=True) == "lora_te1_text_model_encoder_layers_0_mlp_fc1"
    assert (
        kohya("text_encoder_2.text_model.encoder.layers.3.mlp.fc2", sdxl=True) == "lora_te2_text_model_encoder_layers_3_mlp_fc2"
    )


@pytest.mark.parametrize(
    ("path", "ldm"),
    [
        ("conv_in", "input_blocks.0.0"),
        ("conv_out", "out.2"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("add_embedding.linear_1", "label_emb.0.0"),
        ("down_blocks.0.resnets.1.conv1", "input_blocks.2.0.in_layers.2"),
        ("down_blocks.2.resnets.0.conv_shortcut", "input_blocks.7.0.skip_connection"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
        ("mid_block.resnets.0.time_emb_proj", "middle_block.0.emb_layers.1"),
        ("mid_block.attentions.0.transformer_blocks.9.ff.net.2", "middle_block.1.transformer_blocks.9.ff.net.2"),
        ("mid_block.resnets.1.conv2", "middle_block.2.out_layers.3"),
        ("up_blocks.2.attentions.1.transformer_blocks.0.attn2.to_k", "output_blocks.7.1.transformer_blocks.0.attn2.to_k"),
        ("up_blocks.0.resnets.2.conv1", "output_blocks.2.0.in_layers.2"),
    ],
)
def test_ldm_paths(path, ldm):
    assert ldm_path(path) == ldm


def test_lone_upsampler_counts_one_place_earlier():
    """SD 1.5: ``up_blocks.0`` has no attention, so that its upsampler is number 1 of its block, not 2."""
    names = [f"unet.{path}" for path, layer in sd.sd15()["unet"].named_modules() if isinstance(layer, torch.nn.Conv2d)]
    table = spellings(names)
    assert table["lora_unet_output_blocks_2_1_conv"] == "unet.up_blocks.0.upsamplers.0.conv"
    assert table["lora_unet_output_blocks_5_2_conv"] == "unet.up_blocks.1.upsamplers.0.conv"


def test_spelling_that_fits_two_layers_is_left_out():
    names = ["text_encoder.text_model.encoder.layers.0.mlp.fc1", "text_encoder_2.text_model.encoder.layers.0.mlp.fc1"]
    table = spellings(names)
    assert "lycoris_text_model_encoder_layers_0_mlp_fc1" not in table
    assert table["lora_te_text_model_encoder_layers_0_mlp_fc1"] == names[0]
    assert table["lora_te1_text_model_encoder_layers_0_mlp_fc1"] == names[0]
    assert table["lora_te2_text_model_encoder_layers_0_mlp_fc1"] == names[1]
