"""Calls that nobody wrote by hand: every operator at drawn shapes, strides, memory, dtypes and magnitudes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from contract.common import assert_same
from contract.test_layouts import LAYOUTS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from gankernels.testing import DTYPES, OPERATORS, Arguments, Case, Operator, compare, differentiate
from tools.torture.attack import Found

CASES = 24_000
MOST_ELEMENTS = 3_000
# Of the logits; those of an operator with an exponential of them stay small.
MAGNITUDES = (1e-42, 1e-20, 1e-3, 1.0, 30.0, 1e3, 1e4)
DRAWN_WITH = 3.0


def same(x: Tensor) -> Tensor:
    return x


def of_numpy(x: Tensor) -> Tensor:
    return x if x.dtype == torch.bfloat16 else torch.from_numpy(x.numpy().copy())


def shared(x: Tensor) -> Tensor:
    return x.clone().share_memory_()


def of_dlpack(x: Tensor) -> Tensor:
    return torch.from_dlpack(x.clone())


def of_file(x: Tensor) -> Tensor:
    """Memory of a mapped file."""
    descriptor, path = tempfile.mkstemp()
    os.close(descriptor)
    mapped = torch.from_file(path, shared=True, size=max(x.numel(), 1), dtype=x.dtype)
    os.unlink(path)
    return mapped[: x.numel()].view(x.shape).copy_(x)


OF_TWO = ("transposed", "middle_first")  # dimensions at least
SOURCES: tuple[Callable[[Tensor], Tensor], ...] = (same, of_numpy, shared, of_dlpack, of_file)


def forms_of(x: Tensor) -> list[Callable[[Tensor], Tensor]]:
    """Strides and memory that a tensor may have."""
    return [
        *SOURCES,
        *(f for f in LAYOUTS if x.ndim > 1 or (x.ndim == 1 and f.__name__ not in OF_TWO)),
    ]


@st.composite
def shapes(draw: st.DrawFn, least: int) -> tuple[int, ...]:
    sizes = draw(st.lists(st.integers(0, 300), min_size=least, max_size=5))
    shape: list[int] = []
    room = MOST_ELEMENTS
    for size in sizes:
        shape.append(min(size, room))
        room //= max(shape[-1], 1)
    return tuple(shape)


@st.composite
def cases(draw: st.DrawFn, operator: Operator) -> Case:
    by_class = operator.has_classes or operator.targets or operator.name.startswith("resample")
    least = 1 if by_class or operator.name == "gradient_scale" else 0
    shape = draw(shapes(least))
    dim = draw(st.integers(-len(shape), len(shape) - 1)) if by_class else 1
    if by_class or "resampled" in operator.name:
        dim = dim % len(shape)
        shape = (
            *shape[:dim],
            max(shape[dim], 1),
            *shape[dim + 1 :],
        )  # of no class there is no softmax
    case = Case(shape, dim=dim, options=draw(st.sampled_from(operator.settings)))
    if operator.targets or "resampled" in operator.name:
        case = replace(
            case,
            target=draw(st.sampled_from(["shared", "keepdim", "rows"])),
            empty_bins=draw(st.booleans()),
            mass=draw(st.sampled_from([1.0, 0.3, 1.7])),
            target_dtype=draw(st.sampled_from([None, None, *DTYPES])),
        )
    if operator.uneven_batches and dim != 0 and shape and draw(st.booleans()):
        case = replace(case, second_batch=draw(st.integers(1, 9)))
    return case


@st.composite
def calls(draw: st.DrawFn, operator: Operator) -> tuple[Arguments, tuple[str, ...]]:
    """Arguments, and which of them to differentiate in."""
    case = draw(cases(operator))
    dtype = draw(st.sampled_from(DTYPES))
    reduction = draw(st.sampled_from(operator.reductions_of(case)))
    arguments = operator.draw(case, dtype, "cpu", reduction, seed=draw(st.integers(0, 2**31)))
    small = tuple(m for m in MAGNITUDES if m <= 1) if operator.overflows else MAGNITUDES
    magnitude = draw(st.sampled_from(small))
    inputs = operator.inputs(arguments)
    for name, value in arguments.items():
        if not isinstance(value, Tensor):
            continue
        if name in inputs:
            value = (value.double() * (magnitude / DRAWN_WITH)).to(value.dtype)
        if name not in operator.writes:
            value = draw(st.sampled_from(forms_of(value)))(value)
        arguments[name] = value
    names = draw(st.sampled_from(operator.differentiations(arguments)))
    some = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    return arguments, tuple(n for n in names if n in some)


def check(operator: Operator, arguments: Arguments, names: tuple[str, ...]) -> None:
    tensors = [x for x in arguments.values() if isinstance(x, Tensor)]
    before = [x.clone() for x in tensors]
    compare(operator, arguments, names)
    once, again = (
        differentiate(operator.functional, arguments, names, writes=operator.writes)[0]
        for _ in range(2)
    )
    assert_same([once, *tensors], [again, *before])


def describe(arguments: Arguments, names: tuple[str, ...]) -> str:
    def of(value: Any) -> str:
        if not isinstance(value, Tensor):
            return repr(value)
        return f"{value.dtype}{list(value.shape)}/{list(value.stride())}"

    return ", ".join(f"{n}={of(x)}" for n, x in arguments.items()) + f" in {names}"


def attacked(operator: Operator, examples: int, found: Found) -> Callable[[], None]:
    """Draws calls of a row until one fails, and then looks for the smallest that does."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(call=calls(operator))
    def one(call: tuple[Arguments, tuple[str, ...]]) -> None:
        found.cases += 1
        try:
            check(operator, *call)
        except Exception as error:
            raise AssertionError(f"{describe(*call)}: {error}") from error

    return one


def run(share: float) -> Found:
    found = Found()
    each = max(1, round(share * CASES / len(OPERATORS)))
    for operator in OPERATORS:
        try:
            attacked(operator, each, found)()
        except AssertionError as error:
            found.failures.append(f"{operator.name}: {error}")
    return found
