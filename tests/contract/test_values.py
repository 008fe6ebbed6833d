"""Value and gradients against float64, within twice eager PyTorch's own error."""

from __future__ import annotations

import pytest
import torch
from backends import in_turn

from contract.common import EXACT, HALF, dtype_name, every_case, every_dtype
from gankernels.testing import Case, Operator, compare, differentiate, in_dtype


@every_dtype
@every_case
def test_value_and_gradients_are_accurate(
    operator: Operator, case: Case, dtype: torch.dtype, device: str
) -> None:
    for reduction in in_turn(operator.reductions_of(case)):
        arguments = operator.draw(case, dtype, device, reduction)
        for names in in_turn(operator.differentiations(arguments)):
            compare(operator, arguments, names)


@pytest.mark.parametrize("dtype", HALF, ids=dtype_name)
@every_case
def test_half_inputs_are_accumulated_in_float32(
    operator: Operator, case: Case, dtype: torch.dtype, device: str
) -> None:
    # Eager in float32 sets the tolerance: only the final rounding may be in half precision.
    for reduction in in_turn(operator.reductions_of(case)):
        arguments = operator.draw(case, dtype, device, reduction)
        compare(operator, arguments, operator.inputs(arguments), yardstick=torch.float32)


@pytest.mark.backends("cpu")
@every_case
def test_reference_is_the_plain_formula(operator: Operator, case: Case) -> None:
    # Two independent spellings: the oracle of all other tests is not alone.
    for reduction in in_turn(operator.reductions_of(case)):
        drawn = operator.draw(case, torch.float64, reduction=reduction)
        arguments = in_dtype(drawn, torch.float64)
        names = operator.inputs(arguments)
        oracle = differentiate(operator.reference, arguments, names, writes=operator.writes)
        plain = differentiate(operator.eager, arguments, names, writes=operator.writes)
        torch.testing.assert_close(oracle, plain, **EXACT)
