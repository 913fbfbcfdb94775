"""A UNet's blocks by the short names that block-wise training uses: ``IN00`` … ``IN11``, ``MID``, ``OUT00`` … ``OUT11``.

The number is the place in the original model's ``input_blocks`` and ``output_blocks`` with two resnets a block: SD 1.x and 2.x
have 12 of each, SDXL has 9.
"""

from __future__ import annotations

import re

DOWN = re.compile(r"unet\.down_blocks\.(\d+)\.(resnets|attentions|downsamplers)\.(\d+)\.")
UP = re.compile(r"unet\.up_blocks\.(\d+)\.(resnets|attentions|upsamplers)\.(\d+)\.")
NAME = re.compile(r"MID|(IN|OUT)(0\d|1[01])")


def block_of(name: str) -> str | None:
    """The block of a layer's dotted name; None for text encoders and for what lies outside the blocks."""
    if name.startswith("unet.mid_block."):
        return "MID"
    if name == "unet.conv_in":
        return "IN00"
    if match := DOWN.match(name):
        level, place = int(match[1]), int(match[3])
        return f"IN{3 * level + (3 if match[2] == 'downsamplers' else 1 + place):02d}"
    if match := UP.match(name):
        level, place = int(match[1]), int(match[3])
        return f"OUT{3 * level + (2 if match[2] == 'upsamplers' else place):02d}"
    return None
