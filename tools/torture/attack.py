"""What an attack is, and what one run of it found."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from gankernels.testing import Arguments, Operator, differentiate


@dataclass
class Found:
    """The outcome of an attack.

    Args:
        cases: How many it tried.
        failures: What went wrong, one line each; empty if nothing did.
        note: What else there is to say, such as a peak of memory.
    """

    cases: int = 0
    failures: list[str] = field(default_factory=list)
    note: str = ""

    def attempt(self, what: str, check: Callable[[], object]) -> None:
        """Counts a case; one that raises has failed."""
        self.cases += 1
        try:
            check()
        except Exception as error:  # whatever it is, it is what was looked for
            where = traceback.extract_tb(error.__traceback__)[-1]
            self.failures.append(
                f"{what}: {type(error).__name__}: {error} ({where.name}:{where.lineno})"
            )


def refused(path: Path, use: Callable[[], object]) -> bool:
    """Whether a use of a file was refused; the error has to name it."""
    try:
        use()
    except (ValueError, OSError) as error:
        if str(path) not in str(error):
            raise AssertionError(f"the error does not name the file: {error}") from error
        return True
    return False


def results(operator: Operator, arguments: Arguments) -> list[Tensor]:
    """The value of a call and the gradients of its logits."""
    value, gradients = differentiate(
        operator.functional, arguments, operator.inputs(arguments), writes=operator.writes
    )
    return [value, *gradients.values()]


@dataclass(frozen=True)
class Attack:
    """A promise, and what would break it.

    Args:
        name: For the command line.
        promise: What holds if nothing is found.
        how: What is done, in a line of the report.
        run: Takes the share of the long form to do, 1 for all of it.
    """

    name: str
    promise: str
    how: str
    run: Callable[[float], Found]
