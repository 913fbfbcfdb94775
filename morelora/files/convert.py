"""An adapter file in another form: kohya's and LyCORIS' keys, diffusers' and PEFT's, plain LoRA, dense, approximate, sidecar."""

from __future__ import annotations

from dataclasses import replace

from morelora.errors import FormatError
from morelora.files.checkpoint import Checkpoint
from morelora.files.opened import Opened, change_of
from morelora.files.writing import Output, Report, kept_metadata, write_adapter


def convert(opened: Opened, output: Output, base: Checkpoint | None = None) -> Report:
    """Write the same change in the form of ``output``. Words that are bundled in the file are left out, which is said.

    Raises:
        FormatError: a part of the file is not understood, or the form cannot hold it.
    """
    layers = opened.whole().adapters.layers
    if base is not None and base.is_sdxl != (opened.family == "sdxl"):
        raise FormatError(f"{opened.path} was not made for {base.path}: one is SDXL and the other is not")
    metadata = kept_metadata([opened], "convert", form=output.form)
    report = write_adapter(opened.adapters, output, metadata, lambda name: change_of(layers[name]), base)
    words = [f"The embedding {word!r} is not in the new file: use the old one for it" for word in opened.words]
    return replace(report, notes=[*report.notes, *words])
