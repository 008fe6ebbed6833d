"""How far results are from those of float64, in units of the last place: every operator, dtype and backend.

python -m benchmarks.accuracy     a few minutes of one core; writes docs/results/accuracy.json, from which
                                  `python -m benchmarks.tables` makes the table of docs/numerics.md
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import results
from benchmarks.formulas import REALNESS_D
from benchmarks.losses import DTYPES  # without float64: `python -m tools.torture --only digits`
from gankernels.testing import OPERATORS, Arguments, Case, Operator, differentiate
from gankernels.testing.accuracy import in_dtype

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "docs" / "results" / "accuracy.json"
SHAPE = (64, 51)
# Of the logits, whose standard deviation is 3 before.
FACTORS = (0.1, 1.0, 8.0)
BACKENDS = ("cpu", "cuda", "triton")


def unit(exact: Tensor, dtype: torch.dtype) -> float:
    """The distance of neighbouring numbers of a dtype at the largest of these."""
    info = torch.finfo(dtype)
    size = max(float(exact.abs().max()), info.smallest_normal)
    return float(info.eps * 2.0 ** math.floor(math.log2(size)))


def calls(
    operator: Operator, dtype: torch.dtype, reduction: str, settings: Sequence[Mapping[str, Any]]
) -> Iterator[Arguments]:
    """In these settings at every size of logits; a layer has no reduction."""
    for options in settings:
        for seed, factor in enumerate(FACTORS):
            reduced = reduction if operator.reductions else None
            case = Case(SHAPE, options=options)
            arguments = operator.draw(case, dtype, reduction=reduced, seed=seed)
            for name in operator.inputs(arguments):
                arguments[name] = arguments[name] * factor
            yield arguments


class Errors:
    """The largest error of a kind of result, in ulps, and the mean one."""

    def __init__(self) -> None:
        self.worst, self.total, self.count = 0.0, 0.0, 0

    def add(self, got: Tensor, exact: Tensor) -> None:
        counted = exact.to(got.dtype).isfinite()  # beyond the largest number, infinity is right
        if not bool(counted.any()):
            return
        exact = exact[counted]
        error = (got.double()[counted] - exact).abs() / unit(exact, got.dtype)
        error = error.nan_to_num(math.inf, posinf=math.inf)
        self.worst = max(self.worst, float(error.max()))
        self.total, self.count = self.total + float(error.sum()), self.count + error.numel()

    def row(self) -> dict[str, float]:
        return {"worst": round(self.worst, 2), "mean": round(self.total / max(self.count, 1), 3)}


def measured(
    operator: Operator,
    dtype: torch.dtype,
    function: Callable[..., Tensor],
    reduction: str = "none",
    settings: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Of value and gradients of ``function``, over all calls."""
    value, gradient = Errors(), Errors()
    for arguments in calls(operator, dtype, reduction, settings or operator.settings):
        names = operator.inputs(arguments)
        exact, exact_gradients = differentiate(
            operator.reference, in_dtype(arguments, torch.float64), names, writes=operator.writes
        )
        got, gradients = differentiate(function, arguments, names, writes=operator.writes)
        value.add(got, exact)
        for name in names:
            gradient.add(gradients[name], exact_gradients[name])
    return {"value": value.row(), "gradient": gradient.row()}


def measure(serve: Callable[[str], object], available: set[str]) -> list[dict[str, Any]]:
    """Every operator in every dtype, by each backend and by plain PyTorch."""
    rows = []
    for operator in OPERATORS:
        for label, dtype in DTYPES.items():
            serve("cpu")
            contenders = {"eager": measured(operator, dtype, operator.eager)}
            for backend in BACKENDS:
                if backend in available:
                    serve(backend)
                    contenders[backend] = measured(operator, dtype, operator.functional)
            serve("cpu")
            rows.append({"operator": operator.name, "dtype": label, **contenders})
        print(operator.name, flush=True)
    return rows


def formulas() -> list[dict[str, Any]]:
    """The gradients of the published formulas of the discriminator's loss; their values differ by a constant."""
    operator = next(o for o in OPERATORS if o.name == "realness_d_loss")
    contenders = {"ours": operator.functional}
    for name, formula in REALNESS_D.items():
        contenders[name] = lambda formula=formula, **a: formula(*list(a.values())[:4])
    return [
        {"contender": name, "dtype": label}
        | measured(operator, dtype, function, "mean", [{}])["gradient"]
        for name, function in contenders.items()
        for label, dtype in DTYPES.items()
    ]


def table() -> str:
    """The worst errors of an operator on any backend, and eager PyTorch's."""
    found = json.loads(RECORD.read_text(encoding="utf-8"))
    by_name: dict[str, dict[str, dict[str, Any]]] = {}
    for row in found["rows"]:
        by_name.setdefault(row["operator"], {})[row["dtype"]] = row

    def cell(row: dict[str, Any], part: str) -> str:
        ours = max(row[backend][part]["worst"] for backend in BACKENDS if backend in row)
        return f"{ours:.3g} ({row['eager'][part]['worst']:.3g})"

    lines: list[list[object]] = [
        [
            f"`{name}`",
            cell(rows["fp32"], "value"),
            *(cell(rows[dtype], "gradient") for dtype in DTYPES),
        ]
        for name, rows in by_name.items()
    ]
    head = ["operator", "value, fp32", *(f"gradient, {dtype}" for dtype in DTYPES)]
    return f"{results.table(head, lines)}\n\n{_source(found)}"


def formula_table() -> str:
    """The worst error of a gradient of the discriminator's loss, ours and as others write it."""
    found = json.loads(RECORD.read_text(encoding="utf-8"))
    worst: dict[str, dict[str, str]] = {}
    for row in found["formulas"]:
        worst.setdefault(row["contender"], {})[row["dtype"]] = f"{row['worst']:,.3g}"
    lines: list[list[object]] = [
        [name, *(by[dtype] for dtype in DTYPES)] for name, by in worst.items()
    ]
    return results.table(["gradient of realness_d_loss", *DTYPES], lines)


def _source(found: dict[str, Any]) -> str:
    rows, classes = found["shape"]
    return (
        f"Command: `{found['command']}`, {found['date']}, commit {found['commit']}, torch {found['torch']}, "
        f"{found['compiler']}: {rows} rows of {classes} classes, logits of standard deviation "
        f"{', '.join(f'{3 * x:g}' for x in found['factors'])}. Every backend's figures and the "
        "mean errors are in `docs/results/accuracy.json`."
    )


def main() -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    import backends  # who serves an operator on a CPU tensor is for the tests to say

    torch.set_num_threads(1)
    command = "python -m benchmarks.accuracy"
    header = {**results.environment(1), "command": command, "shape": SHAPE, "factors": FACTORS}
    rows = measure(backends.serve, set(backends.available()))
    found = {**header, "rows": rows, "formulas": formulas()}
    RECORD.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
