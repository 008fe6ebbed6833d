"""Every Triton kernel compiled for NVIDIA GPUs that are not there, and what must hold of the result.

python -m gpu.triton_compiled float32     # with the Triton that stands first on PYTHONPATH
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import triton

from gankernels._scalar_run import terms_against_means, terms_of
from gankernels.triton import (
    divergence,
    layers,
    operators,
    plans,
    relativistic,
    scalar,
    softmax_pair,
)
from tools.ptxsim import simulator, triton_driver
from tools.ptxsim.execution import Execution
from tools.ptxsim.loop_reductions import carried_reductions

NONE, MEAN = 0, 1
KERNELS = (
    (divergence, "divergence_kernel"),
    (softmax_pair, "softmax_pair_kernel"),
    (softmax_pair, "mixture_kernel"),
    (scalar, "term_sums_kernel"),
    (scalar, "term_rows_kernel"),
    (scalar, "scale_terms_kernel"),
    (relativistic, "relativistic_kernel"),
    (layers, "scale_kernel"),
    (layers, "resample_kernel"),
    (layers, "resample_backward_kernel"),
)
# The longest rows that stay in registers, with and without a class beyond the last; the widest tiles
# of rows side by side; rows that are streamed.
HEAVY = [
    (torch.float32, (2, 8192)),
    (torch.float32, (2, 8188)),
    (torch.float32, (2, 4095)),
    (torch.float32, (2, 8191)),
    (torch.float32, (1, 32, 8, 8)),
    (torch.float32, (1, 64, 8, 8)),
    (torch.float32, (1, 128, 8, 8)),
    (torch.float32, (1, 512, 4, 4)),
    (torch.float32, (2, 32768)),
    (torch.bfloat16, (2, 32768)),
    (torch.bfloat16, (1, 512, 4, 4)),
    (torch.bfloat16, (1, 600, 8, 8)),
    (torch.float64, (2, 1024)),
    (torch.float64, (2, 2048)),
    (torch.float64, (2, 3001)),
    (torch.float64, (2, 5000)),
    (torch.float64, (1, 600, 8, 8)),
]
# Where every release's ptxas parks: for one more block at a time it lets registers' values wait in local memory
# while a loop over classes runs, or one or two of rows held in registers for the time of a row.
PARKED = {
    (torch.float32, (2, 32768)),
    (torch.bfloat16, (1, 512, 4, 4)),
    (torch.bfloat16, (1, 600, 8, 8)),
}
LOCAL_SHARE = 1 / 500  # of an innermost loop's instructions
# Every kernel: rows one after the other and side by side, in registers and streamed.
SHAPES = [(4, 20), (4, 9000), (4, 20, 8, 8), (4, 600, 8, 8)]


def call_everything(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Each operator once, with all its gradients."""
    real, fake = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    rows, anchor = torch.rand(shape).to(dtype), torch.rand(shape[1])
    gradients = (True, True, True, 1.0)
    operators.realness_d_loss(real, fake, anchor, anchor, 1, MEAN, *gradients)
    operators.realness_g_loss(real, fake, None, anchor, 2, 1, MEAN, *gradients)
    operators.realness_g_loss(None, fake, rows, rows, 3, 1, MEAN, *gradients)
    operators.softmax_kl_logits(real, fake, 1, MEAN, *gradients)
    operators.js_divergence(real, fake, 0.3, 1, MEAN, *gradients)
    operators.softmax_kl(real, rows, 1, MEAN, *gradients)
    terms = terms_against_means("relativistic_d_loss", 1.0)
    operators.relativistic_loss(real, fake, *terms, MEAN, *gradients)
    logistic = terms_of("logistic_d_loss", 0.9, 0.0)
    weight = torch.rand(shape).to(torch.float64 if dtype == torch.float64 else torch.float32)
    tensors, places = (
        (real, fake, weight, anchor.to(dtype)),
        (0, -1, -1, 0, 1, -1, 2, 0, 3, -1, -1, 1),
    )
    for reduction in (NONE, MEAN):
        wanted = (0, 1, 2)
        operators.scalar_loss(
            tensors,
            "r,f,w,a",
            places,
            (*logistic, *logistic[:5]),
            1.0,
            reduction,
            wanted,
            True,
            1.0,
        )
    operators.scale_terms((real, fake), (torch.tensor(1.0), weight), (3, -1))
    operators.scale_terms_((real.clone(), fake.clone()), (torch.tensor(1.0), weight), (-1, 3))
    operators.scale_gradients(real, fake, torch.tensor(1.0), 1, -1, -1)
    accumulation = torch.float64 if dtype == torch.float64 else torch.float32
    noise = torch.randn(shape[0], shape[1] // 2, *shape[2:]).to(accumulation)
    z = operators.resample_forward(real, noise, 1)
    operators.resample_backward(z, real, noise if dtype.itemsize == 2 else z, 1)


@contextmanager
def compilations() -> Iterator[list[Execution]]:
    """The launches inside, compiled but not run."""
    found: list[Execution] = []
    original = simulator.Module.launch
    nothing = simulator.Result.__new__(simulator.Result)
    simulator.Module.launch = lambda *args, **kwargs: nothing  # type: ignore[method-assign]
    triton_driver.listeners.append(found.append)
    try:
        yield found
    finally:
        triton_driver.listeners.remove(found.append)
        simulator.Module.launch = original  # type: ignore[method-assign]


@contextmanager
def many_processors() -> Iterator[None]:
    """As many multiprocessors as an H100 has, so that few long rows are shared out."""
    plans.processors.cache_clear()
    few, plans.EMULATED_PROCESSORS = plans.EMULATED_PROCESSORS, 132
    try:
        yield
    finally:
        plans.EMULATED_PROCESSORS = few
        plans.processors.cache_clear()


def compile_heavy(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """The losses of distributions, with what asks most of registers; fails where a value is spilled."""
    real, fake = torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)
    anchor, rows = torch.zeros(shape[1]), torch.zeros(shape)
    gradients = (1, MEAN, True, True, True, 1.0)
    with compilations() as compiled:
        operators.realness_d_loss(real, fake, anchor, anchor, *gradients)
        operators.realness_g_loss(real, fake, None, anchor, 2, *gradients)
        operators.realness_g_loss(None, fake, rows, rows, 3, *gradients)
        operators.softmax_kl_logits(real, fake, *gradients)
        operators.js_divergence(real, fake, 0.3, *gradients)
        operators.softmax_kl(fake, rows.to(dtype), *gradients)
    assert len(compiled) == 6
    for execution in compiled:
        check_memory(execution, (dtype, shape) in PARKED)


def compile_shared_row(dtype: torch.dtype) -> None:
    """A row that several programs share, in two launches; fails where a value is spilled."""
    with compilations() as compiled, many_processors():
        row, anchor = torch.zeros((1, 40000), dtype=dtype), torch.zeros(40000)
        operators.realness_d_loss(row, row, anchor, anchor, 1, MEAN, True, True, True, 1.0)
        operators.softmax_kl(row, row, 1, MEAN, True, True, True, 1.0)
    assert [execution.entry for execution in compiled] == ["divergence_kernel"] * 4
    for execution in compiled:
        check_memory(execution, parked=True)


def check_memory(execution: Execution, parked: bool = False) -> None:
    """No loop carries a reduction, and local memory holds no more than what ptxas parks there."""
    assert carried_reductions(execution.ir) == []
    if execution.spills:  # only then is the machine code read
        found = execution.entry, execution.registers, execution.spills, execution.spills_in_loops
        full = execution.registers >= min(254, 65536 // execution.threads)
        assert execution.spills <= allowance(full, parked), found
        assert execution.spills_in_loops <= LOCAL_SHARE, found


def allowance(full: bool, parked: bool) -> int:
    """Bytes of local memory of a thread, which has all registers that it can have or not."""
    if not full and plans.RELEASE < (3, 9):
        return 24
    return 8 if parked or plans.RELEASE < (3, 5) else 0


def compile_everything(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Every kernel; fails where a loop carries a reduction: Triton before 3.9 stops there, or is wrong."""
    with compilations() as compiled:
        call_everything(dtype, shape)
    assert {execution.entry for execution in compiled} == {name for _, name in KERNELS}
    for execution in compiled:
        assert carried_reductions(execution.ir) == [], execution.entry


def main() -> None:
    dtype = getattr(torch, sys.argv[1])
    triton_driver.install(arch=90)
    heavy = [shape for of, shape in HEAVY if of == dtype]
    for shape in SHAPES:
        compile_everything(dtype, shape)
    for shape in heavy:
        compile_heavy(dtype, shape)
    compile_shared_row(dtype)
    print(f"Triton {triton.__version__}: {len(SHAPES)} + {len(heavy)} shapes")


if __name__ == "__main__":
    main()
