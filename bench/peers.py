"""The adapters that ``bench.speed`` compares: ours, lycoris-lora's and peft's, put on the same layers of the same model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

Install = Callable[[nn.Module, list[str]], list[nn.Parameter]]


@dataclass(frozen=True)
class Form:
    """One adapter of one library."""

    family: str
    """What is comparable with what: ``LoRA r8``, ``DoRA r8`` ..."""
    library: str
    install: Install
    """Adapts the named layers of a model in place and returns what trains."""

    @property
    def name(self) -> str:
        return f"{self.family} / {self.library}"


def nothing(model: nn.Module, layers: list[str]) -> list[nn.Parameter]:
    """The floor: no adapter at all."""
    return []


def ours(algorithm: str, axis: str | None = None, **options: Any) -> Install:
    def install(model: nn.Module, layers: list[str]) -> list[nn.Parameter]:
        from morelora import ALGORITHMS, Target, inject

        settings = ALGORITHMS[algorithm].Options(**options)
        targets = [Target(f"unet.{path}", algorithm, settings, axis) for path in layers]  # type: ignore[arg-type]
        return inject({"unet": model}, targets).parameters()

    return install


def lycoris(kind: str, **options: Any) -> Install:
    """LyCORIS' module classes, applied one by one, which is what its wrapper does after choosing the layers."""

    def install(model: nn.Module, layers: list[str]) -> list[nn.Parameter]:
        import lycoris.modules.loha
        import lycoris.modules.lokr  # noqa: F401
        from lycoris.modules.locon import LoConModule

        logging.getLogger("LyCORIS").setLevel(logging.ERROR)
        kinds = {"lora": LoConModule, "loha": lycoris.modules.loha.LohaModule, "lokr": lycoris.modules.lokr.LokrModule}
        adapters = [kinds[kind](path, model.get_submodule(path), **options) for path in layers]
        for adapter in adapters:
            adapter.apply_to()
        return list(nn.ModuleList(adapters).parameters())

    return install


def peft(kind: str, **options: Any) -> Install:
    def install(model: nn.Module, layers: list[str]) -> list[nn.Parameter]:
        from peft import LoHaConfig, LoKrConfig, LoraConfig, inject_adapter_in_model

        config = {"lora": LoraConfig, "loha": LoHaConfig, "lokr": LoKrConfig}[kind]
        before = {id(p) for p in model.parameters()}
        inject_adapter_in_model(config(target_modules=layers, **options), model)
        return [p for p in model.parameters() if p.requires_grad and id(p) not in before]

    return install


def _forms() -> Iterable[Form]:
    large = 1_000_000  # a rank so large that LyCORIS' rule, which peft copied, takes the full block
    wd = {"weight_decompose": True, "wd_on_out": False}
    yield Form("floor", "frozen model", nothing)
    yield Form("LoRA r8", "morelora", ours("lora", rank=8))
    yield Form("LoRA r8", "lycoris", lycoris("lora", lora_dim=8, alpha=8))
    yield Form("LoRA r8", "lycoris bypass", lycoris("lora", lora_dim=8, alpha=8, bypass_mode=True))
    yield Form("LoRA r8", "peft", peft("lora", r=8, lora_alpha=8))
    yield Form("LoHa r4", "morelora", ours("loha", rank=4))
    yield Form("LoHa r4", "lycoris", lycoris("loha", lora_dim=4, alpha=4))
    yield Form("LoHa r4", "lycoris bypass", lycoris("loha", lora_dim=4, alpha=4, bypass_mode=True))
    yield Form("LoHa r4", "peft", peft("loha", r=4, alpha=4))
    yield Form("LoKr f8 r4", "morelora", ours("lokr", rank=4, factor=8))
    yield Form("LoKr f8 r4", "lycoris", lycoris("lokr", lora_dim=4, alpha=4, factor=8))
    yield Form("LoKr f8 r4", "lycoris bypass", lycoris("lokr", lora_dim=4, alpha=4, factor=8, bypass_mode=True))
    yield Form("LoKr f8 r4", "peft", peft("lokr", r=4, alpha=4, decompose_factor=8))
    yield Form("LoKr f8 full", "morelora", ours("lokr", factor=8, full_matrix=True))
    yield Form("LoKr f8 full", "lycoris", lycoris("lokr", factor=8, full_matrix=True))
    yield Form("LoKr f8 full", "lycoris bypass", lycoris("lokr", factor=8, full_matrix=True, bypass_mode=True))
    yield Form("LoKr f8 full", "peft", peft("lokr", r=large, alpha=large, decompose_factor=8))
    yield Form("DoRA r8", "morelora", ours("lora", axis="input", rank=8))
    yield Form("DoRA r8", "morelora output axis", ours("lora", axis="output", rank=8))
    yield Form("DoRA r8", "lycoris", lycoris("lora", lora_dim=8, alpha=8, **wd))
    yield Form("DoRA r8", "peft", peft("lora", r=8, lora_alpha=8, use_dora=True))


FORMS = {form.name: form for form in _forms()}
