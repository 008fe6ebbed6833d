"""What the fields of a configuration may be."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from gankernels._checks import check_integer

__all__ = ["check_choice", "check_positive", "check_seed", "check_share", "check_types"]

_WORDS = {
    NoneType: "None",
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "text",
    dict: "a dictionary",
    tuple: "two numbers",
}


def check_types(config: object) -> None:
    """Refuse a field that is not of its annotated type, or not finite. A number may be an integer.

    Raises:
        TypeError: The type is another one.
        ValueError: The number is NaN or infinite, or an integer of more than 64 bits.
    """
    for name, types in _annotated(type(config)).items():  # type: ignore[arg-type]
        value = getattr(config, name)
        if not any(_is_of(value, t) for t in types):
            wanted = " or ".join(_WORDS.get(get_origin(t) or t, t.__name__) for t in types)
            raise TypeError(f"{name} must be {wanted}, got {value!r}")
        for number in value if isinstance(value, tuple | list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{name} must be finite, got {value!r}")
            if isinstance(number, int) and not isinstance(number, bool):
                check_integer(name, number)


@cache
def _annotated(config: type) -> dict[str, tuple[Any, ...]]:
    hints = get_type_hints(config)
    return {n: get_args(h) if isinstance(h, UnionType) else (h,) for n, h in hints.items()}


def _is_of(value: object, kind: Any) -> bool:
    origin = get_origin(kind) or kind
    if origin is tuple:  # JSON gives a list
        return (
            isinstance(value, tuple | list)
            and len(value) == 2
            and all(_is_of(x, float) for x in value)
        )
    if origin in (int, float):
        return isinstance(value, (int, origin)) and not isinstance(value, bool)
    return isinstance(value, origin)


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Refuse a value that is none of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}")


def check_positive(name: str, value: float, least: float = 1) -> None:
    """Refuse a number below ``least``, and NaN."""
    if not value >= least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")


def check_seed(seed: int) -> None:
    """Refuse what is no seed of every generator, also with a process's own offset added to it."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed must be an integer from -2**63 to 2**63 - 1, got {seed!r}")


def check_share(name: str, value: float) -> None:
    """Refuse a number that is no share of a whole."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value!r}")
