"""Sections that the docstrings of several functions share: written once, whole in ``help()``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def documented(sections: Mapping[str, str]) -> Callable[[Function], Function]:
    """Puts sections in place of the lines that hold their names after a ``$``, indented as these are."""

    def decorate(function: Function) -> Function:
        if function.__doc__:  # None under python -OO
            function.__doc__ = "\n".join(
                _filled(line, sections) for line in function.__doc__.split("\n")
            )
        return function

    return decorate


def _filled(line: str, sections: Mapping[str, str]) -> str:
    name = line.strip()
    if not name.startswith("$"):
        return line
    indent = line[: len(line) - len(name)]
    text = sections[name.removeprefix("$")].strip("\n")
    return "\n".join(f"{indent}{x}" if x else "" for x in text.split("\n"))
