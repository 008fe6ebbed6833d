"""nvcc's PTX for three architectures, executed: results, traffic, padding, noise."""

from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip("triton", minversion="3.4", reason="needs the triton wheel's assembler")

from tools.ptxsim.simulator import Buffer, Memory, Module, Result
from tools.ptxsim.simulator.memory import POISON
from tools.ptxsim.simulator.types import Array
from tools.ptxsim.tests.samples.cuda import ARCHITECTURES, kernel_named, sample_module
from tools.ptxsim.tests.samples.reference import ELEMENTS, Element, softmax_kl

pytestmark = pytest.mark.emulated

ROWS_PER_BLOCK = 4  # of the kernel with a row per warp
SCHEDULES = ("lockstep", "warps", "warps_reversed")


class Problem:
    """Two matrices of logits with padded rows, in simulated memory."""

    def __init__(self, element: Element, rows: int, n: int, stride: int) -> None:
        rng = np.random.default_rng(0)
        self.element, self.rows, self.n, self.stride = element, rows, n, stride
        self.p, self.q = (element.encode(rng.normal(size=(rows, stride)) * 3) for _ in "pq")
        self.memory = Memory()
        self.inputs = [
            self.memory.put(self.p, "P", readonly=True),
            self.memory.put(self.q, "Q", readonly=True),
        ]
        self.loss = self.memory.put(np.zeros(1, np.float32), "loss")
        self.gradient = self.memory.empty((rows, stride), element.storage, "dP")

    @property
    def buffers(self) -> list[Buffer]:
        return [*self.inputs, self.loss, self.gradient]

    def check(self) -> None:
        decode, n = self.element.decode, self.n
        p, q = decode(self.p)[:, :n], decode(self.q)[:, :n]
        loss, gradient = softmax_kl(p, q, 1 / self.rows)
        found: Array = self.gradient.get()
        assert abs(self.loss.get()[0] - loss) < 1e-5 * max(1, abs(loss))
        error = np.abs(decode(found)[:, :n] - gradient).max()
        assert error < self.element.tolerance * max(1e-3, np.abs(gradient).max()) + 1e-7
        assert (found[:, n:].view(np.uint8) == POISON).all(), "padding was written"


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize(
    ("rows", "n", "stride"), [(1, 1, 1), (7, 2, 2), (9, 33, 40), (5, 1000, 1001)]
)
def test_row_per_warp(arch: int, dtype: str, rows: int, n: int, stride: int) -> None:
    problem, module = Problem(ELEMENTS[dtype], rows, n, stride), sample_module(arch)
    kernel = kernel_named(module, "softmax_kl_warp" + ELEMENTS[dtype].mangled)
    args = [*problem.buffers, rows, n, stride, 1 / rows]
    module.launch(kernel, -(-rows // ROWS_PER_BLOCK), 128, args, problem.memory)
    problem.check()


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("dtype", "threads", "n"), [("fp32", 128, 1000), ("fp32", 128, 4), ("bf16", 256, 3400)]
)
def test_row_per_block(arch: int, schedule: str, dtype: str, threads: int, n: int) -> None:
    element, rows, stride = ELEMENTS[dtype], 6, -(-n // 8) * 8
    problem, module = Problem(element, rows, n, stride), sample_module(arch)
    kernel = kernel_named(module, "softmax_kl_row" + element.mangled)
    args = [*problem.buffers, n, stride, 1 / rows]
    result = module.launch(kernel, rows, threads, args, problem.memory, schedule=schedule)
    problem.check()
    check_ideal_traffic(result, rows * n * np.dtype(element.storage).itemsize, rows)


def check_ideal_traffic(result: Result, nbytes: int, rows: int) -> None:
    """Both inputs are read once, the gradient is written once."""
    assert result.stats["global_load_bytes"] == 2 * nbytes
    assert result.stats["global_store_bytes"] == nbytes
    # A row may begin within a sector: then every warp's 512-byte request touches one more.
    assert result.stats["global_load_sectors"] <= 1.07 * 2 * (nbytes / 32 + 2 * rows)


def test_errors_of_approximate_instructions_stay_within_the_tolerance() -> None:
    """Errors of two units in the last place in ex2, lg2 and div.full."""
    problem, module = Problem(ELEMENTS["fp32"], 4, 1000, 1000), sample_module(80)
    args = [*problem.buffers, 1000, 1000, 1 / 4]
    kernel = kernel_named(module, "softmax_kl_rowIf")
    module.launch(kernel, 4, 128, args, problem.memory, approx_noise=2**-22)
    problem.check()


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("n", [1, 7, 8, 1000, 1003])
def test_negation_flips_the_sign_bit_alone(dtype: str, n: int) -> None:
    element, module = ELEMENTS[dtype], sample_module(80)
    values = np.random.default_rng(0).normal(size=n)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-7])
    values[: len(special)] = special[:n]
    x = element.encode(values)
    memory = Memory()
    source, target = memory.put(x, "x", readonly=True), memory.empty(n, element.storage, "y")
    kernel = kernel_named(module, "negate" + element.mangled)
    module.launch(kernel, 2, 64, [source, target, n], memory)
    sign = element.bits(1 << (8 * x.itemsize - 1))
    np.testing.assert_array_equal(target.get().view(element.bits), x.view(element.bits) ^ sign)


def test_kernels_are_found_by_name() -> None:
    assert re.search("softmax_kl_row", kernel_named(sample_module(90), "softmax_kl_rowIf"))
    assert isinstance(sample_module(90), Module)
