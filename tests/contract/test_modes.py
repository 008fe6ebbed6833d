"""Grad modes, autocast, loss scaling, dispatcher checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from backends import affordable, in_turn
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from contract.common import (
    assert_same,
    call,
    every_setting,
    few_cases,
    fused_settings,
    loss_settings,
    of_tensors,
    with_leaves,
)
from gankernels import testing, value_and_grad
from gankernels.testing import Arguments, Case, Operator, cotangent, differentiate

# What test_schema needs is in the schema itself; these four are all that opcheck offers.
OPCHECKS = (
    "test_schema",
    "test_autograd_registration",
    "test_faketensor",
    pytest.param(
        "test_aot_dispatch_dynamic", marks=pytest.mark.dynamo
    ),  # traces, as torch.compile does
)


# --- grad modes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@few_cases
def test_modes_without_gradients(operator: Operator, case: Case, mode: type) -> None:
    for reduction in in_turn(operator.reductions_of(case)):
        arguments = operator.draw(case, torch.float32, reduction=reduction)
        leaves = with_leaves(arguments, operator.inputs(arguments))
        expected = call(operator, leaves)
        with mode():
            value = call(operator, leaves)
        assert_same([value], [expected.detach()])
        assert not value.requires_grad
        assert value.is_inference() == (mode is torch.inference_mode)


@few_cases
def test_inference_tensors_are_inputs_like_others(operator: Operator, case: Case) -> None:
    with torch.inference_mode():
        inference = operator.draw(case, torch.float32)
    normal = operator.draw(case, torch.float32)
    assert_same([call(operator, inference)], [call(operator, normal)])
    if operator.fused_operator:
        got = value_and_grad(operator.functional)(**inference)
        expected = value_and_grad(operator.functional)(**normal)
        assert_same([got[0], *got[1]], [expected[0], *expected[1]])


# --- autocast ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@few_cases
def test_autocast_changes_nothing(operator: Operator, case: Case, dtype: torch.dtype) -> None:
    arguments = operator.draw(case, dtype)
    names = operator.inputs(arguments)
    value, gradients = differentiate(operator.functional, arguments, names, writes=operator.writes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, inside_gradients = differentiate(
            operator.functional, arguments, names, writes=operator.writes
        )
    assert_same([inside, *inside_gradients.values()], [value, *gradients.values()])


@loss_settings
def test_a_network_under_autocast(operator: Operator, case: Case) -> None:
    arguments = operator.draw(case, torch.float32)
    names = operator.inputs(arguments)
    network = nn.Linear(6, arguments[names[0]].shape[-1])
    images = torch.randn(*arguments[names[0]].shape[:-1], 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(images)
        loss = call(operator, {**arguments, **dict.fromkeys(names, logits)})
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in network.parameters())  # type: ignore[union-attr]


# --- loss scaling --------------------------------------------------------------------------------

# Of gradients that are divided by 40,000 first most lose more than is allowed below.
ROWS, FEWER_ROWS = 200_000, 40_000
SCALE = 65536.0


def many_rows(operator: Operator, case: Case, dtype: torch.dtype) -> Arguments:
    return operator.draw(Case((affordable(ROWS, FEWER_ROWS), 2), options=case.options), dtype)


def assert_scaled(operator: Operator, arguments: Arguments, got: list[Tensor]) -> None:
    names = operator.inputs(arguments)
    exact, scale = testing.in_dtype(arguments, torch.float64), torch.tensor(SCALE)
    _, expected = differentiate(operator.reference, exact, names, scale)
    logits = exact[names[0]]
    # Rounded to half precision twice at most: before scaling and after. A difference in float32 before that.
    relative, computed = torch.finfo(torch.float16).eps, 4 * torch.finfo(torch.float32).eps
    absolute = computed * SCALE / len(logits) * testing.accuracy.largest(logits)
    for gradient, want in zip(got, expected.values(), strict=True):
        torch.testing.assert_close(gradient.double(), want, rtol=relative, atol=absolute)


@loss_settings
def test_scaled_fp16_gradients_of_a_mean_do_not_underflow(operator: Operator, case: Case) -> None:
    """1/200,000 is among the subnormals of fp16: dividing before a GradScaler's factor loses 5 bits."""
    arguments = many_rows(operator, case, torch.float16)
    names = operator.inputs(arguments)
    _, gradients = differentiate(
        operator.functional, arguments, names, torch.tensor(SCALE), operator.writes
    )
    assert_scaled(operator, arguments, list(gradients.values()))


@fused_settings
def test_grad_scale_is_applied_before_rounding(operator: Operator, case: Case) -> None:
    arguments = many_rows(operator, case, torch.float16)
    _, gradients = value_and_grad(operator.functional)(**arguments, grad_scale=SCALE)
    assert_scaled(operator, arguments, [g for g in gradients if g is not None])


