"""torch.func transforms, forward-mode differentiation and vectorised Jacobians."""

from __future__ import annotations

import pytest
import torch
from backends import in_turn
from torch import Tensor
from torch.autograd import forward_ad

from contract.common import (
    EXACT,
    derivative_settings,
    every_setting,
    few_cases,
    loss_settings,
    of_tensors,
)
from gankernels.testing import Case, Draw, Operator, differentiate


def tangents(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    draw = Draw(torch.float64, seed=1)
    return tuple(draw.normal(*x.shape, scale=1.0) for x in inputs)


@few_cases
def test_func_grad(operator: Operator, case: Case) -> None:
    arguments = operator.draw(case, torch.float64)
    for names in in_turn(operator.differentiations(arguments)):
        function, inputs = of_tensors(operator, arguments, names)
        places = tuple(range(len(inputs)))
        got = torch.func.grad(lambda *x, f=function: f(*x).sum(), argnums=places)(*inputs)
        _, expected = differentiate(
            lambda operator=operator, **a: operator.reference(**a).sum(),
            arguments,
            names,
            writes=operator.writes,
        )
        torch.testing.assert_close(got, tuple(expected.values()), **EXACT)


@few_cases
def test_func_vjp_and_jacrev(operator: Operator, case: Case) -> None:
    reduction = "none" if operator.reductions else None
    arguments = operator.draw(case, torch.float64, reduction=reduction)
    names = operator.inputs(arguments)
    function, inputs = of_tensors(operator, arguments, names)
    reference, _ = of_tensors(operator, arguments, names, operator.reference)
    expected = torch.autograd.functional.jacobian(reference, inputs)
    places = tuple(range(len(inputs)))
    torch.testing.assert_close(torch.func.jacrev(function, places)(*inputs), expected, **EXACT)
    value, pull_back = torch.func.vjp(function, *inputs)
    got = pull_back(torch.ones_like(value))
    for gradient, jacobian in zip(got, expected, strict=True):
        total = jacobian.sum(tuple(range(value.ndim)))
        torch.testing.assert_close(gradient, total, **EXACT)


@few_cases
def test_vmap(operator: Operator, case: Case) -> None:
    arguments = operator.draw(case, torch.float64)
    names = operator.inputs(arguments)
    function, inputs = of_tensors(operator, arguments, names)
    batched = tuple(torch.stack([x, 0.5 * x, -x]) for x in inputs)
    expected = torch.stack([function(*(x[i] for x in batched)) for i in range(3)])
    torch.testing.assert_close(torch.vmap(function)(*batched), expected, **EXACT)


@few_cases
def test_vmap_of_grad(operator: Operator, case: Case) -> None:
    arguments = operator.draw(case, torch.float64)
    names = operator.inputs(arguments)
    function, inputs = of_tensors(operator, arguments, names)
    scalar = torch.func.grad(lambda *x: function(*x).sum(), tuple(range(len(inputs))))
    batched = tuple(torch.stack([x, 0.5 * x, -x]) for x in inputs)
    got = torch.vmap(scalar)(*batched)
    for i in range(3):
        torch.testing.assert_close(
            tuple(g[i] for g in got), scalar(*(x[i] for x in batched)), **EXACT
        )


@few_cases
def test_jvp_and_dual_numbers(operator: Operator, case: Case) -> None:
    for reduction in in_turn(operator.reductions_of(case)):
        arguments = operator.draw(case, torch.float64, reduction=reduction)
        names = operator.inputs(arguments)
        function, inputs = of_tensors(operator, arguments, names)
        reference, _ = of_tensors(operator, arguments, names, operator.reference)
        along = tangents(inputs)
        value, expected = (
            reference(*inputs),
            torch.autograd.functional.jvp(reference, inputs, along)[1],
        )
        got, got_along = torch.func.jvp(function, inputs, along)
        torch.testing.assert_close((got, got_along), (value, expected), **EXACT)
        with forward_ad.dual_level():
            duals = [forward_ad.make_dual(x, t) for x, t in zip(inputs, along, strict=True)]
            primal, tangent = forward_ad.unpack_dual(function(*duals))
            assert forward_ad.unpack_dual(function(*inputs)).tangent is None
        torch.testing.assert_close((primal, tangent), (value, expected), **EXACT)


@loss_settings
def test_hessian(operator: Operator, case: Case) -> None:
    arguments = operator.draw(case, torch.float64)
    names = operator.inputs(arguments)
    function, inputs = of_tensors(operator, arguments, names)
    reference, _ = of_tensors(operator, arguments, names, operator.reference)
    expected = torch.autograd.functional.hessian(reference, inputs)
    places = tuple(range(len(inputs)))
    torch.testing.assert_close(torch.func.hessian(function, places)(*inputs), expected, **EXACT)
    for vectorize in (False, True):
        got = torch.autograd.functional.hessian(function, inputs, vectorize=vectorize)
        torch.testing.assert_close(got, expected, **EXACT)


@every_setting
def test_vectorised_jacobian(operator: Operator, case: Case) -> None:
    reduction = "none" if operator.reductions else None
    arguments = operator.draw(case, torch.float64, reduction=reduction)
    names = operator.inputs(arguments)
    function, inputs = of_tensors(operator, arguments, names)
    got = torch.autograd.functional.jacobian(function, inputs, vectorize=True)
    torch.testing.assert_close(got, torch.autograd.functional.jacobian(function, inputs), **EXACT)


@derivative_settings
def test_functionalize(operator: Operator, case: Case) -> None:
    arguments = operator.draw(case, torch.float64)
    function, inputs = of_tensors(operator, arguments, operator.inputs(arguments))
    got = torch.func.functionalize(function)(*inputs)
    torch.testing.assert_close(got, function(*inputs), **EXACT)


# Within a graph the reference serves every transform; outside, the tests above ask each backend.
@pytest.mark.dynamo
@pytest.mark.backends("cpu", "reference")
@pytest.mark.parametrize("transform", ["grad", "vmap"])
@loss_settings
def test_transforms_inside_torch_compile(operator: Operator, case: Case, transform: str) -> None:
    arguments = operator.draw(case, torch.float64)
    names = operator.inputs(arguments)
    function, inputs = of_tensors(operator, arguments, names)
    if transform == "grad":
        transformed = torch.func.grad(function, tuple(range(len(inputs))))
    else:
        transformed = torch.vmap(function)
        inputs = tuple(torch.stack([x, 0.5 * x]) for x in inputs)
    torch._dynamo.reset()
    got = torch.compile(transformed, backend="aot_eager")(*inputs)
    torch.testing.assert_close(got, transformed(*inputs), **EXACT)
