"""Derivatives of every order: numerically, and against the reference."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
import torch
from backends import affordable, in_turn
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from contract.common import (
    EXACT,
    assert_same,
    call,
    class_settings,
    dtype_name,
    every_setting,
    few_cases,
    loss_settings,
    of_tensors,
    true_derivatives,
    with_leaves,
)
from gankernels.testing import Arguments, Case, Operator, cotangent

# The class dimension last, and not last.
SHAPES = [(3, 4), (2, 3, 2)]


@true_derivatives
def test_first_derivative_is_numerically_right(operator: Operator, case: Case) -> None:
    for reduction in in_turn(operator.reductions_of(case)):
        arguments = operator.draw(case, torch.float64, reduction=reduction)
        for names in in_turn(operator.differentiations(arguments)):
            function, inputs = of_tensors(operator, arguments, names)
            leaves = [x.requires_grad_() for x in inputs]
            fast = affordable(False, True)  # one direction, not all
            assert gradcheck(
                function, leaves, check_batched_grad=True, check_forward_ad=True, fast_mode=fast
            )


@true_derivatives
def test_second_derivative_is_numerically_right(operator: Operator, case: Case) -> None:
    for reduction in in_turn(operator.reductions_of(case)):
        arguments = operator.draw(case, torch.float64, reduction=reduction)
        for names in in_turn(operator.differentiations(arguments)):
            function, inputs = of_tensors(operator, arguments, names)
            leaves = [x.requires_grad_() for x in inputs]
            fast = affordable(False, True)
            assert gradgradcheck(function, leaves, check_batched_grad=True, fast_mode=fast)


def derivatives(
    operator: Operator, arguments: Arguments, names: Sequence[str], reference: bool
) -> list[Tensor]:
    """The square of the loss and three derivatives of it, each contracted with its own cosine."""
    leaves = with_leaves(arguments, names)
    inputs = [leaves[name] for name in names]
    function = operator.reference if reference else operator.functional
    scalar = call(operator, leaves, function).square().sum()
    found = [scalar.detach()]
    for _ in range(3):
        # An input that a derivative is constant in has a derivative of zeros.
        gradients = torch.autograd.grad(scalar, inputs, create_graph=True, materialize_grads=True)
        found += [g.detach() for g in gradients]
        weights = [torch.arange(g.numel(), dtype=g.dtype).cos().view_as(g) for g in gradients]
        scalar = sum(((g * w).sum() for g, w in zip(gradients, weights, strict=True)))  # type: ignore[assignment]
        scalar = scalar + torch.zeros((), requires_grad=True)
    return found


@pytest.mark.parametrize("shape", SHAPES)
@few_cases
def test_three_derivatives_are_the_references(
    operator: Operator, case: Case, shape: tuple[int, ...]
) -> None:
    like = Case(shape, target=case.target, mass=case.mass, options=case.options)
    for reduction in in_turn(operator.reductions_of(like)):
        arguments = operator.draw(like, torch.float64, reduction=reduction)
        for names in in_turn(operator.differentiations(arguments)):
            got = derivatives(operator, arguments, names, reference=False)
            expected = derivatives(operator, arguments, names, reference=True)
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("reference", [False, True], ids=["operator", "reference"])
@class_settings
def test_three_derivatives_where_a_class_is_impossible(
    operator: Operator, case: Case, reference: bool
) -> None:
    """A logit of -inf is the limit of one far off, for all derivatives."""
    like = Case((3, 6), options=case.options)
    for reduction in in_turn(operator.reductions_of(like)):
        drawn = operator.draw(like, torch.float64, reduction=reduction)
        names = operator.inputs(drawn)
        for impossible in (names, *([name] for name in operator.weighs if name in names)):
            found = []
            for far in (-torch.inf, -1e4):
                arguments = dict(drawn)
                for name in impossible:
                    arguments[name] = drawn[name].index_fill(1, torch.tensor(2), far)
                for name in operator.targets:
                    if arguments[name] is not None:
                        arguments[name] = drawn[name].index_fill(-1, torch.tensor(2), 0)
                found.append(derivatives(operator, arguments, names, reference))
            torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@every_setting
def test_gradients_under_create_graph_are_those_without(
    operator: Operator, case: Case, dtype: torch.dtype, backend: str
) -> None:
    for reduction in in_turn(operator.reductions_of(case)):
        arguments = operator.draw(case, dtype, reduction=reduction)
        names = operator.inputs(arguments)
        leaves = with_leaves(arguments, names)
        inputs = [leaves[name] for name in names]
        value = call(operator, leaves)
        grad_output = cotangent(value)
        with_graph = torch.autograd.grad(value, inputs, grad_output, create_graph=True)
        without = torch.autograd.grad(value, inputs, grad_output)
        for a, b in zip(with_graph, without, strict=True):
            assert a.dtype == b.dtype == dtype
            # Two formulas of the same gradient, each rounded to its dtype twice.
            eps = torch.finfo(dtype).eps
            size = float(b.abs().max())
            of_differences = operator.weighs == operator.logits
            if of_differences or (backend == "triton" and operator.has_classes):
                # A probability times a difference of logits; Triton's has other exponentials than PyTorch.
                scale = float(grad_output.abs().max()) / (3 if reduction == "mean" else 1)
                size = max(size, scale * max(float(x.detach().abs().max()) for x in inputs))
            torch.testing.assert_close(a, b, rtol=4 * eps, atol=4 * eps * size)


def network_gradients(
    operator: Operator, arguments: Arguments, function: object
) -> tuple[Tensor, list[Tensor]]:
    """A gradient penalty through a small network, and its gradients to the network's weights."""
    torch.manual_seed(0)
    names = operator.inputs(arguments)
    first = arguments[names[0]]
    features = first.shape[-1]
    network = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, features)).double()
    images = {
        name: torch.randn(*arguments[name].shape[:-1], 5, dtype=torch.float64, requires_grad=True)
        for name in names
    }
    outputs = {name: network(images[name]) for name in names}
    loss = call(operator, {**arguments, **outputs}, function)  # type: ignore[arg-type]
    gradients = torch.autograd.grad(loss.sum(), list(images.values()), create_graph=True)
    penalty = sum((g.square().sum() for g in gradients), torch.zeros((), dtype=torch.float64))
    weights = list(network.parameters())
    return penalty.detach(), list(torch.autograd.grad(penalty, weights, materialize_grads=True))


