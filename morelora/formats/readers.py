"""Which program reads which tensors with the right effect at every strength: what ``format = "auto"`` chooses by.

The columns for diffusers, lycoris and morelora are held by this project's tests; the others were found by running the programs'
own loading code once, or by reading it. See docs/formats.md for versions and for what happens to the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from morelora.formats.reading import split

LORAS = {"lora", "lora tucker"}
LYCORIS = LORAS | {"loha", "loha tucker", "lokr", "lokr full", "diff"}
DECOMPOSABLE = ("lora", "loha", "lokr", "lokr full", "peft")
DECOMPOSED = {f"{kind}, input axis" for kind in DECOMPOSABLE if kind != "peft"}

READERS: dict[str, frozenset[str] | None] = {
    "a1111": frozenset(LYCORIS | DECOMPOSED | {"bias", "norm", "oft", "boft"}),
    "forge": frozenset(LYCORIS | DECOMPOSED | {"bias", "norm", "glora"}),
    "comfyui": frozenset(LYCORIS | DECOMPOSED | {"bias", "norm", "glora"}),
    "invokeai": frozenset(LYCORIS - {"lokr"} | {"norm", "lora, input axis"}),
    "sdcpp": frozenset(LYCORIS - {"lokr full"}),
    "lycoris": frozenset(LYCORIS | {"bias", "norm", "oft", "boft", "glora", "lora, output axis", "loha, output axis"}),
    "diffusers": frozenset({"lora", "peft", "peft, output axis"}),
    "morelora": None,
}
"""The kinds of tensors that each program reads; None for all."""

NATIVE = frozenset({"glora"})
"""Kinds that other programs read and that the sidecar form holds: the form for web UIs has the same change for more of them."""

KINDS: tuple[tuple[str, str], ...] = (
    ("lokr_t2", "own"),
    ("lora_mid.weight", "lora tucker"),
    ("lora_up.weight", "lora"),
    ("hada_t1", "loha tucker"),
    ("hada_w1_a", "loha"),
    ("lokr_w2_a", "lokr"),
    ("lokr_w1_a", "lokr"),
    ("lokr_w1", "lokr full"),
    ("w_norm", "norm"),
    ("b_norm", "norm"),
    ("a1.weight", "glora"),
)
"""Leaf names, the first that a module has -> its kind."""


def kind(leaves: Mapping[str, Tensor], is_dotted: bool = False) -> str:
    """What a module's tensors are, by leaf name; what no web UI knows is ``"own"``.

    Args:
        leaves: its tensors by leaf name.
        is_dotted: whether its keys are diffusers' and not kohya's.
    """
    base = "peft" if is_dotted else next((name for leaf, name in KINDS if leaf in leaves), _other(leaves))
    if "dora_scale" not in leaves:
        return base
    axis = "input" if leaves["dora_scale"].shape[:1] == (1,) else "output"
    return f"{base}, {axis} axis" if base in DECOMPOSABLE else "own"


def _other(leaves: Mapping[str, Tensor]) -> str:
    if "diff" in leaves or "diff_b" in leaves:
        return "diff" if "diff" in leaves and leaves["diff"].dim() > 1 else "bias"
    if leaves.keys() - {"alpha", "rescale"} == {"oft_blocks"}:
        return "oft" if leaves["oft_blocks"].dim() == 3 else "boft"
    return "own"


def kinds(tensors: Mapping[str, Tensor]) -> set[str]:
    """The kinds that a file's tensors are."""
    modules: dict[tuple[str, bool], dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, leaf = split(key)
        modules.setdefault((name, not key.startswith(("lora_", "lycoris_"))), {})[leaf] = tensor
    return {kind(leaves, is_dotted) for (_, is_dotted), leaves in modules.items()}


def unread(found: set[str], readers: Iterable[str]) -> dict[str, set[str]]:
    """The programs that do not read all of these kinds, and those that they do not read."""
    known = {reader: READERS[reader] for reader in readers}
    return {reader: found - reads for reader, reads in known.items() if reads is not None and not found <= reads}


def unread_own(found: set[str], readers: Iterable[str]) -> dict[str, set[str]]:
    """``unread`` of a file of our own tensors, which is for no other program but of ``NATIVE`` kinds, even where some of its
    tensors have names that they know."""
    return unread(found, readers) if found <= NATIVE else {reader: {"own"} for reader in readers if READERS[reader] is not None}
