"""The adapters that the benches compare: ours, lycoris-lora's and peft's, put on the same layers of the same model."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from bench.fitting import fitting
from morelora import ALGORITHMS, formats, inject
from morelora.weight_decompose import Axis

LAYERS = r"attn\d\.(to_q|to_k|to_v|to_out\.0)$|ff\.net\.(0\.proj|2)$"
"""Attention and feed-forward, which every library adapts by default."""
SERIAL = r"attn\d\.to_out\.0$|ff\.net\.2$"
NORMS = r"norm\d?$|norm_out$"
SQUARE = r"attn1\.(to_q|to_k|to_v|to_out\.0)$"


@dataclass(frozen=True)
class Trained:
    """What a library put into a model."""

    parameters: list[nn.Parameter]
    tensors: Callable[[], Mapping[str, Tensor]]
    """What its file holds."""


Install = Callable[[nn.Module, list[str]], Trained]


@dataclass(frozen=True)
class Form:
    """One adapter of one library."""

    family: str
    """What is comparable with what: ``LoRA r8``, ``DoRA r8`` ..."""
    library: str
    install: Install
    """Adapts the named layers of a model in place."""
    layers: str = LAYERS
    """A regular expression: which."""

    @property
    def name(self) -> str:
        return f"{self.family} / {self.library}"


def nothing(model: nn.Module, layers: list[str]) -> Trained:
    """The floor: no adapter at all."""
    return Trained([], dict)


def ours(algorithm: str, axis: Axis | None = None, **options: Any) -> Install:
    def install(model: nn.Module, layers: list[str]) -> Trained:
        kind = ALGORITHMS[algorithm]
        named = {f"unet.{path}": model.get_submodule(path) for path in layers}
        adapters = inject({"unet": model}, fitting(named, algorithm, kind.Options(**options), axis))
        form = "webui" if kind.mergeable else "sidecar"
        return Trained(adapters.parameters(), lambda: formats.encode(adapters, form).tensors)

    return install


def lycoris(kind: str, **options: Any) -> Install:
    """LyCORIS' module classes, applied one by one, which is what its wrapper does after choosing the layers."""

    def install(model: nn.Module, layers: list[str]) -> Trained:
        from lycoris.modules import boft, diag_oft, dylora, full, glora, ia3, locon, loha, lokr, norms

        logging.getLogger("LyCORIS").setLevel(logging.ERROR)
        kinds = {
            "lora": locon.LoConModule, "loha": loha.LohaModule, "lokr": lokr.LokrModule, "full": full.FullModule,
            "norm": norms.NormModule, "ia3": ia3.IA3Module, "oft": diag_oft.DiagOFTModule, "boft": boft.ButterflyOFTModule,
            "dylora": dylora.DyLoraModule, "glora": glora.GLoRAModule,
        }  # fmt: skip
        adapters = [kinds[kind](path.replace(".", "_"), model.get_submodule(path), **options) for path in layers]
        for adapter in adapters:
            adapter.apply_to()
        held = nn.ModuleList(adapters)
        return Trained([p for p in held.parameters() if p.requires_grad], held.state_dict)

    return install


def peft(kind: str, frozen: str = "", **options: Any) -> Install:
    """``frozen`` is a part of the names of parameters that do not train."""

    def install(model: nn.Module, layers: list[str]) -> Trained:
        import peft as library

        before = {id(p) for p in model.parameters()}
        config = getattr(library, f"{kind}Config")(target_modules=layers, **options)
        library.get_peft_model(cast(Any, model), config)
        held = {name: p for name, p in model.named_parameters() if id(p) not in before and p.requires_grad}
        for name, parameter in held.items():
            parameter.requires_grad_(not frozen or frozen not in name)
        return Trained([p for p in held.values() if p.requires_grad], lambda: held)

    return install


def _lycoris_and_bypass(family: str, kind: str, **options: Any) -> Iterable[Form]:
    yield Form(family, "lycoris", lycoris(kind, **options))
    yield Form(family, "lycoris bypass", lycoris(kind, bypass_mode=True, **options))


