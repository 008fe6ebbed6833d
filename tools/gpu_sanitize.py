"""A small set of launches of every operator, for compute-sanitizer to watch.

    compute-sanitizer --tool racecheck --error-exitcode 9 python tools/gpu_sanitize.py

Every row of the operator table forward and backward: rows in registers and streamed, classes side by side and
apart, one block and several. No result is compared: `make gpu-test` does.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gankernels as gk
from gankernels._scalar import SCALAR_LOSSES
from gankernels.testing import OPERATORS, Case, Operator, differentiate

DIVERGENCES = (
    Case((37, 20)),
    Case((5, 64), target="rows"),
    Case((3, 20, 5, 3)),
    Case((2, 1025)),
    Case((1, 9000)),
    Case((1, 16400)),
    Case((700, 20)),
)
SCALARS = (Case((37,)), Case((3001,)), Case((20000,)))


def cases(operator: Operator) -> tuple[Case, ...]:
    if operator.has_classes:
        return DIVERGENCES
    return SCALARS if operator.name in SCALAR_LOSSES else operator.shapes


def launch(operator: Operator, device: str) -> int:
    count = 0
    for case in cases(operator):
        for dtype in (torch.float32, torch.bfloat16):
            options = replace(case, options=operator.options[-1])
            reduction = "mean" if operator.reductions else None
            arguments = operator.draw(options, dtype, device, reduction)
            names = operator.inputs(arguments)
            differentiate(operator.functional, arguments, names, writes=operator.writes)
            count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    count = sum(launch(operator, device) for operator in OPERATORS)
    if device == "cuda":
        torch.cuda.synchronize()
    print(f"{count} calls, forward and backward, on {gk.build_info()['backends'][device]}")


if __name__ == "__main__":
    main()
