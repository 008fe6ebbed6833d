"""The operator table through Triton's interpreter: run as a program, since the flag is read at import.

    TRITON_INTERPRET=1 python tests/gpu/triton_interpreted.py softmax_kl ...

Registers the Triton launchers as the operators' CPU kernels, so that autograd, dispatch and the
public functions are those that a GPU would see, and compares every case with float64.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

assert os.environ.get("TRITON_INTERPRET") == "1"
sys.path.insert(0, str(Path(__file__).parent.parent))
warnings.simplefilter("ignore")  # numpy's, at logarithms of zero; torch's, at overridden kernels

import torch  # noqa: E402

from gankernels import triton as backend  # noqa: E402
from gankernels.testing import DTYPES, OPERATORS, Case, Operator, compare  # noqa: E402
from gpu import triton_on_cpu  # noqa: E402


def calls(operator: Operator) -> Iterator[tuple[Case, torch.dtype, str | None]]:
    """Every case in float32, one reduction each in turn; some cases with all, in every dtype."""
    for i, case in enumerate(operator.cases()):
        reductions = operator.reductions_of(case)
        if i % 7 == 0:
            yield from ((case, dtype, r) for dtype in DTYPES for r in reductions)
        else:
            yield case, torch.float32, reductions[i % len(reductions)]


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    triton_on_cpu.register()
    count = 0
    for operator in OPERATORS:
        if operator.name not in names:
            continue
        for case, dtype, reduction in calls(operator):
            arguments = operator.draw(case, dtype, reduction=reduction)
            for differentiated in operator.differentiations(arguments):
                try:
                    compare(operator, arguments, differentiated)
                except AssertionError as error:
                    raise AssertionError(f"{case.label}, {dtype}, {reduction}: {error}") from error
                count += 1
    launchers = backend._launchers.cache_info().hits
    print(f"{count} comparisons, {launchers} launches")


if __name__ == "__main__":
    main(sys.argv[1:])
