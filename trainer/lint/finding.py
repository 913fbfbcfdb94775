"""What a rule says: one fault, where it is, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """``ERROR``: cannot be trained on. ``WARNING``: will harm the result. ``INFO``: worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class Finding:
    """One fault of one picture or of several that belong together; ``rule`` is the name in the registry."""

    rule: str
    severity: Severity
    pictures: tuple[str, ...]
    """Names as the folder has them; empty where the fault is the whole set's."""
    problem: str
    fix: str

    @property
    def is_fault(self) -> bool:
        """Whether ``--lint`` ends with exit code 3 because of it."""
        return self.severity != Severity.INFO
