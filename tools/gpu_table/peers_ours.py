"""Our kernels as contenders: one launch for loss and gradients, and one more where autograd runs the backward."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tools.gpu_table.cases import NAMES, Case
from tools.gpu_table.cuda_cases import cuda_cases, discriminators, elements
from tools.gpu_table.peers_counts import ARCH, Launch, Problem, launches
from tools.gpu_table.table import Row
from tools.gpu_table.triton_cases import triton_cases
from tools.ptxsim.roofline import SECTOR


def of_case(case: Case, problem: Problem) -> Launch:
    """The launch that the kernel table measures, for all rows of the problem."""
    torch.manual_seed(0)
    execution, ideal = case.launch(ARCH)
    bound = Row(case, ARCH, execution, ideal).bound
    work = execution.work(case.row_bytes, case.sample_rows)
    elements_of = problem.elements // case.rows  # of a row
    execution.blocks = 0  # a grid is as large as the device
    return Launch(
        case.operator,
        case.row_bytes * case.rows,
        SECTOR * work.sectors * case.rows,
        max(bound.seconds["dram"] / bound.reachable, bound.seconds[bound.limiter]),
        bound.limited_by,
        32 * work.instructions * problem.elements / elements_of,
        execution,
    )


def shown(cases: list[Case], problem: Problem) -> Case:
    shape = " × ".join(map(str, problem.shape))
    wanted = (problem.operator, shape, NAMES[problem.dtype])
    return next(c for c in cases if (c.operator, c.shape, c.dtype) == wanted)


def triton(problem: Problem) -> list[Launch]:
    return [of_case(shown(triton_cases(), problem), problem)]


def triton_backward(problem: Problem) -> list[Launch]:
    from gankernels.triton import operators

    gradients = [x.detach() for x in problem.inputs()[:2]]
    half = torch.tensor(0.5)
    with launches() as found:
        if problem.operator == "realness_d_loss":
            operators.scale_gradients(*gradients, half, 0, -1, -1)
        else:
            operators.scale_terms(gradients, [half, half], [-1, -1])
    return [*triton(problem), *(launch for launch in found if launch.execution is not None)]


def cuda(problem: Problem) -> list[Launch]:
    if problem.operator == "realness_d_loss":
        return [of_case(shown(cuda_cases(), problem), problem)]
    return [of_case(discriminators(problem.elements, problem.dtype, 16384, of=1), problem)]


def cuda_backward(problem: Problem) -> list[Launch]:
    name = "scale_gradients" if problem.operator == "realness_d_loss" else "scale_terms"
    scale = elements(name, problem.elements, problem.dtype, 16384, 2 * problem.dtype.itemsize)
    return [*cuda(problem), of_case(scale, problem)]


CONTENDERS: dict[str, Callable[[Problem], list[Launch]]] = {
    "gankernels `value_and_grad`, CUDA C++": cuda,
    "gankernels `value_and_grad`, Triton": triton,
    "gankernels `backward()`, CUDA C++": cuda_backward,
    "gankernels `backward()`, Triton": triton_backward,
}
