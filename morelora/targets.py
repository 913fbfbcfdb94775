"""Which layer gets which algorithm: settings, layer groups and rules. Pure: reads a model's layers, changes nothing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, field_validator, model_validator
from torch import nn

from morelora.adapted import Adapted
from morelora.adapter import Options
from morelora.blocks import NAME, block_of
from morelora.errors import AdapterError
from morelora.registry import ALGORITHMS
from morelora.site import Site
from morelora.weight_decompose import Axis

ATTENTION = r"attn\d\.(to_q|to_k|to_v|to_out\.0)$"
TRANSFORMER = rf"{ATTENTION}|transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)$|attentions\.\d+\.proj_(in|out)$"
NORM = r"transformer_blocks\.\d+\.norm\d$"
CONVOLUTION = r"resnets\.\d+\.(conv1|conv2|conv_shortcut|time_emb_proj)$|(down|up)samplers\.\d+\.conv$"
TEXT = r"layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])$"

GROUPS = {
    "attention": rf"^unet\..*({ATTENTION}|{NORM})",
    "transformer": rf"^unet\..*({TRANSFORMER}|{NORM}|attentions\.\d+\.norm$)",
    "all": rf"^unet\..*({TRANSFORMER}|{CONVOLUTION}|{NORM}|(attentions\.\d+\.norm|resnets\.\d+\.norm[12])$)",
}
"""Layers of the UNet by the value of ``layers``, of which each algorithm takes those that suit it: norms are for few. Without
input and output layers and time embeddings: clients drop them."""

TEXT_GROUP = rf"^text_encoder(_2)?\..*({TEXT})"
"""Layers of the text encoders: all six, since diffusers reads a file without ``out_proj`` wrongly. No norms: ComfyUI and Forge
have no place for them."""

NONE = "none"


class Rule(BaseModel):
    """Layers whose dotted name (``unet.…`` or ``text_encoder.…``) contains ``match``, or that lie in ``blocks``, or both, get
    another treatment. Blocks alone keep to the layers that ``AdapterConfig.layers`` chooses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: str = Field("", description="Regular expression searched in the layer's dotted name.")
    blocks: tuple[str, ...] = Field(
        (), description="Blocks of the UNet that it is limited to: IN00 to IN11, MID, OUT00 to OUT11 (SDXL: to IN08, OUT08)."
    )
    algorithm: str | None = Field(None, description="Algorithm for these layers; 'none' leaves them out; empty keeps the run's.")
    lr: float | None = Field(None, gt=0, description="Learning rate for these layers.")
    options: dict[str, Any] = Field(default_factory=dict, description="The algorithm's settings that differ, such as rank.")

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, values: Any) -> Any:
        return gather_options(values, set(cls.model_fields))

    @field_validator("match")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value

    @field_validator("blocks")
    @classmethod
    def _are_blocks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [block for block in value if not NAME.fullmatch(block)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no block: write IN00 to IN11, MID or OUT00 to OUT11")
        return value

    @model_validator(mode="after")
    def _says_where(self) -> Rule:
        if not (self.match or self.blocks):
            raise ValueError("needs match or blocks to say which layers it is for")
        return self

    def finds(self, name: str, is_chosen: bool) -> bool:
        """Whether it is for a layer; ``is_chosen``: whether ``AdapterConfig.layers`` takes it anyway."""
        if self.blocks and block_of(name) not in self.blocks:
            return False
        return is_chosen if not self.match else re.search(self.match, name) is not None

    @property
    def place(self) -> str:
        """Where it looks, for messages."""
        blocks = f"blocks = {', '.join(self.blocks)}" if self.blocks else ""
        return ", ".join(filter(None, (f"match = {self.match!r}" if self.match else "", blocks)))

    @field_validator("algorithm")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        return value if value in (None, NONE) else known_algorithm(value)


class AdapterConfig(BaseModel):
    """What the adapter is. The chosen algorithm's own settings (rank, alpha, …) stand beside these under the same name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    algorithm: str = Field(
        "lora",
        description="How a layer's change is made of few numbers. The first to try is lora; docs/algorithms.md is on each.",
        json_schema_extra={"level": "basic"},
    )
    layers: Literal["attention", "transformer", "all"] = Field(
        "transformer",
        description="Layers of the UNet: attention only; attention, feed-forward and projections; or all with convolutions.",
    )
    conv_rank: int | None = Field(None, ge=1, le=4096, description="Rank on kernels larger than 1x1; empty means the rank.")
    conv_alpha: float | None = Field(None, gt=0, description="Alpha on kernels larger than 1x1; empty means the alpha.")
    weight_decompose: bool = Field(False, description="Weight decomposition (DoRA): learn direction and magnitude apart.")
    decompose_axis: Axis = Field(
        "input", description="Axis of the magnitudes: 'input' loads in web UIs, 'output' is diffusers' and the paper's."
    )
    max_norm: float | None = Field(None, gt=0, description="Largest Frobenius norm of one layer's change; empty: no limit.")
    rules: tuple[Rule, ...] = Field((), description="Other treatment for some layers; the first rule that matches wins.")
    options: SerializeAsAny[Options] = Field(default_factory=lambda: ALGORITHMS["lora"].Options())

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, values: Any) -> Any:
        values = gather_options(values, set(cls.model_fields))
        if not isinstance(values, Mapping):
            return values
        name = str(values.get("algorithm", "lora"))
        options = values.get("options", {})
        if name in ALGORITHMS and not isinstance(options, Options):
            values = values | {"options": ALGORITHMS[name].Options.model_validate(options)}
        return values

    @field_validator("algorithm")
    @classmethod
    def _is_known(cls, value: str) -> str:
        return known_algorithm(value)

    @model_validator(mode="after")
    def _has_effect(self) -> AdapterConfig:
        if self.layers != "all" and not self.rules and (self.conv_rank or self.conv_alpha):
            raise ValueError("conv_rank and conv_alpha have no effect unless layers = 'all'")
        if self.layers != "all" and not self.rules and getattr(self.options, "tucker", False):
            raise ValueError("tucker has no effect unless layers = 'all': it is for kernels larger than 1x1")
        is_whole = getattr(self.options, "full_matrix", False) and not self.options.decompose_both
        for name in sorted({"rank", "alpha", "rs"} & self.options.model_fields_set) if is_whole else ():
            raise ValueError(f"{name} has no effect on a full-matrix LoKr (its scale is 1): remove {name}, or full_matrix")
        if self.weight_decompose and not ALGORITHMS[self.algorithm].decomposes:
            why = ALGORITHMS[self.algorithm].undecomposed
            raise ValueError(f"weight_decompose has no meaning with algorithm = {self.algorithm!r}, {why}: turn it off")
        if self.decompose_axis == "output" and not self.weight_decompose:
            raise ValueError("decompose_axis has no effect unless weight_decompose = true")
        return self


@dataclass(frozen=True)
class Target:
    """One layer that gets an adapter."""

    name: str
    """Component and path: ``unet.down_blocks.0.attentions.0.proj_in``."""
    algorithm: str
    options: Options
    decompose: Axis | None = None
    lr: float | None = None

    @property
    def component(self) -> str:
        return self.name.partition(".")[0]

    @property
    def path(self) -> str:
        return self.name.partition(".")[2]


def gather_options(values: Any, fields: set[str]) -> Any:
    """Move keys that are no field into ``options``, so that ``rank`` stands beside ``algorithm`` in TOML."""
    if not isinstance(values, Mapping):
        return values
    extra = {key: value for key, value in values.items() if key not in fields}
    if not extra:
        return dict(values)
    known = {key: value for key, value in values.items() if key in fields}
    options = known.get("options", {})
    return known | {"options": {**options, **extra}} if isinstance(options, Mapping) else dict(values)


def known_algorithm(name: str) -> str:
    """``name``, or ``ValueError`` with the nearest one."""
    if name in ALGORITHMS:
        return name
    near = difflib.get_close_matches(name, ALGORITHMS, n=1, cutoff=0.3)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name!r} is not an algorithm: choose from {', '.join(ALGORITHMS)}{hint}")


def adaptable_layers(models: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Every linear layer, convolution and norm by its dotted name; an adapted one counts once, under the name it had."""
    found = {
        f"{component}.{path}": layer
        for component, model in models.items()
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d | Adapted) or _is_norm(layer)
    }
    inside = {id(layer.base) for layer in found.values() if isinstance(layer, Adapted)}
    return {name: layer for name, layer in found.items() if id(layer) not in inside}


