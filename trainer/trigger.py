"""Where the trigger word stands in a prompt: ``{trigger}``, so that a recipe's prompts hold for another word too."""

from __future__ import annotations

PLACE = "{trigger}"


def put_in(prompt: str, trigger: str) -> str:
    """``"{trigger}, fox"`` with the word: ``"duo style, fox"``."""
    return prompt.replace(PLACE, trigger)


def take_out(prompt: str, trigger: str) -> str:
    """A prompt with the place in the word's stead; as it is where there is no word."""
    return prompt.replace(trigger, PLACE) if trigger else prompt