def _targets() -> Iterable[Form]:
    """What there are targets for."""
    large = 1_000_000  # a rank so large that LyCORIS' rule, which peft copied, takes the full block
    yield Form("LoRA r8", "morelora", ours("lora", rank=8))
    yield from _lycoris_and_bypass("LoRA r8", "lora", lora_dim=8, alpha=8)
    yield Form("LoRA r8", "peft", peft("Lora", r=8, lora_alpha=8))
    yield Form("LoHa r4", "morelora", ours("loha", rank=4))
    yield from _lycoris_and_bypass("LoHa r4", "loha", lora_dim=4, alpha=4)
    yield Form("LoHa r4", "peft", peft("LoHa", r=4, alpha=4))
    yield Form("LoKr f8 r4", "morelora", ours("lokr", rank=4, factor=8))
    yield from _lycoris_and_bypass("LoKr f8 r4", "lokr", lora_dim=4, alpha=4, factor=8)
    yield Form("LoKr f8 r4", "peft", peft("LoKr", r=4, alpha=4, decompose_factor=8))
    yield Form("LoKr f8 full", "morelora", ours("lokr", factor=8, full_matrix=True))
    yield from _lycoris_and_bypass("LoKr f8 full", "lokr", factor=8, full_matrix=True)
    yield Form("LoKr f8 full", "peft", peft("LoKr", r=large, alpha=large, decompose_factor=8))
    yield Form("DoRA r8", "morelora", ours("lora", axis="input", rank=8))
    yield Form("DoRA r8", "morelora output axis", ours("lora", axis="output", rank=8))
    yield Form("DoRA r8", "lycoris", lycoris("lora", lora_dim=8, alpha=8, weight_decompose=True, wd_on_out=False))
    yield Form("DoRA r8", "peft", peft("Lora", r=8, lora_alpha=8, use_dora=True))


def _others() -> Iterable[Form]:
    """The rest of the registry, where a family's name is the algorithm's, and options that change what is computed.

    LyCORIS' T-LoRA is not there: its start decomposes a matrix of each layer's whole size, which takes hours at SD 1.5's widths.
    """
    yield Form("LoRA-FA r8", "morelora", ours("lora", rank=8, freeze_down=True))
    yield Form("LoRA-FA r8", "peft", peft("Lora", frozen="lora_A", r=8, lora_alpha=8))
    yield Form("LoRA r8, residual start", "morelora", ours("lora", rank=8, start="residual"))
    yield Form("additive", "morelora", ours("additive", rank=8))
    yield Form("hadamard", "morelora", ours("hadamard"))
    yield Form("hadamard, tanh", "morelora", ours("hadamard", k=2, nonlinear="tanh"))
    yield Form("krona", "morelora", ours("krona", factor=8))
    yield Form("krona", "lycoris bypass", lycoris("lokr", factor=8, full_matrix=True, bypass_mode=True))
    yield Form("krona_res", "morelora", ours("krona_res", factor=8), SQUARE)
    yield Form("full", "morelora", ours("full"))
    yield Form("full", "lycoris", lycoris("full"))
    yield Form("norm", "morelora", ours("norm"), NORMS)
    yield Form("norm", "lycoris", lycoris("norm"), NORMS)
    yield Form("norm", "peft", peft("LNTuning"), NORMS)
    yield Form("ia3", "morelora", ours("ia3"))
    yield Form("ia3", "lycoris", lycoris("ia3", train_on_input=True))
    yield Form("ia3", "lycoris bypass", lycoris("ia3", train_on_input=True, bypass_mode=True))
    yield Form("oft", "morelora", ours("oft", block_size=8))
    yield from _lycoris_and_bypass("oft", "oft", lora_dim=8)
    yield Form("boft", "morelora", ours("boft", block_size=10))
    yield from _lycoris_and_bypass("boft", "boft", lora_dim=10)
    yield Form("adalora", "morelora", ours("adalora", rank=8))
    yield Form("adalora", "peft", peft("AdaLora", init_r=8, target_r=8, lora_alpha=8, total_step=1000))
    yield Form("dylora", "morelora", ours("dylora", rank=8))
    yield Form("dylora", "lycoris", lycoris("dylora", lora_dim=8, alpha=8, block_size=1))
    yield Form("tlora", "morelora", ours("tlora", rank=8))
    yield Form("glora", "morelora", ours("glora", rank=8))
    yield from _lycoris_and_bypass("glora", "glora", lora_dim=8, alpha=8)
    yield Form("vera", "morelora", ours("vera", rank=64))
    yield Form("vera", "peft", peft("Vera", r=64))
    yield Form("serial", "morelora", ours("serial", rank=8), SERIAL)


def _forms() -> Iterable[Form]:
    forms = [*_targets(), *_others()]
    named = {form.family for form in forms} | {"lora", "loha", "lokr"}
    yield Form("floor", "frozen model", nothing)
    yield from forms
    yield from (Form(name, "morelora", ours(name)) for name in ALGORITHMS if name not in named)


FORMS = {form.name: form for form in _forms()}
FAMILIES = [*dict.fromkeys(form.family for form in FORMS.values() if form.family != "floor")]


def chosen(family: str, only: str = "") -> list[Form]:
    """The forms of a family whose name matches."""
    return [form for form in FORMS.values() if form.family == family and re.search(only, form.name)]