@few_cases
def test_gradient_penalty_through_a_network(operator: Operator, case: Case) -> None:
    """An operator whose backward has no derivative gives a penalty without gradient, silently."""
    arguments = operator.draw(case, torch.float64)
    got = network_gradients(operator, arguments, operator.functional)
    expected = network_gradients(operator, arguments, operator.reference)
    torch.testing.assert_close(got, expected, **EXACT)
    assert got[0] > 0
    assert float(got[1][0].abs().max()) > 0  # the first layer, behind the tanh


@loss_settings
def test_gradients_of_constants_are_refused(operator: Operator, case: Case) -> None:
    arguments = operator.draw(case, torch.float32)
    value = call(operator, arguments)
    assert not value.requires_grad
    with pytest.raises(RuntimeError, match="does not require grad"):
        value.backward()


@loss_settings
def test_what_is_saved_changes_for_nobody_who_sees_it(operator: Operator, case: Case) -> None:
    """Gradients are multiplied where they lie, unless the graph is kept or hooks were given them."""
    for reduction in in_turn(operator.reductions):
        arguments = operator.draw(case, torch.float32, reduction=reduction)
        function, inputs = of_tensors(operator, arguments, operator.inputs(arguments))
        leaves = [x.requires_grad_() for x in inputs]
        value = function(*leaves)
        factor = 3 * cotangent(value)
        expected = torch.autograd.grad(value, leaves, factor)
        value = function(*leaves)
        first = torch.autograd.grad(value, leaves, factor, retain_graph=True)
        copies = [x.clone() for x in first]
        assert_same(torch.autograd.grad(value, leaves, factor), expected)
        assert_same(first, copies)
        assert_same(first, expected)
        shown: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(partial(seen, shown), lambda x: x):
            value = function(*leaves)
        copies = [x.detach().clone() for x in shown]
        # What is linear is PyTorch's, and saves nothing.
        assert copies or operator.terms is not None
        assert_same(torch.autograd.grad(value, leaves, factor), expected)
        assert_same(shown, copies)


