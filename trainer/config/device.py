"""Settings of how a run uses its device: speed and memory, never what is learnt."""

from __future__ import annotations

from typing import Literal

from trainer.config.base import Section, setting


class DeviceConfig(Section):
    """Speed and memory on the device."""

    attention: Literal["auto", "sdpa", "xformers"] = setting(
        "auto", "Attention: auto and sdpa are PyTorch's own; xformers (an extra) where it works, else PyTorch's own, said once."
    )
    compile: bool = setting(
        False, "Compile the denoiser's repeated blocks (torch.compile): the first steps take minutes, the others less time."
    )
    channels_last: bool = setting(False, "Hold the denoiser's convolutions channels-last: often faster on a GPU.")
    quantize: Literal["none", "int8", "nf4"] = setting(
        "none", "Hold the frozen linear layers in 8 or 4 bits (bitsandbytes, an extra): less memory, a slightly coarser base."
    )
    double_quantize: bool = setting(False, "With nf4, also quantise the scales: 0.4 bits less for each weight.")
    offload: bool = setting(
        True, "Keep the VAE, and text encoders that are not trained, off the device between caching and previews."
    )
    deterministic: bool = setting(
        False, "On a GPU, only kernels that add in the same order every time, slower ones: resuming is then exact there too."
    )
    estimate: bool = setting(True, "Measure memory and time on a few steps before the run; they leave no trace in its result.")