def _is_norm(layer: nn.Module) -> bool:
    """A norm with a weight of one axis."""
    return isinstance(layer, nn.LayerNorm | nn.GroupNorm) and layer.weight is not None and layer.weight.dim() == 1


def resolve(models: Mapping[str, nn.Module], config: AdapterConfig) -> list[Target]:
    """The layers that get an adapter, in the model's order.

    Args:
        models: the components to adapt by name: ``unet``, ``text_encoder``, ``text_encoder_2``.

    Raises:
        AdapterError: a rule matches no layer, its options do not fit its algorithm, or nothing at all is left to train.
    """
    layers = adaptable_layers(models)
    default = re.compile(f"{GROUPS[config.layers]}|{TEXT_GROUP}")
    rules = config.rules
    hits = dict.fromkeys(range(len(rules)), 0)
    targets = []
    for name, layer in layers.items():
        is_chosen = default.search(name) is not None
        index = next((i for i, rule in enumerate(rules) if rule.finds(name, is_chosen)), None)
        if index is None and not is_chosen:
            continue
        rule = None if index is None else rules[index]
        algorithm = rule.algorithm if rule and rule.algorithm else config.algorithm
        if algorithm != NONE and not _suits(name, layer, algorithm, named=bool(rule and rule.match)):
            continue
        if index is not None:
            hits[index] += 1
        if algorithm != NONE:
            targets.append(_target(name, Site.of(layer), config, rule))
    unused = [f"rules[{i}] ({rules[i].place})" for i, count in hits.items() if not count]
    if unused:
        example = ", ".join(list(layers)[:3])
        why = "matches no layer, or none that an earlier rule left and that suits its algorithm"
        raise AdapterError(f"adapter.{unused[0]} {why}; names look like {example}")
    if not targets:
        where = f"adapter.layers = {config.layers!r} finds no layer for {config.algorithm}"
        raise AdapterError(f"{where} in {', '.join(models)}: nothing would be trained")
    return targets


