"""The operator table as pytest parameters, and calls of its rows as functions of tensors alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gankernels._scalar import FUNCTIONS, Term
from gankernels.testing import DTYPES, OPERATORS, Arguments, Case, Operator

HALF = (torch.float16, torch.bfloat16)
# float64 against float64: some hundred roundings of numbers around 1.
EXACT = {"rtol": 1e-12, "atol": 1e-13}


def dtype_name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _rows(pairs: Iterable[tuple[Operator, Case]]) -> Any:
    parameters = [
        pytest.param(operator, case, id=f"{operator.name}-{case.label}") for operator, case in pairs
    ]
    return pytest.mark.parametrize(("operator", "case"), parameters)


def _settings(operator: Operator) -> Iterable[Case]:
    """One case for each of a row's options."""
    return [Case((3, 4), options=options) for options in operator.settings]


every_operator = pytest.mark.parametrize("operator", OPERATORS, ids=lambda o: o.name)
every_case = _rows((o, case) for o in OPERATORS for case in o.cases())
fused_cases = _rows((o, case) for o in OPERATORS if o.fused_operator for case in o.cases())
few_cases = _rows((o, case) for o in OPERATORS for case in o.few_cases())
every_setting = _rows((o, case) for o in OPERATORS for case in _settings(o))
loss_settings = _rows((o, case) for o in OPERATORS if o.reductions for case in _settings(o))
# Not the layers that PyTorch's own functionalization has no rule for ("NYI ... custom_function_call").
derivative_settings = _rows((o, c) for o in OPERATORS if o.true_derivative for c in _settings(o))
class_settings = _rows((o, case) for o in OPERATORS if o.has_classes for case in _settings(o))
target_settings = _rows((o, case) for o in OPERATORS if o.targets for case in _settings(o))
fused_settings = _rows((o, case) for o in OPERATORS if o.fused_operator for case in _settings(o))
independent_settings = _rows(
    (o, case) for o in OPERATORS if o.reductions and not o.couples_rows for case in _settings(o)
)
bounded_settings = _rows(
    (o, case) for o in OPERATORS if o.reductions and not o.overflows for case in _settings(o)
)
uneven_settings = _rows((o, case) for o in OPERATORS if o.uneven_batches for case in _settings(o))
true_derivatives = _rows(
    (o, replace(case, empty_bins=False))  # log A has no derivative at 0
    for o in OPERATORS
    if o.true_derivative
    for case in o.few_cases()
)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)


def call(
    operator: Operator, arguments: Arguments, function: Callable[..., Tensor] | None = None
) -> Tensor:
    """The operator (or another function of its arguments), given copies of what it writes."""
    copies = {name: arguments[name].clone() for name in operator.writes}
    return (function or operator.functional)(**{**arguments, **copies})


def of_tensors(
    operator: Operator,
    arguments: Arguments,
    names: Sequence[str],
    function: Callable[..., Tensor] | None = None,
) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """The call as a function of its arguments ``names`` alone, and these arguments."""

    def closed(*tensors: Tensor) -> Tensor:
        return call(operator, {**arguments, **dict(zip(names, tensors, strict=True))}, function)

    return closed, tuple(arguments[name].detach() for name in names)


def with_leaves(arguments: Arguments, names: Sequence[str]) -> Arguments:
    """The same call with the arguments ``names`` as fresh leaves that require grad."""
    leaves = {name: arguments[name].detach().clone().requires_grad_() for name in names}
    return {**arguments, **leaves}


def assert_same(got: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> None:
    """Bit for bit, NaN equal to NaN."""
    for a, b in zip(got, expected, strict=True):
        if a is None or b is None:
            assert a is b
        else:
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def targets_of(operator: Operator) -> tuple[str, ...]:
    """The kinds of target that a row can be drawn with, for a case without one."""
    return ("shared", "rows") if operator.targets else ("shared",)


FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "softplus": torch.nn.Softplus(threshold=1e9),
    "hinge": lambda u: torch.relu(1 + u),
    "square": lambda u: u * u / 2,
    "identity": lambda u: u,
    "absolute": torch.abs,
}


def rows_of_term(numbers: Term, x: Tensor, mean: Tensor | float = 0.0) -> Tensor:
    """A term of the losses of one logit, its offset besides its own the mean of other logits."""
    function, sign, offset, weight, slope = numbers
    return weight * FORMULAS[FUNCTIONS[int(function)]](sign * (x - mean - offset)) + slope * x


def reduced(rows: Tensor, reduction: str) -> Tensor:
    return rows if reduction == "none" else getattr(rows, reduction)()