def seen(kept: list[Tensor], tensor: Tensor) -> Tensor:
    kept.append(tensor)
    return tensor


@pytest.mark.compiled
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=dtype_name)
@pytest.mark.parametrize("count", [1, 2, 17, 25])
def test_gradients_are_scaled_in_place_as_in_new_memory(dtype: torch.dtype, count: int) -> None:
    """By a number, by one that leaves them alone, by one for each element; divided or not."""
    sizes = [(3, 4 + i % 5) for i in range(count)]
    gradients = [
        torch.randn(s).to(dtype).t() if i % 3 else torch.randn(s) for i, s in enumerate(sizes)
    ]
    numbers = [torch.tensor(x) for x in (-0.75, 1.0, 0.0)]
    factors = [
        numbers[i % 4] if i % 4 < 3 else torch.randn(g.shape) for i, g in enumerate(gradients)
    ]
    rows = [5 if i % 2 else -1 for i in range(count)]
    expected = torch.ops.gankernels.scale_terms(gradients, factors, rows)
    places = [g.data_ptr() for g in gradients]
    torch.ops.gankernels.scale_terms_(gradients, factors, rows)
    assert [g.data_ptr() for g in gradients] == places
    assert_same(gradients, expected)


@pytest.mark.compiled
def test_gradients_that_are_not_dense_are_not_scaled_in_place() -> None:
    for gradient in (torch.ones(4, 6)[:, :3], torch.ones(1, 3).expand(4, 3)):
        with pytest.raises(ValueError, match="gradients must be dense"):
            torch.ops.gankernels.scale_terms_([gradient], [torch.tensor(2.0)], [-1])


@pytest.mark.compiled
def test_the_first_order_backward_refuses_to_be_differentiated() -> None:
    scale_gradient = torch.ops.gankernels.scale_gradient.default
    gradient, factor = torch.ones(2, 3), torch.tensor(2.0)
    assert torch.equal(scale_gradient(gradient, factor, 1, -1), 2 * gradient)
    for arguments in [
        (gradient.clone().requires_grad_(), factor),
        (gradient, factor.clone().requires_grad_()),
    ]:
        with pytest.raises(RuntimeError, match="scale_gradient has no derivative"):
            scale_gradient(*arguments, 1, -1)
        with torch.no_grad():
            assert torch.equal(scale_gradient(*arguments, 1, -1), 2 * gradient)


@pytest.mark.compiled
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=dtype_name)
def test_two_gradients_are_scaled_as_each_alone(dtype: torch.dtype) -> None:
    """In one launch on a GPU: with a number, with one per row, averaged or not, in any layout and dtype."""
    first, second = torch.randn(3, 4, 2).to(dtype), torch.randn(3, 4, 2).to(dtype)
    scale_gradients = torch.ops.gankernels.scale_gradients.default
    layouts = [second, second.double(), second.transpose(0, 2).contiguous().transpose(0, 2)]
    for other in layouts:
        for factor, rows in [(torch.tensor(-0.75), (6, 3)), (torch.randn(3, 2), (-1, -1))]:
            got = scale_gradients(first, other, factor, 1, *rows)
            for scaled, gradient, n in zip(got, (first, other), rows, strict=True):
                column = factor.double().unsqueeze(1) if factor.ndim else factor.double()
                expected = gradient.double() * column / (n if n > 0 else 1)
                assert scaled.dtype == gradient.dtype
                eps = max(torch.finfo(gradient.dtype).eps, 2**-22)
                torch.testing.assert_close(scaled.double(), expected, rtol=eps, atol=2**-24)
