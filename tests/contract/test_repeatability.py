"""The same bits from run to run and, for the kernels, for any number of threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from backends import affordable, in_turn
from torch import Tensor

from contract.common import assert_same, every_setting
from gankernels import value_and_grad
from gankernels.testing import Case, Operator, differentiate

# Enough rows for several units of parallel work, with classes side by side and apart.
SHAPES = [Case((1000, 20)), Case((20, 1025)), Case((20, 20, 8, 8))]


pytestmark = pytest.mark.backends("cpu", "triton", "cuda")


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def results(
    operator: Operator, case: Case, dtype: torch.dtype, reductions: Sequence[str | None]
) -> list[Tensor | None]:
    found: list[Tensor | None] = []
    for reduction in reductions:
        arguments = operator.draw(case, dtype, reduction=reduction)
        names = operator.inputs(arguments)
        value, gradients = differentiate(
            operator.functional, arguments, names, writes=operator.writes
        )
        found += [value, *gradients.values()]
        if operator.fused_operator:
            value, fused = value_and_grad(operator.functional)(**arguments)
            found += [value, *fused]
    return found


def shaped(case: Case, like: Case) -> Case:
    rows, *rest = like.shape
    return Case((affordable(rows, rows // 5), *rest), dim=like.dim, options=case.options)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda case: case.label)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@every_setting
def test_runs_repeat_bit_for_bit(
    operator: Operator, case: Case, shape: Case, dtype: torch.dtype
) -> None:
    case = shaped(case, shape)
    reductions = in_turn(operator.reductions_of(case))
    first = results(operator, case, dtype, reductions)
    assert_same(results(operator, case, dtype, reductions), first)


@pytest.mark.compiled
@pytest.mark.backends("cpu")
@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("shape", SHAPES[:1], ids=lambda case: case.label)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@every_setting
def test_threads_do_not_change_a_bit(
    operator: Operator, case: Case, shape: Case, dtype: torch.dtype
) -> None:
    case = shaped(case, shape)
    torch.set_num_threads(1)
    reductions = operator.reductions_of(case)
    one = results(operator, case, dtype, reductions)
    torch.set_num_threads(2)
    assert_same(results(operator, case, dtype, reductions), one)