@loss_settings
def test_grad_scaler(operator: Operator, case: Case) -> None:
    arguments = operator.draw(case, torch.float32)
    names = operator.inputs(arguments)
    expected = differentiate(operator.functional, arguments, names)[1]
    leaves = with_leaves(arguments, names)
    inputs = [leaves[name] for name in names]
    optimizer = torch.optim.SGD(inputs, lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
    before = [x.detach().clone() for x in inputs]
    scaler.scale(call(operator, leaves)).backward()
    scaler.step(optimizer)
    for x, old, gradient in zip(inputs, before, expected.values(), strict=True):
        torch.testing.assert_close(x.detach(), old - gradient)


# --- the dispatcher's view -----------------------------------------------------------------------


@pytest.mark.compiled
@pytest.mark.parametrize("check", OPCHECKS)
@few_cases
def test_opcheck_of_the_public_operator(operator: Operator, case: Case, check: str) -> None:
    overload = getattr(torch.ops.gankernels, operator.public_operator).default
    for reduction in in_turn(operator.reductions_of(case)):
        drawn = operator.draw(case, torch.float32, reduction=reduction)
        for names in in_turn(operator.differentiations(drawn)):
            # Writing a leaf that requires grad is refused, rightly.
            leaves = with_leaves(drawn, () if operator.writes else names)
            arguments = operator.compiled_arguments(overload, leaves)
            torch.library.opcheck(overload, arguments, test_utils=check)


@pytest.mark.compiled
@pytest.mark.parametrize("check", OPCHECKS)
@fused_settings
def test_opcheck_of_value_and_grad(operator: Operator, case: Case, check: str) -> None:
    overload = getattr(torch.ops.gankernels, operator.fused_operator).default
    for reduction in in_turn(operator.reductions_of(case)):
        drawn = operator.draw(case, torch.float32, reduction=reduction)
        arguments = operator.compiled_arguments(overload, drawn)
        torch.library.opcheck(overload, arguments, test_utils=check)


SCALING: dict[str, Callable[[Tensor, Tensor, int], tuple[Any, ...]]] = {
    "scale_gradient": lambda gradient, factor, rows: (gradient, factor, 1, rows),
    "scale_gradients": lambda gradient, factor, rows: (gradient, -gradient, factor, 1, rows, 2),
    "scale_terms": lambda gradient, _, rows: ([gradient], [torch.tensor(2.0)], [rows]),
    "scale_terms_": lambda gradient, _, rows: ([gradient], [torch.tensor(2.0)], [rows]),
}


@pytest.mark.compiled
@pytest.mark.parametrize("check", OPCHECKS)
@pytest.mark.parametrize("rows", [-1, 3])
@pytest.mark.parametrize("name", SCALING)
def test_opcheck_of_what_scales_gradients(name: str, rows: int, check: str) -> None:
    overload = getattr(torch.ops.gankernels, name).default
    for factor in (torch.tensor(2.0), torch.randn(3)):
        torch.library.opcheck(
            overload, SCALING[name](torch.randn(3, 4), factor, rows), test_utils=check
        )


@pytest.mark.compiled
@fused_settings
def test_value_and_grad_operators_stay_outside_graphs(operator: Operator, case: Case) -> None:
    overload = getattr(torch.ops.gankernels, operator.fused_operator).default
    leaves = with_leaves(operator.draw(case), operator.inputs(operator.draw(case)))
    try:
        outputs = overload(*operator.compiled_arguments(overload, leaves))
    except RuntimeError as error:
        assert "has no derivative" in str(error)  # noqa: PT017
    else:
        assert not any(output.requires_grad for output in tree_leaves(outputs))


@pytest.mark.compiled
@every_setting
def test_meta_kernels(operator: Operator, case: Case) -> None:
    """The shapes, dtypes and strides that a compiler plans with are those that come out."""
    overload = getattr(torch.ops.gankernels, operator.public_operator).default

    def run(arguments: Arguments) -> list[Tensor]:
        leaves = with_leaves(arguments, () if operator.writes else operator.inputs(arguments))
        value, *_ = tree_leaves(overload(*operator.compiled_arguments(overload, leaves)))
        inputs = [x for x in leaves.values() if isinstance(x, Tensor) and x.requires_grad]
        found = torch.autograd.grad(value, inputs, cotangent(value)) if inputs else ()
        return [value.detach(), *found]

    like = Case((3, 4, 2), options=case.options)
    for dtype in in_turn((torch.float16, torch.float32, torch.float64)):
        for reduction in in_turn(operator.reductions_of(like)):
            arguments = operator.draw(like, dtype, reduction=reduction)
            meta = {k: x.to("meta") if isinstance(x, Tensor) else x for k, x in arguments.items()}
            for got, plan in zip(run(arguments), run(meta), strict=True):
                assert plan.device.type == "meta"
                assert (got.shape, got.dtype) == (plan.shape, plan.dtype)
                assert got.stride() == plan.stride()


@every_setting
def test_subclasses_and_deferred_computation(operator: Operator, case: Case) -> None:
    """A tensor subclass that only watches sees the same numbers."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            return func(*args, **(kwargs or {}))

    arguments = operator.draw(case, torch.float32)
    names = operator.inputs(arguments)
    function, _ = of_tensors(operator, arguments, names)
    expected = differentiate(operator.functional, arguments, names, writes=operator.writes)
    with Watch():
        leaves = with_leaves(arguments, names)
        value = function(*(leaves[name] for name in names))
        gradients = torch.autograd.grad(value, [leaves[name] for name in names], cotangent(value))
    assert_same([value.detach(), *gradients], [expected[0], *expected[1].values()])
