"""Triton's real JIT output, executed: results, faults, traffic, autotuning, sparse and uninitialised memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

triton = pytest.importorskip("triton", minversion="3.4", reason="needs the triton wheel")

from tools.ptxsim import initcheck, simulator, triton_driver  # noqa: E402
from tools.ptxsim.pointer_use import pointer_use  # noqa: E402
from tools.ptxsim.tests.samples import triton_kernels as kernels  # noqa: E402

pytestmark = pytest.mark.emulated

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
GIB = 1 << 30


@pytest.fixture(params=[80, 90, 100], ids=lambda arch: f"sm_{arch}", autouse=True)
def arch(request: pytest.FixtureRequest) -> Iterator[int]:
    # With fused multiply-adds the lanes of a warp disagree in the last bit of a sum, and race to store it.
    with triton.knobs.language.scope():
        triton.knobs.language.default_fp_fusion = False
        triton_driver.install(arch=request.param)
        yield request.param


def softmax_kl(p: torch.Tensor, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    p = p.double().requires_grad_()
    log_p, log_q = torch.log_softmax(p, 1), torch.log_softmax(q.double(), 1)
    loss = torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean")
    loss.backward()
    assert p.grad is not None
    return loss.detach(), p.grad


def check(loss: torch.Tensor, gradient: torch.Tensor, p: torch.Tensor, q: torch.Tensor) -> None:
    expected, slope = softmax_kl(p, q)
    torch.testing.assert_close(loss[0].double(), expected, atol=2e-5, rtol=2e-5)
    error = (gradient.double() - slope).abs().max()
    assert error <= TOLERANCE[p.dtype] * max(slope.abs().max(), 1e-3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "n"), [(1, 1), (5, 7), (3, 1000)])
def test_row_in_registers(dtype: torch.dtype, rows: int, n: int) -> None:
    p, q = (torch.randn(rows, n) * 3).to(dtype), torch.randn(rows, n).to(dtype)
    gradient, loss = torch.full_like(p, 7.0), torch.zeros(1)
    block = triton.next_power_of_2(n)
    compiled = kernels.softmax_kl_row[(rows,)](
        p, q, loss, gradient, n, n, 1 / rows, BLOCK=block, num_warps=4
    )
    check(loss, gradient, p, q)
    assert compiled.n_spills == 0
    assert compiled.n_regs <= 255


@pytest.mark.parametrize(("rows", "n"), [(1, 1), (21, 10), (33, 27)])
def test_many_rows_per_program(rows: int, n: int) -> None:
    p, q = torch.randn(rows, n) * 3, torch.randn(rows, n)
    gradient, loss, block = torch.empty_like(p), torch.zeros(1), triton.next_power_of_2(n)
    grid = (triton.cdiv(rows, 16),)
    kernels.softmax_kl_rows[grid](p, q, loss, gradient, rows, n, n, 1 / rows, ROWS=16, BLOCK=block)
    check(loss, gradient, p, q)


def test_online() -> None:
    p, q = torch.randn(2, 3000).bfloat16(), torch.randn(2, 3000).bfloat16()
    gradient, loss = torch.empty_like(p), torch.zeros(1)
    kernels.softmax_kl_online[(2,)](p, q, loss, gradient, 3000, 3000, 0.5, BLOCK=1024, num_warps=4)
    check(loss, gradient, p, q)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_views_at_odd_offsets(dtype: torch.dtype, offset: int) -> None:
    """Triton must fall back to narrow accesses."""
    x = torch.randn(1003).to(dtype)[offset:]
    y = torch.zeros_like(x)
    kernels.negate[(triton.cdiv(len(x), 256),)](x, y, len(x), BLOCK=256)
    integer = INTEGERS[x.element_size()]
    assert torch.equal(y.view(integer), (-x).view(integer))


def test_what_runs_is_compiled_for_the_installed_architecture(arch: int) -> None:
    x, y = torch.randn(128), torch.zeros(128)
    for other in (80, 90, 100, arch):
        triton_driver.install(arch=other)
        with triton_driver.recorded() as launches:
            kernels.negate[(1,)](x, y, 128, BLOCK=128)
        assert [execution.arch for execution in launches] == [other]


def test_out_of_bounds_is_found_with_its_line() -> None:
    message = r"out-of-bounds.*triton_kernels\.py:\d+"
    with pytest.raises(simulator.KernelFault, match=message):
        kernels.unmasked[(2,)](torch.zeros(200), torch.zeros(200), 200, BLOCK=128)


def test_a_race_between_programs_is_found() -> None:
    with pytest.raises(simulator.KernelFault, match="global-memory race"):
        kernels.racy[(4,)](torch.zeros(1), BLOCK=1)


def test_every_configuration_of_autotune_runs() -> None:
    x, y = torch.randn(1000), torch.zeros(1000)
    kernels.tuned_negate.cache.clear()
    with triton_driver.recorded() as launches:
        kernels.tuned_negate[lambda meta: (triton.cdiv(1000, meta["BLOCK"]),)](x, y, 1000)
    assert torch.equal(y, -x)
    assert len(launches) == len(kernels.tuned_negate.configs) + 1  # each once, then the best


def test_random_numbers() -> None:
    y = torch.zeros(4096)
    kernels.normal[(4,)](y, 1234, BLOCK=1024)
    assert abs(y.mean()) < 0.05
    assert abs(y.std() - 1) < 0.05


def test_traffic_is_counted() -> None:
    x, y = torch.randn(8192), torch.zeros(8192)
    kernels.negate[(8,)](x, y, 8192, BLOCK=1024, num_warps=4)
    assert triton_driver.last is not None
    stats = triton_driver.last.stats
    assert stats["global_load_bytes"] == stats["global_store_bytes"] == 8192 * 4
    assert stats["global_load_sectors"] == stats["global_store_sectors"] == 1024
    assert stats["global_load_128b_threads"] == 8192 // 4


def test_the_first_blocks_stand_for_a_launch() -> None:
    x, y = torch.randn(8192), torch.zeros(8192)
    with triton_driver.first_blocks(2), triton_driver.recorded() as launches:
        kernels.negate[(8,)](x, y, 8192, BLOCK=1024, num_warps=4)
    (run,) = launches
    assert (run.blocks, run.blocks_run) == (8, 2)
    assert run.moved == 2 * 2048 * 4
    assert run.traffic == 2 * 8192 * 4  # of all blocks: read once, written once
    assert torch.equal(y[:2048], -x[:2048])
    assert not y[2048:].any()


def test_traffic_is_of_tensors_read_and_of_tensors_written() -> None:
    p, q = torch.randn(4, 64), torch.randn(4, 64)
    gradient, loss = torch.zeros_like(p), torch.zeros(1)
    with triton_driver.first_blocks(1), triton_driver.recorded() as launches:
        kernels.softmax_kl_row[(4,)](p, q, loss, gradient, 64, 64, 0.25, BLOCK=64)
    uses = pointer_use(launches[0].ir)
    assert uses == [(True, False), (True, False), (True, True), (False, True)]
    assert launches[0].traffic == 3 * 4 * 64 * 4 + 2 * 4


def test_alone_no_other_listener_hears_of_a_launch() -> None:
    x, y = torch.randn(128), torch.zeros(128)
    with triton_driver.recorded() as others:
        with triton_driver.recorded(alone=True) as launches:
            kernels.negate[(1,)](x, y, 128, BLOCK=128)
        assert (len(launches), len(others)) == (1, 0)
        kernels.negate[(1,)](x, y, 128, BLOCK=128)
    assert len(others) == 1


@pytest.mark.parametrize("stride", [(1 << 31) + 16, 1 << 32])
def test_rows_beyond_two_to_the_31_elements(stride: int) -> None:
    """The storage takes 8 GiB of addresses and a few pages of memory."""
    far = torch.empty(2 * stride, dtype=torch.bfloat16).as_strided((2, 64), (stride, 1))
    far.copy_(torch.randn(2, 64))
    y = torch.zeros(2, 64, dtype=torch.bfloat16)
    kernels.copy_far_rows[(2,)](far, y, stride, BLOCK=64)
    assert torch.equal(y, far)


def test_offsets_that_overflow_are_out_of_bounds() -> None:
    stride = (1 << 31) + 16
    far = torch.empty(2 * stride, dtype=torch.bfloat16).as_strided((2, 64), (stride, 1))
    y = torch.zeros(2, 64, dtype=torch.bfloat16)
    with pytest.raises(simulator.KernelFault, match="out-of-bounds global load"):
        kernels.copy_far_rows_32_bit[(2,)](far, y, stride, BLOCK=64)


def test_memory_of_empty_is_uninitialised_until_written() -> None:
    with initcheck.TrackEmpty():
        x, work, y = torch.randn(128), torch.empty(128), torch.empty(200)
        assert initcheck.unwritten_elements(work) == 128
        with pytest.raises(simulator.KernelFault, match="uninitialised global memory"):
            kernels.accumulate[(1,)](x, work, y, BLOCK=128)
        kernels.negate[(1,)](x, work, 128, BLOCK=128)
        assert initcheck.unwritten_elements(work) == 0
        kernels.accumulate[(1,)](x, work, y, BLOCK=128)
        assert initcheck.unwritten_elements(y) == 200 - 128
        y.zero_()
        assert initcheck.unwritten_elements(y) == 0


@pytest.mark.parametrize("schedule", ["warps", "warps_reversed"])
def test_options_hold_for_a_while(schedule: str) -> None:
    with triton_driver.options(schedule=schedule):
        assert triton_driver.sim_options == {"schedule": schedule}
        test_row_in_registers(torch.float32, 3, 1000)
    assert triton_driver.sim_options == {}
