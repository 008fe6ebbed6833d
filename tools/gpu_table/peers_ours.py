"""Our kernels as contenders: one launch for loss and gradients, and one more where autograd runs the backward."""

from __future__ import annotations

from collections.abc import Callable

import torch
from gpu.cuda import emulated
from torch import Tensor

from tools.gpu_table.cases import NAMES, Case
from tools.gpu_table.cuda_cases import cuda_cases, discriminators, execution_of
from tools.gpu_table.peers_counts import ARCH, Launch, Problem
from tools.gpu_table.table import Row
from tools.gpu_table.triton_cases import triton_cases
from tools.ptxsim import triton_driver
from tools.ptxsim.execution import Execution
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


def left_alone(problem: Problem, execution: Execution) -> Launch:
    """The launch of the backward pass: the gradient of the loss is a one, and nothing else is read."""
    stats = execution.result.stats
    assert stats["global_store_bytes"] == 0
    assert stats["global_load_bytes"] < problem.ideal / 10, "more than the factor, for each thread"
    return Launch("scale_terms_", 0, 0, 0.0, "issue", 0, execution)


def gradients_and_ones(problem: Problem) -> tuple[list[Tensor], list[Tensor], list[int]]:
    gradients = [x.detach().clone() for x in problem.inputs()[:2]]
    return gradients, [torch.tensor(1.0)] * 2, [-1, -1]


def triton_backward(problem: Problem) -> list[Launch]:
    from gankernels.triton import operators

    triton_driver.install(arch=ARCH)
    with triton_driver.recorded() as found:
        operators.scale_terms_(*gradients_and_ones(problem))
    return [*triton(problem), *(left_alone(problem, execution) for execution in found)]


def cuda(problem: Problem) -> list[Launch]:
    if problem.operator == "realness_d_loss":
        return [of_case(shown(cuda_cases(), problem), problem)]
    return [of_case(discriminators(problem.elements, problem.dtype, 16384, of=1), problem)]


def cuda_backward(problem: Problem) -> list[Launch]:
    with emulated.launches(ARCH) as found:
        emulated.operator("scale_terms_")(*gradients_and_ones(problem))
    return [*cuda(problem), *(left_alone(problem, execution_of(ARCH, launch)) for launch in found)]


CONTENDERS: dict[str, Callable[[Problem], list[Launch]]] = {
    "gankernels `value_and_grad`, CUDA C++": cuda,
    "gankernels `value_and_grad`, Triton": triton,
    "gankernels `backward()`, CUDA C++": cuda_backward,
    "gankernels `backward()`, Triton": triton_backward,
}
