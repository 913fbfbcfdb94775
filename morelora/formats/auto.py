"""The form that is chosen by who is to read the file: the smallest exact one, and where there is none the approximate one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor

from morelora.errors import FormatError
from morelora.formats import dense, peft, plain, sidecar, webui
from morelora.formats.readers import READERS, kinds, unread, unread_own
from morelora.inject import AdapterSet

COMPACT = {"lora": plain.encode, "webui": webui.encode, "diffusers": peft.encode, "sidecar": sidecar.encode}
"""In the order that wins where two are of one size."""


def choose(adapters: AdapterSet, readers: Iterable[str]) -> tuple[str, str]:
    """The form's name, and why it is this one.

    Raises:
        FormatError: a reader is not known.
    """
    readers = list(readers)
    unknown = [reader for reader in readers if reader not in READERS]
    if unknown:
        raise FormatError(f"{unknown[0]!r} is no reader known here: choose from {', '.join(READERS)}")
    fits, why = [], []
    for name, size, missing in _candidates(adapters, readers):
        if not missing:
            fits.append((size, name))
        why += [f"{name}: {reader} does not read {', '.join(sorted(kinds))}" for reader, kinds in missing.items()]
    if fits:
        return min(fits, key=lambda fit: fit[0])[1], f"the smallest form that {', '.join(readers) or 'morelora'} read exactly"
    return "svd", f"no form is read exactly by all of {', '.join(readers)} ({'; '.join(why)})"


def _candidates(adapters: AdapterSet, readers: list[str]) -> Iterator[tuple[str, int, dict[str, set[str]]]]:
    """Each exact form that can hold the adapters: its name, its size in numbers, and who does not read what of it."""
    for name, encode in COMPACT.items():
        try:
            tensors: dict[str, Tensor] = encode(adapters)
        except FormatError:
            continue
        read_not = unread_own if name == "sidecar" else unread
        yield name, sum(tensor.numel() for tensor in tensors.values()), read_not(kinds(tensors), readers)
    if all(adapter.mergeable for _, adapter in adapters):
        yield "diff", dense.size(adapters), unread(dense.kinds(adapters), readers)
