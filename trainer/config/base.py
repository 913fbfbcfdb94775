"""What every section of the schema is made of."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Precision = Literal["fp32", "bf16", "fp16"]
Level = Literal["basic", "advanced"]


def setting(default: Any, help_text: str, level: Level = "advanced", unit: str = "", **bounds: Any) -> Any:
    """A field of the schema: default, help, level, unit and bounds."""
    return Field(default, description=help_text, json_schema_extra={"level": level, "unit": unit}, **bounds)


class Section(BaseModel):
    """A group of settings. Frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
