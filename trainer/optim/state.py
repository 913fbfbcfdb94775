"""An optimiser's state as tensors and JSON, and back, bit for bit: no pickle."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

TENSOR, DICT, LIST, TUPLE = "tensor", "dict", "list", "tuple"
"""JSON keys of what JSON itself does not know; a dict is a list of pairs, since its keys may be numbers."""

Tensors = dict[str, Tensor]


def pack_optimizer(optimizer: Optimizer) -> tuple[Tensors, Any]:
    """The whole ``state_dict``: its tensors by their dotted place, each once, and the rest as JSON values.

    Raises:
        TypeError: the state holds something else than tensors, numbers, texts, lists, tuples and dicts; it is named.
    """
    tensors: Tensors = {}
    return tensors, _encode(optimizer.state_dict(), "", tensors, {})


def unpack_optimizer(optimizer: Optimizer, tensors: Tensors, values: Any) -> None:
    """Give an optimiser of the same parameters the state that ``pack_optimizer`` took."""
    saved = _decode(values, tensors)
    optimizer.load_state_dict(saved)
    for group, before in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        for parameter, key in zip(group["params"], before["params"], strict=True):
            _keep_precision(optimizer.state.get(parameter, {}), saved["state"].get(key, {}))


def _keep_precision(state: dict[str, Any], saved: dict[str, Any]) -> None:
    """Undo the cast of floating-point state to the parameter's dtype, which ``load_state_dict`` makes."""
    for name, value in saved.items():
        if isinstance(value, Tensor) and isinstance(state.get(name), Tensor) and state[name].dtype != value.dtype:
            state[name] = value.to(state[name].device)


def _encode(value: Any, place: str, tensors: Tensors, seen: dict[int, str]) -> Any:
    if isinstance(value, Tensor):
        name = seen.setdefault(id(value), place)
        tensors[name] = value.detach()
        return {TENSOR: name}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {DICT: [[key, _encode(item, f"{place}.{key}".lstrip("."), tensors, seen)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = LIST if isinstance(value, list) else TUPLE
        return {kind: [_encode(item, f"{place}.{i}", tensors, seen) for i, item in enumerate(value)]}
    raise TypeError(f"{place} is a {type(value).__name__}, which has no form in a checkpoint")


def _decode(value: Any, tensors: Tensors) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == TENSOR:
        return tensors[content]
    if kind == DICT:
        return {key: _decode(item, tensors) for key, item in content}
    return (list if kind == LIST else tuple)(_decode(item, tensors) for item in content)


def equal_states(first: Optimizer, second: Optimizer) -> bool:
    """Whether two optimisers hold the same state, every bit and dtype."""
    (tensors, values), (others, theirs) = pack_optimizer(first), pack_optimizer(second)
    same = values == theirs and tensors.keys() == others.keys()
    return same and all(t.dtype == others[name].dtype and torch.equal(t, others[name]) for name, t in tensors.items())
