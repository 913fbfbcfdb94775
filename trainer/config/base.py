"""What every section of the schema is made of."""

from __future__ import annotations

from copy import copy
from typing import Any, Literal, Optional

from pydantic import BaseModel, ConfigDict, Field, create_model

Precision = Literal["fp32", "bf16", "fp16"]
Level = Literal["basic", "advanced"]


def setting(default: Any, help_text: str, level: Level = "advanced", unit: str = "", **bounds: Any) -> Any:
    """A field of the schema: default, help, level, unit and bounds."""
    return Field(default, description=help_text, json_schema_extra={"level": level, "unit": unit}, **bounds)


class Section(BaseModel):
    """A group of settings. Frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def with_optional(own: type[Section], shared: type[Section]) -> type[Section]:
    """The fields of ``own``, then those of ``shared`` with the same help and bounds, each empty by default."""
    fields: dict[str, Any] = {}
    for name, field in shared.model_fields.items():
        empty = copy(field)
        empty.default = None
        fields[name] = (Optional[field.annotation], empty)  # noqa: UP045  # `|` needs two types that are known here
    return create_model(f"{shared.__name__}Optional", __base__=own, **fields)
