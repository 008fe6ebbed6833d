"""Kernels broken on purpose: each mistake is reported, with the source line."""

from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip("triton", minversion="3.4", reason="needs the triton wheel's assembler")

from tools.ptxsim.simulator import KernelFault, Memory, Module, Unsupported
from tools.ptxsim.tests.samples.cuda import kernel_named, sample_ptx

pytestmark = pytest.mark.emulated

ROWS, WIDTH = 3, 1000


def run(
    ptx: str, *, n: int = WIDTH, stride: int = WIDTH, misalign: int = 0, **options: int
) -> None:
    """The sample with a row per block, on rows of WIDTH floats."""
    module, memory = Module(ptx), Memory()
    p = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
    buffers = [
        memory.put(p, "P", misalign=misalign),
        memory.put(p + 1, "Q"),
        memory.put(np.zeros(1, np.float32), "loss"),
        memory.empty((ROWS, WIDTH), np.float32, "dP"),
    ]
    kernel = kernel_named(module, "softmax_kl_rowIf")
    module.launch(kernel, ROWS, 128, [*buffers, n, stride, 1.0], memory, **options)


def entry(ptx: str) -> slice:
    """The text of the kernel that ``run`` launches."""
    start = re.search(r"\.entry \w*softmax_kl_rowIf", ptx)
    assert start is not None
    end = ptx.find(".entry", start.end())
    return slice(start.start(), end if end >= 0 else len(ptx))


def barriers() -> list[int]:
    where = entry(sample_ptx(80))
    found = re.finditer(r"bar\.sync\s+0;", sample_ptx(80))
    return [m.start() for m in found if where.start < m.start() < where.stop]


def is_caught(ptx: str) -> bool:
    try:
        run(ptx)
    except KernelFault as fault:
        return "race" in str(fault) or "uninitialised shared" in str(fault)
    return False


def test_every_missing_barrier_is_caught_but_the_first() -> None:
    """The very first guards nothing: no shared memory was used before it."""
    ptx, missed = sample_ptx(80), []
    positions = barriers()
    assert len(positions) == 10
    for number, at in enumerate(positions):
        without = ptx[:at] + re.sub(r"bar\.sync\s+0;", "", ptx[at:], count=1)
        if not is_caught(without):
            missed.append(number)
    assert missed == [0]


def test_reading_past_a_row_is_out_of_bounds_and_names_the_source_line() -> None:
    with pytest.raises(KernelFault, match=r"out-of-bounds global load.*softmax_kl\.cuh:\d+.*'P'"):
        run(sample_ptx(80), n=WIDTH + 8)


@pytest.mark.parametrize("wrong", [{"stride": WIDTH + 1}, {"misalign": 4}], ids=str)
def test_misaligned_vectors_are_caught(wrong: dict[str, int]) -> None:
    with pytest.raises(KernelFault, match="misaligned"):
        run(sample_ptx(80), **wrong)


def test_a_sum_without_atomics_is_a_race() -> None:
    atomic = r"atom\.global\.add\.f32\s+%f\d+, (\[%rd\d+\]), (%f\d+);"
    plain, count = re.subn(atomic, r"st.global.f32 \1, \2;", sample_ptx(80))
    assert count
    with pytest.raises(KernelFault, match="global-memory race"):
        run(plain)


def test_a_shuffle_that_leaves_lanes_out_is_caught() -> None:
    ptx, where = sample_ptx(80), entry(sample_ptx(80))
    kernel, count = re.subn(
        r"(shfl\.sync\.bfly\.b32[^;]*), [^,;]+;", r"\1, 65535;", ptx[where], count=1
    )
    assert count
    with pytest.raises(KernelFault, match="member mask"):
        run(ptx[: where.start] + kernel + ptx[where.stop :])


def test_writing_to_a_read_only_buffer_is_caught() -> None:
    module, memory = Module(sample_ptx(80)), Memory()
    x = memory.put(np.ones(8, np.float32), "x", readonly=True)
    with pytest.raises(KernelFault, match=r"read-only buffer.*'x'"):
        module.launch(kernel_named(module, "negateIf"), 1, 32, [x, x, 8], memory)


def test_reading_what_nobody_wrote_is_caught() -> None:
    module, memory = Module(sample_ptx(80)), Memory()
    x, y = memory.empty(8, np.float32, "x"), memory.empty(8, np.float32, "y")
    with pytest.raises(KernelFault, match=r"uninitialised global memory.*'x'"):
        module.launch(kernel_named(module, "negateIf"), 1, 32, [x, y, 8], memory)


def test_an_endless_loop_is_reported() -> None:
    ptx, at = sample_ptx(80), barriers()[1]
    # Thread 0 of each block spins ahead of a barrier.
    spin = "\n{.reg .pred %q; .reg .b32 %z; mov.u32 %z, %tid.x; setp.eq.u32 %q, %z, 0; SPIN: @%q bra SPIN;}\n"
    with pytest.raises(KernelFault, match=r"step limit"):
        run(ptx[:at] + spin + ptx[at:], max_steps=20_000)


def test_a_barrier_under_divergence_is_a_deadlock() -> None:
    """Half a warp waits for lanes that wait for it elsewhere."""
    ptx = """
.version 8.0
.target sm_80
.address_size 64
.visible .entry stuck()
{
  .reg .pred %p<2>;
  .reg .b32 %r<4>;
  mov.u32 %r1, %tid.x;
  setp.lt.u32 %p1, %r1, 16;
  @%p1 bra LOW;
  bar.sync 0;
  ret;
LOW:
  bar.warp.sync -1;
  ret;
}
"""
    with pytest.raises(KernelFault, match=r"deadlock.*'at bar': 16, 'at warp sync': 16"):
        Module(ptx).launch("stuck", 1, 32, [], Memory())


def test_unknown_instructions_are_refused() -> None:
    ptx = re.sub(r"bar\.sync\s+0;", "wgmma.fence.sync.aligned;", sample_ptx(80))
    with pytest.raises(Unsupported, match="wgmma"):
        run(ptx)


def test_more_threads_than_the_kernel_is_bound_to_are_refused() -> None:
    module, memory = Module(sample_ptx(80)), Memory()
    x = memory.put(np.zeros(WIDTH, np.float32), "x")
    with pytest.raises(ValueError, match="bound to 128 threads, got 256"):
        module.launch(
            kernel_named(module, "softmax_kl_rowIf"), 1, 256, [x, x, x, x, 4, 4, 1.0], memory
        )
