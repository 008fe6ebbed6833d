"""The operator table's calls, made of the Triton launchers directly and compared with float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from gankernels import triton
from gankernels.reference import accumulation_dtype
from gankernels.testing import (
    OPERATORS,
    Arguments,
    Case,
    Operator,
    accuracy,
    differentiate,
    in_dtype,
)
from gankernels.triton import operators as launchers

ROWS = {operator.name: operator for operator in OPERATORS}
# What is made of other operators launches theirs.
FUSED = [o for o in OPERATORS if o.fused_operator in triton.implemented()]

# Every layout, kind of target and form of kernel; small, as the emulator takes its time.
CASES = (
    Case((33, 20)),
    Case((2, 20, 5, 4)),
    Case((3, 51), empty_bins=True),
    Case((6, 20), target="rows", mass=1.7, empty_bins=True),
    Case((2, 1025)),
    Case((17, 6), dim=0),
    Case((5, 1)),
    Case((1, 64), mass=0.4),
    Case((3, 2, 5, 2), dim=2, target="keepdim"),
    Case((6, 20), target_dtype=torch.float64),
    Case((70, 12), second_batch=9),
    Case((2, 9000)),
    Case((2, 8200), target="rows"),
)
SCALAR_CASES = (Case((7,)), Case((33, 20)), Case((3000,)), Case((9, 4), second_batch=25))


def outputs_of(operator: Operator) -> tuple[str, ...]:
    """What the gradients of a fused operator are gradients to."""
    if operator.name == "softmax_kl":
        return "logits", "target"
    if operator.name in ("softmax_kl_logits", "js_divergence"):
        return "p_logits", "q_logits"
    return ("real_logits", "fake_logits") if operator.terms is None else operator.logits


def launch(operator: Operator, arguments: Arguments) -> tuple[Tensor, dict[str, Tensor]]:
    """The value and every gradient that was computed, from the launcher itself."""
    overload = getattr(torch.ops.gankernels, operator.fused_operator).default
    given = operator.compiled_arguments(overload, arguments)
    launcher = getattr(launchers, operator.fused_operator.removesuffix("_value_and_grad"))
    value, *gradients = tree_leaves(launcher(*given))
    named = dict(zip(outputs_of(operator), gradients, strict=True))
    return value, {n: g for n, g in named.items() if g.numel()}


def draw(operator: Operator, case: Case, dtype: torch.dtype, reduction: str) -> Arguments:
    arguments = operator.draw(case, dtype, reduction=reduction)
    if case.target == "rows" and case.target_dtype is None and "target" in arguments:
        arguments["target"] = arguments["target"].to(accumulation_dtype(dtype))
    return arguments


def check(operator: Operator, arguments: Arguments) -> None:
    """Raises AssertionError unless value and gradients are within the tolerance of all tests."""
    value, gradients = launch(operator, arguments)
    check_results(operator, arguments, value, gradients)


def check_results(
    operator: Operator, arguments: Arguments, value: Tensor, gradients: dict[str, Tensor]
) -> None:
    names = list(gradients)
    ones = torch.ones_like(value, dtype=torch.float64)
    exact, exact_gradients = differentiate(
        operator.reference, in_dtype(arguments, torch.float64), names, ones
    )
    eager, eager_gradients = differentiate(operator.eager, arguments, names, ones)
    dtype = arguments[operator.inputs(arguments)[0]].dtype
    accumulation = accumulation_dtype(dtype)
    terms = operator.classes(arguments)
    accuracy.assert_accurate(
        f"{operator.name}: value",
        value,
        exact,
        eager,
        accumulation,
        accumulation,
        accuracy.value_magnitude(operator, arguments),
        terms,
    )
    for name, gradient in gradients.items():
        accuracy.assert_accurate(
            f"{operator.name}: gradient to {name}",
            gradient,
            exact_gradients[name],
            eager_gradients[name],
            arguments[name].dtype,
            accumulation,
            accuracy.gradient_magnitude(operator, arguments, name, ones),
            terms,
        )


def fitting(operator: Operator, cases: Sequence[Case]) -> list[Case]:
    """Those that the operator can be called with."""
    uneven = operator.uneven_batches
    return [c for c in cases if uneven or c.second_batch is None]


def some(operator: Operator, turn: int, count: int) -> list[Case]:
    """``count`` of the cases, others at every turn, with each of the operator's options."""
    cases = fitting(operator, CASES if operator.has_classes else SCALAR_CASES)
    chosen = [cases[(turn * count + i) % len(cases)] for i in range(min(count, len(cases)))]
    return [
        replace(case, options=operator.settings[(turn + i) % len(operator.settings)])
        for i, case in enumerate(chosen)
    ]


# --- launchers called directly --------------------------------------------------------------------

FLAGS = (True, True, True, 1.0)  # both gradients, fold_mean, grad_scale


def agree(name: str, *arguments: Any) -> None:
    """The launcher's results are those of the CPU kernels; of an operator in place, what it wrote."""
    copies = arguments
    if name.endswith("_"):
        copies = ([x.clone() for x in arguments[0]], *arguments[1:])
    found = getattr(launchers, name)(*arguments)
    of_loss = f"{name}_value_and_grad"
    operator = of_loss if of_loss in triton.implemented() else name
    expected = getattr(torch.ops.gankernels, operator)(*copies)
    if found is None:
        found, expected = arguments[0], copies[0]
    for ours, theirs in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        assert ours.stride() == theirs.stride()
        torch.testing.assert_close(ours, theirs, equal_nan=True)
        zeros = (ours == 0) & (theirs == 0)
        assert torch.equal(ours[zeros].signbit(), theirs[zeros].signbit())


def d_loss(**changed: Any) -> tuple[Any, ...]:
    """A call whose dimensions have one size: any may be that of the classes."""
    arguments: dict[str, Any] = {
        "real": torch.randn(20, 20),
        "fake": torch.randn(20, 20),
        "p": torch.softmax(torch.randn(20), 0),
        "m": torch.softmax(torch.randn(20), 0),
        "dim": 1,
        "reduction": 1,
        "real_grad": True,
        "fake_grad": True,
        "fold_mean": True,
        "grad_scale": 1.0,
    }
    same = changed.pop("same", None)
    for name, change in changed.items():
        arguments[name] = change(arguments[name]) if callable(change) else change
    if same is not None:
        arguments[same[1]] = arguments[same[0]]
    return tuple(arguments.values())
