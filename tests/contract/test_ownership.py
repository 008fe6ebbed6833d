"""Who owns which tensor: inputs are read, the caller's gradients stay the caller's."""

from __future__ import annotations

import pytest
import torch
from backends import in_turn
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from contract.common import (
    assert_same,
    call,
    every_case,
    every_setting,
    few_cases,
    loss_settings,
    of_tensors,
    with_leaves,
)
from gankernels import _backend, _scalar_run
from gankernels.testing import Arguments, Case, Operator, cotangent, differentiate

DTYPES = [torch.float16, torch.float32]


def snapshot(arguments: Arguments) -> list[tuple[Tensor, int]]:
    return [(x.clone(), x._version) for x in arguments.values() if isinstance(x, Tensor)]


def leaf_gradients(operator: Operator, arguments: Arguments) -> list[Tensor | None]:
    return [arguments[name].grad for name in operator.inputs(arguments)]


def expected_gradients(
    operator: Operator, arguments: Arguments, grad_output: Tensor | None = None
) -> list[Tensor]:
    """From one fresh backward pass of the operator itself."""
    names = operator.inputs(arguments)
    _, gradients = differentiate(
        operator.functional, arguments, names, grad_output, operator.writes
    )
    return list(gradients.values())


@pytest.mark.parametrize("dtype", DTYPES)
@every_case
def test_inputs_are_never_written(operator: Operator, case: Case, dtype: torch.dtype) -> None:
    for reduction in in_turn(operator.reductions_of(case)):
        drawn = operator.draw(case, dtype, reduction=reduction)
        for names in in_turn(operator.differentiations(drawn)):
            arguments = with_leaves(drawn, names)
            before = snapshot(arguments)
            value = call(operator, arguments)
            value.backward(cotangent(value))
            for (old, version), (new, now) in zip(before, snapshot(arguments), strict=True):
                assert torch.equal(old, new)
                assert version == now


@pytest.mark.parametrize("dtype", DTYPES)
@few_cases
def test_the_gradient_passed_in_is_left_alone(
    operator: Operator, case: Case, dtype: torch.dtype
) -> None:
    for reduction in in_turn(operator.reductions_of(case)):
        arguments = operator.draw(case, dtype, reduction=reduction)
        leaves = with_leaves(arguments, operator.inputs(arguments))
        for factor in (1.0, -0.75):
            value = call(operator, leaves)
            gradient = torch.full_like(value, factor)
            before = gradient.clone()
            for name in operator.inputs(leaves):
                leaves[name].grad = None
            value.backward(gradient)
            assert torch.equal(gradient, before)
            got = leaf_gradients(operator, leaves)
            assert_same(got, expected_gradients(operator, arguments, before))
            memory = gradient.untyped_storage().data_ptr()
            assert all(g is not None and g.untyped_storage().data_ptr() != memory for g in got)


@pytest.mark.parametrize("dtype", DTYPES)
@few_cases
def test_an_expanded_gradient_is_read_element_by_element(
    operator: Operator, case: Case, dtype: torch.dtype
) -> None:
    arguments = operator.draw(case, dtype, reduction="none" if operator.reductions else None)
    leaves = with_leaves(arguments, operator.inputs(arguments))
    value = call(operator, leaves)
    shared = torch.tensor(-0.75, dtype=value.dtype)
    value.backward(shared.expand(value.shape))
    assert shared == -0.75
    full = torch.full_like(value, -0.75)
    assert_same(leaf_gradients(operator, leaves), expected_gradients(operator, arguments, full))


@pytest.mark.parametrize("dtype", DTYPES)
@few_cases
def test_a_retained_graph_gives_the_same_gradients_again(
    operator: Operator, case: Case, dtype: torch.dtype
) -> None:
    for reduction in in_turn(operator.reductions_of(case)):
        arguments = operator.draw(case, dtype, reduction=reduction)
        expected = expected_gradients(operator, arguments)
        names = operator.inputs(arguments)
        leaves = with_leaves(arguments, names)
        value, inputs = call(operator, leaves), [leaves[name] for name in names]
        for retain in (True, True, False):
            got = torch.autograd.grad(value, inputs, cotangent(value), retain_graph=retain)
            assert_same(got, expected)
            for gradient in got:
                gradient.fill_(torch.nan)  # the caller may do as it likes with what it was given
        # A graph that saves nothing never ends: a layer's, and a linear loss's in plain PyTorch.
        linear = reduction == "none" and operator.name in _scalar_run._LINEAR
        if operator.reductions and _backend.EXTENSION is not None and not linear:
            with pytest.raises(RuntimeError, match="second time"):
                torch.autograd.grad(value, inputs, cotangent(value))


