"""value_and_grad: the numbers of backward(), without a graph."""

from __future__ import annotations

import inspect
from itertools import takewhile

import pytest
import torch
from backends import in_turn
from torch import Tensor

import gankernels as gk
from contract.common import call, every_dtype, fused_cases, fused_settings, with_leaves
from gankernels.testing import Arguments, Case, Operator, differentiate


def backward(operator: Operator, arguments: Arguments) -> tuple[Tensor, list[Tensor]]:
    """Through autograd; the gradients of a sum where the loss is not reduced."""
    names = operator.inputs(arguments)
    value, gradients = differentiate(
        operator.functional, arguments, names, torch.ones_like(call(operator, arguments))
    )
    return value, [gradients[name] for name in names]


def present(operator: Operator, arguments: Arguments) -> list[int]:
    return [i for i, name in enumerate(operator.logits) if arguments[name] is not None]


@every_dtype
@fused_cases
def test_equals_backward(operator: Operator, case: Case, dtype: torch.dtype) -> None:
    for reduction in in_turn(operator.reductions_of(case)):
        arguments = operator.draw(case, dtype, reduction=reduction)
        value, gradients = gk.value_and_grad(operator.functional)(**arguments)
        expected, expected_gradients = backward(operator, arguments)
        torch.testing.assert_close(value, expected, rtol=0, atol=0)
        places = present(operator, arguments)
        assert [i for i, g in enumerate(gradients) if g is not None] == places
        for place, want in zip(places, expected_gradients, strict=True):
            got = gradients[place]
            assert got is not None
            assert not got.requires_grad
            # The same kernel, but: backward() rounds fp16 gradients of a mean twice, before the
            # division and after; and where rows see each other it has another formula.
            eps = 0.0
            if dtype == torch.float16 or (operator.couples_rows and reduction == "none"):
                eps = 4 * torch.finfo(dtype).eps
            torch.testing.assert_close(got, want, rtol=eps, atol=eps * 2**-14)


@fused_settings
def test_gradients_of_what_requires_them(operator: Operator, case: Case) -> None:
    arguments = operator.draw(case)
    function = gk.value_and_grad(operator.functional)
    value, everything = function(**arguments)
    for wanted in operator.inputs(arguments):
        leaves = with_leaves(arguments, [wanted])
        got_value, gradients = function(**leaves)
        assert torch.equal(got_value, value)
        assert got_value.grad_fn is None
        for name, got, want in zip(operator.logits, gradients, everything, strict=True):
            if name == wanted:
                assert got is not None
                assert want is not None
                assert torch.equal(got, want)
                assert got.grad_fn is None
            else:
                assert got is None
        assert leaves[wanted].grad is None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@fused_settings
def test_works_in_every_grad_mode(operator: Operator, case: Case, mode: type) -> None:
    arguments = operator.draw(case)
    function = gk.value_and_grad(operator.functional)
    value, expected = function(**arguments)
    with mode():
        got_value, gradients = function(**with_leaves(arguments, operator.inputs(arguments)))
    assert torch.equal(got_value, value)
    for got, want in zip(gradients, expected, strict=True):
        assert (got is None) == (want is None)
        assert got is None or torch.equal(got, want)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [2.0, 0.0, -0.5, 65536.0])
@fused_settings
def test_grad_scale_scales_gradients_and_not_the_value(
    operator: Operator, case: Case, scale: float
) -> None:
    for reduction in in_turn(operator.reductions):
        arguments = operator.draw(case, reduction=reduction)
        function = gk.value_and_grad(operator.functional)
        value, expected = function(**arguments)
        got_value, gradients = function(**arguments, grad_scale=scale)
        assert torch.equal(got_value, value)
        for got, want in zip(gradients, expected, strict=True):
            if got is not None:
                torch.testing.assert_close(got, scale * want)  # powers of two, and 0: exact


@fused_settings
def test_continues_through_a_network(operator: Operator, case: Case) -> None:
    arguments = operator.draw(case)
    names = operator.inputs(arguments)
    leaves = with_leaves(arguments, names)
    outputs = {name: leaves[name].tanh() for name in names}
    _, gradients = gk.value_and_grad(operator.functional)(**{**arguments, **outputs})
    torch.autograd.backward(
        [outputs[name] for name in names], [g for g in gradients if g is not None]
    )
    fused = [leaves[name].grad for name in names]
    for name in names:
        leaves[name].grad = None
    call(operator, {**arguments, **{name: leaves[name].tanh() for name in names}}).backward()
    torch.testing.assert_close(fused, [leaves[name].grad for name in names])


@fused_settings
def test_arguments_by_position(operator: Operator, case: Case) -> None:
    arguments = operator.draw(case)
    order = inspect.signature(operator.functional).parameters
    leading = list(takewhile(lambda name: name in arguments, order))
    rest = {name: x for name, x in arguments.items() if name not in leading}
    function = gk.value_and_grad(operator.functional)
    by_position = function(*(arguments[name] for name in leading), **rest)
    torch.testing.assert_close(by_position, function(**arguments))


def test_any_function_of_tensors() -> None:
    def loss(scale: float, x: Tensor, labels: Tensor, y: Tensor | None = None) -> Tensor:
        return scale * (x[labels] ** 2).sum()

    x, labels = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 2])
    value, gradients = gk.value_and_grad(loss)(0.5, x, labels)
    assert value == 5
    assert len(gradients) == 1
    assert torch.equal(gradients[0], torch.tensor([1.0, 0.0, 3.0]))  # type: ignore[arg-type]


@pytest.mark.parametrize("not_callable", [None, 3, "softmax_kl"])
def test_refuses_what_cannot_be_called(not_callable: object) -> None:
    kind = type(not_callable).__name__
    with pytest.raises(TypeError, match=f"loss_fn must be callable, got {kind}"):
        gk.value_and_grad(not_callable)  # type: ignore[arg-type]


@fused_settings
def test_unknown_arguments_are_refused(operator: Operator, case: Case) -> None:
    arguments = operator.draw(case)
    with pytest.raises(TypeError, match="unexpected keyword argument 'margin'"):
        gk.value_and_grad(operator.functional)(**arguments, margin=2.0)


def test_a_module_method_is_its_fused_self() -> None:
    loss = gk.RealnessLoss(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))
    real, fake = torch.randn(4, 2), torch.randn(4, 2)
    for method, fused in [
        (loss.discriminator, loss.discriminator_value_and_grad),
        (loss.generator, loss.generator_value_and_grad),
    ]:
        torch.testing.assert_close(gk.value_and_grad(method)(real, fake), fused(real, fake))
