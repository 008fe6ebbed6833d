"""One change of one place, and the tests that ought to notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tests:
    """A part of the suite: what pytest is called with, and what it is asked to leave out."""

    files: tuple[str, ...]
    only: str = ""

    @property
    def arguments(self) -> list[str]:
        return [
            *(f"tests/{name}" for name in self.files),
            *(["-k", self.only] if self.only else []),
        ]


@dataclass(frozen=True)
class Mutant:
    """One change.

    Args:
        name: What ``--only`` takes.
        operators: The operators that it breaks: functions of ``gankernels``, and operators of
            ``torch.ops.gankernels`` where these have other names.
        file: Where.
        old: Text that occurs there exactly once.
        new: What replaces it.
        tests: The tests that must fail.
        what: What is wrong then.
        units: The translation units to compile, if not all that include ``file``.
    """

    name: str
    operators: tuple[str, ...]
    file: str
    old: str
    new: str
    tests: Tests
    what: str
    units: tuple[str, ...] = ()
