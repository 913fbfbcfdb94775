"""Write the adapter file that users give to their programs."""

from __future__ import annotations

from pathlib import Path

from morelora import AdapterSet
from trainer.metadata import Provenance


def export(adapters: AdapterSet, path: Path, provenance: Provenance) -> Path:
    """Write ``adapters`` to ``path`` in the form and precision of ``provenance.config.export``; whole or not at all.

    Args:
        adapters: the trained adapters (with the averaged values put in, where they are to be exported).
        path: the file, usually ``RunDir.export_file``.
        provenance: what the metadata tells.

    Returns:
        ``path``.

    Raises:
        NonFiniteError: a tensor is NaN or infinite, in float32 or after the cast.
        InputError: the form cannot hold these adapters; the message names the way out.
        DiskError: the file cannot be written.
    """
    raise NotImplementedError