def _suits(name: str, layer: nn.Module, algorithm: str, named: bool) -> bool:
    """Whether the algorithm has something to change there. Where it stands by habit counts for layers that no rule names."""
    kind = ALGORITHMS[algorithm]
    return kind.suits(Site.of(layer)) and (named or re.search(kind.places, name) is not None)


def _target(name: str, site: Site, config: AdapterConfig, rule: Rule | None) -> Target:
    algorithm = rule.algorithm if rule and rule.algorithm else config.algorithm
    options = config.options if algorithm == config.algorithm else ALGORITHMS[algorithm].Options()
    changes: dict[str, Any] = {}
    if site.is_spatial and algorithm == config.algorithm:
        changes = {key: value for key, value in (("rank", config.conv_rank), ("alpha", config.conv_alpha)) if value}
    changes |= rule.options if rule else {}
    if changes:
        try:
            options = type(options).model_validate(options.model_dump(exclude_unset=True) | changes)
        except ValidationError as error:
            where = f"the rule with {rule.place}" if rule else "conv_rank or conv_alpha"
            raise AdapterError(f"adapter: {where} does not fit {algorithm}: {_fault(error, type(options))}") from error
    if config.max_norm is not None and not (ALGORITHMS[algorithm].limits_norm and options.is_homogeneous):
        why = "as it is set" if ALGORITHMS[algorithm].limits_norm else "which is no sum of factors"
        raise AdapterError(f"adapter.max_norm cannot limit {algorithm}, {why}: remove it, or use 'lora' as it comes")
    return Target(name, algorithm, options, config.decompose_axis if config.weight_decompose else None, rule.lr if rule else None)


def _fault(error: ValidationError, schema: type[Options]) -> str:
    """The first wrong option: its name, its value, and what is allowed."""
    fault = error.errors()[0]
    name = ".".join(str(part) for part in fault["loc"])
    if fault["type"] != "extra_forbidden":
        return f"{name} = {fault['input']!r}: {fault['msg'].removeprefix('Value error, ')}"
    near = difflib.get_close_matches(name, schema.model_fields, n=1, cutoff=0.5)
    return f"it has no option {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
