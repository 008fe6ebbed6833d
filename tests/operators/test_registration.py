"""Every registered operator has its row, its kernels, its reference and its second derivative."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from contract.common import call, with_leaves
from torch.utils._pytree import tree_leaves

import gankernels
from gankernels import _backend, functional, reference
from gankernels._scalar_call import bound
from gankernels.testing import OPERATORS, Operator, cotangent

pytestmark = pytest.mark.compiled

NAMESPACE = "gankernels::"
# Arguments that Python handles before it calls the operator.
PYTHON_ONLY = {"validate", "generator"}


def registered() -> list[str]:
    names = torch._C._dispatch_get_all_op_names()
    return sorted(name.removeprefix(NAMESPACE) for name in names if name.startswith(NAMESPACE))


def has_kernel(name: str, key: str) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(NAMESPACE + name, key))


def overload(name: str) -> Any:
    return getattr(torch.ops.gankernels, name).default


every_registered = pytest.mark.parametrize("name", registered())
every_row = pytest.mark.parametrize("operator", OPERATORS, ids=lambda o: o.name)


def test_there_are_operators() -> None:
    assert "softmax_kl" in registered()


@every_registered
def test_has_a_row_in_the_operator_table(name: str) -> None:
    assert any(name in operator.compiled for operator in OPERATORS), (
        f"{NAMESPACE}{name} has no row in gankernels.testing.OPERATORS"
    )


@every_row
def test_rows_name_registered_operators(operator: Operator) -> None:
    assert set(operator.compiled) <= set(registered())


@every_registered
def test_has_kernels(name: str) -> None:
    if has_kernel(name, "CompositeImplicitAutograd"):
        return  # dissolves into the others, under every key
    everywhere = has_kernel(name, "CompositeExplicitAutograd")
    for key in ("Autograd",) if everywhere else ("CPU", "Meta", "Autograd"):
        assert has_kernel(name, key), f"{NAMESPACE}{name} has no {key} kernel"


@every_registered
def test_schema_tells_what_is_written(name: str) -> None:
    written = {a.name for a in overload(name)._schema.arguments if a.alias_info is not None}
    expected: set[str] = {"gradients"} if name == "scale_terms_" else set()
    for operator in OPERATORS:
        if name == operator.public_operator:
            expected = set(operator.writes)
    assert written == expected


@every_row
def test_has_a_function_and_a_reference(operator: Operator) -> None:
    function, oracle = getattr(functional, operator.name), getattr(reference, operator.name)
    assert function is not oracle
    assert getattr(gankernels, operator.name) is function
    for documented in (function, oracle):
        assert documented.__doc__
    ours, theirs = (inspect.signature(f).parameters for f in (function, oracle))
    if operator.terms is not None:
        loss = operator.terms
        defaults = {n: p.default for n, p in ours.items() if n not in operator.logits}
        labels = {n: defaults.pop(n) for n in [*defaults] if n.endswith("label")}
        logits = dict.fromkeys(operator.logits)
        plain = bound(operator.name, loss, logits)
        assert bound(operator.name, loss, logits | defaults) == plain
        sides = {"real_label": loss.real, "fake_label": loss.fake, "label": loss.fake}
        assert all(sides[n].label == label for n, label in labels.items())  # type: ignore[union-attr]
        return
    assert [n for n in ours if n not in PYTHON_ONLY] == [n for n in theirs if n not in PYTHON_ONLY]
    for name, parameter in theirs.items():
        assert ours[name].default == parameter.default


@every_row
def test_the_schema_is_the_functions(operator: Operator) -> None:
    """Same names, same defaults: the operator can be called as documented."""
    parameters = inspect.signature(operator.functional).parameters
    for argument in overload(operator.public_operator)._schema.arguments:
        if argument.name in operator.constants:
            continue
        assert argument.name in parameters
        if argument.has_default_value():
            default = parameters[argument.name].default
            if argument.name == "reduction":
                default = _backend.REDUCTIONS[default]
            if argument.name in ("p_temperature", "q_temperature"):
                assert default is None  # that of both
                default = parameters["temperature"].default
            assert argument.default_value == default


@every_row
def test_has_a_second_derivative(operator: Operator) -> None:
    """The gradient under create_graph is itself differentiable, and its derivative not lost."""
    for case in operator.few_cases():
        arguments = operator.draw(case, torch.float64)
        names = operator.inputs(arguments)
        found = []
        for function in (operator.functional, operator.reference):
            leaves = {name: arguments[name].clone().requires_grad_() for name in names}
            moved = {name: x.tanh() for name, x in leaves.items()}
            value = call(operator, {**arguments, **moved}, function)
            gradients = torch.autograd.grad(
                value, list(leaves.values()), cotangent(value), create_graph=True
            )
            assert all(g.requires_grad for g in gradients)
            total = sum(g.square().sum() for g in gradients)
            found.append(torch.autograd.grad(total, list(leaves.values())))
        torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)
        assert all(float(second.abs().max()) > 0 for second in found[0])


def differentiates_or_refuses(function: Any, arguments: Any, differentiable: bool) -> bool:
    """The result is part of a graph exactly if ``differentiable``, or the call is refused."""
    try:
        result = function(*arguments)
    except RuntimeError as error:
        return not differentiable and "has no derivative" in str(error)
    outputs = tree_leaves(result)
    return all(output.requires_grad == differentiable for output in outputs)


@every_registered
def test_no_kernel_loses_a_derivative_silently(name: str) -> None:
    """An operator is differentiable, stays outside graphs, or refuses; never a zero unasked for."""
    rows = [o for o in OPERATORS if name in o.compiled]
    for operator in rows:
        if name in operator.helpers:
            continue
        for case in operator.few_cases():
            arguments = operator.draw(case, torch.float64)
            for n in operator.inputs(arguments):
                arguments[n] = arguments[n].clone().requires_grad_() * 1
            given = operator.compiled_arguments(overload(name), arguments)
            public = name == operator.public_operator
            assert differentiates_or_refuses(overload(name), given, differentiable=public)
    if any(name in operator.helpers for operator in rows):
        shapes = {"gradient": (3, 4), "mu_logvar": (3, 4), "grad_output": (3,)}
        shapes["other_gradient"] = (3, 4)
        arguments = {"dim": 1, "rows": -1, "other_rows": -1}
        arguments |= {n: torch.ones(s, requires_grad=True) for n, s in shapes.items()}
        for n in ("noise", "saved", "grad"):
            arguments[n] = torch.ones(3, 2, requires_grad=True)
        lists = {"gradients": [arguments["gradient"]], "grad_outputs": [arguments["gradient"]]}
        if name in ("scale_terms", "scale_terms_"):
            arguments |= {**lists, "rows": [-1]}
        given = [arguments[a.name] for a in overload(name)._schema.arguments]
        assert differentiates_or_refuses(overload(name), given, differentiable=False)


@every_row
def test_nodes_have_names_of_their_own(operator: Operator) -> None:
    """A name worked out from a C++ type, at every backward pass, takes longer than the gradient."""
    case = next(operator.cases())
    arguments = operator.draw(case, torch.float32)
    leaves = with_leaves(arguments, operator.inputs(arguments))
    waiting = [x.grad_fn for x in tree_leaves(call(operator, leaves))]
    found = set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [following for following, _ in node.next_functions]
    names = {node.name() for node in found}
    assert names
    assert not [name for name in names if "CppNode" in name]
