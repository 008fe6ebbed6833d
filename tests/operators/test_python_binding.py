"""The direct call into the dispatcher: what torch.ops would see must still reach torch.ops."""

from __future__ import annotations

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import gankernels as gk
from gankernels import _backend

pytestmark = pytest.mark.skipif(
    _backend.EXTENSION is None, reason=f"the extension is not there: {_backend.REASON}"
)

OVERLOAD = torch.ops.gankernels.softmax_kl.default if _backend.EXTENSION is not None else None
TARGET = torch.tensor([0.25, 0.75])


@pytest.fixture
def seen():
    return []


@pytest.fixture
def direct(seen):
    """softmax_kl as `_backend` binds it, with a torch.ops overload that tells when it is asked."""

    def overload(*arguments):
        seen.append(arguments)
        return OVERLOAD(*arguments)

    return _backend.EXTENSION.bind_operator("gankernels::softmax_kl", overload)


def test_plain_arguments_do_not_pass_torch_ops(direct, seen) -> None:
    logits = torch.randn(3, 2)
    assert torch.equal(direct(logits, TARGET, 1, 1, 1.0, 1.0), OVERLOAD(logits, TARGET, 1, 1))
    parameter = torch.nn.Parameter(logits)
    (gradient,) = torch.autograd.grad(direct(parameter, TARGET, -1, 2, 1.0, 1.0), parameter)
    (expected,) = torch.autograd.grad(OVERLOAD(parameter, TARGET, -1, 2), parameter)
    assert torch.equal(gradient, expected)
    assert not seen


class Recorded(torch.Tensor):
    calls: list[object] = []  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        cls.calls.append(function)
        return super().__torch_function__(function, types, args, kwargs or {})


def test_a_subclass_sees_the_call(direct, seen) -> None:
    Recorded.calls.clear()
    direct(torch.randn(3, 2).as_subclass(Recorded), TARGET, 1, 1, 1.0, 1.0)
    assert len(seen) == 1
    assert OVERLOAD in Recorded.calls


class FunctionRecorder(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[object] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.calls.append(function)
        return function(*args, **(kwargs or {}))


def test_a_function_mode_sees_the_call(direct, seen) -> None:
    logits = torch.randn(3, 2)
    with FunctionRecorder() as mode:
        direct(logits, TARGET, 1, 1, 1.0, 1.0)
    assert len(seen) == 1
    assert OVERLOAD in mode.calls


class DispatchRecorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[object] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls.append(function)
        return function(*args, **(kwargs or {}))


def test_a_dispatch_mode_sees_the_operator_of_the_backend(direct) -> None:
    logits = torch.randn(3, 2)
    with DispatchRecorder() as mode:
        direct(logits, TARGET, 1, 1, 1.0, 1.0)
    assert torch.ops.gankernels.softmax_kl_value_and_grad.default in mode.calls


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tracing_records_the_call(direct, seen) -> None:
    traced = torch.jit.trace(lambda x: direct(x, TARGET, 1, 1, 1.0, 1.0), torch.randn(3, 2))
    assert seen
    assert "gankernels::softmax_kl" in str(traced.graph)


@pytest.mark.parametrize(
    "arguments",
    [
        (torch.zeros(3, 2), TARGET, 1),  # the reduction has a default
        (torch.zeros(3, 2), TARGET, True, 1, 1.0, 1.0),
        (torch.zeros(3, 2), TARGET, 1, 1, 2, 1.0),
    ],
)
def test_what_needs_conversion_goes_through_torch_ops(direct, seen, arguments) -> None:
    assert torch.equal(direct(*arguments), OVERLOAD(*arguments))
    assert len(seen) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (None, TARGET, 1, 1, 1.0, 1.0),
        (torch.zeros(3, 2), [0.5, 0.5], 1, 1, 1.0, 1.0),
        (torch.zeros(3, 2), TARGET, 1.5, 1, 1.0, 1.0),
        (torch.zeros(3, 2), TARGET, 2**70, 1, 1.0, 1.0),
        (torch.zeros(3, 2), TARGET, 1, 1, 1.0, 1.0, 1),
        (torch.zeros(3, 2), TARGET, 5, 1, 1.0, 1.0),
        (torch.zeros(3, 2, dtype=torch.int64), TARGET, 1, 1, 1.0, 1.0),
        (torch.zeros(3, 5), TARGET, 1, 1, 1.0, 1.0),
    ],
)
def test_bad_arguments_raise_what_torch_ops_raises(direct, arguments) -> None:
    kinds = (TypeError, ValueError, IndexError, RuntimeError, OverflowError)
    with pytest.raises(kinds) as expected:
        OVERLOAD(*arguments)
    with pytest.raises(type(expected.value)) as found:
        direct(*arguments)
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("kind", [tuple, list])
def test_optional_tensors_and_lists_are_parsed(kind) -> None:
    fake = torch.randn(4, requires_grad=True)
    terms, places = kind((0.0, -1.0, 0.0, 1.0, 0.0)), kind((0, -1, -1, 0))
    (found,) = _backend.scalar_loss(kind((fake,)), "fake", places, terms, 1.0, 1)
    assert torch.equal(found, torch.nn.functional.softplus(-fake).mean())
    anchor = torch.tensor([0.5, 0.5])
    loss = _backend.realness_g_loss(None, torch.zeros(3, 2), None, anchor, 1, 1, 1)
    assert loss == pytest.approx(0)


@pytest.mark.parametrize(
    "wrong",
    [
        ([1.0], "x", (0, -1, -1, 0), (0.0,) * 5, 1.0, 1),
        ((torch.zeros(2), None), "x", (0, -1, -1, 0), (0.0,) * 5, 1.0, 1),
        ((torch.zeros(2),), 3, (0, -1, -1, 0), (0.0,) * 5, 1.0, 1),
        ((torch.zeros(2),), "x", (0, -1.5, -1, 0), (0.0,) * 5, 1.0, 1),
        ((torch.zeros(2),), "x", (0, -1, -1, 0), ("0",) * 5, 1.0, 1),
        (torch.zeros(2), "x", (0, -1, -1, 0), (0.0,) * 5, 1.0, 1),
    ],
)
def test_lists_of_other_things_are_refused_as_torch_ops_does(wrong) -> None:
    with pytest.raises((TypeError, RuntimeError, ValueError)) as expected:
        torch.ops.gankernels.scalar_loss.default(*wrong)
    with pytest.raises(type(expected.value)) as found:
        _backend.scalar_loss(*wrong)
    assert str(found.value) == str(expected.value)


def test_in_place_operators_return_their_argument() -> None:
    t = torch.ones(3)
    assert gk.negate_(t) is t
    assert torch.equal(t, -torch.ones(3))
