"""The goals that the package set itself, and what the committed results say of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import results
from benchmarks.losses import is_rival

SMALL = ("32x20", "128x20", "128x51", "512x51")
LARGE = ("4096x1024", "1024x32768")


@dataclass(frozen=True)
class Goal:
    """A sentence, a bound, and the numbers that the results give, by case."""

    what: str
    bound: float
    at_least: bool
    measure: Callable[[], dict[str, float]]

    def row(self) -> list[object]:
        """The worst case decides."""
        found = self.measure()
        worst = (min if self.at_least else max)(found, key=lambda case: found[case])
        met = found[worst] >= self.bound if self.at_least else found[worst] <= self.bound
        sign = "≥" if self.at_least else "≤"
        best = (max if self.at_least else min)(found.values())
        spread = f"{found[worst]:.2f} ({worst})"
        if len(found) > 1:
            spread += f"; best {best:.2f}"
        return [self.what, f"{sign} {self.bound:g}", spread, "yes" if met else "**no**"]


Case = dict[str, dict[str, Any]]


def _case(operator: str, shape: str, dtype: str = "fp32") -> Case:
    rows = results.load("losses_full")["rows"]
    wanted = (operator, shape, dtype)
    return {r["contender"]: r for r in rows if (r["operator"], r["shape"], r["dtype"]) == wanted}


def _over(
    shapes: tuple[str, ...], of: Callable[[Case], float], operator: str = "realness_d_loss"
) -> Callable[[], dict[str, float]]:
    return lambda: {results.written(shape): of(_case(operator, shape)) for shape in shapes}


def _named(name: str) -> Callable[[Case], float]:
    return lambda case: float(case[name]["ratio_to_ours"])


def _best(compiled: bool) -> Callable[[Case], float]:
    def best(case: Case) -> float:
        rivals = [n for n in case if is_rival(n) and n.endswith("compiled") == compiled]
        return min(float(case[name]["ratio_to_ours"]) for name in rivals)

    return best


def _inverse(name: str) -> Callable[[Case], float]:
    return lambda case: 1 / float(case[name]["ratio_to_ours"])


def _bf16_over_fp32() -> dict[str, float]:
    def ours(shape: str, dtype: str) -> float:
        return float(_case("realness_d_loss", shape, dtype)["gankernels"]["median_us"])

    return {results.written(shape): ours(shape, "bf16") / ours(shape, "fp32") for shape in LARGE}


def _step(system: str, contender: str, column: str = "speed_up") -> Callable[[], dict[str, float]]:
    def found() -> dict[str, float]:
        rows = results.load("steps")["rows"]
        (row,) = (r for r in rows if (r["system"], r["contender"]) == (system, contender))
        return {contender: float(row[column])}

    return found


def _two_threads(large: bool) -> Callable[[], dict[str, float]]:
    def found() -> dict[str, float]:
        rows = [r for r in results.load("scaling")["rows"] if r["axis"] == "threads"]
        return {
            results.written(r["shape"]): float(r["speed_up"])
            for r in rows
            if r["value"] == 2 and (_entries(r["shape"]) >= 2**18) == large
        }

    return found


def _entries(shape: str) -> int:
    """Entries of a shape written as ``128x20``."""
    return math.prod(int(size) for size in shape.split("x"))


GOALS = (
    Goal(
        "GAN shapes: the article's formula / ours", 4, True, _over(SMALL, _named("article formula"))
    ),
    Goal("GAN shapes: best stock eager loss / ours", 3, True, _over(SMALL, _best(compiled=False))),
    Goal(
        "GAN shapes: best compiled rival / ours", 3, True, _over(SMALL[1:3], _best(compiled=True))
    ),
    Goal("GAN shapes: ours / autograd engine", 1.5, False, _over(SMALL, _inverse("floor: engine"))),
    Goal(
        "GAN shapes: ours / (`value_and_grad` + engine)",
        1.3,
        True,
        _over(SMALL, _inverse("gankernels value_and_grad + engine")),
    ),
    Goal(
        "scalar losses: BCE with logits / ours",
        2.5,
        True,
        _over(("128", "64x1x30x30"), _named("BCE with logits"), "logistic_d_loss"),
    ),
    Goal(
        "large shapes: the article's formula / ours",
        5,
        True,
        _over(LARGE, _named("article formula")),
    ),
    Goal(
        "large shapes: best stock eager loss / ours", 2.5, True, _over(LARGE, _best(compiled=False))
    ),
    Goal("large shapes: best compiled rival / ours", 1.8, True, _over(LARGE, _best(compiled=True))),
    Goal("large shapes: ours / copy of the bytes", 2, False, _over(LARGE, _inverse("floor: copy"))),
    Goal("large shapes: bf16 / fp32", 1, False, _bf16_over_fp32),
    Goal(
        "RealnessGAN, same updates, torch.compile",
        2.1,
        True,
        _step("realness", "alternating + the same, torch.compile"),
    ),
    Goal(
        "RealnessGAN, same updates, eager",
        1.8,
        True,
        _step("realness", "alternating + the same, pages kept"),
    ),
    Goal(
        "RealnessGAN, one-pass, objective 2", 2.4, True, _step("realness", "one-pass, objective 2")
    ),
    Goal(
        "RealnessGAN, reversal, objective 1", 2.8, True, _step("realness", "reversal, objective 1")
    ),
    Goal(
        "DCGAN, ratio / two passes",
        1.5,
        True,
        _step("dcgan, no norm in D", "one-pass ratio", "speed_up_over_two_passes"),
    ),
    Goal(
        "DCGAN, exact one-pass / two passes",
        1.35,
        True,
        _step("dcgan", "exact one-pass", "speed_up_over_two_passes"),
    ),
    Goal("two threads, large shapes", 1.7, True, _two_threads(large=True)),
    Goal("two threads, small shapes", 0.95, True, _two_threads(large=False)),
)


def table_rows() -> list[list[object]]:
    """Goal, bound, what was measured, met or not."""
    return [goal.row() for goal in GOALS]