@few_cases
def test_leaves_accumulate(operator: Operator, case: Case) -> None:
    arguments = operator.draw(case, torch.float32)
    expected = expected_gradients(operator, arguments)
    leaves = with_leaves(arguments, operator.inputs(arguments))
    for _ in range(3):
        value = call(operator, leaves)
        value.backward(cotangent(value))
    for got, once in zip(leaf_gradients(operator, leaves), expected, strict=True):
        torch.testing.assert_close(got, once + once + once)


@every_setting
def test_one_graph_uses_a_loss_twice(operator: Operator, case: Case) -> None:
    arguments = operator.draw(case, torch.float64)
    names = operator.inputs(arguments)

    def twice(**call_arguments: Tensor) -> Tensor:
        first = call(operator, call_arguments)
        doubled = {**call_arguments, **{name: 2 * call_arguments[name] for name in names}}
        return first.sum() + 3 * call(operator, doubled).sum()

    def plain(**call_arguments: Tensor) -> Tensor:
        first = call(operator, call_arguments, operator.reference)
        doubled = {**call_arguments, **{name: 2 * call_arguments[name] for name in names}}
        return first.sum() + 3 * call(operator, doubled, operator.reference).sum()

    torch.testing.assert_close(
        differentiate(twice, arguments, names), differentiate(plain, arguments, names)
    )


@every_setting
def test_one_tensor_as_both_batches(operator: Operator, case: Case) -> None:
    arguments = operator.draw(case, torch.float64)
    names = operator.inputs(arguments)
    shared = arguments[names[-1]].detach().clone().requires_grad_()
    value = call(operator, {**arguments, **dict.fromkeys(names, shared)})
    expected = call(operator, {**arguments, **dict.fromkeys(names, shared)}, operator.reference)
    for got, want in [
        (value, expected),
        (
            torch.autograd.grad(value, shared, cotangent(value)),
            torch.autograd.grad(expected, shared, cotangent(value)),
        ),
    ]:
        torch.testing.assert_close(got, want)


@loss_settings
def test_only_what_requires_a_gradient_gets_one(operator: Operator, case: Case) -> None:
    arguments = operator.draw(case, torch.float32)
    expected = dict(
        zip(operator.inputs(arguments), expected_gradients(operator, arguments), strict=True)
    )
    for name in operator.inputs(arguments):
        leaves = with_leaves(arguments, [name])
        call(operator, leaves).backward()
        assert_same([leaves[name].grad], [expected[name]])
        others = [leaves[other] for other in operator.inputs(arguments) if other != name]
        assert all(other.grad is None for other in others)


@every_setting
def test_writing_an_input_before_the_backward_pass_is_noticed(
    operator: Operator, case: Case
) -> None:
    arguments = operator.draw(case, torch.float32)
    expected = expected_gradients(operator, arguments)
    names = operator.inputs(arguments)
    leaves = with_leaves(arguments, names)
    moving = {name: leaves[name] * 1 for name in names}
    value = call(operator, {**leaves, **moving})
    for x in moving.values():
        x.detach().add_(1)
    try:
        value.backward(cotangent(value))
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)  # noqa: PT017
    else:
        assert_same(leaf_gradients(operator, leaves), expected)


@every_setting
def test_saved_tensor_hooks_and_checkpointing(operator: Operator, case: Case) -> None:
    arguments = operator.draw(case, torch.float32)
    expected = expected_gradients(operator, arguments)
    names = operator.inputs(arguments)
    function, inputs = of_tensors(operator, arguments, names)
    leaves = [x.clone().requires_grad_() for x in inputs]
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x.clone(), lambda x: x.clone()):
        value = function(*leaves)
    assert_same(torch.autograd.grad(value, leaves, cotangent(value)), expected)
    value = checkpoint(function, *leaves, use_reentrant=False)
    assert_same(torch.autograd.grad(value, leaves, cotangent(value)), expected)


@every_setting
def test_hooks_see_and_may_keep_gradients(operator: Operator, case: Case) -> None:
    arguments = operator.draw(case, torch.float32)
    expected = expected_gradients(operator, arguments)
    names = operator.inputs(arguments)
    leaves = with_leaves(arguments, names)
    kept: dict[str, Tensor] = {}
    moving = {name: leaves[name] * 1 for name in names}
    for name, x in moving.items():
        x.retain_grad()
        x.register_hook(lambda g, name=name: kept.__setitem__(name, g))
    value = call(operator, {**leaves, **moving})
    value.retain_grad()
    (value * 1).backward(cotangent(value))
    assert_same([value.grad], [cotangent(value)])
    assert_same([moving[name].grad for name in names], expected)
    assert_same([kept[name] for name in names], expected)
